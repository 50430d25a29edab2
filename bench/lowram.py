"""A fit of more targets than memory holds."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from bench._run import Contender, alternate
from bench.problems import ALPHAS, Problem, on_disk

N_CHECKED = 8


def run(quick: bool, repeats: int | None) -> dict:
    problem = Problem(400, 50, 2000) if quick else Problem(8000, 500, 250000)
    options = {"cv": 5, "scoring": "r2", "memory_limit": "1GB"}
    with on_disk(problem) as folder:
        outcome = alternate([Contender("ridgemm", "Ridgemm", options)], folder, repeats or 1)
        figures = _difference(folder, problem, outcome.maps["ridgemm"])
    row = outcome.rows["ridgemm"]
    above = row["peak_anonymous_bytes"] - row["baseline_anonymous_bytes"]
    figures |= {
        "peak_anonymous_bytes_of_fit": above,
        "y_bytes_over_peak": 4 * problem.n_samples * problem.n_targets / max(above, 1),
        "seconds": row["median_seconds"],
        "gigabytes_per_second": problem.n_bytes / row["median_seconds"] / 1e9,
    }
    title = f"{problem}, 11 alphas, 5-fold, alpha per target, memory_limit 1GB"
    return {"problem": title} | outcome.report(figures)


def _difference(folder: Path, problem: Problem, maps: dict) -> dict:
    """Compare some targets with scikit-learn in float64, fold by fold."""
    checked = np.random.default_rng(0).choice(problem.n_targets, N_CHECKED, replace=False)
    X = np.load(folder / "X.npy").astype(np.float64)
    Y = np.load(folder / "Y.npy", mmap_mode="r")[:, checked].astype(np.float64)
    scores = _reference_scores(X, Y)
    difference = np.abs(maps["best_score"][checked] - scores.max(axis=0))
    same = np.isclose(maps["alpha"][checked], ALPHAS[scores.argmax(axis=0)])
    return {
        "max_abs_map_difference": float(difference.max()),
        "alpha_agreement": float(same.mean()),
    }


def _reference_scores(X: np.ndarray, Y: np.ndarray) -> np.ndarray:
    """Return the R2 of every alpha and target, averaged over folds, the plain way."""
    from sklearn.linear_model import Ridge
    from sklearn.metrics import r2_score
    from sklearn.model_selection import KFold

    scores = np.zeros((len(ALPHAS), Y.shape[1]))
    folds = list(KFold(5).split(X))
    for train, test in folds:
        for score, alpha in zip(scores, ALPHAS, strict=True):
            predicted = Ridge(alpha=alpha).fit(X[train], Y[train]).predict(X[test])
            score += r2_score(Y[test], predicted, multioutput="raw_values") / len(folds)
    return scores
