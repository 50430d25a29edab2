"""A null of more targets than memory holds, refitted and held out."""

from __future__ import annotations

from bench import _permutation
from bench.problems import ALPHAS, Problem, on_disk

NULLS = ("refit", "heldout")


def run(quick: bool, repeats: int | None, permutations: int | None = None) -> dict:
    """Both nulls, each within ``memory_limit="1GB"``.

    Parameters
    ----------
    quick : bool
    repeats : int, optional
        Runs of each; one if left out.
    permutations : int, optional
    """
    problem = Problem(200, 20, 2000) if quick else Problem(2000, 50, 200000)
    permutations = permutations or (4 if quick else 20)
    model = {"alphas": ALPHAS.tolist(), "cv": 5, "memory_limit": "1GB"}
    rows, figures = [], {}
    with on_disk(problem) as folder:
        for null in NULLS:
            _permutation.warm_up(folder, model, cv=5, null=null)
            runs = [
                _permutation.measure(
                    folder, folder / f"{null}-{i}", model, null=null, n_permutations=permutations
                )
                for i in range(repeats or 1)
            ]
            row = _permutation.row(null, runs)
            above = row["peak_anonymous_bytes"] - row["baseline_anonymous_bytes"]
            figures |= {
                f"peak_anonymous_bytes_{null}": above,
                f"seconds_{null}": row["median_seconds"],
            }
            rows.append(row)
    largest = max(figures[f"peak_anonymous_bytes_{null}"] for null in NULLS)
    figures["y_bytes_over_peak"] = 4 * problem.n_samples * problem.n_targets / largest
    title = f"{problem}, 11 alphas, 5 outer x 5 inner folds, alpha per target"
    return {
        "problem": f"{title}, {permutations} permutations, memory_limit 1GB",
        "rows": rows,
        "left_out": [],
        "figures": figures,
    }
