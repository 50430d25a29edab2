r"""Nuisance: what is removed from X and Y without a penalty, the intercept and confounds.

With N the columns :math:`[1, C]` and T the rows of a training set, the effects of N on a column v
are :math:`\Gamma = W N_T^T v_T`, where W is the inverse of :math:`N_T^T N_T`, and what is left of
every row, training or test, is :math:`v_i - N_i \Gamma`. The intercept alone is the case of one
column: W is 1 / n and the effect is the mean.

With sample weights the rows of N, of X and of Y are scaled by the roots of the weights, so that the
ones become those roots (`ridgemm.weights`); what is said of ones here, is meant of them.

Directions of C that the training rows do not show (the indicator of a run that is held out) have
no effect: W is a pseudo-inverse, the ones first.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ridgemm.errors import InputError
from ridgemm.sources import Source, as_source
from ridgemm.threads import Team
from ridgemm.tiles import spans, width
from ridgemm.weights import Weights

# share of the mean square of a confound below which training rows do not show a direction
_SHOWN = 1e-10
# share of a column's variation below which what confounds leave of it is rounding
_EXPLAINED = 1e-12
_ROWS = 64
_BLOCK = 512


@dataclass(frozen=True)
class Nuisance:
    """The columns that are removed, of all samples.

    Attributes
    ----------
    N : (n_samples, 1 + n_confounds) float64
        Ones, then confounds: orthogonal columns of mean square 1.
    x_ones, y_ones : bool
        The ones are removed from X, from Y; confounds are from both. With confounds, they agree.
    offset : (n_given,) float64
        Subtracted from confounds as they were given,
    transform : (n_given, n_confounds) float64
        and what then makes them the columns of N.
    weights : Weights, optional
    """

    N: np.ndarray
    x_ones: bool
    y_ones: bool
    offset: np.ndarray
    transform: np.ndarray
    weights: Weights | None = None

    @property
    def n_confounds(self) -> int:
        """Independent confounds."""
        return self.N.shape[1] - 1

    @property
    def confounds(self) -> np.ndarray:
        """(n_samples, n_confounds) float64."""
        return self.N[:, 1:]

    @property
    def n_plain(self) -> int:
        """Columns of N with which products are plain sums: 1, or 0 with weights."""
        return int(self.weights is None)

    @property
    def explicit(self) -> np.ndarray:
        """The other columns, with which products have to be made."""
        return self.N[:, self.n_plain :]

    @property
    def total(self) -> float:
        """Sum of the weights; the number of samples without."""
        return float(self.N[:, 0] @ self.N[:, 0])

    def gram(self, rows: np.ndarray) -> np.ndarray:
        """``N.T N`` over some rows."""
        return self.N[rows].T @ self.N[rows]

    def x_weights(self, gram: np.ndarray) -> np.ndarray:
        """W of X for training rows of that Gram."""
        return _weights(gram, self.x_ones)

    def y_weights(self, gram: np.ndarray) -> np.ndarray:
        """W of Y for training rows of that Gram."""
        return _weights(gram, self.y_ones)

    def leverage(self, rows: np.ndarray) -> np.ndarray:
        """Diagonal of the hat matrix of Y on `rows`; its sum is the rank."""
        N = self.N[rows]
        return np.einsum("ij,jk,ik->i", N, self.y_weights(N.T @ N), N)

    def rank(self, rows: np.ndarray) -> int:
        """Directions that are removed from Y on `rows`."""
        return round(self.leverage(rows).sum())

    def shown_by(self, rows: np.ndarray) -> bool:
        """Whether every confound varies over `rows` in a way of its own."""
        return self.rank(rows) == self.n_confounds + self.y_ones

    def directions(self, rows: np.ndarray) -> np.ndarray:
        """Orthonormal rows that span what is removed from X; first what is removed from Y."""
        root, C = self.N[rows, 0], self.confounds[rows]
        total = float(root @ root)
        ones = np.repeat(root[None] / np.sqrt(total), int(self.x_ones), axis=0)
        if self.y_ones:
            mean = (root[:, None] * C).sum(axis=0) / total
            return np.vstack([ones, _orthonormal(C - root[:, None] * mean, total)])
        # ones that are removed from X alone have no confounds beside them
        return np.vstack([_orthonormal(C, total), ones])


def make_nuisance(
    n_samples: int,
    x_ones: bool,
    y_ones: bool,
    confounds: np.ndarray | None = None,
    weights: Weights | None = None,
) -> Nuisance:
    """The nuisance of a fit, from confounds (n_samples, n_given) as they were given.

    With weights it is that of the samples that they keep.

    Examples
    --------
    >>> nuisance = make_nuisance(4, True, True, np.arange(4.0)[:, None])
    >>> np.round(nuisance.gram(np.arange(4)), 6).tolist()
    [[4.0, 0.0], [0.0, 4.0]]
    """
    root = np.ones((n_samples, 1))
    if weights is not None:
        root = weights.root[:, None]
        confounds = None if confounds is None else confounds[weights.kept]
    if confounds is None:
        return Nuisance(root, x_ones, y_ones, np.empty(0), np.empty((0, 0)), weights)
    total = float(np.square(root).sum())
    offset = np.zeros(confounds.shape[1])
    if y_ones:
        offset = (root**2 * confounds).sum(axis=0) / total
    C, confounds = root * (confounds - offset), root * confounds
    size = np.linalg.norm(C, axis=0)
    constant = size <= 1e-12 * np.linalg.norm(confounds, axis=0)
    inverse = np.divide(1, size, out=np.zeros_like(size), where=~constant)
    _, singular, V = np.linalg.svd(C * inverse, full_matrices=False)
    kept = singular > 1e-10 * max(singular[0], 1e-300)
    transform = inverse[:, None] * V[kept].T * (np.sqrt(total) / singular[kept])
    N = np.hstack([root, C @ transform])
    return Nuisance(N, x_ones, y_ones, offset, transform, weights)


def _weights(gram: np.ndarray, ones: bool) -> np.ndarray:
    W = np.zeros_like(gram)
    n, S = gram[0, 0], gram[1:, 1:]
    mean = gram[0, 1:] / n
    if ones:
        W[0, 0] = 1 / n
        S = S - n * np.multiply.outer(mean, mean)
    if len(S):
        values, vectors = np.linalg.eigh(S)
        kept = values > _SHOWN * n
        inverse = (vectors[:, kept] / values[kept]) @ vectors[:, kept].T
        W[1:, 1:] = inverse
        if ones:
            W[0, 1:] = W[1:, 0] = -inverse @ mean
            W[0, 0] += mean @ inverse @ mean
    return W


def _orthonormal(C: np.ndarray, total: float) -> np.ndarray:
    U, singular, _ = np.linalg.svd(C, full_matrices=False)
    return U.T[singular**2 > _SHOWN * total]


def project_gram(S: np.ndarray, N: np.ndarray, train: np.ndarray, W: np.ndarray) -> None:
    """Make the Gram ``A A.T`` of rows A that of ``A - N W N_T.T A_T``, in place.

    Parameters
    ----------
    S : (n, n) float64
    N : (n, q) float64
    train : (n_train,) int array
    W : (q, q) float64
    """
    B = np.zeros((len(W), len(S)))
    # by blocks: S may be as large as the memory limit allows, or lie in a file
    for rows in spans(len(train), _BLOCK):
        B += N[train[rows]].T @ S[train[rows]]
    B = W @ B
    D = (B[:, train] @ N[train]) @ W
    for rows in spans(len(S), _BLOCK):
        S[rows] -= N[rows] @ B
        S[rows] -= (B[:, rows].T - N[rows] @ D) @ N.T


@dataclass(frozen=True)
class Residual(Source):
    """A source about its fit by the confounds over all samples: small before folds are fitted.

    As a shift does for the mean, so that what a fold's effects take away is small, and float32
    has its digits for what is left. Not for a fold that does not show a direction of the
    confounds: their effect over all samples would stay in its test rows.

    Attributes
    ----------
    confounds : (n_samples, n_confounds) float64
    slopes : (n_confounds, n_columns) float64
    explained : (n_columns,) bool
        Columns of which the confounds leave no more than
    level : (n_columns,) float64
        a constant, as shifted.
    """

    confounds: np.ndarray
    slopes: np.ndarray
    explained: np.ndarray
    level: np.ndarray

    def view(self, rows: slice | np.ndarray, columns: slice) -> np.ndarray | None:
        """None: something has to be done to every tile."""
        return None

    def read(
        self, rows: slice | np.ndarray, columns: slice, shift: np.ndarray, out: np.ndarray
    ) -> None:
        """As `Source.read`, the fit by the confounds removed."""
        super().read(rows, columns, shift, out)
        C, slopes = self.confounds[rows], self.slopes[:, columns]
        for piece in spans(len(out), _ROWS):
            out[piece] -= C[piece] @ slopes
        explained = self.explained[columns]
        if explained.any():
            out[:, explained] = self.level[columns][explained]


def residual(source: Source, shift: np.ndarray, nuisance: Nuisance, team: Team) -> Source:
    """`source` about its fit by the confounds; itself where there are none."""
    if not nuisance.n_confounds:
        return source
    n, m = source.shape
    C, root, total = nuisance.confounds, nuisance.N[:, :1], nuisance.total
    slopes, sums, squares = np.zeros((nuisance.n_confounds, m)), np.zeros(m), np.zeros(m)

    def add(_: int, columns: slice) -> None:
        values = np.empty((256, width(columns)))
        for rows in spans(n, 256):
            block = values[: width(rows)]
            source.read(rows, columns, shift[columns], block)
            # only a target that is left out (missing="skip") still has values that are not finite
            with np.errstate(over="ignore", invalid="ignore"):
                block *= root[rows]
                slopes[:, columns] += C[rows].T @ block
                sums[columns] += (root[rows] * block).sum(axis=0)
                squares[columns] += np.einsum("ij,ij->j", block, block)

    blocks = spans(m, 1024)
    if source.is_array:
        team.run(add, blocks)
    else:
        for columns in blocks:
            add(0, columns)
    slopes /= total
    level = sums / total if nuisance.y_ones else np.zeros(m)
    with np.errstate(over="ignore", invalid="ignore"):
        left = squares - total * level**2 - total * np.einsum("ij,ij->j", slopes, slopes)
    explained = left <= _EXPLAINED * squares
    plain = C if nuisance.weights is None else C / root
    return Residual(
        source.data, source.name, source.shape, source.dtype, plain, slopes, explained, level
    )


def whole_residual(
    source: Source, shift: np.ndarray, nuisance: Nuisance, missing: np.ndarray, team: Team
) -> tuple[Source, np.ndarray]:
    """`source` without its fit by all of N over all samples, and the effects that make the fit.

    Unlike `residual` it is rid of the ones too, where they are removed: what is left is what may
    be rearranged. `missing` columns stay as they are.

    Returns
    -------
    Source
    (1 + n_confounds, n_columns) float64
    """
    part = residual(source, shift, nuisance, team)
    effects = np.vstack([part.level, part.slopes])
    effects[:, missing] = 0
    none = np.zeros(source.shape[1])
    explained = part.explained & ~missing
    whole = replace(part, confounds=nuisance.N, slopes=effects, explained=explained, level=none)
    return whole, effects


def about(source: Source, confounds: np.ndarray, slopes: np.ndarray) -> Residual:
    """New rows of a source about a fit by their confounds that is known."""
    none = np.zeros(source.shape[1], dtype=bool)
    shape, dtype = source.shape, source.dtype
    return Residual(source.data, source.name, shape, dtype, confounds, slopes, none, 0 * none)


def as_confounds(given: Any, n_samples: int) -> np.ndarray | None:
    """Confounds (n_samples, n_given) float64, one of which may come without an axis.

    Raises
    ------
    InputError
        Other rows than X, or a value that is not finite.
    """
    if given is None:
        return None
    confounds = as_source(np.reshape(given, (-1, 1)) if np.ndim(given) == 1 else given, "confounds")
    if confounds.shape[0] != n_samples:
        raise InputError(
            f"confounds has {confounds.shape[0]} rows and X has {n_samples}; both need one row "
            "for each sample."
        )
    values = np.empty(confounds.shape)
    confounds.read(
        slice(0, n_samples), slice(0, values.shape[1]), np.zeros(values.shape[1]), values
    )
    bad = np.argwhere(~(np.abs(values) <= 1e15))
    if len(bad):
        raise InputError(
            f"confounds has {len(bad)} value(s) that are NaN, infinite or beyond 1e15, the first "
            f"at row {bad[0][0]}, column {bad[0][1]}; remove or impute them."
        )
    return values


def check_room(nuisance: Nuisance, fewest: int, left_out: Sequence[np.ndarray] = ()) -> None:
    """Refuse confounds that leave nothing of `fewest` samples, or fit a left-out one by itself.

    Parameters
    ----------
    nuisance : Nuisance
    fewest : int
        Samples of the smallest training set.
    left_out : sequence of int arrays
        Sets of rows of which each row is left out once.

    Raises
    ------
    InputError
    """
    if not nuisance.n_confounds:
        return
    if nuisance.x_ones and not nuisance.y_ones:
        raise InputError(
            "confounds with standardize=True need fit_intercept=True, not False: features are "
            "standardised about their means."
        )
    if nuisance.n_confounds + 2 > fewest:
        raise InputError(
            f"confounds has rank {nuisance.n_confounds}, which leaves nothing of a training set of "
            f"{fewest} samples; give fewer confounds or larger folds."
        )
    for rows in left_out:
        leverage = nuisance.leverage(rows)
        if leverage.max() > 1 - 1e-6:
            raise InputError(
                f"confounds fit sample {rows[leverage.argmax()]} by itself, so that cv='loo' "
                "cannot predict it; drop the sample, the confound, or use cv=n folds."
            )
