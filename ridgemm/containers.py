"""Arrays inside HDF5 and zarr containers.

An h5py object cannot be sent to another process, and a zarr array that finds no chunks there
would read as zeros without a word. So both travel as a path and a name, and are opened again
where they are read.
"""

import errno
import os
import threading
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

import numpy as np

from ridgemm.errors import InputError, as_path, one_line

# what HDF5 keeps of decompressed chunks, so that neighbouring tiles do not decompress them again
_CHUNK_CACHE = 16 << 20
_OPENING = threading.Lock()


class Container(ABC):
    """An array in a container: shape, dtype, 2-D slicing.

    Parameters
    ----------
    path : str
    dataset : str
        Its name inside, "" for a container that is an array itself.
    array : h5py.Dataset or zarr.Array
        Opened by this process.
    """

    def __init__(self, path: str, dataset: str, array: Any):
        self.path, self.dataset = os.path.abspath(path), dataset
        self.shape, self.dtype = array.shape, array.dtype
        self.chunks = getattr(array, "shards", None) or array.chunks
        self._array, self._process = array, os.getpid()

    @abstractmethod
    def _open(self) -> Any:
        """The array, opened anew."""

    def _is_open(self) -> bool:
        # a handle that came with a fork belongs to the parent
        return self._array is not None and self._process == os.getpid()

    def __getitem__(self, where: Any) -> np.ndarray:
        with _OPENING:
            if not self._is_open():
                self._array, self._process = self._open(), os.getpid()
        return self._array[where]

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_array": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        if not os.path.exists(self.path):
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), self.path)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.path}:{self.dataset} {self.shape} {self.dtype}>"


class H5Array(Container):
    """A dataset of an HDF5 file."""

    def _is_open(self) -> bool:
        # a dataset of a file that was closed is false
        return super()._is_open() and bool(self._array)

    def _open(self) -> Any:
        import h5py

        return h5py.File(self.path, "r", rdcc_nbytes=_CHUNK_CACHE)[self.dataset]

    def __getstate__(self) -> dict[str, Any]:
        if self._is_open() and self._array.file.mode != "r":
            raise InputError(
                f"{self.path!r} is open for writing, so that other processes cannot read it; "
                "close it and pass its path, open it with mode 'r', or use n_jobs=1."
            )
        return super().__getstate__()


class ZarrArray(Container):
    """An array of a zarr store in a folder or a zip file."""

    def _open(self) -> Any:
        import zarr

        return zarr.open_array(self.path, path=self.dataset or None, mode="r")


def open_h5(path: str | Path, dataset: str | None = None) -> H5Array:
    """A 2-D dataset of an HDF5 file as a source.

    Parameters
    ----------
    path : str or Path
    dataset : str, optional
        Its name, such as "subject1/bold". May be left out if the file has one 2-D dataset.

    Returns
    -------
    H5Array
        With `shape`, `dtype` and 2-D slicing. It opens the file in every process that reads it.

    Raises
    ------
    InputError
        There is no such file or dataset, or h5py is not installed.

    Examples
    --------
    >>> open_h5("absent.h5", "X")
    Traceback (most recent call last):
    ridgemm.errors.InputError: path='absent.h5' does not exist; check the path.
    """
    return open_container(path, dataset, "path", H5Array)


def open_zarr(path: str | Path, array: str | None = None) -> ZarrArray:
    """A 2-D zarr array as a source.

    Parameters
    ----------
    path : str or Path
        A folder, or a zip file.
    array : str, optional
        Its name in a group. May be left out if `path` is an array itself or a group with one
        2-D array.

    Returns
    -------
    ZarrArray
        With `shape`, `dtype` and 2-D slicing. It opens the store in every process that reads it.

    Raises
    ------
    InputError
        There is no such store or array, or zarr is not installed.

    Examples
    --------
    >>> open_zarr("absent.zarr")
    Traceback (most recent call last):
    ridgemm.errors.InputError: path='absent.zarr' does not exist; check the path.
    """
    return open_container(path, array, "path", ZarrArray)


def open_container(path: Any, dataset: str | None, argument: str, kind: type[Container]) -> Any:
    """The array `dataset` of a container, or its only one; errors name `argument`."""
    path = as_path(path, argument)
    said = f"{argument}={str(path)!r}"
    if not path.exists():
        raise InputError(f"{said} does not exist; check the path.")
    find, package = (_h5_arrays, "h5py") if kind is H5Array else (_zarr_arrays, "zarr")
    try:
        root, arrays = find(str(path), dataset)
    except ImportError as error:
        raise InputError(
            f"{said} needs {package}, which is not installed: pip install 'ridgemm[containers]'."
        ) from error
    except Exception as error:
        raise InputError(
            f"{said} cannot be opened by {package} ({one_line(error)}); check the file."
        ) from error
    if len(arrays) != 1:
        have = ", ".join(sorted(root)) or "none"
        which = "no 2-D array" if dataset is None else f"no array {dataset!r}"
        if arrays:
            which = f"{len(arrays)} 2-D arrays"
        raise InputError(
            f"{said} has {which}; give the name of one, as in '{path}:NAME'. It has: {have}."
        )
    ((name, array),) = arrays.items()
    return kind(str(path), name, array)


def _h5_arrays(path: str, dataset: str | None) -> tuple[list[str], dict[str, Any]]:
    """Names of all datasets, and those that are wanted."""
    import h5py

    file = h5py.File(path, "r", rdcc_nbytes=_CHUNK_CACHE)
    found: dict[str, Any] = {}
    file.visititems(lambda name, item: found.update({name: item}) if _is_h5(item) else None)
    if dataset is None:
        return list(found), {name: item for name, item in found.items() if item.ndim == 2}
    wanted = file.get(dataset)
    return list(found), {dataset: wanted} if _is_h5(wanted) else {}


def _is_h5(item: Any) -> bool:
    import h5py

    return isinstance(item, h5py.Dataset)


def _zarr_arrays(path: str, array: str | None) -> tuple[list[str], dict[str, Any]]:
    import zarr

    root = zarr.open(path, mode="r")
    if isinstance(root, zarr.Array):
        return [], {} if array else {"": root}
    found = {name: item for name, item in root.members(None) if isinstance(item, zarr.Array)}
    if array is None:
        return list(found), {name: item for name, item in found.items() if item.ndim == 2}
    wanted = array.strip("/")
    return list(found), {wanted: found[wanted]} if wanted in found else {}


def reopenable(data: Any) -> Any:
    """An array of an open container as one that can be opened again; anything else as it is.

    Examples
    --------
    >>> reopenable([1, 2])
    [1, 2]
    """
    # by name: neither library is imported for data that is not theirs
    package = type(data).__module__.partition(".")[0]
    if package == "h5py" and hasattr(data, "file") and os.path.exists(data.file.filename):
        return H5Array(data.file.filename, data.name, data)
    if package == "zarr" and hasattr(data, "store"):
        root = getattr(data.store, "root", None) or getattr(data.store, "path", None)
        if root is not None and os.path.exists(str(root)) and "://" not in str(root):
            return ZarrArray(str(root), data.path, data)
    return data
