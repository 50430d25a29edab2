"""Hints to the system: which bytes of a mapped file are read next.

A tile of a file of rows is a short run of bytes in each row. Left alone, the system reads megabytes
around every page that it misses, of which a tile uses kilobytes, and where RAM is short it has
forgotten the rest before the next tile asks for it. Told of the runs themselves, some rows ahead,
it reads these alone, many at a time, while others are converted.
"""

import contextlib
import mmap
from collections.abc import Iterable

import numpy as np

# a smaller file is read around once and stays
_SMALLEST = 1 << 26


class Ahead:
    """Reading of some columns of a mapped file of rows; does nothing for other arrays.

    Parameters
    ----------
    data : object
        A source's data.
    columns : slice

    Examples
    --------
    >>> with Ahead(np.ones((4, 4)), slice(0, 2)) as ahead:
    ...     ahead.need(range(4))
    >>> ahead.useful
    False
    """

    def __init__(self, data: object, columns: slice):
        self.useful = False
        if not isinstance(data, np.memmap) or not hasattr(mmap.mmap, "madvise"):
            return
        # a slice of a memmap has the mapping of the whole; a copy has none
        mapping, size = getattr(data, "_mmap", None), columns.stop - columns.start
        self._step, self._size = data.strides[0], size * data.itemsize
        if mapping is None or data.strides[1] != data.itemsize or self._step <= self._size:
            return
        self.useful = len(mapping) >= _SMALLEST
        self._mapping = mapping
        start = np.frombuffer(mapping, np.uint8).ctypes.data
        self._first = data.ctypes.data - start + columns.start * data.itemsize

    def __enter__(self) -> "Ahead":
        if self.useful:
            self._hint(mmap.MADV_RANDOM)
        return self

    def __exit__(self, *exc: object) -> None:
        if self.useful:
            self._hint(mmap.MADV_NORMAL)

    def need(self, rows: Iterable[int]) -> None:
        """Ask for the columns of some rows."""
        if not self.useful:
            return
        for row in rows:
            start = self._first + row * self._step
            page = start // mmap.PAGESIZE * mmap.PAGESIZE
            self._hint(mmap.MADV_WILLNEED, page, start + self._size - page)

    def _hint(self, what: int, *span: int) -> None:
        # a system that cannot follow a hint reads as it would have read without it
        with contextlib.suppress(OSError):
            self._mapping.madvise(what, *span)
