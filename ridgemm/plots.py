"""Pictures of maps, alphas and nulls, each a matplotlib Figure.

Figures are made without pyplot: no global state, no window, safe in any thread. Each function
draws into `figure` if it is given one, such as a panel of ``plt.figure().subfigures(1, 2)``.
Colours keep apart for the colour-blind; what has a sign gets two hues that meet at 0.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from ridgemm.errors import InputError, one_line
from ridgemm.mapplots import DIVERGING, new_figure, plot_map, plot_pvalues
from ridgemm.null import tail_statistic

OBSERVED, NULL, THRESHOLD = "#0072B2", "#9a9a9a", "#D55E00"
_LINES = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#D55E00", "#56B4E9", "#000000")
_MARKERS = "os^Dv<>"
_MOST_BINS, _FEWEST_BINS, _MOST_TICKS = 60, 10, 7

__all__ = [
    "count_alphas",
    "fwer_threshold",
    "new_figure",
    "plot_alphas",
    "plot_cv_curves",
    "plot_map",
    "plot_null",
    "plot_null_max",
    "plot_pvalues",
    "plot_rois",
    "plot_scores",
    "plot_similarity",
]


# -- alphas ----------------------------------------------------------------------------------


def plot_alphas(chosen: Any, alphas: Any, *, figure: Any = None) -> Any:
    """Draw how many targets chose each alpha.

    Many at either end say that the grid should be wider.

    Parameters
    ----------
    chosen : (n_targets,) array
        ``model.alpha_``.
    alphas : (n_alphas,) array
        The candidates.
    figure : Figure or SubFigure, optional

    Returns
    -------
    Figure

    Examples
    --------
    >>> figure = plot_alphas([1, 10, 10], [0.1, 1, 10])
    >>> [int(bar.get_height()) for bar in figure.axes[0].patches]
    [0, 1, 2]
    """
    alphas, counts = count_alphas(chosen, alphas)
    figure, axes = _panel(figure)
    axes.bar(range(len(alphas)), counts, color=OBSERVED)
    _alpha_ticks(axes, alphas)
    axes.set(xlabel="alpha", ylabel="targets", title="Chosen alphas")
    return figure


def count_alphas(chosen: Any, alphas: Any) -> tuple[np.ndarray, list[int]]:
    """The candidates in order, and the number of targets that chose each."""
    alphas = np.unique(np.asarray(alphas, dtype=np.float64))
    chosen = np.atleast_1d(np.asarray(chosen, dtype=np.float64))
    return alphas, [int(np.count_nonzero(chosen == alpha)) for alpha in alphas]


def _alpha_ticks(axes: Any, alphas: np.ndarray) -> None:
    """Label some of the candidates, which stand one beside the other."""
    ticks = np.arange(0, len(alphas), -(-len(alphas) // _MOST_TICKS))
    axes.set_xticks(ticks, [f"{alphas[i]:.3g}" for i in ticks])


def plot_cv_curves(
    cv_scores: Any,
    alphas: Any,
    targets: Sequence[int] | None = None,
    *,
    names: Sequence[str] | None = None,
    label: str = "score",
    figure: Any = None,
) -> Any:
    """Draw the cross-validated score of every alpha, for some targets; rings mark the best.

    Parameters
    ----------
    cv_scores : (n_alphas, n_targets) or (n_alphas,) array
        ``model.cv_scores_``.
    alphas : (n_alphas,) array
    targets : list of int, optional
        At most seven. Default: five, from the worst to the best predicted.
    names : list of str, optional
        Of those targets.
    label : str
        The score's name.
    figure : Figure or SubFigure, optional

    Returns
    -------
    Figure

    Raises
    ------
    InputError
        Shapes differ, or a target does not exist.

    Examples
    --------
    >>> figure = plot_cv_curves([[0.1, 0.2], [0.3, 0.1]], [1, 10], targets=[1])
    >>> [line.get_label() for line in figure.axes[0].lines[:1]]
    ['target 1']
    """
    scores, alphas = np.asarray(cv_scores), np.asarray(alphas, dtype=np.float64)
    one = scores.ndim == 1
    scores = scores.reshape(len(scores), -1)
    if scores.shape[0] != len(alphas):
        raise InputError(f"cv_scores has shape {scores.shape}, but there are {len(alphas)} alphas.")
    order = np.argsort(alphas)
    if targets is None:
        best = np.argsort(scores.max(axis=0), kind="stable")
        places = np.linspace(0, scores.shape[1] - 1, min(5, scores.shape[1])).round().astype(int)
        targets = [int(t) for t in best[places]]
    wrong = [t for t in targets if not 0 <= t < scores.shape[1]]
    if wrong or not 0 < len(targets) <= len(_LINES):
        raise InputError(
            f"targets={one_line(targets)}: give one to {len(_LINES)} numbers between 0 and "
            f"{scores.shape[1] - 1}."
        )
    if names is None:
        names = ["all targets"] if one else [f"target {t}" for t in targets]
    figure, axes = _panel(figure)
    for target, name, colour, marker in zip(targets, names, _LINES, _MARKERS, strict=False):
        curve = scores[order, target]
        axes.plot(curve, color=colour, marker=marker, markersize=4, label=name)
        top = int(np.argmax(curve))
        axes.plot(top, curve[top], "o", color=colour, markersize=11, fillstyle="none")
    _alpha_ticks(axes, alphas[order])
    axes.set(xlabel="alpha", ylabel=label, title="Cross-validated scores")
    _legend(axes)
    return figure


# -- scores and nulls ------------------------------------------------------------------------


def plot_scores(scores: Any, *, label: str = "score", figure: Any = None) -> Any:
    """Draw the distribution of scores over targets.

    Parameters
    ----------
    scores : (n_targets,) array
        NaN is left out.
    label : str
    figure : Figure or SubFigure, optional

    Returns
    -------
    Figure
    """
    scores = _finite(scores, "scores")
    figure, axes = _panel(figure)
    axes.hist(scores, bins=_bins(scores), color=OBSERVED)
    middle = float(np.median(scores))
    axes.axvline(middle, color=THRESHOLD, linestyle="--", label=f"median {middle:.3g}")
    axes.set(xlabel=label, ylabel="targets", title="Scores")
    _legend(axes)
    return figure


def plot_null_max(
    scores: Any,
    null_max: Any,
    *,
    level: float = 0.05,
    two_sided: bool = False,
    label: str = "score",
    title: str = "",
    figure: Any = None,
) -> Any:
    """Draw the scores beside the null of their maximum, and the threshold of the FWER.

    Parameters
    ----------
    scores : (n_targets,) array
    null_max : (n_permutations,) array
        Maximum over targets in each permutation.
    level : float
        Family-wise error. No line is drawn where it asks for more permutations.
    two_sided : bool
        Absolute values were tested.
    label, title : str
    figure : Figure or SubFigure, optional

    Returns
    -------
    Figure

    Examples
    --------
    >>> figure = plot_null_max([0.1, 0.9], np.linspace(0, 0.5, 99), level=0.05)
    >>> float(round(figure.axes[0].lines[0].get_xdata()[0], 2))
    0.48
    """
    statistic = _finite(tail_statistic(np.asarray(scores), two_sided), "scores")
    null_max = _finite(null_max, "null_max")
    figure, axes = _panel(figure)
    options = {"density": True, "alpha": 0.65}
    axes.hist(statistic, bins=_bins(statistic), color=OBSERVED, label="observed", **options)
    axes.hist(
        null_max, bins=_bins(null_max), color=NULL, label="null, maximum over targets", **options
    )
    threshold = fwer_threshold(null_max, level)
    if threshold is not None:
        axes.axvline(
            threshold, color=THRESHOLD, linestyle="--", label=f"FWER {level:g}: {threshold:.3g}"
        )
    axes.set(xlabel=f"|{label}|" if two_sided else label, ylabel="density", title=title)
    _legend(axes)
    return figure


def fwer_threshold(null_max: Any, level: float) -> float | None:
    """The null maximum that a score has to exceed for a corrected p of at most `level`.

    The k-th largest of m maxima, ``k = floor(level (m + 1))``: a score above it is exceeded by
    at most k - 1. None where m is too small for the level.

    Examples
    --------
    >>> fwer_threshold([3, 1, 2], 0.5), fwer_threshold([3, 1, 2], 0.05)
    (2.0, None)
    """
    rank = int(np.floor(level * (1 + len(null_max)) * (1 + 1e-12))) - 1
    return None if rank < 0 else float(np.sort(null_max)[::-1][min(rank, len(null_max) - 1)])


def plot_null(
    observed: float,
    null: Any,
    *,
    pvalue: float | None = None,
    label: str = "score",
    name: str = "",
    figure: Any = None,
) -> Any:
    """Draw the null of one target and its observed score.

    Parameters
    ----------
    observed : float
    null : (n_permutations,) array
        A column of ``result.null``.
    pvalue : float, optional
        For the legend: of ``result.pvalues``.
    label, name : str
        Of the score and of the target.
    figure : Figure or SubFigure, optional

    Returns
    -------
    Figure
    """
    null = _finite(null, "null")
    figure, axes = _panel(figure)
    told = f"observed {observed:.3g}" + ("" if pvalue is None else f", p {pvalue:.2g}")
    axes.hist(null, bins=_bins(null), color=NULL, label=f"{len(null)} permutations")
    axes.axvline(observed, color=OBSERVED, linewidth=2, label=told)
    axes.set(xlabel=label, ylabel="permutations", title=name)
    _legend(axes)
    return figure


def plot_rois(
    scores: Any,
    null: Any,
    rois: Any,
    *,
    label: str = "score",
    figure: Any = None,
) -> Any:
    """Draw the mean score of each region, and beside it the same of the permutations.

    Whiskers hold 95 % of the permutations.

    Parameters
    ----------
    scores : (n_targets,) array
    null : (n_permutations, n_targets) array
        ``result.null``, of a test with ``keep_null=True``.
    rois : (n_targets,) array
        Name of each target's region; None, NaN or "" for none.
    label : str
    figure : Figure or SubFigure, optional

    Returns
    -------
    Figure

    Raises
    ------
    InputError
        Shapes differ, or no target has a region.

    Examples
    --------
    >>> figure = plot_rois([1, 3, 5], np.zeros((9, 3)), ["V1", "V1", "V2"])
    >>> [float(bar.get_width()) for bar in figure.axes[0].containers[0]]
    [2.0, 5.0]
    """
    scores, rois = np.asarray(scores, dtype=np.float64), np.asarray(rois)
    if rois.shape != scores.shape or np.ndim(null) != 2 or np.shape(null)[1:] != scores.shape:
        raise InputError(
            f"scores {scores.shape}, null {np.shape(null)} and rois {rois.shape} must agree: "
            "(n_targets,), (n_permutations, n_targets) and (n_targets,)."
        )
    texts = np.array(["" if r is None or r != r else str(r) for r in rois.tolist()])
    names = sorted(set(texts.tolist()) - {""})
    if not names:
        raise InputError("rois names no region; give one name for each target.")
    members = [np.flatnonzero((texts == name) & np.isfinite(scores)) for name in names]
    observed = [scores[some].mean() if len(some) else np.nan for some in members]
    # a region at a time: the null may be larger than RAM
    nulls = [np.asarray(null[:, some], dtype=np.float64).mean(axis=1) for some in members]
    middle = np.array([some.mean() for some in nulls])
    low, high = np.percentile(nulls, (2.5, 97.5), axis=1)
    figure, axes = _panel(figure, 7, 1.6 + 0.45 * len(names))
    places = np.arange(len(names))
    axes.barh(places - 0.2, observed, 0.4, color=OBSERVED, label="observed")
    axes.barh(
        places + 0.2,
        middle,
        0.4,
        xerr=np.maximum([middle - low, high - middle], 0),
        color=NULL,
        ecolor="#404040",
        capsize=3,
        label="permuted, 95 %",
    )
    counted = [f"{name} ({len(some)})" for name, some in zip(names, members, strict=True)]
    axes.set_yticks(places, counted)
    axes.invert_yaxis()
    axes.axvline(0, color="#404040", linewidth=0.8)
    axes.set(xlabel=f"mean {label}", ylabel="region (targets)")
    figure.legend(loc="outside lower right", ncols=2, fontsize="small")
    return figure


def plot_similarity(maps: Any, names: Sequence[str] | None = None, *, figure: Any = None) -> Any:
    """Draw the spatial correlation of maps, such as those of several subjects.

    Parameters
    ----------
    maps : (n_maps, n_voxels) array
        On the same voxels; a voxel that is NaN in any map is left out.
    names : list of str, optional
    figure : Figure or SubFigure, optional

    Returns
    -------
    Figure

    Raises
    ------
    InputError
        Fewer than two maps, or fewer than two voxels that all of them have.

    Examples
    --------
    >>> figure = plot_similarity([[1, 2, 3], [3, 2, 1]], ["one", "two"])
    >>> [text.get_text() for text in figure.axes[0].texts]
    ['1.00', '-1.00', '-1.00', '1.00']
    """
    maps = np.asarray(maps, dtype=np.float64)
    if maps.ndim != 2 or len(maps) < 2:
        raise InputError(f"maps has shape {maps.shape}; give (n_maps, n_voxels) of two or more.")
    common = maps[:, np.isfinite(maps).all(axis=0)]
    if common.shape[1] < 2:
        raise InputError("maps have fewer than two voxels in common that are not NaN.")
    with np.errstate(invalid="ignore", divide="ignore"):
        r = np.corrcoef(common)  # NaN, drawn as nothing, for a map that is constant
    names = [f"map {i}" for i in range(len(maps))] if names is None else names
    figure, axes = _panel(figure, *[2.5 + 0.55 * max(4, len(maps))] * 2)
    image = axes.imshow(r, cmap=DIVERGING, vmin=-1, vmax=1)
    places = range(len(maps))
    axes.set_xticks(places, names, rotation=45, ha="right", rotation_mode="anchor")
    axes.set_yticks(places, names)
    if len(maps) <= 12:
        for i, j in np.ndindex(r.shape):
            colour = "white" if abs(r[i, j]) > 0.6 else "black"
            axes.text(j, i, f"{r[i, j]:.2f}", ha="center", va="center", color=colour, fontsize=8)
    figure.colorbar(image, ax=axes, label="Pearson r over voxels", shrink=0.8)
    axes.set_title(f"Spatial correlation, {common.shape[1]} voxels", fontsize="medium")
    return figure


def _panel(figure: Any, *size: float) -> tuple[Any, Any]:
    """The figure, or a new one, and axes that fill it."""
    figure = new_figure(*size) if figure is None else figure
    return figure, figure.subplots()


def _finite(values: Any, argument: str) -> np.ndarray:
    values = np.asarray(values, dtype=np.float64).ravel()
    finite = values[np.isfinite(values)]
    if not len(finite):
        raise InputError(f"{argument} holds no number that is finite; there is nothing to draw.")
    return finite


def _bins(values: np.ndarray) -> int:
    return min(_MOST_BINS, max(_FEWEST_BINS, len(values) // 5))


def _legend(axes: Any) -> None:
    """A legend where it covers least."""
    axes.legend(loc="best", fontsize="small", framealpha=0.9)
