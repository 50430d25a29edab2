"""Surface data in and out: GIFTI files with one value per vertex."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ridgemm.errors import InputError, as_path, one_line
from ridgemm.images import check_values, import_nibabel
from ridgemm.store import check_folder, replaced

_GEOMETRY = ("NIFTI_INTENT_POINTSET", "NIFTI_INTENT_TRIANGLE")


def read_gifti(paths: Any) -> np.ndarray:
    """Read surface data: a row for each sample or map, a column for each vertex.

    Parameters
    ----------
    paths : path, or list of paths
        Functional or metric files (``.func.gii``, ``.shape.gii``); those of a list lie side by
        side, as the two hemispheres of one recording do.

    Returns
    -------
    (n_samples, n_vertices) float32

    Raises
    ------
    InputError
        A file is missing or unreadable, holds a surface instead of data, or the files hold
        different numbers of samples.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     left = write_gifti([[1, 2], [3, 4]], f"{folder}/left.func.gii")
    ...     right = write_gifti([[5], [6]], f"{folder}/right.func.gii")
    ...     read_gifti([left, right])
    array([[1., 2., 5.],
           [3., 4., 6.]], dtype=float32)
    """
    one = isinstance(paths, (str, os.PathLike)) or not isinstance(paths, Sequence)
    parts = [_read(path) for path in ([paths] if one else paths)]
    if not parts:
        raise InputError("paths is an empty list; give at least one GIFTI file.")
    lengths = [len(part) for part in parts]
    if len(set(lengths)) > 1:
        raise InputError(
            f"paths hold {lengths} samples; files that lie side by side must have the same number."
        )
    return np.hstack(parts)


def write_gifti(values: Any, path: str | Path, structure: str | None = None) -> Path:
    """Write one value per vertex as a GIFTI file, float32.

    Parameters
    ----------
    values : (n_vertices,) or (k, n_vertices) array
        k maps of one hemisphere.
    path : path
        Ends in ``.gii``, such as ``scores.L.func.gii``; replaced if it exists.
    structure : str, optional
        What viewers are told it lies on: "CortexLeft" or "CortexRight".

    Returns
    -------
    Path

    Raises
    ------
    InputError
        `values` are no such array, or `path` is no GIFTI file.
    StorageError
        `path` cannot be written.
    """
    gifti, path = import_nibabel().gifti, as_path(path, "path")
    if path.suffix != ".gii":
        raise InputError(f"path={str(path)!r} must end in .gii.")
    values = np.atleast_2d(check_values(values, "n_vertices")).astype(np.float32)
    about = {} if structure is None else {"AnatomicalStructurePrimary": structure}
    arrays = [
        gifti.GiftiDataArray(row, intent="NIFTI_INTENT_NONE", datatype="NIFTI_TYPE_FLOAT32")
        for row in values
    ]
    image = gifti.GiftiImage(meta=gifti.GiftiMetaData(about), darrays=arrays)
    check_folder(path.parent, "path")
    with replaced(path) as partial:
        partial.write_bytes(image.to_bytes())
    return path


def _read(path: Any) -> np.ndarray:
    nibabel, path = import_nibabel(), as_path(path, "paths")
    if not path.is_file():
        raise InputError(f"paths: {str(path)!r} does not exist; check the path.")
    try:
        image = nibabel.load(path)
        arrays = [(array.intent, np.asarray(array.data)) for array in image.darrays]
    except Exception as error:  # a damaged file may raise anything
        raise InputError(
            f"paths: {str(path)!r} cannot be read as GIFTI ({one_line(error)})."
        ) from error
    codes = nibabel.nifti1.intent_codes.niistring
    if not arrays or any(codes[intent] in _GEOMETRY for intent, _ in arrays):
        raise InputError(
            f"paths: {str(path)!r} holds no data of vertices, but "
            f"{'a surface' if arrays else 'nothing'}; give a .func.gii or .shape.gii file."
        )
    # a sample is an array of its own, or a column of one array
    return np.vstack([np.atleast_2d(data.T) for _, data in arrays]).astype(np.float32)
