"""How many times faster than its peers ridgemm is, as samples, targets and alphas grow."""

from __future__ import annotations

from bench._run import Contender, Outcome, alternate
from bench.problems import Problem, on_disk

BASE, ALPHAS = Problem(5000, 300, 1000), 11
AXES = {
    "n": [(Problem(n, 300, 500), ALPHAS) for n in (2000, 5000, 10000, 20000, 40000)],
    "t": [(Problem(5000, 300, t), ALPHAS) for t in (250, 1000, 4000)],
    "r": [(BASE, r) for r in (3, 11, 33)],
}
QUICK = {
    "n": [(Problem(n, 20, 50), 5) for n in (200, 400)],
    "t": [(Problem(200, 20, t), 5) for t in (50, 100)],
    "r": [(Problem(200, 20, 50), r) for r in (3, 6)],
}


def run(quick: bool, repeats: int | None) -> dict:
    """Every size once, peers in the same turn; `python -m bench.draw` makes the figure."""
    together, figures = Outcome(), {}
    for axis, cases in (QUICK if quick else AXES).items():
        for problem, n_alphas in cases:
            sizes = {"n": problem.n_samples, "t": problem.n_targets, "r": n_alphas}
            label = f"{axis}={sizes[axis]}"
            names = {
                "Ridgemm": f"ridgemm {label}",
                "Himalaya": f"himalaya {label}",
                "ScikitLearn": f"scikit-learn {label}",
            }
            contenders = [
                Contender(names["Ridgemm"], "Ridgemm", {"cv": 5, "n_alphas": n_alphas}),
                Contender(
                    names["Himalaya"],
                    "Himalaya",
                    {"backend": "numpy", "n_alphas": n_alphas},
                    ("himalaya",),
                ),
                Contender(
                    names["ScikitLearn"],
                    "ScikitLearn",
                    {"n_alphas": n_alphas},
                    ("sklearn",),
                    "leave-one-out, not 5-fold",
                ),
            ]
            with on_disk(problem) as folder:
                outcome = alternate(contenders, folder, repeats or 1)
            together.rows |= outcome.rows
            together.left_out += [r for r in outcome.left_out if r not in together.left_out]
            ours = outcome.seconds(names.pop("Ridgemm"))
            for name in names.values():
                if name in outcome.rows:
                    figures[f"speedup_over_{name}"] = outcome.seconds(name) / ours
    title = "5-fold, alpha per target; samples, targets, alphas grow in turn"
    return {"problem": title} | together.report(figures)
