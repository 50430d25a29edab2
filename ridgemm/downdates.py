r"""Held-out predictions of every fold from one fit to all samples.

With :math:`Q_\alpha = \alpha (K + \alpha I)^{-1}` of the Gram K of all samples, 0 along the
nuisance, :math:`Q_\alpha y` are the residuals of the fit to all of them. Take the rows S away: by
the inverse of a block matrix, what the fit to the others leaves of them is

.. math:: y_S - \hat y_S = \big(Q_{\alpha, SS}\big)^{-1} (Q_\alpha\, y)_S .

All folds of nested cross-validation, of both levels, share the product with :math:`Q_\alpha`; then
a fold costs :math:`2 n_f |S|` flops per target and alpha, not :math:`2 n_f m` of its m training
rows. The diagonal case, :math:`e_i / (1 - h_{ii})`, is that of `ridgemm.crossvalidation.left_out`.

The inverse enlarges the rounding of Q, by ``1 + w / alpha`` in the direction of eigenvalue w, and a
prediction, which a correlation needs, is y less what is left: `resolves` says which alphas that
leaves.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from scipy.linalg import cho_factor, cho_solve

from ridgemm.factors import FactorMaker, Factors
from ridgemm.folds import Fold
from ridgemm.store import create_array
from ridgemm.tiles import spans

# of the largest eigenvalue: below, the inverse enlarges what rounding does to Q
_SMALLEST = 1e-4
# of the mean one: above, rounding of y is not small against predictions that shrink as
# 1 / alpha, which a correlation puts back on the scale of y
_LARGEST = 1.0
_BLOCK = 256
# shorter runs of rows are gathered: a product of fewer terms is slower than that
_RUN = 64


def resolves(smallest: float, largest: float, scoring: str) -> bool:
    """Whether float32 residuals of all samples give the scores of every fold.

    Parameters
    ----------
    smallest : float
        Alpha, as a share of the largest eigenvalue.
    largest : float
        Alpha, as a multiple of the mean eigenvalue.
    scoring : str

    Examples
    --------
    >>> resolves(1e-3, 1e3, "r2"), resolves(1e-3, 1e3, "correlation"), resolves(1e-6, 1.0, "r2")
    (True, False, False)
    """
    return smallest >= _SMALLEST and (scoring != "correlation" or largest <= _LARGEST)


def rows_aside(fold: Fold, n_samples: int) -> np.ndarray:
    """The rows that a fold does not train on, its test rows among them.

    Examples
    --------
    >>> rows_aside(Fold(train=np.array([0, 3]), test=np.array([1])), 4).tolist()
    [1, 2]
    """
    aside = np.ones(n_samples, dtype=bool)
    aside[fold.train] = False
    return np.flatnonzero(aside)


def runs(rows: np.ndarray) -> list[tuple[slice, slice | np.ndarray]]:
    """Places in sorted row numbers and the rows there, gapless ones as slices.

    Examples
    --------
    >>> runs(np.r_[0:70, 90:160])
    [(slice(0, 70, None), slice(0, 70, None)), (slice(70, 140, None), slice(90, 160, None))]
    >>> runs(np.array([0, 2, 4]))
    [(slice(0, 3, None), array([0, 2, 4]))]
    """
    starts = np.r_[0, np.flatnonzero(np.diff(rows) > 1) + 1, len(rows)]
    if len(rows) < _RUN * (len(starts) - 1):
        return [(slice(0, len(rows)), rows)]
    pairs = zip(starts[:-1].tolist(), starts[1:].tolist(), strict=True)
    return [(slice(a, b), slice(int(rows[a]), int(rows[a]) + b - a)) for a, b in pairs]


def residual_operators(maker: FactorMaker, alphas: np.ndarray) -> np.ndarray:
    """Every ``Q_alpha`` of all samples, (n_alphas, n_samples, n_samples) float32.

    Parameters
    ----------
    maker : FactorMaker
    alphas : (n_alphas,) float64
    """
    n = maker.X.shape[0]
    rows = np.arange(n)

    def build(folder: Path) -> None:
        (factors,) = maker.dual([Fold(rows, rows[:0])])
        shrink = alphas[:, None] / (factors.eigenvalues + alphas[:, None])
        shrink[:, : maker.nuisance.rank(rows)] = 0
        out = create_array(folder / "operator.npy", (len(alphas), n, n), np.float32)
        for here, there, left, right in _blocks_of_rows(factors, n):
            for Q, weights in zip(out, shrink, strict=True):
                Q[here, there] = (left * weights) @ right.T

    return maker.store.fetch(maker.entry("residuals", alphas), build)["operator"]


def _blocks_of_rows(
    factors: Factors, n: int
) -> Iterator[tuple[slice, slice, np.ndarray, np.ndarray]]:
    """Pairs of blocks of U, in float64."""
    for here in spans(n, _BLOCK):
        left = factors.basis[here].astype(np.float64)
        for there in spans(n, _BLOCK):
            yield here, there, left, factors.basis[there].astype(np.float64)


def downdate(maker: FactorMaker, fold: Fold, alphas: np.ndarray, Q: np.ndarray) -> np.ndarray:
    r"""What makes the errors of a fold's predictions of residuals of all samples.

    With B the test rows among the rows S that the fold does not train on,
    :math:`\hat y_B - y_B = A (Q y)_S`, where A are the rows B of :math:`-(Q_{SS})^{-1}`.

    Parameters
    ----------
    maker : FactorMaker
    fold : Fold
    alphas : (n_alphas,) float64
    Q : (n_alphas, n_samples, n_samples) float32
        As of `residual_operators`: the inverse is of what was rounded, which it has to undo.

    Returns
    -------
    A : (n_alphas, n_test, n_aside) float32
    """

    def build(folder: Path) -> None:
        aside = rows_aside(fold, len(Q[0]))
        tested = np.searchsorted(aside, fold.test)
        shape = (len(alphas), len(tested), len(aside))
        out = create_array(folder / "operator.npy", shape, np.float32)
        chosen = np.zeros((len(aside), len(tested)))
        for matrix, A in zip(Q, out, strict=True):
            # of no more rows than are wanted: whole ones are not planned for
            block = matrix[np.ix_(aside, aside)].astype(np.float64)
            chosen[...] = 0
            chosen[tested, np.arange(len(tested))] = -1
            factor = cho_factor(block, overwrite_a=True, check_finite=False)
            A[...] = cho_solve(factor, chosen, check_finite=False).T

    name = maker.entry("downdate", fold.train, fold.test, alphas)
    return maker.store.fetch(name, build)["operator"]


def downdate_bytes(n: int, n_aside: int, n_test: int) -> int:
    """Memory that both of them take."""
    return 8 * (3 * _BLOCK * n + _BLOCK**2 + 2 * n_aside**2 + 3 * n_aside * n_test)
