"""A job as a message: what is small by value, every large array as a place in a file.

Workers may be processes of this machine or of others that see the same files; a memmap that
travelled by value would be a copy of the data for every one of them.
"""

import io
import mmap
import pickle
from pathlib import Path
from typing import Any

import numpy as np
from cloudpickle import CloudPickler

from ridgemm.private import private_name

_LARGE = 1 << 20


class _Pickler(CloudPickler):
    """Replaces arrays in files, and large ones in RAM, by where they lie."""

    def __init__(self, file: io.BytesIO, scratch: Path):
        super().__init__(file, protocol=pickle.HIGHEST_PROTOCOL)
        self._scratch = scratch
        self._written: dict[int, tuple[np.ndarray, Path]] = {}

    def reducer_override(self, value: Any) -> Any:
        if not isinstance(value, np.ndarray) or value.dtype.hasobject:
            return super().reducer_override(value)
        root = _root(value)
        if root is not None:
            return _open, _place(value, root)
        if type(value) is np.ndarray and value.nbytes > _LARGE:
            return _open_npy, (str(self._write(value)),)
        return super().reducer_override(value)

    def _write(self, array: np.ndarray) -> Path:
        # the array is kept, so that its address stays its own for as long as this pickler lives
        if id(array) not in self._written:
            path = self._scratch / f"{private_name('array')}.npy"
            np.save(path, array)
            self._written[id(array)] = (array, path)
        return self._written[id(array)][1]


def pack(job: Any, scratch: Path) -> bytes:
    """A job for workers that see the file system of this process.

    Parameters
    ----------
    job : picklable
    scratch : Path
        Where large arrays of RAM are written; it has to outlive the workers' tasks.

    Examples
    --------
    >>> unpack(pack(np.arange(3), Path())).tolist()
    [0, 1, 2]
    """
    file = io.BytesIO()
    _Pickler(file, scratch).dump(job)
    return file.getvalue()


def unpack(message: bytes) -> Any:
    """The job of a message: its arrays are memory-mapped, writable where they were."""
    return pickle.loads(message)


def _root(array: np.ndarray) -> np.memmap | None:
    """The memmap of a file that an array is a view of, if it is."""
    base: Any = array
    while isinstance(base, np.ndarray):
        if isinstance(base, np.memmap) and isinstance(base.base, mmap.mmap) and base.filename:
            # copy-on-write: what was changed is in no file
            return None if base.mode == "c" else base
        base = base.base
    return None


def _place(array: np.ndarray, root: np.memmap) -> tuple[Any, ...]:
    low, high = _bounds(array)
    start = root.offset + low - root.ctypes.data
    mode = "r+" if array.flags.writeable and root.mode != "r" else "r"
    inside = array.ctypes.data - low
    place = str(root.filename), mode, start, high - low
    return *place, array.dtype, array.shape, array.strides, inside


def _bounds(array: np.ndarray) -> tuple[int, int]:
    """Addresses of the first byte of an array and of the one after its last."""
    steps = [(size - 1) * stride for size, stride in zip(array.shape, array.strides, strict=True)]
    first = array.ctypes.data
    last = first + sum(step for step in steps if step > 0)
    return first + sum(step for step in steps if step < 0), last + array.itemsize


def _open(
    path: str,
    mode: str,
    start: int,
    n_bytes: int,
    dtype: np.dtype,
    shape: tuple[int, ...],
    strides: tuple[int, ...],
    inside: int,
) -> np.ndarray:
    if 0 in shape:
        return np.empty(shape, dtype)
    buffer = np.memmap(path, np.uint8, mode, offset=start, shape=(n_bytes,))
    # of the subclass: who writes it wants to flush it
    return np.ndarray.__new__(np.memmap, shape, dtype, buffer, inside, strides)


def _open_npy(path: str) -> np.ndarray:
    return np.load(path, mmap_mode="r", allow_pickle=False)
