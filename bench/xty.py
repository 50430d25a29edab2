"""A whole cross-validated fit in units of the one product no fit can do without."""

from __future__ import annotations

from bench._run import Contender, Outcome, alternate
from bench.problems import Problem, on_disk

FULL = [Problem(20000, 1000, 10000), Problem(40000, 500, 8000), Problem(40000, 500, 32000)]
QUICK = [Problem(1200, 60, 100), Problem(1200, 40, 200)]


def run(quick: bool, repeats: int | None) -> dict:
    together, figures = Outcome(), {}
    for problem in QUICK if quick else FULL:
        fit, product = f"{problem}-ridgemm", f"{problem}-product"
        options = {"cv": 5, "scoring": "r2", "in_memory": True}
        contenders = [Contender(fit, "Ridgemm", options), Contender(product, "Product")]
        with on_disk(problem) as folder:
            outcome = alternate(contenders, folder, repeats)
        together.rows |= outcome.rows
        figures[f"fit_over_xty_{problem}"] = outcome.seconds(fit) / outcome.seconds(product)
    figures["fit_over_xty_worst"] = max(figures.values())
    title = "5-fold fit over 11 alphas, alpha per target, against X.T @ Y, arrays in RAM"
    return {"problem": title} | together.report(figures)
