"""One fit by workers x threads: parallel efficiency, against one thread.

``python -m bench threads --json threads.json; python -m bench.draw threads.json threads.png`` draws
it on a machine of any size.
"""

from __future__ import annotations

import os

from bench._machine import _n_cores
from bench._run import Contender, alternate
from bench.problems import Problem, on_disk


def run(quick: bool, repeats: int | None) -> dict:
    problem = Problem(400, 60, 600) if quick else Problem(5000, 1000, 10000)
    absent = [] if hasattr(os, "sched_setaffinity") else ["needs sched_setaffinity (Linux)"]
    forms = [] if absent else _forms(_n_cores())
    contenders = [
        Contender(f"{w}x{t}", "RidgemmOnCores", {"workers": w, "threads": t}) for w, t in forms
    ]
    with on_disk(problem) as folder:
        outcome = alternate(contenders, folder, repeats or 3)
    figures = {}
    for w, t in forms:
        share = outcome.seconds("1x1") / (outcome.seconds(f"{w}x{t}") * w * t)
        figures[f"efficiency_{w}x{t}"] = share
    report = {"problem": f"{problem}, 11 alphas, 5-fold, workers x threads"}
    return report | outcome.report(figures) | {"left_out": absent}


def _forms(n_cores: int) -> list[tuple[int, int]]:
    """Workers and threads of each, powers of two, up to the number of cores."""
    powers = [2**i for i in range(n_cores.bit_length())]
    return [(w, t) for w in powers for t in powers if w * t <= n_cores]
