"""Paths: which kind of file a text names, and the array in it."""

import os
import re
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from ridgemm.containers import H5Array, ZarrArray, open_container
from ridgemm.errors import InputError, one_line
from ridgemm.genetics import open_genotypes

_INSIDE = re.compile(r"(?P<path>.+\.(?:h5|hdf5|zarr|zarr\.zip))(?::(?P<dataset>.+))?", re.I)
KINDS = ".npy, .h5:dataset, .zarr, .zarr:array or .bed"


def open_path(path: str | os.PathLike, name: str) -> Any:
    """The array in a file: ``x.npy``, ``x.h5:dataset``, ``x.zarr``, ``x.zarr:array``, ``x.bed``.

    Parameters
    ----------
    path : str or path
    name : str
        The argument's name, for messages.

    Returns
    -------
    memmap or object with ``shape``, ``dtype`` and 2-D slicing.

    Raises
    ------
    InputError
        The file does not exist, is damaged, or is of another kind.

    Examples
    --------
    >>> open_path("features.csv", "X")
    Traceback (most recent call last):
    ridgemm.errors.InputError: X='features.csv' is not a .npy, .h5:dataset, .zarr, .zarr:array or
    .bed file; save it with numpy.save.
    """
    text = os.fspath(path)
    text = text if isinstance(text, str) else os.fsdecode(text)
    if inside := _INSIDE.fullmatch(text.rstrip("/")):
        kind = ZarrArray if ".zarr" in inside["path"].lower() else H5Array
        return open_container(inside["path"], inside["dataset"], name, kind)
    suffix = Path(text).suffix
    if suffix == ".bed":
        return open_genotypes(text, False, name)
    if suffix != ".npy":
        raise InputError(f"{name}={text!r} is not a {KINDS} file; save it with numpy.save.")
    return _open_npy(text, name)


def _open_npy(path: str, name: str) -> np.ndarray:
    if not os.path.isfile(path):
        raise InputError(f"{name}={path!r} does not exist; check the path.")
    try:
        # a header is text that NumPy parses: damaged, it may raise or warn of anything
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            return np.lib.format.open_memmap(path, mode="r")
    except Exception as error:
        raise InputError(
            f"{name}={path!r} cannot be opened as a .npy array ({one_line(error)}); "
            "write it again with numpy.save."
        ) from error
