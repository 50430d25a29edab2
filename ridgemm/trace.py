r"""One alpha for all targets, by the trace identity.

A held-out residual is linear in y, :math:`e = E_\alpha y`, so that the squared error summed
over targets is :math:`\langle E_\alpha^T E_\alpha, Y Y^T\rangle`: one symmetric product of Y
serves every alpha, at a cost that does not depend on how many there are. R2 weighs each target
by the inverse of its variation, which goes into the same product.

Runs in the calling process on all cores: there is one sum over targets, not many tasks.
"""

from collections.abc import Sequence

import numpy as np

from ridgemm import blas
from ridgemm.crossvalidation import ROW_STEP, Candidates
from ridgemm.kernels import column_moments
from ridgemm.mapreduce import Crew
from ridgemm.nuisance import Nuisance, project_gram
from ridgemm.projections import Data, FoldView, TargetTile
from ridgemm.scores import variation
from ridgemm.tiles import TileGrid, spans


def shared_scores(
    data: Data,
    grid: TileGrid,
    candidates: Sequence[Candidates],
    alphas: np.ndarray,
    scoring: str,
    crew: Crew,
) -> np.ndarray:
    """Mean score over folds and targets of every alpha.

    Parameters
    ----------
    data : Data
    grid : TileGrid
    candidates : sequence of Candidates
        Dual ones: a fold each, or one with leverages for LOO.
    alphas : (n_alphas,) float64
    scoring : {"r2", "neg_mean_squared_error"}
    crew : Crew

    Returns
    -------
    (n_alphas,) float64
    """
    total = np.zeros(len(alphas))
    gram = None
    for fold in candidates:
        view = fold.view
        test = view.train if fold.leverage is not None else view.test
        weighted = scoring == "r2"
        if weighted or gram is None:
            gram, n_varying = _target_gram(data, grid, view, test if weighted else None, crew)
        error_of = _left_out_errors if fold.leverage is not None else _held_out_errors
        error = error_of(fold, alphas, gram, data.nuisance)
        n_targets = data.Y.shape[1]
        if weighted:
            total += (n_varying - error) / n_targets
        else:
            total -= error / (len(test) * n_targets)
    return total / len(candidates)


def _target_gram(
    data: Data, grid: TileGrid, view: FoldView, test: np.ndarray | None, crew: Crew
) -> tuple[np.ndarray, int]:
    """``Y Y.T`` (float64), each target divided by its standard variation over `test` rows."""
    n = data.Y.shape[0]
    S = np.zeros((n, n))
    product = crew.shared.zeros("product", (n, n), np.float32)
    n_varying = 0
    for columns in grid.tiles():
        Y = TargetTile(data, columns, crew, resident=True).Y
        if test is not None:
            moments = np.zeros((2, Y.shape[1]))
            for rows in spans(len(test), ROW_STEP):
                column_moments(_residuals(data, view, test[rows], Y), *moments)
            spread = variation(len(test), *moments)
            n_varying += int(np.count_nonzero(spread))
            scale = np.divide(1, np.sqrt(spread), out=np.zeros_like(spread), where=spread > 0)
            # the inverse of a variation below float32 is as good as its largest number
            np.minimum(scale, np.finfo(np.float32).max, out=scale)
            scaled = crew.shared.array("scaled", Y.shape)
            Y = np.multiply(Y, scale.astype(np.float32), out=scaled)
        blas.syrk(Y.T, product)
        S += product
    blas.symmetrise(S)
    return S, n_varying


def _residuals(data: Data, view: FoldView, rows: np.ndarray, Y: np.ndarray) -> np.ndarray:
    """Some rows of targets about the effects of the confounds in training, or but for a mean."""
    N = data.nuisance.N
    if not data.nuisance.n_confounds:
        return Y[rows]
    effects = view.weights @ (N[view.train].T @ Y[view.train])
    return (Y[rows] - N[rows] @ effects).astype(np.float32)


def _centered(S: np.ndarray, train: np.ndarray, nuisance: Nuisance) -> np.ndarray:
    """Gram of targets about their effects in `train` rows; a new array."""
    S = S.copy()
    W = nuisance.y_weights(nuisance.gram(train))
    if W.any():
        project_gram(S, nuisance.N, train, W)
    return S


def _held_out_errors(
    fold: Candidates, alphas: np.ndarray, S: np.ndarray, nuisance: Nuisance
) -> np.ndarray:
    """Squared error of a fold's test rows, of every alpha.

    With ``yhat = P diag(1 / (w + alpha)) U.T y`` it is a quadratic form of ``1 / (w + alpha)``.
    """
    view = fold.view
    train, test = view.train, view.test
    S = _centered(S, train, nuisance)
    U = view.factors.basis.astype(np.float64)
    P = view.factors.heldout.astype(np.float64)
    cross = np.einsum("ik,ik->k", P, S[np.ix_(test, train)] @ U)
    square = (P.T @ P) * (U.T @ (S[np.ix_(train, train)] @ U))
    inverse = 1 / (view.factors.eigenvalues + alphas[:, None])
    quadratic = np.einsum("ak,ak->a", inverse @ square, inverse)
    return np.trace(S[np.ix_(test, test)]) - 2 * inverse @ cross + quadratic


def _left_out_errors(
    fold: Candidates, alphas: np.ndarray, S: np.ndarray, nuisance: Nuisance
) -> np.ndarray:
    """Squared left-out error of every alpha: ``e = U diag(a) U.T y / (1 - h)``."""
    factors = fold.view.factors
    S = _centered(S, fold.view.train, nuisance)
    U = factors.basis.astype(np.float64)
    R = U.T @ (S @ U)
    errors = np.zeros(len(alphas))
    for i, alpha in enumerate(alphas):
        A = U * (alpha / (factors.eigenvalues + alpha))
        squares = np.einsum("ik,ik->i", A @ R, A)
        errors[i] = squares @ fold.leverage[i] ** 2
    return errors
