r"""The shared alpha of every permutation, by the trace identity.

The squared error of an inner fold, summed over targets, is
:math:`\langle E_\alpha^T E_\alpha, Y Y^T\rangle`; permuting the rows of Y permutes those of
:math:`S = Y Y^T`. With :math:`M_{k\alpha}` the mean over the inner folds of outer fold k, all
errors of a permutation cost :math:`O(r K n^2)`, whatever the number of targets.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ridgemm import blas
from ridgemm.factors import FactorMaker, Factors
from ridgemm.folds import Fold
from ridgemm.kernels import gather_square
from ridgemm.lapack import Matrices
from ridgemm.mapreduce import Crew
from ridgemm.nested import NestedSplit
from ridgemm.nuisance import Nuisance
from ridgemm.products import add_gram
from ridgemm.projections import Data, Order, TargetTile
from ridgemm.store import create_array
from ridgemm.tiles import TileGrid, spans, width

_ROWS = 16


def error_matrices(
    splits: Sequence[NestedSplit],
    maker: FactorMaker,
    alphas: np.ndarray,
    nuisance: Nuisance,
    path: Path,
    crew: Crew,
) -> np.ndarray:
    """Every :math:`M_{k\\alpha}`, embedded in all samples: (n_outer * n_alphas, n, n) float32.

    Parameters
    ----------
    splits : sequence of NestedSplit
    maker : FactorMaker
        Of dual factors.
    alphas : (n_alphas,) float64
    nuisance : Nuisance
    path : Path
        File to write.
    crew : Crew
    """
    n, r = maker.X.shape[0], len(alphas)
    M = create_array(path, (len(splits) * r, n, n), np.float32)
    made = [maker.dual(split.inner) for split in splits]

    def add(_: int, k: int) -> None:
        for fold, factors in zip(splits[k].inner, made[k], strict=True):
            weight = np.sqrt(1 / (len(fold.test) * len(splits[k].inner)))
            for a, alpha in enumerate(alphas):
                E = _residual_operator(fold, factors, alpha, n, nuisance)
                E *= weight
                blas.syrk(E.astype(np.float32), M[k * r + a], accumulate=True)
        for matrix in M[k * r : (k + 1) * r]:
            blas.symmetrise(matrix)

    crew.team.run(add, range(len(splits)))
    return M


def _residual_operator(
    fold: Fold, factors: Factors, alpha: float, n: int, nuisance: Nuisance
) -> np.ndarray:
    """E with ``E y`` the residuals of a fold's test rows; (n_test, n) float64."""
    shrunk = factors.heldout / (factors.eigenvalues + alpha)
    H = shrunk @ factors.basis.T.astype(np.float64)
    if nuisance.n_confounds:
        # what the confounds fit is removed from training rows, and is the fit of the test rows
        N = nuisance.N[fold.train]
        W = nuisance.y_weights(N.T @ N)
        H -= (H @ N - nuisance.N[fold.test]) @ W @ N.T
    elif nuisance.y_ones:
        H -= H.mean(axis=1, keepdims=True)
        H += 1 / len(fold.train)
    E = np.zeros((len(fold.test), n))
    E[:, fold.train] = -H
    E[np.arange(len(fold.test)), fold.test] += 1
    return E


def target_gram(data: Data, grid: TileGrid, crew: Crew, matrices: Matrices) -> np.ndarray:
    """``Y Y.T`` (n, n) float32."""
    n = data.Y.shape[0]
    S, rounded = matrices.empty((n, n)), matrices.empty((n, n), np.float32)
    S[...] = 0
    for columns in grid.tiles():
        # float32 within a tile, float64 across tiles
        add_gram(TargetTile(data, columns, crew, resident=True).Y, S, data.precision, crew)
    blas.symmetrise(S)
    rounded[...] = S
    return rounded


def shared_errors(M: np.ndarray, S: np.ndarray, orders: Sequence[Order], crew: Crew) -> np.ndarray:
    """``<M, S permuted>`` for several permutations at once.

    Parameters
    ----------
    M : (n_matrices, n, n) float32
    S : (n, n) float32
    orders : sequence of Order
    crew : Crew

    Returns
    -------
    (n_orders, n_matrices) float64
    """
    n = len(S)
    flat = M.reshape(len(M), n * n)
    blocks = spans(n, _ROWS)
    partial = np.zeros((len(blocks), len(orders), len(M)))
    ones = np.ones(n, np.float32)

    def add(slot: int, i: int) -> None:
        rows, workspace = blocks[i], crew.slots[slot]
        size = width(rows) * n
        moved = workspace.array("moved", (len(orders), width(rows), n))
        for out, order in zip(moved, orders, strict=True):
            signs = ones if order.signs is None else order.signs
            gather_square(S, order.rows[rows], order.rows, signs[rows], signs, out)
        product = workspace.array("traces", (len(orders), len(M)))
        blas.gemm(
            moved.reshape(len(orders), size), flat[:, rows.start * n : rows.stop * n].T, product
        )
        partial[i] = product

    crew.team.run(add, range(len(blocks)))
    return partial.sum(axis=0)
