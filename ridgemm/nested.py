"""Nested cross-validation: for each outer fold, candidates inside its training rows and on it.

The factors of every fold of both levels are made once; permutations share them.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ridgemm.crossvalidation import Candidates, generalised, held_out, left_out
from ridgemm.downdates import downdate, residual_operators, rows_aside, runs
from ridgemm.engine import Settings
from ridgemm.errors import InputError
from ridgemm.factors import FactorMaker, Request
from ridgemm.folds import Fold, FoldGroup, fold_group, make_folds
from ridgemm.kernels import round_parts
from ridgemm.projections import FoldView, make_view, make_views
from ridgemm.quadratic import square_flops
from ridgemm.routes import MEMBERS, WHOLE_MEMBERS
from ridgemm.store import create_array

_FLOPS_OF_AN_ADDITION = 200


@dataclass(frozen=True)
class NestedSplit:
    """An outer fold and the folds inside its training rows, by row numbers of all samples.

    Attributes
    ----------
    outer : Fold
    inner : tuple of Fold
        For LOO and GCV one fold whose training rows are the outer ones.
    group : FoldGroup
        The atoms of them all, the outer fold last.
    """

    outer: Fold
    inner: tuple[Fold, ...]
    group: FoldGroup


@dataclass(frozen=True)
class NestedFold:
    """The candidates of a `NestedSplit`.

    `parts` are the pieces of each atom where all splits share one pass over the samples.
    """

    atoms: tuple[np.ndarray, ...]
    inner: tuple[Candidates, ...]
    inner_method: str
    outer: Candidates
    outer_method: str
    parts: tuple[np.ndarray, ...] = ()


@dataclass(frozen=True)
class WholeFit:
    """The fit to all samples, from the residuals of which those of every fold are made.

    Attributes
    ----------
    view : FoldView
        Of the pieces that all splits are made of.
    operators : (n_alphas, n_samples, n_samples) float32
        See `ridgemm.downdates`.
    """

    view: FoldView
    operators: np.ndarray


def nested_splits(
    settings: Settings, outer: Sequence[Fold], groups: np.ndarray | None, n_samples: int
) -> list[NestedSplit]:
    """Split the training rows of every outer fold as ``settings.cv`` says.

    Raises
    ------
    InputError
        ``settings.cv`` is a list of index pairs, which cannot split a subset of the rows, or
        cannot split the training rows of some fold.
    """
    splits = []
    for fold in outer:
        rows = fold.train
        if settings.kind != "folds":
            inner = [Fold(rows, rows)]
        else:
            if not (isinstance(settings.cv, (int, np.integer)) or hasattr(settings.cv, "split")):
                raise InputError(
                    "the model's cv is a list of index pairs, which cannot split the training "
                    "rows of an outer fold; give an int, a splitter, 'loo' or 'gcv'."
                )
            inside = None if groups is None else groups[rows]
            try:
                local = make_folds(settings.cv, len(rows), inside)
            except InputError as error:
                what = f"{len(rows)} samples"
                if inside is not None:
                    what = f"{len(np.unique(inside))} of {len(np.unique(groups))} groups"
                raise InputError(
                    f"the model's {error} An outer fold trains on {what}, which the model's cv "
                    "splits again: give the model fewer folds, or the test more outer ones."
                ) from error
            inner = [Fold(rows[part.train], rows[part.test]) for part in local]
        group = fold_group([*inner, fold], n_samples)
        splits.append(NestedSplit(fold, tuple(inner), group))
    return splits


def target_flops(
    splits: Sequence[NestedSplit],
    family: str,
    method: str,
    n: int,
    p: int,
    r: int,
    shared_pass: bool = False,
) -> float:
    """Flops of one target in one permutation of the whole nested procedure, with `r` alphas."""
    flops, q = 0.0, min(r, MEMBERS)
    if family == "primal":
        flops += 2 * n * p * (1 if shared_pass else len(splits))
    if method == "residuals":
        flops += 2 * r * n**2
    for split in splits:
        for fold in (*split.inner, split.outer):
            m, n_test = len(fold.train), len(fold.test)
            if method == "residuals":
                flops += 2 * r * n_test * (n - m)
            elif method == "operators":
                # an operator has no parts
                flops += 2 * min(r, WHOLE_MEMBERS) * n_test * m
            elif method == "statistics":
                flops += 4 * p**2 + square_flops(n_test, p, q)
            elif family == "primal":
                flops += 2 * p**2 + 2 * q * n_test * p
            else:
                k = m if family == "dual" else p
                flops += 2 * m * k + 2 * q * n_test * k
    return flops


def one_pass_pays(
    splits: Sequence[NestedSplit],
    parts: Sequence[Sequence[np.ndarray]],
    shape: tuple[int, int],
    limit: int,
) -> bool:
    """Whether one pass over the samples for all splits costs less than a pass for each.

    It makes cross-products of pieces (`ridgemm.folds.refine`), which every split adds up: that
    moves memory, an addition taking as long as many flops. And every pass needs all factors, so
    that these have to stay in the memory of the system.
    """
    n, p = shape
    added = sum(len(part) for split in parts for part in split if len(part) > 1)
    n_folds = sum(len(split.group.folds) for split in splits)
    pays = _FLOPS_OF_AN_ADDITION * added < 2 * n * (len(splits) - 1)
    return pays and 8 * n_folds * p**2 <= limit


def make_nested(
    settings: Settings,
    splits: Sequence[NestedSplit],
    family: str,
    method: str,
    maker: FactorMaker,
    exact: bool,
    outer_method: str,
) -> tuple[NestedFold, ...]:
    """Factors and candidates of all splits.

    Parameters
    ----------
    settings : Settings
    splits : sequence of NestedSplit
    family, method : str
        `method` is that of inner K-folds; LOO and GCV have their own.
    maker : FactorMaker
    exact : bool
        Outer candidates with a member for each alpha (`ridgemm.crossvalidation.only`).
    outer_method : str
        `method`, or "products" where predictions are to be written.
    """
    requests = [
        Request(
            fold,
            split.group.atoms,
            split.group.in_train[i],
            split.group.in_test[i],
            # LOO inside needs the projected rows, whatever scores the outer fold
            outer_method == "statistics"
            if fold is split.outer
            else method == "statistics" and settings.kind == "folds",
        )
        for split in splits
        for i, fold in enumerate((*split.inner, split.outer))
    ]
    made = iter(make_views(maker, family, requests))
    nested = []
    for split in splits:
        views = [next(made) for _ in split.group.folds]
        *inner, outer = views
        dual = family == "dual"
        if settings.kind == "folds":
            inside = [_candidates(view, settings, method, maker, False) for view in inner]
        else:
            make = left_out if settings.kind == "loo" else generalised
            inside = [make(view, settings.alphas, dual, maker.nuisance) for view in inner]
        nested.append(
            NestedFold(
                split.group.atoms,
                tuple(inside),
                method if settings.kind == "folds" else settings.kind,
                _candidates(outer, settings, outer_method, maker, exact),
                outer_method,
            )
        )
    return tuple(nested)


def make_downdated(
    settings: Settings,
    splits: Sequence[NestedSplit],
    maker: FactorMaker,
    pieces: Sequence[np.ndarray],
) -> tuple[WholeFit, tuple[NestedFold, ...]]:
    """The fit to all samples, and candidates of all splits from its residuals.

    Parameters
    ----------
    settings : Settings
    splits : sequence of NestedSplit
    maker : FactorMaker
    pieces : sequence of int arrays
        As `ridgemm.folds.refine` gives them.
    """
    n, alphas = maker.X.shape[0], settings.alphas
    Q = residual_operators(maker, alphas)
    everything, pieces_of_all = Fold(np.arange(n), np.arange(0)), np.ones(len(pieces), dtype=bool)
    # rows that no fold uses have no part in its sums: any effects do, as Q takes all away
    used = Fold(np.sort(np.concatenate(pieces)), everything.test)
    view = make_view(maker.nuisance, used, pieces_of_all, ~pieces_of_all)
    whole = WholeFit(replace(view, train=everything.train), Q)
    mix = np.eye(len(alphas), dtype=np.float32)

    def candidates(split: NestedSplit, i: int) -> Candidates:
        group = split.group
        fold = group.folds[i]
        view = make_view(maker.nuisance, fold, group.in_train[i], group.in_test[i])
        A = downdate(maker, fold, alphas, Q)
        return Candidates(view, mix[:, :0], mix, downdate=A, aside=runs(rows_aside(fold, n)))

    nested = []
    for split in splits:
        *inner, outer = (candidates(split, i) for i in range(len(split.group.folds)))
        nested.append(NestedFold(split.group.atoms, tuple(inner), "residuals", outer, "residuals"))
    return whole, tuple(nested)


def rounded_operators(folds: Sequence[NestedFold], folder: Path) -> tuple[NestedFold, ...]:
    """The same folds with operators in bfloat16, for precision "bf16".

    An operator meets every permutation: it is rounded once, into a file of half the size.
    """
    names = (folder / f"operator-{i}.npy" for i in itertools.count())

    def rounded(candidates: Candidates) -> Candidates:
        if candidates.operator is None:
            return candidates
        out = create_array(next(names), candidates.operator.shape, np.uint16)
        round_parts(candidates.operator, out)
        return replace(candidates, operator=out)

    return tuple(
        replace(fold, inner=tuple(map(rounded, fold.inner)), outer=rounded(fold.outer))
        for fold in folds
    )


def _candidates(
    view: FoldView, settings: Settings, method: str, maker: FactorMaker, exact: bool
) -> Candidates:
    candidates = held_out(view, settings.alphas, exact, parted=method != "operators")
    if method != "operators":
        return candidates
    fold = Fold(view.train, view.test)
    operator = maker.operator(fold, view.factors, candidates.basis)
    # the factors have done their work: letting go of them closes their files
    return replace(candidates, view=replace(view, factors=None), operator=operator)
