"""A second subject: the same X and folds, another Y, factors found ready."""

from __future__ import annotations

from bench._run import Contender, alternate
from bench.problems import Problem, on_disk

FIRST = Contender("first-fit", "RidgemmCached", {"targets": "Y", "first": True})
SECOND = Contender("second-fit", "RidgemmCached", {"targets": "Y2", "first": False})


def run(quick: bool, repeats: int | None) -> dict:
    problem = Problem(300, 200, 50) if quick else Problem(4000, 3000, 500)
    with on_disk(problem, targets=("Y", "Y2")) as folder:
        outcome = alternate([FIRST, SECOND], folder, repeats)
    first, second = outcome.seconds(FIRST.name), outcome.seconds(SECOND.name)
    figures = {
        "factors_computed_first": int(outcome.maps[FIRST.name]["factors_computed"]),
        "factors_computed_second": int(outcome.maps[SECOND.name]["factors_computed"]),
        "first_over_second": first / second,
    }
    title = f"{problem}, 11 alphas, 5-fold, one cache_dir, two files of targets"
    return {"problem": title} | outcome.report(figures)
