"""Reports: a fit, or a permutation test, as one HTML page with its plan, tables and pictures."""

import json
import platform
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ridgemm import page, plots
from ridgemm.errors import as_path, one_line
from ridgemm.fitplan import format_bytes
from ridgemm.journal import PLAN, TOOK
from ridgemm.null import tail_statistic

_LEVELS = (0.05, 0.01, 0.001)
_MOST_TARGETS = 10
_QUANTILES = (0, 5, 25, 50, 75, 95, 100)


def report_fit(model: Any, path: str | Path, mask: Any = None) -> Path:
    """Write what a fit chose, found and took; `RidgeCV.report` calls this.

    Parameters
    ----------
    model : RidgeCV
        Fitted, or loaded.
    path : path
        Ends in ``.html``.
    mask : bool array, path, nibabel image or nilearn masker, optional
        To draw the map of scores, as for `ridgemm.plots.plot_map`.

    Returns
    -------
    Path
    """
    path, alphas = as_path(path, "path"), np.atleast_1d(np.asarray(model.alphas, np.float64))
    scores, chosen = np.atleast_1d(model.best_score_), np.atleast_1d(model.alpha_)
    n_targets = len(model.y_offset_)
    per_target = np.ndim(model.alpha_) > 0
    shown = [
        ("targets", f"{n_targets:,}"),
        ("features", f"{model.n_features_in_:,}"),
        ("median score" if per_target else "score", f"{np.median(scores):.3f}"),
        (
            "best score" if per_target else "alpha",
            f"{(scores if per_target else chosen).max():.3g}",
        ),
    ]
    parts = [
        page.facts(shown),
        page.section("Scores", _score_table(scores) if per_target else "", _fit_notes(model)),
        page.section("Pictures", page.pictures(list(_fit_pictures(model, alphas, mask)))),
        page.section("Plan", _plan_table(model)),
        page.section("Time", page.table(_took_rows(model.took_), _TOOK_HEADER)),
        page.section("Parameters", page.table(_parameters(model))),
    ]
    subtitle = f"Cross-validated ridge regression, route {model.route_}. {_versions()}"
    return page.write_page(path, "RidgeCV: report of a fit", subtitle, parts)


def report_null(
    result: Any, path: str | Path, mask: Any = None, levels: Sequence[float] = _LEVELS
) -> Path:
    """Write what a permutation test did and found; `PermutationResult.report` calls this.

    Parameters
    ----------
    result : PermutationResult
    path : path
        Ends in ``.html``.
    mask : bool array, path, nibabel image or nilearn masker, optional
        To draw maps, as for `ridgemm.plots.plot_map`.
    levels : list of float
        Of significance; the first is that of the pictures.

    Returns
    -------
    Path
    """
    path, levels = as_path(path, "path"), list(levels)
    about = result.description
    kinds = {"uncorrected": result.pvalues, "FDR": result.pvalues_fdr, "FWER": result.pvalues_fwer}
    kinds = {name: p for name, p in kinds.items() if p is not None}
    strictest = list(kinds)[-1]
    found = int((kinds[strictest] <= levels[0]).sum())
    shown = [
        ("targets", f"{len(result.scores):,}"),
        ("permutations", f"{result.n_permutations:,}"),
        (f"found, {strictest} {levels[0]:g}", f"{found:,}"),
        ("best score", _number(np.nanmax(result.scores, initial=-np.inf))),
    ]
    counts = [
        (f"{level:g}", *(f"{int((p <= level).sum()):,}" for p in kinds.values()))
        for level in levels
    ]
    plan, took = _read_json(result.folder / PLAN), _read_json(result.folder / TOOK)
    parts = [
        page.facts(shown),
        page.section("The test", page.table(_test_rows(result))),
        page.section(
            "Targets found",
            page.table(counts, ("p of at most", *kinds)),
        ),
        page.section("Strongest targets", _strongest(result, kinds)),
        page.section("Scores", _score_table(result.scores)),
        page.section("Pictures", page.pictures(list(_null_pictures(result, mask, levels[0])))),
        page.section("Plan", _forecast_table(plan), page.bullets(plan.get("warnings", []))),
        page.section("Time", _stage_table(plan, took)),
    ]
    title = f"Permutation test: {about['scoring']} of {len(result.scores):,} targets"
    return page.write_page(path, title, f"{about['scheme']} {_versions()}", parts)


# -- pictures --------------------------------------------------------------------------------


def _fit_pictures(model: Any, alphas: np.ndarray, mask: Any) -> Iterable[str]:
    scores, label = np.atleast_1d(model.best_score_), model.scoring
    per_target = np.ndim(model.alpha_) > 0
    if mask is not None and per_target:
        figure = plots.plot_map(scores, mask, label=label, title="Cross-validated score")
        yield page.picture(figure, "Map of the cross-validated score, at the best alpha.", True)
    if per_target:
        figure = plots.plot_scores(scores, label=label)
        yield page.picture(figure, "Distribution of the best cross-validated score of each target.")
        _, counts = plots.count_alphas(model.alpha_, alphas)
        caption = "How many targets chose each alpha."
        if len(counts) > 1:
            ends = [f"{count / sum(counts):.1%}" for count in (counts[0], counts[-1])]
            caption += f" {ends[0]} chose the smallest and {ends[1]} the largest"
            caption += ": many at an end ask for a wider grid."
        yield page.picture(plots.plot_alphas(model.alpha_, alphas), caption)
    if len(alphas) > 1:
        figure = plots.plot_cv_curves(model.cv_scores_, alphas, label=label)
        caption = "Score of each alpha, averaged over folds"
        caption += ", from the worst to the best predicted target." if per_target else "."
        yield page.picture(figure, f"{caption} A ring marks the best alpha.")


def _null_pictures(result: Any, mask: Any, level: float) -> Iterable[str]:
    label = result.description["scoring"]
    if mask is not None:
        figure = plots.plot_map(
            result.scores, mask, label=label, title="Score", signed=result.two_sided
        )
        yield page.picture(figure, "Map of the score, mean over outer folds.", True)
        figure = plots.plot_pvalues(result.pvalues, mask, level=1, title="Uncorrected p")
        yield page.picture(figure, "Map of the uncorrected p-values.", True)
        corrected = result.pvalues_fdr if result.pvalues_fwer is None else result.pvalues_fwer
        name = "FDR" if result.pvalues_fwer is None else "FWER"
        shown = np.where(corrected <= level, result.scores, np.nan)
        figure = plots.plot_map(
            shown, mask, label=label, title=f"{name} {level:g}", signed=result.two_sided
        )
        yield page.picture(
            figure, f"The score where {name}-corrected p is at most {level:g}.", True
        )
    if result.null_max is not None:
        figure = plots.plot_null_max(
            result.scores, result.null_max, level=level, two_sided=result.two_sided, label=label
        )
        yield page.picture(
            figure,
            "Observed scores, and the null of their maximum over targets. A score right of the "
            f"dashed line has a FWER-corrected p of at most {level:g}.",
        )
    elif np.isfinite(result.scores).any():
        figure = plots.plot_scores(result.scores, label=label)
        yield page.picture(figure, "Distribution of the scores over targets.")
    if result.null is not None and np.isfinite(result.scores).any():
        best = int(np.nanargmax(tail_statistic(result.scores, result.two_sided)))
        figure = plots.plot_null(
            float(result.scores[best]),
            result.null[:, best],
            pvalue=float(result.pvalues[best]),
            label=label,
            name=f"target {best}",
        )
        yield page.picture(figure, "The strongest target and its own null, uncorrected.")


# -- tables ----------------------------------------------------------------------------------

_TOOK_HEADER = ("stage", "took")


def _score_table(scores: np.ndarray) -> str:
    finite = scores[np.isfinite(scores)]
    if not len(finite):
        return ""
    values = np.percentile(finite, _QUANTILES)
    names = ["smallest", *(f"{q} %" for q in _QUANTILES[1:-1]), "largest"]
    names[_QUANTILES.index(50)] = "median"
    return page.table([[_number(value) for value in values]], names)


def _fit_notes(model: Any) -> str:
    rows = []
    if np.ndim(model.alpha_) == 0:
        rows += [("alpha of all targets", f"{model.alpha_:.4g}")]
        rows += [("score, mean over targets", _number(model.best_score_))]
    rows += [("constant targets", f"{model.n_constant_targets_:,}")]
    if hasattr(model, "factors_computed_"):
        rows += [("factors made, not found in a cache", model.factors_computed_)]
    return page.table(rows)


def _plan_table(model: Any) -> str:
    # the plan prints as a table of a name and a value
    lines = (line.split("  ", 1) for line in str(model.plan_).splitlines())
    return page.table([(parts[0], parts[-1].strip()) for parts in lines])


def _parameters(model: Any) -> Iterable[tuple[str, str]]:
    for name, value in model.get_params(deep=False).items():
        if name == "alphas":
            value = ", ".join(f"{alpha:.4g}" for alpha in np.atleast_1d(value))
        yield name, value if isinstance(value, str) else one_line(value)


def _test_rows(result: Any) -> Iterable[tuple[str, str]]:
    # what `summary` prints before it counts
    for line in result.summary().splitlines():
        name, value = line[:12].strip(), line[12:].strip()
        if name not in ("uncorrected", "FDR", "FWER"):
            yield name, value


def _strongest(result: Any, kinds: dict[str, np.ndarray]) -> str:
    statistic = np.nan_to_num(tail_statistic(result.scores, result.two_sided), nan=-np.inf)
    order = np.argsort(-statistic, kind="stable")[:_MOST_TARGETS]
    rows = [
        (t, _number(result.scores[t]), *(f"{p[t]:.3g}" for p in kinds.values()))
        for t in order
        if np.isfinite(statistic[t])
    ]
    header = ("target", result.description["scoring"], *(f"p {name}" for name in kinds))
    return page.table(rows, header)


def _forecast_table(plan: dict[str, Any]) -> str:
    if not plan:
        return ""
    rows = [("route", plan["route"])]
    rows += [
        ("rejected", f"{name}, {ratio:.1f} times the flops")
        for name, ratio in plan["rejected"].items()
    ]
    rows += [("tiles", ", ".join(f"{name} {size}" for name, size in plan["tiles"].items()))]
    rows += [(name, format_bytes(size)) for name, size in plan["bytes"].items()]
    return page.table(rows)


def _stage_table(plan: dict[str, Any], took: dict[str, float]) -> str:
    stages = {stage["name"]: stage for stage in plan.get("stages", [])}
    rows = [
        (
            name,
            f"{stages[name]['flops'] / 1e9:.1f}" if name in stages else "-",
            f"{stages[name]['seconds']:.3g}" if name in stages else "-",
            f"{took[name]:.3g}" if name in took else "-",
        )
        for name in [*stages, *(name for name in took if name not in stages)]
    ]
    return page.table(rows, ("stage", "Gflop", "planned, s", "took, s"))


def _took_rows(took: dict[str, float]) -> list[tuple[str, str]]:
    rows = [(name, f"{seconds:.3g} s") for name, seconds in took.items()]
    return [*rows, ("together", f"{sum(took.values()):.3g} s")] if rows else []


def _read_json(path: Path) -> dict[str, Any]:
    """A file that a run leaves for people; it may be gone."""
    try:
        content = json.loads(path.read_text())
        return content if isinstance(content, dict) else {}
    except (OSError, ValueError):
        return {}


def _number(value: float) -> str:
    return f"{value:.3f}" if np.isfinite(value) else "-"


def _versions() -> str:
    from ridgemm import __version__

    return f"ridgemm {__version__}, NumPy {np.__version__}, Python {platform.python_version()}."
