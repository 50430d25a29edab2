"""Buffers that are allocated once and reused for every tile."""

import math
from typing import Any

import numpy as np


class Workspace:
    """Named buffers, grown when a larger one is asked for, never given back.

    A fresh allocation in a loop costs a page fault for every 4 KB of it.

    Examples
    --------
    >>> workspace = Workspace()
    >>> a = workspace.array("a", (2, 3))
    >>> np.shares_memory(a, workspace.array("a", (3, 1)))
    True
    """

    def __init__(self) -> None:
        self._buffers: dict[tuple[str, np.dtype], np.ndarray] = {}

    def array(self, name: str, shape: tuple[int, ...], dtype: Any = np.float32) -> np.ndarray:
        """An uninitialised row-major array in the buffer `name`."""
        size, kind = math.prod(shape), np.dtype(dtype)
        buffer = self._buffers.get((name, kind))
        if buffer is None or buffer.size < size:
            # the old buffer is let go, by both its names, before the new one is asked for
            self._buffers.pop((name, kind), None)
            del buffer
            buffer = self._buffers[name, kind] = np.empty(size, dtype=kind)
        return buffer[:size].reshape(shape)

    def zeros(self, name: str, shape: tuple[int, ...], dtype: Any = np.float64) -> np.ndarray:
        """As `array`, filled with 0."""
        out = self.array(name, shape, dtype)
        out[...] = 0
        return out
