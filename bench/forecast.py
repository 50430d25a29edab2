"""Seconds that `ridgemm.plan` predicts, against those that the stages then took."""

from __future__ import annotations

from bench._run import Contender, Outcome, alternate
from bench.problems import Problem, on_disk

SHARED = {"cv": "loo", "scoring": "neg_mean_squared_error", "alpha_per_target": False}
CASES = {
    "square": (Problem(5000, 1000, 10000), {}),
    "tall": (Problem(20000, 500, 8000), {}),
    "lowram": (Problem(8000, 500, 60000), {"memory_limit": "1GB"}),
    "wide": (Problem(1500, 20000, 8000), {}),
    "bmor": (Problem(3000, 5000, 30000), SHARED),
    "genetics": (Problem(600, 20000, 500), {"n_permutations": 60, "cv": 5}),
}
QUICK = {
    "tall": (Problem(400, 40, 100), {}),
    "genetics": (Problem(80, 300, 40), {"n_permutations": 4, "cv": 3}),
}


def run(quick: bool, repeats: int | None) -> dict:
    """Each problem once; a figure is the prediction over the time, whole and by stages."""
    together, figures = Outcome(), {}
    for name, (problem, options) in (QUICK if quick else CASES).items():
        solver = "ForecastNull" if "n_permutations" in options else "ForecastFit"
        with on_disk(problem) as folder:
            outcome = alternate([Contender(name, solver, options)], folder, repeats or 1)
        together.rows |= outcome.rows
        maps = outcome.maps[name]
        stages = [key[5:] for key in maps if key.startswith("took_")]
        figures[f"predicted_over_seconds_{name}"] = sum(
            float(maps[f"plan_{stage}"]) for stage in stages
        ) / outcome.seconds(name)
        for stage in stages:
            figures[f"{name}_{stage}_predicted_seconds"] = float(maps[f"plan_{stage}"])
            figures[f"{name}_{stage}_seconds"] = float(maps[f"took_{stage}"])
    title = ", ".join(f"{problem} ({name})" for name, (problem, _) in CASES.items() if not quick)
    return {"problem": title or "small forms"} | together.report(figures)
