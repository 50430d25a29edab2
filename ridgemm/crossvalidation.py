r"""Scores of all alphas on a strip of targets, for each way that a route scores.

``statistics``
    Moments of the held-out predictions from fold statistics, with no look at the samples:
    :math:`\sum\hat y\tilde y = c^T D`, :math:`\sum\hat y^2 = D^T M D` (`ridgemm.quadratic`).
``products``
    Held-out predictions :math:`P D`, a block of rows at a time.
``operators``
    The same as one stacked product with the training rows of y, for many targets or
    permutations of them.
``residuals``
    The same from residuals of a fit to all samples, which all folds share
    (`ridgemm.downdates`).
``loo``
    :math:`e_i / (1 - h_{ii})` of the fit to all samples.
``gcv``
    The same with all :math:`h_{ii}` replaced by their mean, a sum over eigenvalues.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial

import numpy as np

from ridgemm import blas
from ridgemm.kernels import (
    column_moments,
    loo_moments,
    product_moments,
    scale_rows,
    shrunk_moments,
    square_moments,
    squared_errors,
    subtract_outer,
    weighted_squares,
)
from ridgemm.nuisance import Nuisance
from ridgemm.projections import FoldView, TargetTile
from ridgemm.quadratic import Pairs, add_squares, line_buffer
from ridgemm.scores import Moments, from_error, score, variation
from ridgemm.shrinkage import (
    Parts,
    most_members,
    parted_basis,
    shrinkage_basis,
    square_weights,
    whole,
)
from ridgemm.tiles import spans, width
from ridgemm.workspace import Workspace

ROW_STEP = 512
_MOST_ROWS = 1024
# float32 flops that pass while moments are made of a row of predictions: of each product of two
# members, and of an alpha that is made of them, itself worth some members
_PAIR, _MIXED, _ALPHA = 20, 4.5, 10


def prediction_rows(k: int) -> int:
    """Rows of predictions made at once from projections of length `k`.

    Each block of them scales the projections anew: as many that this does not count, and no more
    memory than a few of these take.

    Examples
    --------
    >>> prediction_rows(500), prediction_rows(16384)
    (512, 1024)
    """
    return min(max(k // 4, ROW_STEP), _MOST_ROWS)


@dataclass(frozen=True)
class Candidates:
    """All alphas on one fold.

    Attributes
    ----------
    view : FoldView
    basis : (q, k) float32, mix : (n_alphas, q) float32
        Shrinkage of all alphas, see `ridgemm.shrinkage`; nothing where `pairs` serve them all.
    parts : tuple of (directions, members)
        Where members are not 0.
    alphas : (n_alphas,) float64, optional
        For statistics.
    pairs : Pairs, optional
        For statistics of folds with more than few test rows.
    left : (n_samples, k) float32, optional
        ``Xtilde V``, or U of a dual fold: residuals are made of its rows, for LOO.
    leverage : (n_alphas, n_samples) float64, optional
        ``1 / (1 - h_ii)``, for LOO.
    gcv_weights : (n_alphas, k) float64, optional
        Weights of ``Z**2`` in the sum of squared residuals, for GCV.
    gcv_scale : (n_alphas,) float64, optional
        ``(n / trace(I - H))**2``.
    keep : (n_alphas,) float64
        Share of y in a residual that the basis does not make (`loo_moments`), or of
        ``sum y**2`` in the sum of squared residuals (GCV).
    operator : (q * n_test, n_train) float32, optional
        The held-out predictions of the members are ``operator @ y``.
    downdate : (n_alphas, n_test, n_aside) float32, optional
        What makes predictions less y of residuals of all samples, for residuals.
    aside : list of (columns of `downdate`, rows), optional
        The rows that are not trained on, in runs.
    summed : (n_alphas, k) float32, optional
        Times Z, the weighted sums of predictions (for LOO, of errors but for `shares`).
    shares : (n_alphas, n_samples) float64, optional
        For LOO: times y, what these leave out.
    """

    view: FoldView
    basis: np.ndarray
    mix: np.ndarray
    parts: Parts = ()
    alphas: np.ndarray | None = None
    pairs: Pairs | None = None
    left: np.ndarray | None = None
    leverage: np.ndarray | None = None
    gcv_weights: np.ndarray | None = None
    gcv_scale: np.ndarray | None = None
    keep: np.ndarray | None = None
    operator: np.ndarray | None = None
    downdate: np.ndarray | None = None
    aside: Sequence[tuple[slice, slice | np.ndarray]] = ()
    summed: np.ndarray | None = None
    shares: np.ndarray | None = None

    @cached_property
    def products(self) -> tuple[np.ndarray, np.ndarray]:
        """Products of two members and their weights in the square of every alpha."""
        return square_weights(self.mix)

    @property
    def many_members(self) -> bool:
        """Predictions of all alphas cost less than products of any two members."""
        n_alphas, q = self.mix.shape
        return _pair_flops(q) > _mixing_flops(n_alphas, q)


def held_out(
    view: FoldView, alphas: np.ndarray, exact: bool = False, parted: bool = True
) -> Candidates:
    """Candidates for a fold with a test set.

    Parameters
    ----------
    view : FoldView
    alphas : (n_alphas,) float64
    exact : bool
        A member for each alpha.
    parted : bool
        Members may serve a part of the directions each: for products with projections.
    """
    factors = view.factors
    w = factors.eigenvalues
    if factors.apart is not None:
        pairs, nothing = Pairs.opened(w, factors.apart, factors.close), np.empty((0, 0), np.float32)
        return Candidates(view, nothing, nothing, alphas=alphas, pairs=pairs)
    if exact:
        inverse = (1 / (w + alphas[:, None])).astype(np.float32)
        mix = np.eye(len(alphas), dtype=np.float32)
        return Candidates(view, inverse, mix, whole(inverse), alphas)
    if not parted:
        basis, mix = shrinkage_basis(w, alphas, _weight(w))
        return Candidates(view, basis, mix, whole(basis), alphas)
    made = parted_basis(1 / (w + alphas[:, None]), _weight(w), partial(_square_flops, len(alphas)))
    return Candidates(view, *made, alphas)


def _weight(w: np.ndarray) -> np.ndarray:
    """How much a direction counts in held-out predictions."""
    # one below 1e-6 of the largest is as good as noise in the test rows: bounded weight
    weight = np.maximum(w, 1e-6 * w.max()) if w.max() > 0 else np.ones_like(w)
    # the null space of a dual Gram predicts nothing
    return np.where(w > 0, weight, 0)


def _pair_flops(q: int) -> float:
    """What `product_moments` takes of a row of predictions, in flops of float32 products."""
    return _PAIR * q * (q + 1) / 2


def _mixing_flops(n_alphas: int, q: int) -> float:
    """The same of `squared_errors`, which makes predictions of all alphas."""
    return _MIXED * n_alphas * (q + _ALPHA)


def _square_flops(n_alphas: int, q: int) -> float:
    return min(_pair_flops(q), _mixing_flops(n_alphas, q))


def left_out(view: FoldView, alphas: np.ndarray, dual: bool, nuisance: Nuisance) -> Candidates:
    """Candidates for LOO: the residual of the fit to all samples, and the leverages."""
    w = np.asarray(view.factors.eigenvalues)
    make = _complete_residuals if dual else _residuals
    made, remaining, keep = make(view, w, alphas[:, None], nuisance.leverage(view.train))
    leverage = 1 / np.maximum(remaining, np.finfo(np.float32).tiny)
    left = view.factors.basis if dual else left_factor(view)
    return Candidates(view, *made, left=left, leverage=leverage, keep=keep)


def _residuals(
    view: FoldView, w: np.ndarray, alpha: np.ndarray, unpenalised: np.ndarray
) -> tuple[tuple[np.ndarray, np.ndarray, Parts], np.ndarray, np.ndarray]:
    """Basis with mix and parts, 1 - h and keep of a tall fit: y less the prediction."""
    extra = partial(_mixing_flops, len(alpha))
    basis, mix, parts = parted_basis(1 / (w + alpha), _weight(w), extra)
    fitted = _squared_rows(left_factor(view), 1 / (w + alpha)) + unpenalised
    # a sample that nearly makes its own fit: no difference of float32 values is smaller
    remaining = np.maximum(1 - fitted, np.finfo(np.float32).eps)
    return (basis, -mix, parts), remaining, np.ones(len(alpha))


def _complete_residuals(
    view: FoldView, w: np.ndarray, alpha: np.ndarray, unpenalised: np.ndarray
) -> tuple[tuple[np.ndarray, np.ndarray, Parts], np.ndarray, np.ndarray]:
    """The same of a dual fit, the basis U of which is complete.

    The residual is ``U diag(a) U.T y`` with ``a = alpha / (w + alpha)``: no difference of nearly
    equal numbers where p > n. An alpha above all eigenvalues predicts little, and there it is
    y less the prediction that has none.
    """
    keep = (alpha[:, 0] > w.max()).astype(np.float64)
    table = np.where(keep[:, None] > 0, -w, alpha) / (w + alpha)
    weight = np.ones_like(w)
    # the nuisance is fitted without shrinkage: no residual in its directions
    rank = round(unpenalised.sum())
    weight[:rank] = table[:, :rank] = 0
    made = parted_basis(table, weight, partial(_mixing_flops, len(alpha)))
    remaining = _squared_rows(view.factors.basis, table)
    remaining += keep[:, None] * (1 - unpenalised)
    return made, remaining, keep


def generalised(view: FoldView, alphas: np.ndarray, dual: bool, nuisance: Nuisance) -> Candidates:
    """Candidates for GCV: sums over eigenvalues, no prediction at all."""
    w = np.asarray(view.factors.eigenvalues)
    n, rank = len(view.train), nuisance.rank(view.train)
    column = alphas[:, None]
    shrink = column / (w + column)
    if dual:
        shrink[:, :rank] = 0
        weights, trace = shrink**2, shrink.sum(axis=1)
    else:
        # Z = V.T X.T y = s * (U.T y), so 1 - (alpha / (w + alpha))**2 is divided by w
        # in factors that no alpha makes overflow
        weights = -(1 + shrink) / (w + column)
        trace = n - rank - (w / (w + column)).sum(axis=1)
    trace = np.maximum(trace, np.finfo(np.float32).tiny)
    nothing = np.empty((0, 0), dtype=np.float32)
    return Candidates(
        view,
        nothing,
        nothing,
        gcv_weights=weights,
        gcv_scale=(n / trace) ** 2,
        keep=np.full(len(alphas), float(not dual)),
    )


def weigh_sums(candidates: Candidates, nuisance: Nuisance) -> Candidates:
    """Candidates that know the weighted sums of predictions; the kernels make plain ones.

    The rows of predictions are scaled by the roots of the weights, which makes their squares and
    products right. A weighted sum is the product of P with those roots, times D.
    """
    view, leverage = candidates.view, candidates.leverage
    root, left = nuisance.N[view.test, 0][None], view.factors.heldout
    if leverage is not None:
        root, left = nuisance.N[view.train, 0] * leverage, candidates.left
    total = np.zeros((len(root), left.shape[1]))
    for rows in spans(len(left), ROW_STEP):
        total += root[:, rows] @ left[rows].astype(np.float64)
    table = candidates.mix.astype(np.float64) @ candidates.basis
    shares = None if leverage is None else candidates.keep[:, None] * root
    return replace(candidates, summed=(table * total).astype(np.float32), shares=shares)


def left_factor(view: FoldView) -> np.ndarray:
    """``Xtilde V`` of all samples."""
    factors = view.factors
    return factors.heldout if factors.rotated is None else factors.rotated


def _squared_rows(A: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """``sum_k weights[a, k] A[i, k]**2`` as (n_alphas, n_rows) float64."""
    out = np.empty((len(weights), len(A)))
    for rows in spans(len(A), ROW_STEP):
        out[:, rows] = weights @ np.square(A[rows], dtype=np.float64).T
    return out


def only(candidates: Candidates, a: int) -> Candidates:
    """The candidate of one alpha, from exact ones (a basis member for each alpha)."""
    one = slice(a, a + 1)
    operator = candidates.operator
    if operator is not None:
        n_test = len(candidates.view.test)
        operator = operator[a * n_test : (a + 1) * n_test]
    return replace(
        candidates,
        basis=candidates.basis[one],
        mix=np.ones((1, 1), np.float32),
        parts=whole(candidates.basis[one]),
        alphas=candidates.alphas[one],
        operator=operator,
    )


def moment_bytes(r: int) -> int:
    """What the moments of a target take, of `r` alphas and the members of their shrinkage."""
    q = most_members(r)
    return 8 * (5 * r + 3 * q + q * (q + 1) // 2)


Scorer = Callable[[TargetTile, Candidates, slice, str, Workspace], np.ndarray]


def score_statistics(
    tile: TargetTile, candidates: Candidates, strip: slice, scoring: str, workspace: Workspace
) -> np.ndarray:
    """(n_alphas, n_strip) scores of a fold from its statistics."""
    view = candidates.view
    factors = view.factors
    Z, C = tile.project_split(view, strip, workspace)
    n, y_sum, _ = tile.centered_moments(view, view.in_test, strip)
    _center_test(tile, view, strip, C)
    alphas, size = candidates.alphas, width(strip)
    sums = workspace.zeros("moments", (len(alphas), 3, size))
    lines = line_buffer(size, workspace)
    w = np.asarray(factors.eigenvalues)
    shrunk_moments(Z, C, factors.test_sum[0], w, alphas, lines, sums)
    # rows of their own: kernels vectorise along contiguous ones
    squares = workspace.zeros("alpha squares", (len(alphas), size))
    if candidates.pairs is None:
        _add_row_squares(tile, Z, candidates, squares, workspace)
    else:
        add_squares(candidates.pairs, Z, alphas, workspace, squares)
    sums[:, 1] = squares + sums[:, 0] ** 2 / n
    sums[:, 2] += sums[:, 0] * y_sum / n
    return _score(tile, view, strip, scoring, sums)


def _blended(members: np.ndarray, candidates: Candidates, workspace: Workspace) -> np.ndarray:
    """Moments (n_alphas, 3, n_strip) of all alphas, sums of squares 0, of those of the members."""
    mix = candidates.mix
    sums = workspace.zeros("moments", (len(mix), *members.shape[1:]))
    for i in (0, 2):
        np.matmul(mix, members[:, i], out=sums[:, i])
    return sums


def _add_row_squares(
    tile: TargetTile,
    Z: np.ndarray,
    candidates: Candidates,
    sums: np.ndarray,
    workspace: Workspace,
) -> None:
    """Add the squares of the predictions of few test rows, about their means."""
    rows, size = candidates.view.factors.test_rows, Z.shape[1]
    blocks = (
        _predictions(tile, rows[some], Z, candidates, workspace)
        for some in spans(len(rows), prediction_rows(len(Z)))
    )
    if candidates.many_members:
        lines, nothing = workspace.array("lines", (8, size)), np.zeros(len(sums))
        for F in blocks:
            # a prediction is what is left of no y
            ones = _ones((len(sums), F.shape[1]), workspace)
            squared_errors(F, candidates.mix, F[0], nothing, ones, lines, sums)
        return
    pairs, weights = candidates.products
    squares = workspace.zeros("squares", (len(pairs), size))
    for F in blocks:
        square_moments(F, pairs, squares)
    sums += weights @ squares


def _ones(shape: tuple[int, int], workspace: Workspace) -> np.ndarray:
    out = workspace.array("ones", shape, np.float64)
    out[...] = 1
    return out


def _mixed_moments(
    blocks: Iterable[tuple[np.ndarray, np.ndarray, np.ndarray]],
    mix: np.ndarray,
    keep: np.ndarray,
    scoring: str,
    size: int,
    workspace: Workspace,
) -> np.ndarray:
    """Moments of all alphas (n_alphas, 3, size), or (n_alphas, size) squared errors.

    Of blocks of predictions of the members, y, and ``1 / (1 - h)``.
    """
    lines = workspace.array("lines", (8, size))
    correlation = scoring == "correlation"
    shape = (len(mix), 3, size) if correlation else (len(mix), size)
    sums = workspace.zeros("moments", shape)
    for F, y, leverage in blocks:
        (loo_moments if correlation else squared_errors)(F, mix, y, keep, leverage, lines, sums)
    return sums


def _mixed_scores(
    tile: TargetTile,
    view: FoldView,
    strip: slice,
    scoring: str,
    sums: np.ndarray,
    atoms: np.ndarray,
) -> np.ndarray:
    if scoring == "correlation":
        return _score(tile, view, strip, scoring, sums, atoms)
    n, y, y_square = tile.centered_moments(view, atoms, strip)
    return from_error(scoring, sums, n, variation(n, y, y_square))


def _product_moments(
    blocks: Iterable[tuple[np.ndarray, np.ndarray]],
    candidates: Candidates,
    size: int,
    workspace: Workspace,
) -> np.ndarray:
    """Moments of all alphas (n_alphas, 3, size) from blocks of predictions of the members and y."""
    pairs, weights = candidates.products
    members = workspace.zeros("members", (candidates.mix.shape[1], 3, size))
    squares = workspace.zeros("squares", (len(pairs), size))
    for F, y in blocks:
        product_moments(F, y, pairs, members, squares)
    sums = _blended(members, candidates, workspace)
    np.matmul(weights, squares, out=sums[:, 1])
    return sums


def _center_test(tile: TargetTile, view: FoldView, strip: slice, C: np.ndarray) -> None:
    """Make the test products ``P.T y`` those of y about its effects and P about its means."""
    # about the test means: what they add to the moments is exact, and may be large
    gram, products = tile.grams[view.in_test].sum(axis=0), view.factors.test_sum
    mean = products[0] / gram[0, 0]
    subtract_outer(mean, tile.sums[..., strip][view.in_test, 0].sum(axis=0), C)
    effects = tile.train_effects(view, strip)
    for j in range(1, len(effects)):
        subtract_outer(products[j] - gram[0, j] * mean, effects[j], C)


def score_products(
    tile: TargetTile, candidates: Candidates, strip: slice, scoring: str, workspace: Workspace
) -> np.ndarray:
    """(n_alphas, n_strip) scores of a fold from its held-out predictions."""
    view, size, n_alphas = candidates.view, width(strip), len(candidates.mix)
    Z = tile.project_all(view, strip, workspace)
    effects = tile.train_effects(view, strip)

    def blocks() -> Iterator[tuple[np.ndarray, np.ndarray]]:
        for rows in spans(len(view.test), prediction_rows(len(Z))):
            F = _predictions(tile, view.factors.heldout[rows], Z, candidates, workspace)
            yield F, tile.gather(view.test[rows], effects, strip, workspace, "test")

    def residual_blocks() -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        for F, y in blocks():
            yield F, y, _ones((n_alphas, len(y)), workspace)

    if candidates.many_members:
        mix, keep = -candidates.mix, np.ones(n_alphas)
        sums = _mixed_moments(residual_blocks(), mix, keep, scoring, size, workspace)
    else:
        sums = _product_moments(blocks(), candidates, size, workspace)
    if scoring == "correlation" and candidates.summed is not None:
        sums[:, 0] = _product(candidates.summed, Z)
    if candidates.many_members:
        return _mixed_scores(tile, view, strip, scoring, sums, view.in_test)
    return _score(tile, view, strip, scoring, sums)


def score_operators(
    tile: TargetTile, candidates: Candidates, strip: slice, scoring: str, workspace: Workspace
) -> np.ndarray:
    """(n_alphas, n_strip) scores of a fold from its held-out operators."""
    view = candidates.view
    effects = tile.train_effects(view, strip)
    size = width(strip)
    y = tile.operand(view.train, effects, strip, workspace, "train")
    F = workspace.array("F", (len(candidates.operator), size))
    tile.multiply(candidates.operator, y, F, workspace)
    F = F.reshape(candidates.mix.shape[1], len(view.test), size)
    y = tile.gather(view.test, effects, strip, workspace, "test")
    sums = _product_moments([(F, y)], candidates, size, workspace)
    return _score(tile, view, strip, scoring, sums)


def score_residuals(
    tile: TargetTile, candidates: Candidates, strip: slice, scoring: str, workspace: Workspace
) -> np.ndarray:
    """(n_alphas, n_strip) scores of a fold from the residuals of all samples."""
    view, size = candidates.view, width(strip)
    # a slice of a memory map takes as long as a small product
    downdate = np.asarray(candidates.downdate)
    E = workspace.array("F", (*downdate.shape[:2], size))
    for a, (A, errors) in enumerate(zip(downdate, E, strict=True)):
        for i, (columns, rows) in enumerate(candidates.aside):
            residuals = tile.residuals_of(a, rows, strip, workspace)
            tile.multiply(A[:, columns], residuals, errors, workspace, accumulate=i > 0)
    if scoring == "correlation":
        y = tile.gather(view.test, tile.train_effects(view, strip), strip, workspace, "test")
        E += y
        return _score(
            tile, view, strip, scoring, _product_moments([(E, y)], candidates, size, workspace)
        )
    # squared errors need no look at y
    sums, squares = workspace.zeros("moments", (2, len(E), size))
    for errors, total, square in zip(E, sums, squares, strict=True):
        column_moments(errors, total, square)
    n, y_sum, y_square = tile.centered_moments(view, view.in_test, strip)
    return from_error(scoring, squares, n, variation(n, y_sum, y_square))


def score_loo(
    tile: TargetTile, candidates: Candidates, strip: slice, scoring: str, workspace: Workspace
) -> np.ndarray:
    """(n_alphas, n_strip) scores pooled over all left-out predictions."""
    view = candidates.view
    Z = tile.project_all(view, strip, workspace)
    effects = tile.train_effects(view, strip)
    left = candidates.left
    errors = np.zeros((len(candidates.mix), width(strip)))

    def blocks() -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        for rows in spans(len(left), prediction_rows(len(Z))):
            F = _predictions(tile, left[rows], Z, candidates, workspace)
            y = tile.gather(view.train[rows], effects, strip, workspace, "test")
            yield F, y, candidates.leverage[:, rows]
            if candidates.shares is not None:
                errors[...] += candidates.shares[:, rows] @ y

    mix, keep, size = candidates.mix, candidates.keep, width(strip)
    sums = _mixed_moments(blocks(), mix, keep, scoring, size, workspace)
    if candidates.summed is not None:
        total = tile.centered_moments(view, view.in_train, strip)[1]
        sums[:, 0] = total - errors - _product(candidates.summed, Z)
    return _mixed_scores(tile, view, strip, scoring, sums, view.in_train)


def score_gcv(
    tile: TargetTile, candidates: Candidates, strip: slice, scoring: str, workspace: Workspace
) -> np.ndarray:
    """(n_alphas, n_strip) scores by the generalised cross-validation error."""
    view = candidates.view
    Z = tile.project_all(view, strip, workspace)
    n, y, y_square = tile.centered_moments(view, view.in_train, strip)
    error = workspace.array("moments", (len(candidates.gcv_weights), width(strip)), np.float64)
    np.multiply.outer(candidates.keep, y_square, out=error)
    weighted_squares(Z, candidates.gcv_weights, error)
    np.maximum(error, 0, out=error)
    error *= candidates.gcv_scale[:, None]
    return from_error(scoring, error, n, variation(n, y, y_square))


SCORERS: dict[str, Scorer] = {
    "statistics": score_statistics,
    "products": score_products,
    "operators": score_operators,
    "residuals": score_residuals,
    "loo": score_loo,
    "gcv": score_gcv,
}


def _predictions(
    tile: TargetTile, left: np.ndarray, Z: np.ndarray, candidates: Candidates, workspace: Workspace
) -> np.ndarray:
    F = workspace.array("F", (len(candidates.basis), len(left), Z.shape[1]))
    for directions, members in candidates.parts:
        D = workspace.array("D", (width(directions), Z.shape[1]))
        some = left[:, directions]
        for member, prediction in zip(candidates.basis[members], F[members], strict=True):
            scale_rows(Z[directions], member[directions], D)
            tile.multiply(some, D, prediction, workspace)
    return F


def _product(table: np.ndarray, Z: np.ndarray) -> np.ndarray:
    out = np.empty((len(table), Z.shape[1]), np.float32)
    blas.gemm(table, Z, out)
    return out


def _score(
    tile: TargetTile,
    view: FoldView,
    strip: slice,
    scoring: str,
    sums: np.ndarray,
    atoms: np.ndarray | None = None,
) -> np.ndarray:
    atoms = view.in_test if atoms is None else atoms
    n, y, y_square = tile.centered_moments(view, atoms, strip)
    scores = score(scoring, Moments(n, y, y_square, sums[:, 0], sums[:, 1], sums[:, 2]))
    if scoring == "correlation" and tile.data.nuisance.y_ones:
        # a target that is constant in training is predicted by rounding errors
        scores[:, tile.is_constant(view, strip)] = 0
    return scores
