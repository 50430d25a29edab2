"""A permutation test of 1,000 traits on 500,000 markers, alpha chosen per trait and per fold.

The problem of B. Da Mota et al., "Cloud computing for brain-wide genetics" (EuroSciPy 2013).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from bench import _permutation
from bench._machine import machine, sgemm_gflops
from bench.problems import Problem, genotypes_on_disk, typical_eigenvalue
from ridgemm import load

PERMUTATIONS = 10000
OUTER, INNER = 10, 5
#: Permutations of the first call: enough that its tasks are as large as those of a long run.
FIRST = 8


def run(
    quick: bool,
    repeats: int | None,
    permutations: int | None = None,
    shared_permutations: int | None = None,
) -> dict:
    """Factors, a part of the null with an alpha per target, the whole null with one for all.

    Parameters
    ----------
    quick : bool
    repeats : int, optional
        How many times `permutations` more are run; once if left out.
    permutations : int, optional
        Nested permutations in a measured call.
    shared_permutations : int, optional
        Permutations with one alpha for all targets.
    """
    problem = Problem(150, 5000, 40) if quick else Problem(1500, 500000, 1000)
    permutations = permutations or (400 if quick else 200)
    shared_permutations = shared_permutations or (100 if quick else PERMUTATIONS)
    with genotypes_on_disk(problem) as folder:
        alphas = typical_eigenvalue(folder) * np.logspace(-2, 2, 5)
        model = {"alphas": alphas.tolist(), "cv": INNER}
        nested, nested_figures = _nested(folder, problem, model, permutations, repeats or 1)
        shared, shared_figures = _shared(folder, model, shared_permutations)
        figures = nested_figures | shared_figures | _found(folder)
    rows = [*nested, shared]
    above = [r["peak_anonymous_bytes"] - r["baseline_anonymous_bytes"] for r in rows]
    return {
        "problem": f"{problem}, int8, 5 alphas, {OUTER} outer x {INNER} inner folds, nested null",
        "rows": rows,
        "left_out": [],
        "figures": figures | {"peak_anonymous_bytes": max(above)},
    }


def _nested(
    folder: Path, problem: Problem, model: dict, permutations: int, repeats: int
) -> tuple[list[dict], dict]:
    """The null with an alpha per target: rows and figures.

    A call on the folder of an earlier one computes the new permutations only. The same call
    again computes none: it costs what every call costs, and that is taken off.
    """
    model = model | {"cache_dir": str(folder / "factors")}
    out = folder / "nested"
    _permutation.warm_up(folder, model, cv=OUTER)
    first = _permutation.measure(folder, out, model, cv=OUTER, n_permutations=FIRST)
    nothing = _permutation.measure(folder, out, model, cv=OUTER, n_permutations=FIRST)
    more, rates = [], [_sgemm(problem)]
    for i in range(1, repeats + 1):
        total = FIRST + i * permutations
        more.append(_permutation.measure(folder, out, model, cv=OUTER, n_permutations=total))
        rates.append(_sgemm(problem))
    rows = [
        _permutation.row(f"factors-and-{FIRST}", [first]),
        _permutation.row("factors-found-ready", [nothing]),
        _permutation.row(f"{permutations}-permutations", more),
    ]
    seconds = (rows[2]["median_seconds"] - nothing["seconds"]) / permutations
    setup = first["seconds"] - FIRST * seconds
    whole = setup + PERMUTATIONS * seconds
    gflops = 1e-9 * _flops(problem, len(model["alphas"])) / seconds
    figures = {
        "core_hours_10000": whole * machine()["cores"] / 3600,
        "seconds_per_permutation": seconds,
        "setup_seconds": setup,
        "sgemm_share": gflops / float(np.mean(rates)),
        "permutations_measured": permutations * repeats,
    }
    return rows, figures


def _shared(folder: Path, model: dict, permutations: int) -> tuple[dict, dict]:
    """The null with one alpha for all targets, from factors that are ready: row and figures."""
    model = model | {
        "cache_dir": str(folder / "factors"),
        "alpha_per_target": False,
        "scoring": "neg_mean_squared_error",
    }
    _permutation.warm_up(folder, model, cv=OUTER)
    run = _permutation.measure(
        folder, folder / "shared", model, cv=OUTER, n_permutations=permutations
    )
    # named after what was run, not after what was wanted
    figures = {f"shared_seconds_{permutations}": run["seconds"]}
    return _permutation.row(f"one-alpha-{permutations}", [run]), figures


def _sgemm(problem: Problem) -> float:
    return sgemm_gflops(min(4000, 4 * problem.n_samples))


def _flops(problem: Problem, n_alphas: int) -> float:
    """Flops of one permutation: the held-out predictions of every alpha, fold and target.

    A prediction of y is linear in y: a fold costs ``2 n_alphas n_test n_train`` per target.
    """
    outer_train = problem.n_samples * (OUTER - 1) / OUTER
    outer = 2 * outer_train * problem.n_samples
    inner = 2 * OUTER * outer_train**2 * (INNER - 1) / INNER
    return n_alphas * (outer + inner) * problem.n_targets


def _found(folder: Path) -> dict:
    """Share of the heritable and of the other targets with an uncorrected p of 0.05 at most."""
    heritable = np.load(folder / "heritable.npy")
    found = load(folder / "nested").pvalues <= 0.05
    return {
        "heritable_found": float(found[heritable].mean()),
        "others_found": float(found[~heritable].mean()),
    }
