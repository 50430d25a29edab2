"""Useful flops over time, as a share of the sgemm rate of the same process.

Useful are the flops that the plan expects: those on targets in float32, of the members of a
shrinkage basis and not of every alpha, and apart from them the square-matrix work, float64 counted
twice and an eigendecomposition as `ridgemm.routes` does.

A plan counts five members of a basis for each direction; there may be more or fewer: ``made`` is
the share by the products with targets that were made.

The rates of bare products say what is to be had: ``mixed`` makes three products of bfloat16
parts, so that its best is a third of the rate of ``bf16``.
"""

from __future__ import annotations

import statistics
import sys

from bench._precision import FIT, NULL, left_out, usable
from bench._run import Contender, alternate
from bench.problems import Problem, on_disk
from ridgemm import RidgeCV, permutation_test
from ridgemm.rates import measure

SHAPES = {
    "tall": (Problem(20000, 2000, 16000), 3),
    "square": (Problem(4000, 3000, 16000), 3),
    "wide": (Problem(4000, 20000, 16000), 3),
    # a fit takes about a second, of which first use of memory and kernels on targets are a part
    "small-tall": (Problem(20000, 500, 8000), 24),
    "small-square": (Problem(2000, 1500, 8000), 12),
    "small-wide": (Problem(1200, 20000, 8000), 40),
}
QUICK = {
    "tall": (Problem(400, 20, 60), 2),
    "square": (Problem(120, 90, 60), 2),
    "wide": (Problem(80, 300, 60), 2),
}


def run(quick: bool, repeats: int | None, shapes: str | None = None) -> dict:
    chosen = QUICK if quick else SHAPES
    if shapes is not None:
        unknown = set(wanted := shapes.split(",")) - set(chosen)
        if unknown:
            sys.exit(f"--shapes {shapes}: {', '.join(sorted(unknown))} is none of {[*chosen]}")
        chosen = {name: chosen[name] for name in wanted}
    rates = measure()
    rows, figures = [], {"bare_single_gflops": 1e-9 * rates.product}
    for name in usable(permutation_test, NULL)[1:]:
        figures[f"bare_{name}_share"] = rates.products(name) / rates.product
    for shape, (problem, permutations) in chosen.items():
        contenders = [
            Contender(f"fit-{shape}-{precision}", "EfficientFit", _with(precision, RidgeCV))
            for precision in usable(RidgeCV, FIT)
        ]
        contenders += [
            Contender(
                f"null-{shape}-{precision}",
                "EfficientNull",
                _with(precision, permutation_test) | {"n_permutations": permutations},
            )
            for precision in usable(permutation_test, NULL)
        ]
        with on_disk(problem) as folder:
            outcome = alternate(contenders, folder, repeats or 1)
        rows += outcome.rows.values()
        for name, runs in outcome.runs.items():
            for part, flops in (("targets",) * 2, ("factors",) * 2, ("targets", "made")):
                shares = sorted(_share(maps, part, flops) for maps in runs)
                slug = f"{name.replace('-', '_')}_{flops}_share"
                figures[slug] = statistics.median(shares)
                if len(shares) > 1:
                    figures |= {f"{slug}_min": shares[0], f"{slug}_max": shares[-1]}
    return {
        "problem": "5-fold fits, nulls of 3 x 3 folds, 11 alphas, an alpha per target: "
        + ", ".join(f"{problem} ({shape})" for shape, (problem, _) in chosen.items()),
        "rows": rows,
        "left_out": left_out(permutation_test, NULL),
        "figures": figures,
    }


def _share(maps: dict, part: str, flops: str) -> float:
    """Of the sgemm rate that the same process had before and after."""
    gflops = 1e-9 * float(maps[f"{flops}_flops"]) / float(maps[f"{part}_seconds"])
    return gflops / float(maps["sgemm_gflops"])


def _with(precision: str, function: object) -> dict:
    return {"precision": precision} if len(usable(function, NULL)) > 1 else {}
