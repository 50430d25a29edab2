"""The whole-brain problems of B-MOR, at full size or on a part of their targets.

S. Ahmadi, P. Bellec and T. Glatard, "Scaling up ridge regression for brain encoding in a massive
individual fMRI dataset" (GigaScience 2025). X is a file, Y is procedural (`bench.procedural`).
"""

from __future__ import annotations

import inspect
import os
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
from scipy.stats import norm

from bench._run import Contender, Outcome, alternate
from bench.problems import Problem, _require_free
from bench.procedural import signalled, split, write_features
from ridgemm import RidgeCV

#: n_samples, the test samples among them, n_features, and the options of the fit.
BMOR = Problem(10000, 16384, 264805)
WHOLE = Problem(69202, 16384, 264805)
LOO = {"cv": "loo", "scoring": "neg_mean_squared_error"}
GCV = {"cv": "gcv", "scoring": "r2", "alpha_per_target": True}
QUICK = Problem(400, 600, 1200)
QUICK_TALL = Problem(900, 120, 1200)


def bmor(
    quick: bool, repeats: int | None, scale: float | None = None, precision: str | None = None
) -> dict:
    """One alpha for all by LOO, 90 % of the samples; Pearson's r on the others."""
    problem, test = (QUICK, 40) if quick else (BMOR, 1000)
    options = LOO | {"alpha_per_target": False, "memory_limit": "4GB", "test": test}
    forms = {"ridgemm": options, "ridgemm-primal-coef": options | {"coef": True}}
    return _run(problem, forms, "float32", repeats, scale, precision)


def wholebrain(
    quick: bool, repeats: int | None, scale: float | None = None, precision: str | None = None
) -> dict:
    """An alpha per target by GCV."""
    options = GCV | {"memory_limit": "8GB"}
    problem = QUICK_TALL if quick else WHOLE
    return _run(problem, {"ridgemm": options}, "float16", repeats, scale, precision)


def roi(
    quick: bool, repeats: int | None, scale: float | None = None, precision: str | None = None
) -> dict:
    """An alpha per target by LOO, the targets of one region."""
    return _part(6728, quick, repeats, scale, precision)


def parcel(
    quick: bool, repeats: int | None, scale: float | None = None, precision: str | None = None
) -> dict:
    """An alpha per target by LOO, means of parcels."""
    return _part(444, quick, repeats, scale, precision)


def _part(
    n_targets: int, quick: bool, repeats: int | None, scale: float | None, precision: str | None
) -> dict:
    options = LOO | {"alpha_per_target": True, "memory_limit": "8GB"}
    problem = replace(QUICK_TALL if quick else WHOLE, n_targets=100 if quick else n_targets)
    return _run(problem, {"ridgemm": options}, "float16", repeats, scale, precision)


def _run(
    problem: Problem,
    forms: dict[str, dict],
    dtype: str,
    repeats: int | None,
    scale: float | None,
    precision: str | None,
) -> dict:
    """Forms of one fit; with a `scale` on that part of the targets and on half of that part."""
    for options in forms.values():
        if precision and "precision" in inspect.signature(RidgeCV).parameters:
            options["precision"] = precision
    sizes = [problem.n_targets]
    if scale:
        part = max(2, round(scale * problem.n_targets))
        sizes = [part // 2, part]
    contenders = [
        Contender(f"{name}-{t}" if scale else name, "Brain", options | {"n_targets": t})
        for name, options in forms.items()
        for t in sizes
    ]
    with _features(problem, next(iter(forms.values())).get("test", 0), dtype, sizes) as folder:
        outcome = alternate(contenders, Path(folder), repeats or 1)
    figures = {}
    for name in forms:
        figures |= _figures(name, outcome, sizes, problem.n_targets if scale else None)
    title = f"{problem}, X {dtype} in a file, Y made as it is read, 11 alphas, "
    title += ", ".join(f"{key}={value}" for key, value in next(iter(forms.values())).items())
    return {"problem": title} | outcome.report(figures)


def _features(
    problem: Problem, n_test: int, dtype: str, sizes: list[int]
) -> tempfile.TemporaryDirectory:
    """A folder with the training and test X, and those of a warm-up."""
    folder = tempfile.TemporaryDirectory(prefix="ridgemm-bench-")
    n, p = problem.n_samples, problem.n_features
    coefficients = 4 * max(sizes) * (p + (n if p >= n else 0))
    _require_free(Path(folder.name), 8 * n * p + 40 * min(n, p) ** 2 + coefficients)
    for path, shape in ((Path(folder.name), problem), (_warmup(folder.name), problem.tenth())):
        tested = n_test * shape.n_samples // n
        for name, X in zip(("X", "X_test"), split(shape, tested), strict=True):
            if len(X):
                write_features(path / f"{name}.npy", X, dtype)
    return folder


def _warmup(folder: str) -> Path:
    return Path(folder) / "warmup"


def _figures(name: str, outcome: Outcome, sizes: list[int], all_targets: int | None) -> dict:
    """Seconds, memory and what was found, of the largest run; a line through two, if cut short."""
    slug = name.replace("-", "_")
    names = [f"{name}-{t}" for t in sizes] if all_targets else [name]
    row, maps = outcome.rows[names[-1]], outcome.maps[names[-1]]
    figures = {
        f"{slug}_seconds": row["median_seconds"],
        f"{slug}_n_targets": sizes[-1],
        f"{slug}_peak_anonymous_bytes": row["peak_anonymous_bytes"]
        - row["baseline_anonymous_bytes"],
        f"{slug}_generating_y_seconds": float(maps["generating"]) / (os.cpu_count() or 1),
    }
    stages = [key for key in maps if key.startswith("took_")]
    figures |= {f"{slug}_{key[5:]}_stage_seconds": float(maps[key]) for key in stages}
    figures |= _found(slug, maps)
    if all_targets:
        few, many = (outcome.seconds(one) for one in names)
        slope = (many - few) / (sizes[1] - sizes[0])
        whole = many + slope * (all_targets - sizes[1])
        figures[f"{slug}_seconds_extrapolated_to_{all_targets}"] = whole
    return figures


def _found(slug: str, maps: dict) -> dict:
    """Targets found, of those with a signal and of the others."""
    scores, n_test = maps["best_score"], int(maps["n_test"])
    if np.ndim(scores) == 0 or not n_test:
        return {}
    # Bonferroni for Pearson's r of independent normal samples
    level = norm.isf(0.05 / len(scores)) / np.sqrt(n_test)
    true = signalled(np.arange(len(scores)))
    return {
        f"{slug}_found": float(np.count_nonzero(scores[true] > level)),
        f"{slug}_with_a_signal": float(np.count_nonzero(true)),
        f"{slug}_found_without": float(np.count_nonzero(scores[~true] > level)),
    }
