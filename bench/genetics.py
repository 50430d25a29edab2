"""A permutation test of 1,000 traits on 500,000 markers, alpha chosen per trait and per fold.

The problem of B. Da Mota et al., "Cloud computing for brain-wide genetics" (EuroSciPy 2013).
"""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np

from bench import _permutation
from bench._machine import machine, sgemm_gflops
from bench._precision import NULL, left_out, usable
from bench.problems import Problem, genotypes_on_disk, typical_eigenvalue
from ridgemm import load, permutation_test

PERMUTATIONS = 10000
OUTER, INNER = 10, 5
#: Permutations of the first call: enough that its tasks are as large as those of a long run.
FIRST = 8


def run(
    quick: bool,
    repeats: int | None,
    permutations: int | None = None,
    shared_permutations: int | None = None,
    precision: str | None = None,
    whole: int | None = None,
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
    precision : str, optional
        One of those of `permutation_test`, or several with commas; all that the machine has if
        left out. Each runs the same permutations.
    whole : int, optional
        The last of them goes on to so many, and its p-values are compared with the first one's.
    """
    precisions = tuple(precision.split(",")) if precision else NULL
    chosen = usable(permutation_test, precisions)
    problem = Problem(150, 5000, 40) if quick else Problem(1500, 500000, 1000)
    permutations = permutations or (400 if quick else 200)
    shared_permutations = shared_permutations or (100 if quick else PERMUTATIONS)
    with genotypes_on_disk(problem) as folder:
        alphas = typical_eigenvalue(folder) * np.logspace(-2, 2, 5)
        model = {"alphas": alphas.tolist(), "cv": INNER}
        nested, figures = [], {}
        for name in chosen:
            rows, part = _nested(folder, problem, model, permutations, repeats or 1, name)
            nested += rows
            figures |= part
        # before the last folder goes on
        figures |= _found(folder, chosen[0]) | _differences(folder, chosen)
        if whole:
            rows, part = _whole(folder, model, whole, nested[-3:], chosen)
            nested += rows
            figures |= part
        shared, shared_figures = _shared(folder, model, shared_permutations)
        figures |= shared_figures
    rows = [*nested, shared]
    above = [r["peak_anonymous_bytes"] - r["baseline_anonymous_bytes"] for r in rows]
    return {
        "problem": f"{problem}, int8, 5 alphas, {OUTER} outer x {INNER} inner folds, nested null",
        "rows": rows,
        "left_out": left_out(permutation_test, precisions),
        "figures": figures | {"peak_anonymous_bytes": max(above)},
    }


def _nested(
    folder: Path,
    problem: Problem,
    model: dict,
    permutations: int,
    repeats: int,
    precision: str,
) -> tuple[list[dict], dict]:
    """The null with an alpha per target: rows and figures.

    A call on the folder of an earlier one computes the new permutations only. The same call
    again computes none: it costs what every call costs, and that is taken off.
    """
    model = model | {"cache_dir": str(folder / "factors")}
    # those of another precision would be found ready
    shutil.rmtree(folder / "factors", ignore_errors=True)
    out = folder / f"nested-{precision}"
    # "single" is the default: a version without precisions has it too
    test = {"cv": OUTER} | ({} if precision == "single" else {"precision": precision})
    _permutation.warm_up(folder, model, **test)
    first = _permutation.measure(folder, out, model, **test, n_permutations=FIRST)
    nothing = _permutation.measure(folder, out, model, **test, n_permutations=FIRST)
    more, rates = [], [_sgemm(problem)]
    for i in range(1, repeats + 1):
        total = FIRST + i * permutations
        more.append(_permutation.measure(folder, out, model, **test, n_permutations=total))
        rates.append(_sgemm(problem))
    suffix = "" if precision == "single" else f"-{precision}"
    rows = [
        _permutation.row(f"factors-and-{FIRST}{suffix}", [first]),
        _permutation.row(f"factors-found-ready{suffix}", [nothing]),
        _permutation.row(f"{permutations}-permutations{suffix}", more),
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
    return rows, {key + suffix.replace("-", "_"): value for key, value in figures.items()}


def _whole(
    folder: Path, model: dict, permutations: int, before: list[dict], precisions: tuple[str, ...]
) -> tuple[list[dict], dict]:
    """The null in the last precision, gone on with to so many permutations: row and figures."""
    name = precisions[-1]
    test = {"cv": OUTER} | ({} if name == "single" else {"precision": name})
    model = model | {"cache_dir": str(folder / "factors")}
    few = load(folder / f"nested-{precisions[0]}")
    out = folder / f"nested-{name}"
    run = _permutation.measure(folder, out, model, **test, n_permutations=permutations)
    seconds = run["seconds"] + sum(row["median_seconds"] * row["repeats"] for row in before)
    many = load(out)
    # of the few: the others are a part of the many, and these have less
    error = np.sqrt(few.pvalues * (1 - few.pvalues) / few.n_permutations)
    difference = np.abs(many.pvalues - few.pvalues) / np.maximum(error, 1 / few.n_permutations)
    figures = {
        "whole_core_hours": seconds * machine()["cores"] / 3600,
        "whole_permutations": many.n_permutations,
        "whole_against_permutations": few.n_permutations,
        "whole_mean_p_difference_in_standard_errors": float(difference.mean()),
        "whole_max_p_difference_in_standard_errors": float(difference.max()),
    }
    return [_permutation.row(f"on-to-{permutations}-{name}", [run])], figures


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

    A prediction of y is linear in y: a fold costs ``2 n_alphas n_test n_train`` per target. A route
    that needs fewer has a larger share of sgemm than it works at.
    """
    outer_train = problem.n_samples * (OUTER - 1) / OUTER
    outer = 2 * outer_train * problem.n_samples
    inner = 2 * OUTER * outer_train**2 * (INNER - 1) / INNER
    return n_alphas * (outer + inner) * problem.n_targets


def _differences(folder: Path, precisions: tuple[str, ...]) -> dict:
    """Largest differences from the first precision, after the same permutations."""
    if len(precisions) < 2:
        return {}
    first, *others = (load(folder / f"nested-{name}") for name in precisions)
    error = np.sqrt(first.pvalues * (1 - first.pvalues) / first.n_permutations)
    figures = {}
    for name, other in zip(precisions[1:], others, strict=True):
        difference = np.abs(other.pvalues - first.pvalues)
        figures[f"max_abs_p_difference_{name}"] = float(difference.max())
        figures[f"mean_p_difference_in_standard_errors_{name}"] = float(
            (difference / np.maximum(error, 1 / first.n_permutations)).mean()
        )
    return figures


def _found(folder: Path, precision: str) -> dict:
    """Share of the heritable and of the other targets with an uncorrected p of 0.05 at most."""
    heritable = np.load(folder / "heritable.npy")
    found = load(folder / f"nested-{precision}").pvalues <= 0.05
    return {
        "heritable_found": float(found[heritable].mean()),
        "others_found": float(found[~heritable].mean()),
    }
