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

from ridgemm.errors import StorageError
from ridgemm.private import private_name

# bytes from which a value travels in a file: all workers then share it as file cache
_LARGE = 1 << 12
_ALIGNMENT = 64


class _Pickler(CloudPickler):
    """Replaces arrays in files by where they lie, and sets large ones in RAM aside."""

    def __init__(self, file: io.BytesIO, scratch: Path):
        self.aside: list[memoryview] = []
        self._scratch = scratch
        self._written: dict[int, tuple[np.ndarray, Path]] = {}
        super().__init__(file, protocol=pickle.HIGHEST_PROTOCOL, buffer_callback=self._is_within)

    def reducer_override(self, value: Any) -> Any:
        if not isinstance(value, np.ndarray) or value.dtype.hasobject:
            return super().reducer_override(value)
        root = _root(value)
        if root is not None:
            return _open, _place(value, root)
        # one with gaps would be copied
        gaps = not (value.flags.c_contiguous or value.flags.f_contiguous)
        if gaps and type(value) is np.ndarray and value.nbytes > _LARGE:
            return _open_npy, (str(self._save(value)),)
        return super().reducer_override(value)

    def _save(self, array: np.ndarray) -> Path:
        # the array is kept, so that its address stays its own for as long as this pickler lives
        if id(array) not in self._written:
            path = self._scratch / f"{private_name('array')}.npy"
            np.save(path, array)
            self._written[id(array)] = (array, path)
        return self._written[id(array)][1]

    def _is_within(self, buffer: pickle.PickleBuffer) -> bool:
        raw = buffer.raw()
        if raw.nbytes <= _LARGE:
            return True
        self.aside.append(raw)
        return False


def pack(job: Any, scratch: Path) -> bytes:
    """A job for workers that see the file system of this process.

    Parameters
    ----------
    job : picklable
    scratch : Path
        Where large arrays of RAM are written, to one file; it has to outlive the workers' tasks.

    Raises
    ------
    StorageError
        That file cannot be written.

    Examples
    --------
    >>> unpack(pack(np.arange(3), Path())).tolist()
    [0, 1, 2]
    """
    body = io.BytesIO()
    pickler = _Pickler(body, scratch)
    try:
        pickler.dump(job)
        path, places = _write(pickler.aside, scratch) if pickler.aside else ("", [])
    except OSError as error:
        raise StorageError(
            f"{str(scratch)!r} cannot be written ({error.strerror or error}); free some space, or "
            "choose another folder, and make the same call again."
        ) from error
    return pickle.dumps((body.getvalue(), path, places))


def written_bytes(array: Any) -> int:
    """What `pack` writes of an array: nothing of one that is in a file.

    Examples
    --------
    >>> written_bytes(np.zeros((2, 3)))
    48
    """
    return array.nbytes if isinstance(array, np.ndarray) and _root(array) is None else 0


def unpack(message: bytes) -> Any:
    """The job of a message: its arrays are memory-mapped, those of files writable if they were."""
    body, path, places = pickle.loads(message)
    whole = np.memmap(path, np.uint8, "r") if places else None
    return pickle.loads(body, buffers=[whole[start:stop] for start, stop in places])


def _write(values: list[memoryview], scratch: Path) -> tuple[str, list[tuple[int, int]]]:
    """Write values to one file, and tell where each begins and ends."""
    path, places, end = scratch / private_name("arrays"), [], 0
    with open(path, "wb") as file:
        for value in values:
            start = -(-end // _ALIGNMENT) * _ALIGNMENT
            file.write(bytes(start - end))
            file.write(value)
            end = start + value.nbytes
            places.append((start, end))
    return str(path), places


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
