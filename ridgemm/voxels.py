"""Volumes as rows: through a mask, or through a nilearn masker."""

import functools
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from ridgemm.errors import InputError, MemoryLimitError, one_line
from ridgemm.fitplan import format_bytes
from ridgemm.images import Run, check_grid, image_like, inside_mask, load_image, read_data
from ridgemm.store import key
from ridgemm.tiles import spans

# larger blocks are no faster
_LARGEST_BLOCK = 1 << 28
# of a masker: what changes no value
_NO_MATTER = ("memory", "memory_level", "n_jobs", "verbose", "reports", "cmap", "mask_img")
_MASKER_IMAGES = ("mask_img_", "labels_img_", "maps_img_")


class MaskReader:
    """Blocks of volumes through a mask."""

    def __init__(self, mask: Any, runs: Sequence[Run], limit: int):
        image = load_image(mask, "mask")
        inside = inside_mask(image)
        for run in runs:
            check_grid(run.image, image, run.name)
        # the first index of an image runs fastest on disk
        self._index = np.ravel_multi_index(np.nonzero(inside), inside.shape, order="F")
        self.n_columns = len(self._index)
        self.fingerprint = key(inside, image.affine)
        self._step = _volumes_per_block(runs, inside.size, self.n_columns, limit)

    def blocks(self, run: Run) -> Iterator[np.ndarray]:
        """(n_volumes, n_voxels) pieces of a run."""
        for span in spans(run.n_volumes, self._step):
            block = read_data(run.image, run.name, span)
            yield block.reshape(-1, block.shape[3], order="F").T.take(self._index, axis=1)


def _volumes_per_block(runs: Sequence[Run], n_grid: int, n_voxels: int, limit: int) -> int:
    item = max(run.image.get_data_dtype().itemsize for run in runs)
    # as stored, in float64 times the slope and plus the intercept; then inside the mask
    one = n_grid * (item + 16) + 8 * n_voxels
    if one > limit:
        raise MemoryLimitError(
            f"memory_limit={format_bytes(limit)} is too small: one volume needs {one} bytes "
            f"({format_bytes(one)})."
        )
    return min(limit, _LARGEST_BLOCK) // one or 1


def is_masker(mask: Any) -> bool:
    """Whether it has the methods of a nilearn masker."""
    return hasattr(mask, "transform") and hasattr(mask, "inverse_transform")


def fitted_masker(masker: Any) -> Any:
    """The masker, or a fitted copy of one that was not."""
    from sklearn.base import clone
    from sklearn.exceptions import NotFittedError
    from sklearn.utils.validation import check_is_fitted

    try:
        check_is_fitted(masker)
        return masker
    except NotFittedError:
        pass
    try:
        return clone(masker).fit()
    except Exception as error:
        raise InputError(
            f"mask is a masker that is not fitted and cannot be ({one_line(error)}); call "
            "mask.fit(images) first."
        ) from error


class MaskerReader:
    """Whole runs through a nilearn masker."""

    def __init__(self, mask: Any, runs: Sequence[Run], limit: int):
        self._masker = fitted_masker(mask)
        self._first = runs[0]
        # what nilearn holds: the data in float64, a copy that is cleaned, a temporary
        needed = max(3 * 8 * int(np.prod(run.image.shape)) for run in runs)
        if needed > limit:
            raise MemoryLimitError(
                f"memory_limit={format_bytes(limit)} is too small for a masker, which holds a "
                f"whole run: it needs about {needed} bytes ({format_bytes(needed)}); give a mask "
                "image, or shorter runs."
            )

    @property
    def fingerprint(self) -> str:
        """Of everything that the masker does."""
        masker = self._masker
        parameters = {name: repr(value) for name, value in masker.get_params(deep=False).items()}
        for name in _NO_MATTER:
            parameters.pop(name, None)
        images = [getattr(masker, name, None) for name in _MASKER_IMAGES]
        parts = [(np.asarray(i.dataobj), i.affine) for i in images if i is not None]
        return key(type(masker).__name__, parameters, *(part for pair in parts for part in pair))

    @functools.cached_property
    def _first_block(self) -> np.ndarray:
        return self._transform(self._first)

    @property
    def n_columns(self) -> int:
        """Known after the first run was read."""
        return self._first_block.shape[1]

    def _transform(self, run: Run) -> np.ndarray:
        try:
            return np.asarray(self._masker.transform(run.image))
        except Exception as error:
            raise InputError(
                f"{run.name}: the masker cannot transform it ({one_line(error)})."
            ) from error

    def blocks(self, run: Run) -> Iterator[np.ndarray]:
        """(n_volumes, n_columns), all of a run."""
        yield self._first_block if run is self._first else self._transform(run)


def map_image(values: np.ndarray, mask: Any) -> Any:
    """An image of values, NaN outside of a mask, or where a masker puts nothing."""
    if is_masker(mask):
        return _map_of_masker(values, fitted_masker(mask))
    return _map_of_mask(values, load_image(mask, "mask"))


def _map_of_masker(values: np.ndarray, masker: Any) -> Any:
    try:
        image = masker.inverse_transform(values.astype(np.float32))
        support = masker.inverse_transform(np.ones((1, values.shape[-1]), np.float32))
    except Exception as error:
        raise InputError(
            f"values has shape {values.shape}, which the masker cannot put into an image "
            f"({one_line(error)})."
        ) from error
    data = np.array(image.dataobj, dtype=np.float32)
    data[np.asarray(support.dataobj)[..., 0] == 0] = np.nan
    return image_like(data, image)


def _map_of_mask(values: np.ndarray, mask: Any) -> Any:
    inside = inside_mask(mask)
    n_voxels = np.count_nonzero(inside)
    if values.shape[-1] != n_voxels:
        turned = "; pass values.T" if values.ndim == 2 and len(values) == n_voxels else ""
        raise InputError(
            f"values has shape {values.shape}, but the mask has {n_voxels} voxels, which must be "
            f"the length of its last axis{turned}."
        )
    data = np.full((*inside.shape, *values.shape[:-1]), np.nan, dtype=np.float32, order="F")
    data[inside] = values.T
    return image_like(data, mask)
