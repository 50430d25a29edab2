r"""Sample weights: rows scaled by the roots of their weights, and rows of weight zero left out.

.. math:: \min_B \sum_i w_i \|y_i - x_i B - c\|^2 + \alpha \|B\|^2

is the ridge regression of the rows :math:`\sqrt{w_i}\, y_i` on :math:`\sqrt{w_i}\, x_i` with the
column :math:`\sqrt{w}` in the place of the ones (`ridgemm.nuisance`). So every sum of squares or of
products is weighted by itself, and a sum becomes a product with that column.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from ridgemm.errors import InputError, one_line
from ridgemm.folds import Fold
from ridgemm.sources import Source
from ridgemm.tiles import spans
from ridgemm.views import View

# their roots, times values of a common size, stay within float32
LARGEST, SMALLEST = 1e15, 1e-15
_ROWS = 64


@dataclass(frozen=True)
class Weights:
    """Weights of the samples that take part.

    Attributes
    ----------
    root : (n_kept,) float64
        Square roots of the weights, all positive.
    kept : (n_kept,) int array
        Samples of positive weight, by the numbers of the samples as they were given.
    n_given : int
        Samples as they were given.
    """

    root: np.ndarray
    kept: np.ndarray
    n_given: int

    def select(self, source: Source) -> Source:
        """The samples of a source that take part."""
        if len(self.kept) == self.n_given:
            return source
        view = Selected(source, self.kept)
        return Source(view, source.name, view.shape, view.dtype)

    def restrict(self, fold: Fold, number: int) -> Fold:
        """The samples of a fold that take part, by their new numbers.

        Raises
        ------
        InputError
            None is left in one of its sets.
        """
        place = np.full(self.n_given, -1)
        place[self.kept] = np.arange(len(self.kept))
        sets = {"training": place[fold.train], "test": place[fold.test]}
        for name, rows in sets.items():
            if (rows < 0).all():
                raise InputError(
                    f"sample_weight is zero for every {name} sample of fold {number}; give one of "
                    "them a positive weight, or leave out the fold."
                )
        return Fold(*(rows[rows >= 0] for rows in sets.values()))


class Selected(View):
    """Some rows of a source."""

    def __init__(self, source: Source, kept: np.ndarray):
        super().__init__([source], (len(kept), source.shape[1]), source.dtype)
        self._kept = kept

    def read(
        self, rows: slice | np.ndarray, columns: slice, shift: np.ndarray, out: np.ndarray
    ) -> None:
        self.parts[0].read(self._kept[rows], columns, shift, out)

    def recipe(self) -> list[Any]:
        return [*super().recipe(), self._kept]


@dataclass(frozen=True)
class Weighted(Source):
    """The rows of `inner`, as shifted, times the roots of their weights."""

    inner: Source
    root: np.ndarray

    def view(self, rows: slice | np.ndarray, columns: slice) -> np.ndarray | None:
        """None: something has to be done to every tile."""
        return None

    def read(
        self, rows: slice | np.ndarray, columns: slice, shift: np.ndarray, out: np.ndarray
    ) -> None:
        """``out = root[rows] * (inner[rows, columns] - shift)``."""
        self.inner.read(rows, columns, shift, out)
        root = self.root[rows, None]
        for piece in spans(len(out), _ROWS):
            # in float64, rounded once
            np.multiply(out[piece], root[piece], out=out[piece], casting="same_kind")


def weighted(source: Source, weights: Weights | None) -> Source:
    """`source` with its rows scaled; itself without weights."""
    if weights is None:
        return source
    return Weighted(source.data, source.name, source.shape, source.dtype, source, weights.root)


def as_weights(given: Any, n_samples: int) -> Weights | None:
    """Weights (n_samples,) of samples, or one number for all; None where none are given.

    Raises
    ------
    InputError
        Another length than X, a weight that is negative or not finite, or none that is positive.

    Examples
    --------
    >>> as_weights([1.0, 0.0, 4.0], 3)
    Weights(root=array([1., 2.]), kept=array([0, 2]), n_given=3)
    """
    if given is None:
        return None
    try:
        if np.asarray(given).dtype.kind == "c":
            raise TypeError("complex")
        values = np.asarray(given, dtype=np.float64)
    except (TypeError, ValueError, OverflowError) as error:
        raise InputError(
            f"sample_weight={one_line(given)} are no numbers ({one_line(error)}); give one for "
            "each sample."
        ) from error
    if values.ndim == 0:
        values = np.full(n_samples, values)
    if values.shape != (n_samples,):
        raise InputError(
            f"sample_weight has shape {values.shape} and X has {n_samples} rows; give one weight "
            "for each sample."
        )
    bad = np.flatnonzero(~((values >= 0) & (values <= LARGEST)))
    if len(bad):
        raise InputError(
            f"sample_weight has {len(bad)} value(s) that are negative, NaN or beyond "
            f"{LARGEST:g}, the first for sample {bad[0]} ({values[bad[0]]}); 0 leaves a sample out."
        )
    if values.max() < SMALLEST:
        raise InputError(
            f"sample_weight is zero, or below {SMALLEST:g}, for every sample, which leaves none to "
            "fit; give positive weights (and alphas in their units)."
        )
    kept = np.flatnonzero(values)
    return Weights(np.sqrt(values[kept]), kept, n_samples)
