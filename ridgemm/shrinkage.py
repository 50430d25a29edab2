r"""Few members that make the shrinkage of many alphas.

The coefficients of alpha in the eigenbasis are :math:`D_\alpha = Z / (w + \alpha)`. As a
matrix over eigenvalues and alphas, :math:`1 / (w_k + \alpha_a)` is a Cauchy matrix: its
numerical rank q grows with the logarithm of the spectrum's range, not with the number of
alphas. Products are made of q basis members, and the scores of all alphas of these.

The range of a *part* of the spectrum is smaller. Members that each serve one part, and are 0
elsewhere, are more, but fewer of them meet any one direction, so that all products together are
less (`parted_basis`). What is made of the products grows with the number of members: hence few
parts.
"""

from collections.abc import Callable
from itertools import pairwise

import numpy as np

# of eigenvalues over the 32 decades that a QR resolves, 16 of a Gram, and any number of alphas
MOST_MEMBERS, _MOST_PARTED = 112, 48
# of evening out errors: the largest falls by 3 to 6 times, most of it in the first two
_ROUNDS, _HOPELESS, _FLOOR = 8, 8, 1e-2
_PARTS, _LEAST = (2, 3, 4, 6, 8), 16
# directions that parts are chosen by: a spectrum has a shape, and need not be looked at as a whole
_SAMPLE = 256

# directions, and the members that serve them
Parts = tuple[tuple[slice, slice], ...]


def shrinkage_basis(
    eigenvalues: np.ndarray, alphas: np.ndarray, weight: np.ndarray, tolerance: float = 1e-6
) -> tuple[np.ndarray, np.ndarray]:
    r"""Factor ``1 / (w + alpha)`` over eigenvalues and alphas.

    .. math:: \frac{1}{w_k + \alpha_a} \approx \sum_{l < q} m_{a l} \psi_{l k}

    with an error, weighted by `weight` and relative to the largest weighted entry of the same
    alpha, below `tolerance` for every k and a.

    Parameters
    ----------
    eigenvalues : (k,) float64
        Non-negative.
    alphas : (n_alphas,) float64
        Positive.
    weight : (k,) float64
        How much direction k counts in a prediction; 0 where it counts for nothing.
    tolerance : float
        1e-6 is the rounding of the float32 products that follow.

    Returns
    -------
    basis : (q, k) float32
    mix : (n_alphas, q) float32

    Examples
    --------
    >>> w, alphas = np.linspace(1.0, 2.0, 50), np.logspace(-3, 3, 20)
    >>> basis, mix = shrinkage_basis(w, alphas, w)
    >>> basis.shape[0] < 8, np.allclose(mix @ basis, 1 / (w + alphas[:, None]), rtol=1e-4)
    (True, True)
    """
    return table_basis(1 / (eigenvalues + alphas[:, None]), weight, tolerance)


def table_basis(
    table: np.ndarray, weight: np.ndarray, tolerance: float = 1e-6
) -> tuple[np.ndarray, np.ndarray]:
    """Factor any (n_alphas, k) table of shrinkage, as `shrinkage_basis` does."""
    return _factored(table, weight, _scale(table, weight), tolerance)


def most_members(n_alphas: int) -> int:
    """Of any basis for so many alphas, in parts or not.

    Examples
    --------
    >>> most_members(2), most_members(11), most_members(300)
    (2, 22, 112)
    """
    whole = min(n_alphas, MOST_MEMBERS)
    return max(whole, min(2 * n_alphas, _MOST_PARTED)) if n_alphas > 2 else whole


def parted_basis(
    table: np.ndarray,
    weight: np.ndarray,
    extra: Callable[[int], float],
    tolerance: float = 1e-6,
) -> tuple[np.ndarray, np.ndarray, Parts]:
    """Factor a table of shrinkage in as many parts as cost least.

    Parameters
    ----------
    table : (n_alphas, k) float64
    weight : (k,) float64
        As in `shrinkage_basis`; of directions in order of their eigenvalues, or nearly.
    extra : callable
        Flops that a number of members costs beside the products, for a row of predictions.
    tolerance : float
        Of an entry relative to the largest of its row, whichever part that is in.

    Returns
    -------
    basis : (q, k) float32
        0 outside a member's part.
    mix : (n_alphas, q) float32
    parts : tuple of (directions, members)

    Examples
    --------
    >>> w, alphas = np.geomspace(1.0, 1e3, 500), np.logspace(-3, 6, 20)
    >>> basis, mix, parts = parted_basis(1 / (w + alphas[:, None]), w, lambda q: 10 * q)
    >>> len(shrinkage_basis(w, alphas, w)[0]), [m.stop - m.start for _, m in parts]
    (13, [6, 6, 6, 6, 6, 6])
    """
    k, scale = len(weight), _scale(table, weight)
    some = np.unique(np.linspace(0, k - 1, min(k, _SAMPLE)).astype(int))
    sample = table[:, some], weight[some], scale
    n_parts = [1, *(n for n in _PARTS if n * _LEAST <= k)]
    counts = [_counts(*sample, n, tolerance) for n in n_parts]
    possible = [c for c in counts if len(c) == 1 or sum(c) <= most_members(len(table))]
    best = min(possible, key=lambda c: 2 * k * sum(c) / len(c) + extra(sum(c)))
    made, parts, q = [], [], 0
    for directions in _cut(k, len(best)):
        made.append(_factored(table[:, directions], weight[directions], scale, tolerance))
        parts.append((directions, slice(q, q + len(made[-1][0]))))
        q = parts[-1][1].stop
    if len(best) > 1 and q > most_members(len(table)):
        # the sample missed something
        basis, mix = table_basis(table, weight, tolerance)
        return basis, mix, whole(basis)
    basis = np.zeros((q, k), np.float32)
    for (directions, members), (part, _) in zip(parts, made, strict=True):
        basis[members, directions] = part
    return basis, np.hstack([mix for _, mix in made]), tuple(parts)


def whole(basis: np.ndarray) -> Parts:
    """The only part of a basis whose members all serve all directions."""
    q, k = basis.shape
    return ((slice(0, k), slice(0, q)),)


def _cut(k: int, n_parts: int) -> list[slice]:
    edges = [k * i // n_parts for i in range(n_parts + 1)]
    return [slice(start, stop) for start, stop in pairwise(edges)]


def _counts(
    table: np.ndarray, weight: np.ndarray, scale: np.ndarray, n_parts: int, tolerance: float
) -> list[int]:
    """About how many members every part needs."""
    weighted = weight * table / scale
    counts = []
    for some in _cut(len(weight), n_parts):
        left, singular, right = np.linalg.svd(weighted[:, some], full_matrices=False)
        counts.append(_rank(left * singular, right, tolerance))
    return counts


def _scale(table: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Largest weighted entry of every row."""
    scale = np.abs(weight * table).max(axis=1, keepdims=True, initial=0)
    scale[scale == 0] = 1
    return scale


def _factored(
    table: np.ndarray, weight: np.ndarray, scale: np.ndarray, tolerance: float
) -> tuple[np.ndarray, np.ndarray]:
    counted = weight > 0
    if not counted.all():
        basis, mix = _factored(table[:, counted], weight[counted], scale, tolerance)
        full = np.zeros((len(basis), len(weight)), np.float32)
        full[:, counted] = basis
        return full, mix
    if not len(weight):
        return np.zeros((1, 0), np.float32), np.zeros((len(table), 1), np.float32)
    left, right = _few_terms(weight * table / scale, tolerance)
    if len(right) == len(table):
        return table.astype(np.float32), np.eye(len(table), dtype=np.float32)
    basis, mix = right / weight, scale * left
    # members near 1, so that neither factor leaves the range of float32
    size = np.abs(basis).max(axis=1)
    size[size == 0] = 1
    return (basis / size[:, None]).astype(np.float32), (mix * size).astype(np.float32)


def _few_terms(A: np.ndarray, tolerance: float) -> tuple[np.ndarray, np.ndarray]:
    """Factors of A of few terms that leave no entry off by more than `tolerance`.

    The leading singular terms have the least squared error, and their largest one several times
    the least there is. What has one term fewer is often near enough once rows and columns with
    large errors weigh more.
    """
    left, singular, right = np.linalg.svd(A, full_matrices=False)
    rank = _rank(left * singular, right, tolerance)
    if 1 < rank < len(A):
        fewer = _evened(A, rank - 1, tolerance)
        if fewer is not None:
            return fewer
    return left[:, :rank] * singular[:rank], right[:rank]


def _evened(A: np.ndarray, rank: int, tolerance: float) -> tuple[np.ndarray, np.ndarray] | None:
    """Factors of `rank` terms and even errors; None if these are not below `tolerance`."""
    row, column = np.ones((len(A), 1)), np.ones(A.shape[1])
    for _ in range(_ROUNDS):
        left, singular, right = np.linalg.svd(row * A * column, full_matrices=False)
        left, right = left[:, :rank] * singular[:rank] / row, right[:rank] / column
        error = np.abs(A - left @ right)
        largest = error.max()
        if largest <= tolerance:
            # orthogonal terms, as without weights: none that cancel
            turn, triangle = np.linalg.qr(right.T)
            return left @ triangle.T, turn.T
        if largest > _HOPELESS * tolerance:
            return None
        row *= np.sqrt(error.max(axis=1, keepdims=True) / largest + _FLOOR)
        column *= np.sqrt(error.max(axis=0) / largest + _FLOOR)
    return None


def _rank(left: np.ndarray, right: np.ndarray, tolerance: float) -> int:
    """Fewest leading terms of ``left @ right`` that leave no entry off by more."""
    error = np.zeros((len(left), right.shape[1]))
    for rank in range(len(right), 1, -1):
        error += np.multiply.outer(left[:, rank - 1], right[rank - 1])
        if np.abs(error).max() > tolerance:
            return rank
    return 1


def square_weights(mix: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    r"""Squares of what `mix` makes of members, as sums of products of two members.

    .. math:: \Big(\sum_l m_{a l} f_l\Big)^2 = \sum_k c_{a k} f_{i_k} f_{j_k}

    Parameters
    ----------
    mix : (n_alphas, q)

    Returns
    -------
    pairs : (n_pairs, 2) int64
        ``i_k`` and ``j_k``; pairs that no alpha needs are left out.
    weights : (n_alphas, n_pairs) float64

    Examples
    --------
    >>> pairs, weights = square_weights(np.array([[1.0, 2.0], [3.0, 0.0]]))
    >>> pairs.tolist(), weights.tolist()
    ([[0, 0], [0, 1], [1, 1]], [[1.0, 4.0, 4.0], [9.0, 0.0, 0.0]])
    >>> square_weights(np.eye(3))[0].tolist()
    [[0, 0], [1, 1], [2, 2]]
    """
    one, two = np.triu_indices(mix.shape[1])
    wide = mix.astype(np.float64)
    weights = wide[:, one] * wide[:, two] * np.where(one == two, 1, 2)
    used = weights.any(axis=0)
    return np.stack([one, two], axis=1)[used].astype(np.int64), weights[:, used]
