"""Lazy: a matrix that is made while it is read, one tile at a time."""

from abc import ABC, abstractmethod
from typing import Any

import numpy as np

_WORKING = frozenset(np.dtype(c) for c in "?bBhHef")


class Lazy(ABC):
    """What a view of sources, or of a coded file, has to be.

    Attributes
    ----------
    shape : tuple of int
    dtype : dtype
        Of the values; tiles are rounded to it before anything is subtracted.
    chunks : tuple of int, optional
        Rows and columns that are best read together.
    concurrent : bool
        Several threads may read at once.
    """

    shape: tuple[int, int]
    dtype: np.dtype
    chunks: tuple[int, int] | None = None
    concurrent: bool = False

    @abstractmethod
    def read(
        self,
        rows: slice | np.ndarray,
        columns: slice,
        shift: np.ndarray,
        out: np.ndarray,
    ) -> None:
        """``out = self[rows, columns] - shift``, as `ridgemm.sources.Source.read` does it."""

    @abstractmethod
    def recipe(self) -> list[Any]:
        """All that the values depend on: JSON-able things, arrays, Sources, paths of files."""

    @property
    def ndim(self) -> int:
        return 2

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, where: Any) -> np.ndarray:
        """An array of some rows and columns: slices, or integers as an array."""
        rows, columns = where if isinstance(where, tuple) else (where, slice(None))
        row_span, pick_rows = _cover(rows, self.shape[0])
        column_span, pick_columns = _cover(columns, self.shape[1])
        wanted = row_span
        if not isinstance(pick_rows, slice) and np.ndim(pick_rows) == 1 and len(pick_rows):
            # rows are seldom neighbours: not all of those between them are read
            wanted, pick_rows = np.unique(pick_rows + row_span.start, return_inverse=True)
        n_rows = row_span.stop - row_span.start if wanted is row_span else len(wanted)
        size = (n_rows, column_span.stop - column_span.start)
        out = np.empty(size, np.float32 if self.dtype in _WORKING else np.float64)
        if out.size:
            self.read(wanted, column_span, np.zeros(size[1], np.float32), out)
        return out.astype(self.dtype, copy=False)[pick_rows][..., pick_columns]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        array = self[:, :]
        return array if dtype is None else array.astype(dtype, copy=False)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.shape[0]} x {self.shape[1]} {self.dtype}>"


def _cover(index: Any, size: int) -> tuple[slice, Any]:
    """The run that covers an index of ``range(size)``, and the index within it."""
    chosen = np.arange(size)[index]
    if chosen.size == 0:
        return slice(0, 0), chosen
    first, last = int(chosen.min()), int(chosen.max())
    whole = chosen.ndim == 1 and isinstance(index, slice) and index.step in (None, 1)
    return slice(first, last + 1), slice(None) if whole else chosen - first
