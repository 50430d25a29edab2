"""Maps: one value per voxel, drawn where the voxel lies, by slices of an array or by nilearn."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from ridgemm.errors import InputError
from ridgemm.images import load_image
from ridgemm.optional import import_optional
from ridgemm.voxels import map_image

SEQUENTIAL, DIVERGING = "inferno", "RdBu_r"
# shares of the mask's voxels below the slices that are shown
_SLICES = (0.15, 0.5, 0.8, 0.95)
_TINY, _MASK_GREY = 1e-12, 0.85


def new_figure(width: float = 6.0, height: float = 3.6) -> Any:
    """An empty figure that no other code knows of.

    Raises
    ------
    InputError
        matplotlib is not installed.
    """
    figures = import_optional("matplotlib.figure", "plot", "the picture")
    return figures.Figure(figsize=(width, height), layout="constrained")


def plot_map(
    values: Any,
    mask: Any,
    *,
    background: Any = None,
    label: str = "score",
    title: str = "",
    signed: bool = False,
    vmax: float | None = None,
    slices: Sequence[int] | None = None,
    figure: Any = None,
) -> Any:
    """Draw one value per voxel where the voxel lies.

    Parameters
    ----------
    values : (n_voxels,) array
        NaN is not drawn, so that ``np.where(p <= 0.05, scores, np.nan)`` is a thresholded map.
    mask : (x, y) or (x, y, z) bool array, path, nibabel image or nilearn masker
        All but an array have an affine: nilearn then draws the slices, in millimetres.
    background : array or image like `mask`, optional
        Drawn in grey below the map; by default the mask is, of an array.
    label : str
        What the colours mean, with the unit.
    title : str
    signed : bool
        Two hues that meet at 0; otherwise one scale from 0, and what is below takes its end.
    vmax : float, optional
        End of the colours, to compare maps. Default: the largest value.
    slices : list of int, optional
        Along the third axis of an array; by default four, spread over the mask.
    figure : Figure or SubFigure, optional

    Returns
    -------
    Figure

    Raises
    ------
    InputError
        The numbers of values and voxels differ, or a library is not installed.

    Examples
    --------
    >>> figure = plot_map([0.1, 0.4], np.array([[True, False], [False, True]]), label="r")
    >>> [axes.get_ylabel() for axes in figure.axes]
    ['', 'r']
    """
    values = np.asarray(values, dtype=np.float64)
    if values.ndim != 1:
        raise InputError(f"values has shape {values.shape}; give one map, (n_voxels,), at a time.")
    mask = np.asarray(mask) if isinstance(mask, (list, tuple)) else mask
    colours = _colours(values, signed, vmax)
    if not isinstance(mask, np.ndarray):
        return _nilearn_map(
            values, mask, background, f"{title} ({label})" if title else label, colours, figure
        )
    inside = mask.astype(bool)
    if inside.ndim not in (2, 3) or values.shape != (np.count_nonzero(inside),):
        raise InputError(
            f"values has shape {values.shape}, but the mask of shape {inside.shape} has "
            f"{np.count_nonzero(inside)} voxels; give one value for each."
        )
    volume = np.full(inside.shape, np.nan)
    volume[inside] = values
    if figure is None:
        figure = new_figure(6, 4.2 if inside.ndim == 2 else 5.5)
    return _mosaic(figure, volume, inside, background, slices, label, title, colours)


def plot_pvalues(pvalues: Any, mask: Any, *, level: float = 0.05, **options: Any) -> Any:
    """Draw ``-log10 p`` of the voxels with a p of at most `level`.

    Parameters
    ----------
    pvalues : (n_voxels,) array
        Corrected or not: say which by ``title=``.
    mask : as in `plot_map`
    level : float
        1 shows all.
    **options
        As for `plot_map`.

    Returns
    -------
    Figure
    """
    p = np.asarray(pvalues, dtype=np.float64)
    with np.errstate(invalid="ignore", divide="ignore"):
        shown = np.where(p <= level, -np.log10(p), np.nan)
    options = {"label": "$-\\log_{10}$ p", "title": f"p of at most {level:g}", **options}
    return plot_map(shown, mask, **options)


def _colours(values: np.ndarray, signed: bool, vmax: float | None) -> dict[str, Any]:
    finite = values[np.isfinite(values)]
    if vmax is None:
        vmax = float((np.abs(finite) if signed else finite).max(initial=0)) or 1.0
    return {"cmap": DIVERGING if signed else SEQUENTIAL, "vmin": -vmax if signed else 0.0} | {
        "vmax": vmax
    }


def _mosaic(figure, volume, inside, background, slices, label, title, colours) -> Any:
    """Slices of an array side by side, with one scale of colours."""
    if volume.ndim == 2:
        volume, inside, slices = volume[:, :, None], inside[:, :, None], [0]
        background = None if background is None else np.asarray(background)[:, :, None]
        named = False
    else:
        slices, named = _spread(inside) if slices is None else slices, True
    n_columns = int(np.ceil(np.sqrt(len(slices))))
    grid = figure.subplots(-(-len(slices) // n_columns), n_columns, squeeze=False)
    for axes in grid.flat:
        axes.set_axis_off()
    for axes, level in zip(grid.flat, slices, strict=False):
        if background is None:  # the shape of the mask, for what is not drawn
            below = np.where(inside[:, :, level], _MASK_GREY, np.nan)
            axes.imshow(below.T, cmap="gray", vmin=0, vmax=1, origin="lower")
        else:
            axes.imshow(np.asarray(background)[:, :, level].T, cmap="gray", origin="lower")
        image = axes.imshow(volume[:, :, level].T, origin="lower", **colours)
        if named:
            axes.set_title(f"z = {level}", fontsize="medium")
    drawn = volume[:, :, slices]
    below, above = (drawn < colours["vmin"]).any(), (drawn > colours["vmax"]).any()
    extend = ("neither", "min", "max", "both")[below + 2 * above]
    figure.colorbar(image, ax=grid, label=label, shrink=0.8, extend=extend)
    if title:
        figure.suptitle(title)
    return figure


def _spread(inside: np.ndarray, shares: Sequence[float] = _SLICES) -> list[int]:
    """Slices spread over a mask."""
    share = np.cumsum(inside.sum(axis=(0, 1)))
    return sorted({int(level) for level in np.searchsorted(share / share[-1], shares)})


def _nilearn_map(values, mask, background, title, colours, figure) -> Any:
    plotting = import_optional("nilearn.plotting", "neuro", "a map with an affine")
    image = map_image(values, mask)
    data, inside = image.get_fdata(), np.isfinite(map_image(np.ones(len(values)), mask).get_fdata())
    kind, affine = image.__class__, image.affine
    if background is None:  # the shape of the mask, between white and black
        behind = np.where(inside, 1 - _MASK_GREY, 0)
        scale = {"vmin": 0, "vmax": 1, "cmap": "gray_r"}
    else:
        behind, scale = load_image(background, "background"), {}
        affine, behind = behind.affine, np.nan_to_num(behind.get_fdata())
    levels = _spread(inside, np.linspace(0.05, 0.95, 7))
    middle = (np.array(inside.shape[:2]) - 1) / 2
    if figure is None:
        figure = new_figure(3 + 1.2 * len(levels), 3.2)
        figure.set_layout_engine("none")  # nilearn places its axes itself
    display = plotting.plot_anat(
        kind(behind.astype(np.float32), affine),
        figure=figure,
        display_mode="z",
        cut_coords=[float(image.affine[2] @ (*middle, z, 1)) for z in levels],
        axes=(0.02, 0.02, 0.96, 0.84),
        black_bg=False,
        colorbar=False,
        **scale,
    )
    if np.isfinite(data).any():
        # nilearn leaves out what is below the threshold, NaN with a warning, and what is below vmin
        least = colours["vmin"] or _TINY
        data = np.clip(np.where(data == 0, _TINY, data), least, None)
        drawn = kind(np.nan_to_num(data).astype(np.float32), image.affine)
        display.add_overlay(drawn, threshold=_TINY / 2, colorbar=True, **colours)
    figure.suptitle(title.strip())
    return figure
