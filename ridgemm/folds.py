"""Folds: train and test rows by index. No data.

`fold_group` cuts the samples into the sets that the folds can not tell apart: rows that lie in the
same training and test sets. For K-fold they are the K test sets; for an expanding window the
K + 1 pieces. Statistics of atoms add up to those of any training set.
"""

import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ridgemm.errors import InputError, one_line


@dataclass(frozen=True)
class Fold:
    """Sorted, distinct row numbers of a training and of a test set."""

    train: np.ndarray
    test: np.ndarray


@dataclass(frozen=True)
class FoldGroup:
    """Folds that share their atoms.

    Attributes
    ----------
    folds : tuple of Fold
    atoms : tuple of int array
        Disjoint sorted row numbers.
    in_train, in_test : (n_folds, n_atoms) bool array
        Which atoms make up which set.
    """

    folds: tuple[Fold, ...]
    atoms: tuple[np.ndarray, ...]
    in_train: np.ndarray
    in_test: np.ndarray


def make_folds(cv: Any, n_samples: int, groups: Any = None) -> list[Fold]:
    """Folds of an int, a scikit-learn splitter or a list of (train, test) pairs.

    Parameters
    ----------
    cv : int, splitter or iterable of pairs
        An int means `KFold`, or `GroupKFold` when `groups` are given.
    n_samples : int
    groups : (n_samples,) array, optional
        Run, session or family of each sample.

    Raises
    ------
    InputError
        Groups of the wrong length, more folds than groups or samples, indices out of range or
        repeated, an empty set.

    Examples
    --------
    >>> [fold.test.tolist() for fold in make_folds(2, 4)]
    [[0, 1], [2, 3]]
    """
    groups = check_groups(groups, n_samples)
    if isinstance(cv, (int, np.integer)) and not isinstance(cv, bool):
        cv = _splitter(int(cv), n_samples, groups)
    if isinstance(cv, type):
        raise InputError(f"cv={cv.__name__} is a class; give an instance of it.")
    if hasattr(cv, "split") and not isinstance(cv, (str, bytes)):
        try:
            with warnings.catch_warnings():
                # groups may be there for the scheme of a permutation test alone
                warnings.simplefilter("ignore", RuntimeWarning)
                warnings.filterwarnings("ignore", "The groups parameter is ignored", UserWarning)
                pairs = list(cv.split(np.empty((n_samples, 0)), np.zeros(n_samples), groups))
        except ValueError as error:
            raise InputError(
                f"cv={cv!r} cannot split {n_samples} samples: {one_line(error)}"
            ) from error
    elif isinstance(cv, Iterable) and not isinstance(cv, (str, bytes)):
        pairs = list(cv)
    else:
        raise InputError(
            f"cv={one_line(cv)} is not understood; give an int, a scikit-learn splitter, a list of "
            "(train, test) index pairs, 'loo' or 'gcv'."
        )
    if not pairs:
        raise InputError("cv gives no fold; give at least one (train, test) pair.")
    return [_check_pair(i, pair, n_samples) for i, pair in enumerate(pairs)]


def check_groups(groups: Any, n_samples: int) -> np.ndarray | None:
    """One label for each sample, or None."""
    if groups is None:
        return None
    try:
        groups = np.asarray(groups)
        if groups.dtype.kind in "cV":
            raise TypeError(f"dtype {groups.dtype}")
        np.unique(groups)
    except (TypeError, ValueError) as error:
        raise InputError(
            f"groups holds labels that cannot be told apart ({one_line(error)}); give numbers, or "
            "texts."
        ) from error
    if groups.shape != (n_samples,):
        raise InputError(
            f"groups has shape {groups.shape}, but there are {n_samples} samples; "
            "give one label per sample."
        )
    return groups


def _splitter(n_folds: int, n_samples: int, groups: np.ndarray | None) -> Any:
    what, available = ("samples", n_samples)
    if groups is not None:
        what, available = ("groups", len(np.unique(groups)))
    if available < 2:
        raise InputError(
            f"cv={n_folds} needs 2 {what} or more, and there is {available} {what[:-1]}."
        )
    if not 2 <= n_folds <= available:
        raise InputError(
            f"cv={n_folds} folds of {available} {what}; choose between 2 and {available}."
        )
    # not above: workers make no folds, and it takes longer to import than all that they need
    from sklearn.model_selection import GroupKFold, KFold

    return KFold(n_folds) if groups is None else GroupKFold(n_folds)


def _check_pair(number: int, pair: Sequence[Any], n_samples: int) -> Fold:
    try:
        train, test = (_check_rows(rows, n_samples) for rows in pair)
    except (TypeError, ValueError) as error:
        raise InputError(
            f"cv fold {number} is not a pair of row index arrays of {n_samples} samples: "
            f"{one_line(error)}"
        ) from error
    return Fold(train, test)


def _check_rows(rows: Any, n_samples: int) -> np.ndarray:
    rows = np.asarray(rows)
    if rows.dtype == bool and rows.shape == (n_samples,):
        rows = np.flatnonzero(rows)
    if rows.ndim != 1 or rows.size == 0 or rows.dtype.kind not in "iu":
        raise ValueError(f"a set has shape {rows.shape} and dtype {rows.dtype}")
    if rows.min() < 0 or rows.max() >= n_samples:
        raise ValueError(f"rows run from {rows.min()} to {rows.max()}")
    distinct = np.unique(rows)
    if len(distinct) < len(rows):
        raise ValueError("a row appears twice in one set; use sample weights for that")
    return distinct.astype(np.intp)


def group_folds(folds: Sequence[Fold], n_samples: int) -> list[FoldGroup]:
    """Group folds so that each group's atoms number at most one more than its folds.

    K-fold makes one group; repeated K-fold one per repeat; random splits one each. More atoms
    than that would cost more memory than reading the data again.

    Examples
    --------
    >>> groups = group_folds(make_folds(3, 6), 6)
    >>> len(groups), [atom.tolist() for atom in groups[0].atoms]
    (1, [[0, 1], [2, 3], [4, 5]])
    """
    groups: list[FoldGroup] = []
    for fold in folds:
        wider = fold_group([*groups[-1].folds, fold], n_samples) if groups else None
        if wider is not None and len(wider.atoms) <= len(wider.folds) + 1:
            groups[-1] = wider
        else:
            groups.append(fold_group([fold], n_samples))
    return groups


def fold_group(folds: Sequence[Fold], n_samples: int) -> FoldGroup:
    """The atoms of some folds, in the order of their first rows."""
    membership = np.zeros((n_samples, 2 * len(folds)), dtype=bool)
    for i, fold in enumerate(folds):
        membership[fold.train, 2 * i] = True
        membership[fold.test, 2 * i + 1] = True
    _, first, label = np.unique(
        np.packbits(membership, axis=1), axis=0, return_index=True, return_inverse=True
    )
    label = label.reshape(-1)
    # atoms in the order of their first row; rows that no fold uses make none
    order = [a for a in np.argsort(first) if membership[first[a]].any()]
    signature = membership[first[order]].T
    return FoldGroup(
        folds=tuple(folds),
        atoms=tuple(np.flatnonzero(label == a) for a in order),
        in_train=signature[0::2],
        in_test=signature[1::2],
    )


def refine(
    groups: Sequence[FoldGroup], n_samples: int
) -> tuple[tuple[np.ndarray, ...], list[tuple[np.ndarray, ...]]]:
    """Sets of rows that the atoms of several groups are made of.

    Returns
    -------
    pieces : tuple of int arrays
        Disjoint sorted row numbers.
    parts : list of tuple of int arrays
        For each group the pieces of each of its atoms.

    Examples
    --------
    >>> halves, thirds = (group_folds(make_folds(k, 6), 6)[0] for k in (2, 3))
    >>> pieces, parts = refine([halves, thirds], 6)
    >>> [piece.tolist() for piece in pieces]
    [[0, 1], [2], [3], [4, 5]]
    >>> [[part.tolist() for part in group] for group in parts]
    [[[0, 1], [2, 3]], [[0], [1, 2], [3]]]
    """
    pieces = fold_group([fold for group in groups for fold in group.folds], n_samples).atoms
    label = np.empty(n_samples, np.intp)
    for i, piece in enumerate(pieces):
        label[piece] = i
    return pieces, [tuple(np.unique(label[atom]) for atom in group.atoms) for group in groups]
