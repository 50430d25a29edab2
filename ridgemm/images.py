"""Brain images: loaded lazily, masked, compared, written. The sole importer of nibabel."""

import contextlib
import gzip
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ridgemm.errors import InputError, as_path, one_line
from ridgemm.optional import import_optional
from ridgemm.private import private_name, remove
from ridgemm.store import check_folder, checksum, key, storage_error

# grids that lie apart by less, in voxels, are one: affines are often stored as float32
_GRID_TOLERANCE = 0.01


@dataclass(frozen=True)
class Run:
    """A 4-D image: where it comes from, and its volumes, lazily."""

    name: str
    image: Any

    @property
    def n_volumes(self) -> int:
        return self.image.shape[3]

    @property
    def affine(self) -> np.ndarray:
        return self.image.affine

    @property
    def files(self) -> list[str]:
        """What it is read from, if it is read from files."""
        if not _nibabel().is_proxy(self.image.dataobj):
            return []
        names = {holder.filename for holder in self.image.file_map.values()}
        return sorted(os.path.abspath(name) for name in names if name is not None)

    def source(self, hashed: bool) -> list[dict[str, Any]]:
        """What tells that the data are the same."""
        if not self.files:
            data = np.asarray(self.image.dataobj)
            return [{"hash": key(list(data.shape), data.dtype.str, data)}]
        found = []
        for name in self.files:
            stat = os.stat(name)
            found.append({"path": name, "size": stat.st_size, "mtime_ns": stat.st_mtime_ns})
            if hashed:
                found[-1]["hash"] = checksum(Path(name))
        return found

    def is_made_of(self, old: list[dict[str, Any]]) -> bool:
        """Whether the data are those of a record; contents decide where dates differ."""
        new = self.source(hashed=False)
        if len(new) != len(old):
            return False
        for now, then in zip(new, old, strict=True):
            same_place = "path" in now and all(now[name] == then.get(name) for name in now)
            if same_place or now.get("hash", "") == then["hash"]:
                continue
            if now.get("size") != then.get("size") or checksum(Path(now["path"])) != then["hash"]:
                return False
        return True


def _nibabel() -> Any:
    return import_optional("nibabel", "neuro", "reading and writing brain images")


def load_image(image: Any, argument: str) -> Any:
    """A nibabel image, from a path or as it is."""
    nibabel = _nibabel()
    if isinstance(image, nibabel.spatialimages.SpatialImage):
        return image
    path = as_path(image, argument)
    if not path.is_file():
        raise InputError(f"{argument}={str(path)!r} does not exist; check the path.")
    try:
        # a file kept open is unpacked once, instead of from its start for every block
        loaded = nibabel.load(path, keep_file_open=True)
    except Exception as error:  # a damaged header may raise anything
        raise InputError(
            f"{argument}={str(path)!r} cannot be read as an image ({one_line(error)})."
        ) from error
    if not isinstance(loaded, nibabel.spatialimages.SpatialImage):
        raise InputError(
            f"{argument}={str(path)!r} is a {type(loaded).__name__}, not a volume with an affine; "
            "surfaces are read by read_gifti."
        )
    return loaded


def open_runs(images: Any) -> list[Run]:
    one = isinstance(images, (str, os.PathLike)) or not isinstance(images, Sequence)
    named = [("images", images)] if one else [(f"images[{i}]", x) for i, x in enumerate(images)]
    if not named:
        raise InputError("images is an empty list; give at least one 4-D image.")
    runs = [Run(name, load_image(image, name)) for name, image in named]
    for run in runs:
        if len(run.image.shape) != 4 or 0 in run.image.shape:
            raise InputError(
                f"{run.name} has shape {run.image.shape}, but 4-D is wanted: (x, y, z, volumes). "
                "Volumes in files of their own are joined by nibabel.concat_images."
            )
    return runs


def inside_mask(mask: Any) -> np.ndarray:
    """(x, y, z) bool of a mask image."""
    values = np.asarray(mask.dataobj)
    if values.ndim == 4 and values.shape[3] == 1:
        values = values[..., 0]
    if values.ndim != 3:
        raise InputError(f"mask has shape {values.shape}, but 3-D is wanted.")
    inside = np.nan_to_num(values) != 0
    if not inside.any():
        raise InputError("mask is empty: no voxel differs from 0.")
    kinds = np.unique(values[inside])
    if len(kinds) > 1:
        raise InputError(
            f"mask has {len(kinds)} values other than 0 ({kinds[0]:g} to {kinds[-1]:g}); "
            "say which are inside, as in nilearn.image.binarize_img(mask, threshold=...)."
        )
    return inside


def check_grid(image: Any, mask: Any, name: str) -> None:
    """Refuse an image whose voxels are not those of the mask."""
    shape = mask.shape[:3]
    if image.shape[:3] != shape:
        raise InputError(
            f"{name} has voxels {image.shape[:3]}, but the mask {shape}; resample one of them, "
            "as by nilearn.image.resample_to_img."
        )
    corners = np.indices((2, 2, 2)).reshape(3, -1).T * (np.array(shape) - 1)
    apart = (image.affine - mask.affine) @ np.c_[corners, np.ones(8)].T
    distance = np.linalg.norm(apart[:3], axis=0).max()
    size = np.linalg.norm(mask.affine[:3, :3], axis=0).min()
    if not distance <= _GRID_TOLERANCE * size:
        raise InputError(
            f"{name} and the mask have affines that differ: voxels lie up to {distance:.3g} mm "
            "apart; resample one of them, as by nilearn.image.resample_to_img."
        )


def image_like(data: np.ndarray, like: Any) -> Any:
    """A NIfTI image with the grid, units and codes of another."""
    nibabel = _nibabel()
    kind = nibabel.Nifti2Image if isinstance(like, nibabel.Nifti2Image) else nibabel.Nifti1Image
    image = kind(data, like.affine, like.header)
    image.header.set_data_dtype(np.float32)
    image.header.set_slope_inter(1, 0)
    # the display range of the mask would make a viewer hide the map
    image.header["cal_min"] = image.header["cal_max"] = 0
    return image


def save_image(path: Path, image: Any, packed: bool) -> None:
    check_folder(path.parent, "path")
    with replaced(path) as partial, open(partial, "wb") as file:
        if packed:
            # no name and no date: the same values give the same bytes
            with gzip.GzipFile("", "wb", fileobj=file, mtime=0) as stream:
                image.to_stream(stream)
        else:
            image.to_stream(file)


@contextlib.contextmanager
def replaced(path: Path) -> Iterator[Path]:
    """A private name to write to, renamed to `path` at the end of the block."""
    partial = path.with_name(private_name(path.name))
    try:
        yield partial
        os.replace(partial, path)
    except OSError as error:
        raise storage_error(path.parent, error) from error
    finally:
        remove(partial)
