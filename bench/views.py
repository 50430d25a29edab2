"""A fit on four delays made while they are read, against the same fit on a file of them."""

from __future__ import annotations

import numpy as np

from bench._run import Contender, alternate
from bench.problems import Problem, on_disk

KINDS = ("delayed", "zscored")


def run(quick: bool, repeats: int | None) -> dict:
    problem = Problem(1200, 20, 100) if quick else Problem(20000, 250, 8000)
    contenders = [
        Contender(f"{kind}-{form}", "RidgemmView", {"kind": kind, "in_file": form == "array"})
        for kind in KINDS
        for form in ("view", "array")
    ]
    with on_disk(problem) as folder:
        outcome = alternate(contenders, folder, repeats)
    figures = {}
    for kind in KINDS:
        view, array = f"{kind}-view", f"{kind}-array"
        figures[f"{kind}_view_over_array"] = outcome.seconds(view) / outcome.seconds(array)
        scores = [outcome.maps[name]["best_score"] for name in (view, array)]
        figures[f"{kind}_max_abs_map_difference"] = float(np.abs(np.subtract(*scores)).max())
    title = f"{problem}, X delayed four times (zscored: and z-scored by run), 11 alphas, 5-fold"
    return {"problem": title} | outcome.report(figures)
