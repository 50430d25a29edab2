"""ridgemm beside himalaya and scikit-learn on the same cores."""

from __future__ import annotations

import numpy as np

from bench._precision import FIT, usable
from bench._run import Contender, Outcome, alternate
from bench.problems import Problem, on_disk
from ridgemm import RidgeCV

LOO = {"cv": "loo", "scoring": "neg_mean_squared_error"}
CONTENDERS = [
    Contender("ridgemm", "Ridgemm", {"cv": 5, "scoring": "r2"}),
    Contender("himalaya-numpy", "Himalaya", {"backend": "numpy"}, ("himalaya",)),
    Contender("himalaya-torch", "Himalaya", {"backend": "torch"}, ("himalaya", "torch")),
    Contender("ridgemm-loo", "Ridgemm", LOO, note="leave-one-out, for scikit-learn's map"),
    Contender("scikit-learn", "ScikitLearn", {}, ("sklearn",), "leave-one-out, not 5-fold"),
]
MIXED = Contender(
    "ridgemm-mixed", "Ridgemm", {"cv": 5, "scoring": "r2", "precision": "mixed"}, note="mixed"
)
#: A peer, and the form of ridgemm that solves the same problem.
TWINS = {
    "himalaya-numpy": "ridgemm",
    "himalaya-torch": "ridgemm",
    "scikit-learn": "ridgemm-loo",
}


def square(quick: bool, repeats: int | None) -> dict:
    return _compare(Problem(400, 60, 200) if quick else Problem(5000, 1000, 10000), repeats)


def tall(quick: bool, repeats: int | None) -> dict:
    return _compare(Problem(1200, 40, 160) if quick else Problem(20000, 500, 8000), repeats)


def _compare(problem: Problem, repeats: int | None) -> dict:
    contenders = CONTENDERS + [MIXED] * ("mixed" in usable(RidgeCV, FIT))
    with on_disk(problem) as folder:
        outcome = alternate(contenders, folder, repeats)
    report = {"problem": f"{problem}, 11 alphas, 5-fold, alpha per target, R2"}
    return report | outcome.report(_figures(outcome))


def _figures(outcome: Outcome) -> dict:
    peers = [name for name in TWINS if name in outcome.rows]
    speedup = {name: outcome.seconds(name) / outcome.seconds("ridgemm") for name in peers}
    figures = {"speedup_over_best_peer": min(speedup.values())} if peers else {}
    same = [value for name, value in speedup.items() if TWINS[name] == "ridgemm"]
    if same:
        figures["speedup_over_best_peer_of_the_same_map"] = min(same)
    for name in peers:
        slug = name.replace("-", "_")
        figures[f"speedup_over_{slug}"] = speedup[name]
        ours, theirs = outcome.maps[TWINS[name]], outcome.maps[name]
        difference = np.abs(ours["best_score"] - theirs["best_score"])
        figures[f"max_abs_map_difference_{slug}"] = float(difference.max())
        # himalaya's alphas pass through float32, a logarithm and back
        same = np.isclose(ours["alpha"], theirs["alpha"], rtol=1e-3)
        figures[f"alpha_agreement_{slug}"] = float(same.mean())
    if peers and MIXED.name in outcome.rows:
        best = min(outcome.seconds(name) for name in peers)
        figures["speedup_mixed_over_best_peer"] = best / outcome.seconds(MIXED.name)
        mixed, single = (outcome.maps[name]["best_score"] for name in (MIXED.name, "ridgemm"))
        figures["max_abs_map_difference_mixed"] = float(np.abs(mixed - single).max())
    if "scikit-learn" in peers:
        loo = outcome.seconds("scikit-learn") / outcome.seconds("ridgemm-loo")
        figures["speedup_loo_over_scikit_learn"] = loo
    return figures
