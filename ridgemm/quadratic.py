r"""Sums of squared predictions of all alphas, from one product with the projections of a target.

With :math:`d_i = 1 / (w_i + \alpha)`, the predictions ``P D`` of a fold's test rows have the sum of
squares :math:`\sum_{ij} M_{ij} d_i z_i d_j z_j`, with :math:`M = P^T P` about the means of these
rows. A product with M for every alpha would make it. But wherever two eigenvalues differ,

.. math:: d_i d_j = \frac{d_i - d_j}{w_j - w_i}, \qquad
          N_{ij} = \frac{M_{ij}}{w_j - w_i} = -N_{ji}, \qquad
          \sum_{ij} M_{ij} d_i z_i d_j z_j = 2 \sum_i (d_i - d_0)\, z_i (N z)_i

for any constant :math:`d_0`: no alpha takes part in ``N z``, and one product serves them all.
Rounding decides on what it is used for.

* Pairs of eigenvalues *apart*, by more than 2 %: N is at most 50 times larger than what it makes.
* *Close* pairs: :math:`d_i d_j = \tfrac12 (d_i^2 + d_j^2) - \tfrac12 (d_i - d_j)^2`, and with
  :math:`g_i = w_i d_i^2` the square on the right is
  :math:`\tfrac12 (g_i^2 + g_j^2) (w_i - w_j)^2 / (w_i w_j)` but for a fourth power of the distance
  (1.6e-7). That is two more products, with a band along the diagonal of M.
* Where alpha is large against two eigenvalues, :math:`d_i - d_j` is a difference of nearly equal
  numbers; with :math:`d_0` that of the larger of them, or nearly, terms are of the size of what
  they add up to. So eigenvalues are cut into *levels* that span a factor of 16 each. A pair belongs
  to the level of its larger eigenvalue, whose largest gives :math:`d_0`.

Few test rows, which may all but cancel what M adds up, are cheaper, and safer, taken as they are: P
itself is kept then (`has_few_rows`).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ridgemm.blas import gemm
from ridgemm.kernels import apart_moments, close_moments
from ridgemm.lapack import Matrices
from ridgemm.shrinkage import most_members
from ridgemm.store import create_array
from ridgemm.tiles import spans, width
from ridgemm.workspace import Workspace

# closer than this, relative to the larger one, eigenvalues are a close pair
_CLOSE = 0.02
# a level's largest eigenvalue over its smallest; and what is nothing beside the largest of all
_LEVEL, _NOTHING = 16.0, 1e-10
# rows of the band along the diagonal that are one product
_BAND = 32
# rows of float64 products while pairs are made
_PANEL = 128
# of products with targets
PAIR_ROWS = 1024
FEW_ROWS = 32
# flops of pairs, of those of a product with a square matrix: N, and a band along its diagonal
_SHARE = 1.2


def has_few_rows(n_test: int, p: int) -> bool:
    """Whether the rows of a test set are kept, and not pairs of eigenvalues.

    About six members of a shrinkage basis for each row, or little more than one square matrix.

    Examples
    --------
    >>> has_few_rows(20, 10), has_few_rows(100, 1000), has_few_rows(200, 1000)
    (True, True, False)
    """
    return n_test <= max(FEW_ROWS, p // 6)


def square_flops(n_test: int, p: int, q: int) -> float:
    """Flops of squared predictions of a target, by `q` members where test rows are few.

    Examples
    --------
    >>> square_flops(10, 100, 6), square_flops(500, 100, 6)
    (12000, 24000.0)
    """
    return 2 * q * n_test * p if has_few_rows(n_test, p) else 2 * _SHARE * p**2


def max_values(n_test: int, p: int) -> int:
    """Values that a fold keeps in files, at most: all pairs may be close.

    Examples
    --------
    >>> max_values(10, 100), max_values(500, 100)
    (1000, 30000)
    """
    return n_test * p if has_few_rows(n_test, p) else 3 * p**2


def square_bytes(n_test: int, p: int, r: int) -> int:
    """Workspace of one target for squared predictions of `r` alphas.

    Examples
    --------
    >>> square_bytes(10, 100, 6), square_bytes(500, 100, 6)
    (1024, 944)
    """
    rows = p + most_members(r) * n_test if has_few_rows(n_test, p) else 2 * min(p, PAIR_ROWS)
    return 4 * rows + 8 * 18


@dataclass(frozen=True)
class Pairs:
    """What a fold keeps of M.

    Attributes
    ----------
    eigenvalues : (k,) float64
        Ascending.
    apart : (k, k) float32
        N; 0 for close pairs.
    close : sequence of (rows, columns, (2 * n_rows, n_columns) float32)
        M of close pairs over the largest eigenvalue, and in every other row the same times
        ``(w_i - w_j)^2 / (w_i w_j)``; 0 for pairs apart.
    """

    eigenvalues: np.ndarray
    apart: np.ndarray
    close: Sequence[tuple[slice, slice, np.ndarray]]

    @classmethod
    def opened(cls, eigenvalues: np.ndarray, apart: np.ndarray, close: np.ndarray) -> "Pairs":
        """Of the files that `write_pairs` left."""
        # slices of memory maps are slow to take
        w, flat, panels, start = np.asarray(eigenvalues), np.asarray(close), [], 0
        for rows, columns in _bands(w):
            shape = 2 * width(rows), width(columns)
            stop = start + shape[0] * shape[1]
            panels.append((rows, columns, flat[start:stop].reshape(shape)))
            start = stop
        return cls(w, np.asarray(apart), panels)


def write_pairs(
    folder: Path, eigenvalues: np.ndarray, V: np.ndarray, P_gram: np.ndarray, matrices: Matrices
) -> None:
    """Write ``apart.npy`` and ``close.npy`` of ``M = V P_gram V.T``.

    Parameters
    ----------
    folder : Path
    eigenvalues : (k,) float64
        Ascending.
    V : (k, p) float64
        Their vectors, in rows.
    P_gram : (p, p) float64
        Gram of the test rows about their means.
    matrices : Matrices
        For ``V P_gram``.
    """
    w, k = eigenvalues, len(eigenvalues)
    half = matrices.empty(V.shape)
    gemm(V, P_gram, half)
    apart = create_array(folder / "apart.npy", (k, k), np.float32)
    for rows in spans(k, _PANEL):
        # antisymmetric in every bit: rounding of N is then no more than rounding of M
        columns = slice(rows.start, k)
        N = _product(half, V, rows, columns)
        distance, close = _distance(w, rows, columns)
        N[close] = 0
        np.divide(N, distance, out=N, where=~close)
        square = N[:, : width(rows)]
        square[...] = np.triu(square, 1) - np.triu(square, 1).T
        apart[rows, columns] = N
        apart[rows.stop :, rows] = -N[:, width(rows) :].T
    bands = _bands(w)
    size = sum(2 * width(rows) * width(columns) for rows, columns in bands)
    out, start = create_array(folder / "close.npy", (size,), np.float32), 0
    unit, positive = _unit(w), np.maximum(w, np.finfo(np.float64).tiny)
    for rows, columns in bands:
        M = _product(half, V, rows, columns)
        M /= unit
        distance, close = _distance(w, rows, columns)
        M[~close] = 0
        panel = out[start : start + 2 * M.size].reshape(-1, 2, M.shape[1])
        panel[:, 0] = M
        panel[:, 1] = M * (distance / positive[rows, None]) * (distance / positive[columns])
        start += 2 * M.size


def add_squares(
    pairs: Pairs, Z: np.ndarray, alphas: np.ndarray, workspace: Workspace, sums: np.ndarray
) -> None:
    """``sums[a] += sum_ij M_ij d_i z_i d_j z_j`` with ``d = 1 / (w + alphas[a])``.

    Parameters
    ----------
    pairs : Pairs
    Z : (k, n_targets) float32
    alphas : (n_alphas,) float64
    workspace : Workspace
        For ``2 * PAIR_ROWS`` rows and a few lines.
    sums : (n_alphas, n_targets) float64
    """
    w, size = pairs.eigenvalues, Z.shape[1]
    lines = line_buffer(size, workspace)
    unit = _unit(w)
    step = PAIR_ROWS // _BAND
    for some in spans(len(pairs.close), step):
        panels = pairs.close[some]
        first = panels[0][0].start
        rows = slice(first, panels[-1][0].stop)
        B = workspace.array("pairs", (width(rows), 2, size))
        for here, columns, panel in panels:
            out = B[here.start - first : here.stop - first].reshape(len(panel), size)
            gemm(panel, Z[columns], out)
        close_moments(Z[rows], B, w[rows], unit, alphas, lines, sums)
    for level in _levels(w):
        largest = w[level.stop - 1]
        for rows in [*spans(level.start, PAIR_ROWS), *_steps(level, PAIR_ROWS)]:
            # a pair is this level's by its larger eigenvalue, in whichever place
            columns = level if rows.start < level.start else slice(0, level.stop)
            Y = workspace.array("pairs", (width(rows), size))
            gemm(pairs.apart[rows, columns], Z[columns], Y)
            apart_moments(Z[rows], Y, w[rows], largest, alphas, lines, sums)


def line_buffer(size: int, workspace: Workspace) -> np.ndarray:
    """What `ridgemm.kernels.shrunk` adds up in, for a strip of `size` targets."""
    return workspace.array("shrunk lines", (9, max(size, 8)), np.float64)


def _product(half: np.ndarray, V: np.ndarray, rows: slice, columns: slice) -> np.ndarray:
    out = np.empty((width(rows), width(columns)))
    gemm(half[rows], V[columns].T, out)
    return out


def _distance(w: np.ndarray, rows: slice, columns: slice) -> tuple[np.ndarray, np.ndarray]:
    """``w_j - w_i`` of rows i and columns j, and which of them are close."""
    one, two = w[rows, None], w[None, columns]
    return two - one, np.minimum(one, two) >= (1 - _CLOSE) * np.maximum(one, two)


def _bands(w: np.ndarray) -> list[tuple[slice, slice]]:
    """Rows in steps, and all columns that are close to one of them."""
    near = (1 - _CLOSE) * w
    return [
        (
            rows,
            slice(
                int(np.searchsorted(w, near[rows.start], side="left")),
                int(np.searchsorted(near, w[rows.stop - 1], side="right")),
            ),
        )
        for rows in spans(len(w), _BAND)
    ]


def _levels(w: np.ndarray) -> list[slice]:
    """Slices of eigenvalues within a factor of each other, the largest first."""
    levels, stop = [], len(w)
    while stop > 0:
        least = w[stop - 1] / _LEVEL
        if least <= _NOTHING * w[-1]:
            least = 0.0
        start = int(np.searchsorted(w, least, side="left"))
        levels.append(slice(start, stop))
        stop = start
    return levels


def _steps(level: slice, step: int) -> list[slice]:
    return [
        slice(level.start + rows.start, level.start + rows.stop)
        for rows in spans(width(level), step)
    ]


def _unit(w: np.ndarray) -> float:
    return float(w[-1]) if w[-1] > 0 else 1.0
