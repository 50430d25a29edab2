"""Brains too large to keep: X and Y whose values follow from their row and column alone.

A value is made by a counter-based generator when it is read, the same whatever is read with it.
A pass over Y costs its kernel, no disk; the sources count the seconds that theirs took.
"""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np

from bench.problems import Problem
from ridgemm.kernels._jit import jit
from ridgemm.lazy import Lazy

FEW = 4
KNEE = 64
SIGNALLED = 4
EXPLAINED = 0.3
_BLOCK = 1024
_X_SEED, _Y_SEED = 1, 2


@jit
def _noise(rows, first, seed, out):
    """Sums of four random bytes, of mean 0 and variance 1, at ``(rows[i], first + j)``.

    A row has two keys, from a 64-bit mix of its number; a value is a 32-bit mix of its column
    with both, so that no row is another one shifted.
    """
    scale = np.float32(1 / np.sqrt((2.0**16 - 1) / 3))
    for i in range(len(rows)):
        key = np.uint64(rows[i]) + (np.uint64(seed) << np.uint64(40))
        key = (key + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
        key = (key ^ (key >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        key = (key ^ (key >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        key ^= key >> np.uint64(31)
        one, two = np.uint32(key), np.uint32(key >> np.uint64(32))
        for j in range(out.shape[1]):
            h = np.uint32(np.uint32(first + j) * np.uint32(0x9E3779B1)) + one
            h = np.uint32(h ^ (h >> np.uint32(16))) * np.uint32(0x7FEB352D)
            h = np.uint32(h) ^ two
            h = np.uint32(h ^ (h >> np.uint32(15))) * np.uint32(0x846CA68B)
            h = np.uint32(h)
            h ^= h >> np.uint32(16)
            pairs = (h & np.uint32(0x00FF00FF)) + ((h >> np.uint32(8)) & np.uint32(0x00FF00FF))
            total = np.int32((pairs & np.uint32(0xFFFF)) + (pairs >> np.uint32(16)))
            out[i, j] = np.float32(total - np.int32(510)) * scale


@jit
def _mix(left, weights, scale, out):
    """``out = left @ weights + out * scale``, a row at a time and of four columns of `left`."""
    for i in range(out.shape[0]):
        a, b, c, d = left[i, 0], left[i, 1], left[i, 2], left[i, 3]
        for j in range(out.shape[1]):
            signal = a * weights[0, j] + b * weights[1, j] + c * weights[2, j] + d * weights[3, j]
            out[i, j] = signal + out[i, j] * scale[j]


class _Procedural(Lazy):
    """Rows ``first_row`` and on of an endless matrix; threads may read at once."""

    dtype = np.dtype(np.float32)
    concurrent = True

    def __init__(self, shape: tuple[int, int], first_row: int = 0):
        self.shape, self.first_row = shape, first_row
        # of every read; list.append is safe between threads
        self.took: list[float] = []

    def read(self, rows, columns, shift, out) -> None:
        """As `ridgemm.lazy.Lazy.read`."""
        start = time.perf_counter()
        if isinstance(rows, slice):
            rows = np.arange(rows.start, rows.stop)
        # blocks that stay near the processor between the two kernels and the subtraction
        for first in range(columns.start, columns.stop, _BLOCK):
            here = slice(first, min(first + _BLOCK, columns.stop))
            inside = slice(here.start - columns.start, here.stop - columns.start)
            tables = self._tables(np.arange(here.start, here.stop))
            values = np.empty((64, here.stop - here.start), np.float32)
            for i in range(0, len(rows), 64):
                some = rows[i : i + 64]
                block = values[: len(some)]
                self._fill(some, here, tables, block)
                np.subtract(block, shift[inside], out=out[i : i + 64, inside], dtype=out.dtype)
        self.took.append(time.perf_counter() - start)

    @property
    def core_seconds(self) -> float:
        """Of all reads, threads added up."""
        return sum(self.took)

    def recipe(self) -> list:
        """As `ridgemm.lazy.Lazy.recipe`."""
        return [type(self).__name__, list(self.shape), self.first_row]


class Features(_Procedural):
    """X: independent columns whose variances fall as those of a network's components do.

    Column k has variance ``1 / (1 + k / 64)``.

    Examples
    --------
    >>> X = Features((20, 10))
    >>> bool((X[5:7, 2:4] == X[:, :][5:7, 2:4]).all())
    True
    """

    def _tables(self, columns: np.ndarray) -> np.ndarray:
        return (1 / np.sqrt(1 + columns / KNEE)).astype(np.float32)

    def _fill(self, rows: np.ndarray, columns: slice, sd: np.ndarray, out: np.ndarray) -> None:
        _noise(rows + self.first_row, columns.start, _X_SEED, out)
        out *= sd


class Targets(_Procedural):
    """Y: in every fourth column a share of 0.3 of the variance comes from four columns of X.

    ::

        Y = X[:, :4] W sqrt(f) + E sqrt(1 - f)

    Parameters
    ----------
    X : Features
        Of the same rows.
    n_targets : int

    Examples
    --------
    >>> Y = Targets(Features((20, 10)), 30)
    >>> bool((Y[5:7, 2:4] == Y[:, :][5:7, 2:4]).all())
    True
    """

    def __init__(self, X: Features, n_targets: int):
        super().__init__((X.shape[0], n_targets), X.first_row)
        self.left = X[:, :FEW]

    def _tables(self, columns: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        explained = EXPLAINED * signalled(columns)
        weights = np.empty((FEW, len(columns)), np.float32)
        _noise(np.arange(FEW), columns[0], _Y_SEED + 1, weights)
        weights *= np.sqrt(explained / np.maximum((weights**2).sum(axis=0), 1e-6))
        return weights, np.sqrt(1 - explained).astype(np.float32)

    def _fill(self, rows: np.ndarray, columns: slice, tables: tuple, out: np.ndarray) -> None:
        _noise(rows + self.first_row, columns.start, _Y_SEED, out)
        _mix(self.left[rows], *tables, out)


def signalled(columns: np.ndarray) -> np.ndarray:
    """Whether X explains something of these targets."""
    return np.asarray(columns) % SIGNALLED == 0


def split(problem: Problem, n_test: int) -> tuple[Features, Features]:
    """Features of the training samples, and of `n_test` further ones after them."""
    n_train = problem.n_samples - n_test
    p = problem.n_features
    return Features((n_train, p)), Features((n_test, p), n_train)


def write_features(path: Path, X: Features, dtype: str) -> None:
    """Write X, some rows at a time."""
    path.parent.mkdir(exist_ok=True)
    out = np.lib.format.open_memmap(path, "w+", np.dtype(dtype), X.shape)
    for start in range(0, len(X), 256):
        out[start : start + 256] = X[start : start + 256]
