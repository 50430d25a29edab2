r"""One alpha for all targets, by the trace identity.

A held-out residual is linear in y, :math:`e = E_\alpha y`, so that the squared error summed
over targets is :math:`\langle E_\alpha^T E_\alpha, Y Y^T\rangle`: one symmetric product of Y
serves every alpha, at a cost that does not depend on how many there are. R2 weighs each target
by the inverse of its variation, which goes into the same product.

Runs in the calling process on all cores: there is one sum over targets, not many tasks.
"""

import copy
from collections.abc import Sequence

import numpy as np

from ridgemm import blas
from ridgemm.crossvalidation import ROW_STEP, Candidates
from ridgemm.fitplan import TRACE_STEP
from ridgemm.kernels import column_moments, pair_moments, scale_members
from ridgemm.lapack import Matrices
from ridgemm.mapreduce import Crew
from ridgemm.nuisance import Nuisance
from ridgemm.products import add_gram
from ridgemm.projections import Data, FoldView, TargetTile
from ridgemm.scores import variation
from ridgemm.shrinkage import square_weights, table_basis
from ridgemm.tiles import TileGrid, spans, width

_LONG = 1024


def shared_scores(
    data: Data,
    grid: TileGrid,
    candidates: Sequence[Candidates],
    alphas: np.ndarray,
    scoring: str,
    crew: Crew,
    matrices: Matrices,
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
    matrices : Matrices
        For two or three of order n_samples.

    Returns
    -------
    (n_alphas,) float64
    """
    (n, n_targets), weighted = data.Y.shape, scoring == "r2"
    total = np.zeros(len(alphas))
    gram, n_varying = matrices.empty((n, n)), None
    for fold in candidates:
        view = fold.view
        test = view.train if fold.leverage is not None else view.test
        if weighted or n_varying is None:
            n_varying = _target_gram(data, grid, view, test if weighted else None, crew, gram)
        S = _Centered(gram, view.train, data.nuisance)
        if fold.leverage is not None:
            error = _left_out_errors(fold, alphas, S, matrices, crew)
        else:
            error = _held_out_errors(fold, alphas, S, crew)
        if weighted:
            total += (n_varying - error) / n_targets
        else:
            total -= error / (data.nuisance.gram(test)[0, 0] * n_targets)
    return total / len(candidates)


def _target_gram(
    data: Data,
    grid: TileGrid,
    view: FoldView,
    test: np.ndarray | None,
    crew: Crew,
    out: np.ndarray,
) -> int:
    """``Y Y.T`` into `out`, each target divided by its standard variation over `test` rows.

    Returns the number of targets that vary over them.
    """
    out[...] = 0
    n_varying, roots = 0, data.nuisance.N[:, 0]
    for columns in grid.tiles():
        Y = TargetTile(data, columns, crew, resident=True).Y
        if test is not None:
            moments = np.zeros((2, Y.shape[1]))
            for rows in spans(len(test), ROW_STEP):
                _add_moments(_residuals(data, view, test[rows], Y), roots[test[rows]], moments)
            spread = variation(float(roots[test] @ roots[test]), *moments)
            n_varying += int(np.count_nonzero(spread))
            scale = np.divide(1, np.sqrt(spread), out=np.zeros_like(spread), where=spread > 0)
            # the inverse of a variation below float32 is as good as its largest number
            np.minimum(scale, np.finfo(np.float32).max, out=scale)
            scaled = crew.shared.array("scaled", Y.shape)
            Y = np.multiply(Y, scale.astype(np.float32), out=scaled)
        # float32 within a tile, float64 across tiles
        add_gram(Y, out, data.precision, crew)
    blas.symmetrise(out)
    return n_varying


def _add_moments(Y: np.ndarray, root: np.ndarray, moments: np.ndarray) -> None:
    """Add the sums of rows scaled by `root`, and their sums of squares, to ``moments[0|1]``."""
    if (root == 1).all():
        column_moments(Y, *moments)
        return
    column_moments(Y, np.zeros(Y.shape[1]), moments[1])
    moments[0] += np.einsum("i,ij->j", root, Y)


class _Centered:
    """Gram of targets about their effects in `train` rows; S itself stays as it is.

    It is ``R S R.T``, ``R = I - N W N_T.T`` with rows of `train` in ``N_T`` (`ridgemm.nuisance`).
    """

    def __init__(self, S: np.ndarray, train: np.ndarray, nuisance: Nuisance):
        self.S, self.train = S, train
        self.inside = np.zeros_like(nuisance.N)
        self.inside[train] = nuisance.N[train]
        self.effects = nuisance.N @ nuisance.y_weights(nuisance.gram(train))

    def rounded(self, unit: float) -> "_Centered":
        """The same of ``S / unit`` in float32, in the place of S, which is lost."""
        S, rounded = self.S, copy.copy(self)
        rounded.S = S.reshape(-1).view(np.float32)[: S.size].reshape(S.shape)
        # a row lies where rows before it have been read
        for row, out in zip(S, rounded.S, strict=True):
            out[:] = row / unit
        return rounded

    def trace(self, rows: np.ndarray) -> float:
        """Sum of the diagonal over `rows`."""
        # row i of R is that of I but for what it takes from training rows
        taken = self.inside.T @ self.S
        effects = self.effects[rows]
        total = self.S.diagonal()[rows].sum() - 2 * np.einsum("ij,ji->", effects, taken[:, rows])
        return float(total + np.einsum("ij,jk,ik->", effects, taken @ self.inside, effects))

    def times(self, U: np.ndarray) -> np.ndarray:
        """Its columns of the training rows times U; (n, n_columns) of the type of S."""
        V = np.zeros((len(self.S), U.shape[1]), self.S.dtype)
        V[self.train] = U
        V -= self.inside @ (self.effects.T @ V)
        out = np.empty_like(V)
        blas.gemm(self.S, V, out)
        out -= self.effects @ (self.inside.T @ out)
        return out


def _residuals(data: Data, view: FoldView, rows: np.ndarray, Y: np.ndarray) -> np.ndarray:
    """Some rows of targets about the effects of the confounds in training, or but for a mean."""
    N = data.nuisance.N
    if not data.nuisance.n_confounds:
        return Y[rows]
    effects = view.weights @ (N[view.train].T @ Y[view.train])
    return (Y[rows] - N[rows] @ effects).astype(np.float32)


def _held_out_errors(fold: Candidates, alphas: np.ndarray, S: _Centered, crew: Crew) -> np.ndarray:
    """Squared error of a fold's test rows, of every alpha.

    With ``yhat = P diag(1 / (w + alpha)) U.T y`` it is a quadratic form of ``1 / (w + alpha)``,
    summed up over blocks of columns.
    """
    view, factors = fold.view, fold.view.factors
    U, P = factors.basis, factors.heldout
    inverse = 1 / (factors.eigenvalues + alphas[:, None])
    blocks = spans(U.shape[1], TRACE_STEP)
    errors = np.zeros((len(blocks), len(alphas)))

    def add(_: int, i: int) -> None:
        some = blocks[i]
        moved = S.times(U[:, some])
        inner, outer = np.zeros((2, U.shape[1], width(some)))
        cross = np.zeros(width(some))
        for rows in spans(len(U), TRACE_STEP):
            inner += U[rows].T.astype(np.float64) @ moved[view.train[rows]]
        for rows in spans(len(P), TRACE_STEP):
            block = P[rows].astype(np.float64)
            outer += block.T @ block[:, some]
            cross += np.einsum("ik,ik->k", block[:, some], moved[view.test[rows]])
        inner *= outer
        here = inverse[:, some]
        errors[i] = np.einsum("ak,ak->a", inverse @ inner, here) - 2 * here @ cross

    crew.team.run(add, range(len(blocks)))
    return S.trace(view.test) + errors.sum(axis=0)


def _left_out_errors(
    fold: Candidates, alphas: np.ndarray, S: _Centered, matrices: Matrices, crew: Crew
) -> np.ndarray:
    """Squared left-out error of every alpha: ``e = U diag(a) U.T y / (1 - h)``.

    With ``a = sum_l mix[l] psi[l]`` of few members, row i of the residuals has the square
    ``mix.T G_i mix``, where ``G_i`` has the products of row i of the members ``U diag(psi)`` with
    themselves, by R. Half of R makes half of ``G_i``, the other half being its transpose.
    """
    factors = fold.view.factors
    U, w = factors.basis, factors.eigenvalues
    # below 1, so that sums over very many large targets stay within float32
    unit = float(S.S.trace()) or 1.0
    half = _rotated(U, S.rounded(unit), matrices, crew)
    # a direction counts as much as the targets have of it
    weight = np.sqrt(np.maximum(2 * half.diagonal().astype(np.float64), 0))
    psi, mix = table_basis(alphas[:, None] / (w + alphas[:, None]), weight)
    pairs, weights = square_weights(mix)
    blocks = spans(len(U), max(1, 4 * TRACE_STEP // len(psi)))
    errors = np.zeros((len(blocks), len(alphas)))

    def add(slot: int, i: int) -> None:
        rows, workspace = blocks[i], crew.slots[slot]
        shape = (len(w), len(psi), width(rows))
        # in float32: a sum of squares of members, which are of the size of what they make
        members, moved = (workspace.array(name, shape) for name in ("members", "moved"))
        scale_members(U[rows].T, psi, members)
        moved[...] = members
        blas.trmm(half, moved.reshape(len(w), -1))
        products = workspace.zeros("products", (len(pairs), width(rows)))
        pair_moments(members, moved, pairs, products)
        errors[i] = np.einsum("ai,ai->a", weights @ products, fold.leverage[:, rows] ** 2)

    crew.team.run(add, range(len(blocks)))
    return unit * errors.sum(axis=0)


def _rotated(U: np.ndarray, S: _Centered, matrices: Matrices, crew: Crew) -> np.ndarray:
    """``U.T S U`` of centred S, in float32: N with ``N + N.T`` equal to it.

    N is upper triangular; what is below its diagonal is undefined.
    """
    half = matrices.empty((U.shape[1], U.shape[1]), np.float32)

    def fill(slot: int, some: slice) -> None:
        workspace = crew.slots[slot]
        moved = S.times(U[:, some])
        product = workspace.array("product", (some.stop, width(some)))
        inner = workspace.zeros("inner", product.shape)
        for rows in spans(len(U), _LONG):
            # float32 within a block, float64 across blocks
            blas.gemm(U[rows, : some.stop].T, moved[rows], product)
            inner += product
        half[: some.stop, some] = inner

    crew.team.run(fill, spans(U.shape[1], 2 * TRACE_STEP))
    half[np.diag_indices_from(half)] /= 2
    return half
