"""Brain images in and out: NIfTI volumes and a mask, GIFTI surfaces.

A recording is read once, a few volumes at a time, and written as rows of a float32 ``.npy``
file. Rows it is, although ridgemm reads tiles of targets: the file is then written in the order
in which images lie on disk, and a tile of row-major float32 is used where it lies, uncopied.

Voxels are in the order of ``image[mask]``, which is also nilearn's.
"""

import glob
import json
import logging
import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ridgemm.errors import InputError, as_path
from ridgemm.fitplan import parse_memory
from ridgemm.images import (
    Run,
    check_grid,
    check_values,
    inside_mask,
    load_image,
    open_runs,
    read_data,
    save_image,
)
from ridgemm.private import sweep
from ridgemm.store import check_folder, check_space, create_array, key, replaced
from ridgemm.surfaces import read_gifti, write_gifti
from ridgemm.voxels import MaskerReader, MaskReader, is_masker, map_image

log = logging.getLogger("ridgemm")

__all__ = ["masked_bold", "read_gifti", "read_map", "run_labels", "write_gifti", "write_map"]

_FORMAT = 1


def masked_bold(
    images: Any, mask: Any, out: str | Path, memory_limit: int | str | None = None
) -> Path:
    """Write the voxels of a mask as a matrix (n_samples, n_voxels), float32, for `RidgeCV.fit`.

    The file is made once. Beside it lies ``<out>.json``, which says of what it was made; the
    same call finds both and returns at once. A file of another mask, of images that have
    changed, or that was changed itself, is written again.

    Parameters
    ----------
    images : path, nibabel image, or list of them
        4-D; the volumes of a list are stacked in its order, as runs. Files are read through
        nibabel's lazy proxy, so that an image may be larger than RAM.
    mask : path, nibabel image or nilearn masker
        3-D, of zeros and one other value, on the grid of the images. A masker does what it
        was made to do (smoothing, cleaning, regions of an atlas), a whole run in RAM at a time.
    out : path
        A ``.npy`` file to write.
    memory_limit : int, str or None
        As for `RidgeCV`.

    Returns
    -------
    Path
        `out`, ready to be given to `RidgeCV.fit` as Y.

    Raises
    ------
    InputError
        An image or the mask is missing, unreadable or of the wrong shape, their grids differ,
        the mask is empty, `out` is another file, or nibabel is not installed.
    MemoryLimitError
        Not even one volume fits; says what would do.
    StorageError
        `out` cannot be written, or the disk is too full.

    Examples
    --------
    >>> import tempfile
    >>> import nibabel
    >>> bold = nibabel.Nifti1Image(np.arange(24.0).reshape(2, 2, 2, 3), np.eye(4))
    >>> inside = np.zeros((2, 2, 2), np.uint8)
    >>> inside[0, 0, 0] = inside[1, 1, 0] = 1
    >>> mask = nibabel.Nifti1Image(inside, np.eye(4))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     np.load(masked_bold(bold, mask, f"{folder}/bold.npy"))
    array([[ 0., 18.],
           [ 1., 19.],
           [ 2., 20.]], dtype=float32)
    """
    limit = parse_memory(memory_limit)
    out = as_path(out, "out")
    if out.suffix != ".npy":
        raise InputError(f"out={str(out)!r} must end in .npy.")
    runs = open_runs(images)
    reader = (MaskerReader if is_masker(mask) else MaskReader)(mask, runs, limit)
    record = {
        "format": _FORMAT,
        "volumes": [run.n_volumes for run in runs],
        "affines": [run.affine.tolist() for run in runs],
        "mask": reader.fingerprint,
    }
    if _is_current(out, record, runs):
        log.info("%s is up to date", out)
        return out
    record["sources"] = [run.source(hashed=True) for run in runs]
    _write(out, runs, reader, record)
    return out


def run_labels(out: str | Path) -> np.ndarray:
    """Which run each row of a file of `masked_bold` comes from: ``groups`` for the fit.

    Parameters
    ----------
    out : path
        The ``.npy`` file.

    Returns
    -------
    (n_samples,) int
    """
    out = as_path(out, "out")
    record = _read_record(out)
    if record is None:
        raise InputError(f"out={str(out)!r} was not written by masked_bold; make it first.")
    return np.repeat(np.arange(len(record["volumes"])), record["volumes"])


def write_map(values: Any, mask: Any, path: str | Path) -> Path:
    """Write one value per voxel of a mask as a float32 NIfTI image on the mask's grid.

    Outside the mask the image is NaN, which viewers show as nothing: 0 would be a score of
    0 and a p-value of 0.

    Parameters
    ----------
    values : (n_voxels,) or (k, n_voxels) array
        k maps make a 4-D image.
    mask : path, nibabel image or nilearn masker
        As for `masked_bold`.
    path : path
        Ends in ``.nii`` or ``.nii.gz``; replaced if it exists.

    Returns
    -------
    Path

    Raises
    ------
    InputError
        The number of values is not that of the voxels, or `path` is no NIfTI file.
    StorageError
        `path` cannot be written.

    Examples
    --------
    >>> import tempfile
    >>> import nibabel
    >>> mask = nibabel.Nifti1Image(np.eye(2, dtype=np.uint8)[:, :, None], np.eye(4))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = write_map([1, 2], mask, f"{folder}/map.nii.gz")
    ...     nibabel.load(path).get_fdata()[:, :, 0]
    array([[ 1., nan],
           [nan,  2.]])
    """
    path = as_path(path, "path")
    if not path.name.endswith((".nii", ".nii.gz")):
        raise InputError(f"path={str(path)!r} must end in .nii or .nii.gz.")
    values = check_values(values, "n_voxels")
    image = map_image(values, mask)
    save_image(path, image, packed=path.suffix == ".gz")
    return path


def read_map(path: str | Path, mask: Any) -> np.ndarray:
    """The values of an image inside a mask: what `write_map` wrote.

    Parameters
    ----------
    path : path or nibabel image
        3-D, or 4-D of k maps.
    mask : path or nibabel image

    Returns
    -------
    (n_voxels,) or (k, n_voxels) float32

    Raises
    ------
    InputError
        It is unreadable or on another grid than the mask.
    """
    image, mask = load_image(path, "path"), load_image(mask, "mask")
    inside = inside_mask(mask)
    check_grid(image, mask, "path")
    return read_data(image, "path")[inside].T.astype(np.float32)


def _record_path(out: Path) -> Path:
    # not bold.json, which in a BIDS folder is somebody else's
    return out.with_name(f"{out.name}.json")


def _read_record(out: Path) -> dict[str, Any] | None:
    """What lies beside a file of `masked_bold`; None where nothing readable does."""
    try:
        record = json.loads(_record_path(out).read_text())
        sound = record.pop("checksum", None) == key(record) and record["format"] == _FORMAT
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return None
    return record if sound else None


def _stamp(path: Path) -> list[int]:
    stat = path.stat()
    return [stat.st_size, stat.st_mtime_ns]


def _is_current(out: Path, record: dict[str, Any], runs: Sequence[Run]) -> bool:
    """Whether `out` was made of the same, and left alone since."""
    if not os.path.lexists(out):
        return False
    old = _read_record(out)
    if old is None:
        raise InputError(
            f"out={str(out)!r} exists and was not written by masked_bold; remove it, or give "
            "another name."
        )
    if any(old[name] != record[name] for name in record):
        return False
    if not all(run.is_made_of(then) for run, then in zip(runs, old["sources"], strict=True)):
        return False
    if _stamp(out) != old["stamp"]:
        warnings.warn(
            f"{str(out)!r} was changed after it had been written; it is written again",
            RuntimeWarning,
            stacklevel=3,
        )
        return False
    return True


def _write(out: Path, runs: Sequence[Run], reader: Any, record: dict[str, Any]) -> None:
    """Write `out` under a private name, rename it, and its record last."""
    shape = sum(record["volumes"]), reader.n_columns
    check_folder(out.parent, "out")
    sweep(out.parent, f"{glob.escape(out.name)}*~*")
    check_space(out.parent, 4 * shape[0] * shape[1], f"out={str(out)!r}")
    with replaced(out) as partial:
        array = create_array(partial, shape, np.float32)
        row = 0
        for run in runs:
            for block in reader.blocks(run):
                array[row : row + len(block)] = block
                row += len(block)
        array.flush()
        del array
    record |= {"shape": list(shape), "stamp": _stamp(out)}
    record["checksum"] = key(record)
    with replaced(_record_path(out)) as partial:
        partial.write_text(json.dumps(record, indent=1))
