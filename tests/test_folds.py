"""Folds, atoms and tiles cover what they cut, once."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_array_equal
from sklearn.model_selection import (
    GroupKFold,
    KFold,
    LeavePGroupsOut,
    PredefinedSplit,
    RepeatedKFold,
    ShuffleSplit,
    TimeSeriesSplit,
)

from ridgemm import InputError
from ridgemm.folds import group_folds, make_folds
from ridgemm.tiles import TileGrid, row_pieces, spans, width
from tests import naive, strategies

# -- folds ----------------------------------------------------------------------------------


@st.composite
def split_samples(draw):
    """A number of samples, and folds of them of every kind."""
    n = draw(st.integers(6, 40), label="n_samples")
    cv = draw(strategies.cvs(n).filter(lambda cv: not isinstance(cv, str)))
    return n, cv


@given(split=split_samples())
def test_folds_are_those_of_the_splitter(split):
    n, cv = split
    for fold, (train, test) in zip(make_folds(cv, n), naive.split(cv, n), strict=True):
        assert_array_equal(fold.train, np.sort(train))
        assert_array_equal(fold.test, np.sort(test))


@given(split=split_samples())
def test_atoms_partition_the_samples_of_every_fold(split):
    n, cv = split
    folds = make_folds(cv, n)
    groups = group_folds(folds, n)
    assert [fold for group in groups for fold in group.folds] == folds
    for group in groups:
        rows = np.concatenate(group.atoms)
        assert len(np.unique(rows)) == len(rows)
        assert all(len(atom) and (np.diff(atom) > 0).all() for atom in group.atoms)
        assert len(group.atoms) <= max(2, len(group.folds) + 1)
        for fold, train, test in zip(group.folds, group.in_train, group.in_test, strict=True):
            assert_array_equal(rows_of(group, train), fold.train)
            assert_array_equal(rows_of(group, test), fold.test)


def rows_of(group, chosen):
    return np.sort(np.concatenate([group.atoms[a] for a in np.flatnonzero(chosen)]))


@pytest.mark.parametrize(
    ("cv", "n_groups", "n_atoms"),
    [
        (KFold(5), 1, 5),
        (KFold(4, shuffle=True, random_state=0), 1, 4),
        (TimeSeriesSplit(4), 1, 5),
        (TimeSeriesSplit(4, max_train_size=8), 1, 5),
        # rows of a gap belong to one fold only
        (TimeSeriesSplit(2, gap=2), 2, 2),
        (RepeatedKFold(n_splits=3, n_repeats=4, random_state=0), 4, 3),
        (ShuffleSplit(6, test_size=0.5, random_state=0), 6, 2),
        (PredefinedSplit(np.repeat([-1, 0, 1], [4, 10, 26])), 1, 3),
    ],
    ids=str,
)
def test_how_often_the_data_are_read(cv, n_groups, n_atoms):
    groups = group_folds(make_folds(cv, 40), 40)
    assert len(groups) == n_groups
    assert max(len(group.atoms) for group in groups) <= n_atoms


def test_groups_go_to_the_splitter():
    labels = np.repeat(["a", "b", "c", "d"], [3, 9, 5, 7])
    for cv in (3, GroupKFold(3), LeavePGroupsOut(2)):
        for fold in make_folds(cv, 24, labels):
            assert not set(labels[fold.train]) & set(labels[fold.test])
    assert len(make_folds(3, 24, labels)) == 3


def test_masks_and_generators_of_pairs():
    test = np.arange(10) < 4
    for cv in ([(~test, test)], ((train, test) for train, test in [(~test, test)])):
        (fold,) = make_folds(cv, 10)
        assert_array_equal(fold.train, np.arange(4, 10))
        assert_array_equal(fold.test, np.arange(4))


def test_splitter_that_cannot_split():
    with pytest.raises(InputError, match=r"cv=GroupKFold\(.*cannot split 10 samples"):
        make_folds(GroupKFold(3), 10)
    with pytest.raises(InputError, match=r"cv=KFold\(n_splits=11.*cannot split 10 samples"):
        make_folds(KFold(11), 10)


# -- tiles ----------------------------------------------------------------------------------


@given(size=st.integers(1, 200), tile=st.integers(1, 250), strip=st.integers(1, 60))
def test_tiles_and_strips_cover_the_targets(size, tile, strip):
    grid = TileGrid(size, tile, strip)
    covered = []
    for columns in grid.tiles():
        assert 0 < width(columns) <= tile
        strips = grid.strips(columns)
        assert all(0 < width(part) <= strip for part in strips)
        covered += [columns.start + i for part in strips for i in range(part.start, part.stop)]
    assert covered == list(range(size))


@given(size=st.integers(0, 200), step=st.integers(1, 50))
def test_spans(size, step):
    pieces = spans(size, step)
    assert [i for piece in pieces for i in range(size)[piece]] == list(range(size))
    assert all(width(piece) == step for piece in pieces[:-1])


@given(rows=st.sets(st.integers(0, 100), min_size=1).map(sorted), step=st.integers(1, 30))
def test_row_pieces(rows, step):
    everything = np.arange(101)
    pieces = row_pieces(np.array(rows), step)
    assert_array_equal(np.concatenate([everything[piece] for piece in pieces]), rows)
    for piece in pieces:
        taken = everything[piece]
        assert len(taken) <= step
        # a run is read as a slice, and nothing else is
        assert isinstance(piece, slice) == (taken[-1] - taken[0] + 1 == len(taken))
