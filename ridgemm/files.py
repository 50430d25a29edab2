"""Files: what a command line, or anybody, may name as X or Y."""

import os
from collections.abc import Sequence
from typing import Any

from ridgemm.errors import InputError, one_line
from ridgemm.paths import open_path
from ridgemm.views import vstack


def open_source(spec: Any, name: str) -> Any:
    """An array of one file, or of several whose rows are stacked.

    Parameters
    ----------
    spec : str, path, or sequence of them
        ``x.npy``, ``x.h5:dataset``, ``x.zarr``, ``x.zarr:array`` or ``x.bed``; several
        separated by commas, or a list, are the runs of a longer one.
    name : str
        The argument's name, for messages.

    Returns
    -------
    memmap or object with ``shape``, ``dtype`` and 2-D slicing

    Raises
    ------
    InputError
        A file does not exist, is damaged, or is of another kind; columns differ.

    Examples
    --------
    >>> open_source("run1.npy,run2.npy", "X")
    Traceback (most recent call last):
    ridgemm.errors.InputError: X='run1.npy' does not exist; check the path.
    """
    if isinstance(spec, str) and "," in spec and not os.path.exists(spec):
        spec = [part.strip() for part in spec.split(",") if part.strip()]
    if isinstance(spec, (str, os.PathLike)):
        return open_path(spec, name)
    if not isinstance(spec, Sequence) or not spec:
        raise InputError(f"{name}={one_line(spec)} is not a path; give one, or several.")
    parts = [open_path(part, name) for part in spec]
    return parts[0] if len(parts) == 1 else vstack(parts)
