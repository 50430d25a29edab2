"""Brain images: loaded lazily, masked, compared, written. The sole importer of nibabel."""

import gzip
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ridgemm.errors import InputError, as_path, one_line
from ridgemm.optional import import_optional
from ridgemm.store import check_folder, checksum, key, replaced

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
        if not import_nibabel().is_proxy(self.image.dataobj):
            return []
        names = {holder.filename for holder in self.image.file_map.values()}
        return sorted(os.path.abspath(name) for name in names if name is not None)

    def kept_open(self) -> "Run":
        """The same of a file that stays open: a packed one is then unpacked only once."""
        if not self.files:
            return self
        return Run(self.name, import_nibabel().load(self.files[-1], keep_file_open=True))

    def source(self, hashed: bool) -> list[dict[str, Any]]:
        """What tells that the data are the same."""
        if not self.files:
            data = self.image.dataobj
            # a volume at a time: a digest needs a copy of what it reads
            volumes = [key(np.asarray(data[..., t])) for t in range(self.n_volumes)]
            return [{"hash": key(list(data.shape), data.dtype.str, volumes)}]
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
        return len(new) == len(old) and all(map(_same, new, old))


def _same(now: dict[str, Any], then: dict[str, Any]) -> bool:
    """Whether a file, or an array, is the one of a record."""
    if "path" not in now:
        return now == then
    if all(now[name] == then.get(name) for name in now):
        return True
    return now["size"] == then.get("size") and checksum(Path(now["path"])) == then["hash"]


def import_nibabel() -> Any:
    """nibabel, or an error that names the extra."""
    return import_optional("nibabel", "neuro", "reading and writing brain images")


def load_image(image: Any, argument: str) -> Any:
    """A nibabel image, from a path or as it is."""
    nibabel = import_nibabel()
    if isinstance(image, nibabel.spatialimages.SpatialImage):
        return image
    if isinstance(image, np.ndarray):
        raise InputError(
            f"{argument} is an array, which does not say where its voxels lie; wrap it, as in "
            "nibabel.Nifti1Image(array, affine)."
        )
    path = as_path(image, argument)
    if not path.is_file():
        raise InputError(f"{argument}={str(path)!r} does not exist; check the path.")
    try:
        loaded = nibabel.load(path)
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


def read_data(image: Any, name: str, volumes: slice | None = None) -> np.ndarray:
    """The values of an image, or of some of its volumes."""
    try:
        return np.asarray(image.dataobj if volumes is None else image.dataobj[..., volumes])
    except Exception as error:  # a file cut short, or a damaged stream
        raise InputError(
            f"{name}: its values cannot be read ({one_line(error)}); the file is damaged."
        ) from error


def open_runs(images: Any) -> list[Run]:
    """4-D images, one for each run, from a path, an image or a list of them."""
    one = isinstance(images, (str, os.PathLike)) or not isinstance(images, Sequence)
    named = [("images", images)] if one else [(f"images[{i}]", x) for i, x in enumerate(images)]
    if not named:
        raise InputError("images is an empty list; give at least one 4-D image.")
    runs = [Run(name, load_image(image, name)) for name, image in named]
    runs = [run.kept_open() for run in runs]
    for run in runs:
        if len(run.image.shape) != 4 or 0 in run.image.shape:
            raise InputError(
                f"{run.name} has shape {run.image.shape}, but 4-D is wanted: (x, y, z, volumes). "
                "Volumes in files of their own are joined by nibabel.concat_images."
            )
        if run.image.get_data_dtype().kind not in "biuf":
            raise InputError(
                f"{run.name} has values of dtype {run.image.get_data_dtype()}; real numbers are "
                "wanted."
            )
    return runs


def inside_mask(mask: Any) -> np.ndarray:
    """(x, y, z) bool of a mask image."""
    values = read_data(mask, "mask")
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
    nibabel = import_nibabel()
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


def check_values(values: Any, columns: str) -> np.ndarray:
    """Values of maps as an array of one or two axes, the last of length `columns`."""
    try:
        array = np.asarray(values)
        if array.dtype.kind not in "biuf":
            raise TypeError(f"dtype {array.dtype}")
    except (TypeError, ValueError) as error:
        raise InputError(f"values are no array of real numbers ({one_line(error)}).") from error
    if array.ndim not in (1, 2) or array.size == 0:
        raise InputError(
            f"values has shape {array.shape}, but ({columns},) or (k, {columns}) is wanted."
        )
    return array
