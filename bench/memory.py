"""`memory_limit` route by route: the limit, the plan, and what a fit really took; and its peers.

Each run is a process of its own: ``python -m bench.memory TASK``. Its baseline is taken after the
imports and a warm-up on a tenth of the problem, before the data are loaded: what a library has to
hold of them counts, what it maps does not. Memory is that of the process and its workers together.
For a fit by a route the seconds taken are set against those of `ridgemm.plan`.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

from bench import contenders
from bench._memory import peak_memory
from bench._run import ROOT, Contender, _absence, _row
from bench.problems import ALPHAS, Problem, on_disk
from ridgemm import RidgeCV, plan

REPEATS = 3
FOLDS = {"cv": 5}
LOO = {"cv": "loo"}
GCV = {"cv": "gcv"}
#: One alpha for all targets, which is what the trace identity finds.
SHARED = {"alpha_per_target": False, "scoring": "neg_mean_squared_error"}
#: Routes of a tall X with their options, and those of a wide one.
TALL = {
    "primal-statistics": FOLDS,
    "primal-products": FOLDS,
    "svd-products": FOLDS,
    "primal-loo": LOO,
    "primal-gcv": GCV,
}
WIDE = {
    "dual-products": FOLDS,
    "dual-trace": FOLDS | SHARED,
    "dual-loo": LOO,
    "dual-gcv": GCV,
}
#: Two workers: the peak is that of all three processes together.
WORKERS = {
    "primal-statistics-2-jobs": {"solver": "primal-statistics", "n_jobs": 2} | FOLDS,
    "svd-products-2-jobs": {"solver": "svd-products", "n_jobs": 2} | FOLDS,
}
WIDE_WORKERS = {"dual-products-2-jobs": {"solver": "dual-products", "n_jobs": 2} | FOLDS}
#: Square matrices that do not fit the limit, by family.
FILES = {"": "primal-statistics", "-svd": "svd-products"}
#: A peer, and the routes that solve its problem on the tall and on the wide X.
PEERS = {
    "himalaya": (
        Contender("himalaya", "Himalaya", {"backend": "numpy"}, ("himalaya",), "5-fold"),
        ("primal-statistics", "dual-products"),
    ),
    "scikit_learn": (
        Contender("scikit-learn", "ScikitLearn", {}, ("sklearn",), "leave-one-out"),
        ("primal-loo", "dual-loo"),
    ),
}


@dataclass
class Report:
    """Rows and figures of all that ran, and who was left out."""

    rows: list[dict] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    figures: dict[str, float] = field(default_factory=dict)

    def peak(self, name: str) -> int:
        """Bytes above the baseline of a row."""
        row = next(row for row in self.rows if row["contender"] == name)
        return row["peak_anonymous_bytes"] - row["baseline_anonymous_bytes"]


def run(quick: bool, repeats: int | None) -> dict:
    """Every route on a problem that suits it, then one with square matrices in files.

    Parameters
    ----------
    quick : bool
    repeats : int, optional
        Runs of each; three if left out.
    """
    repeats = repeats or REPEATS
    tall = Problem(400, 30, 600) if quick else Problem(8000, 400, 10000)
    wide = Problem(100, 400, 200) if quick else Problem(1500, 6000, 2000)
    square = Problem(300, 600, 200) if quick else Problem(4000, 2500, 500)
    report = Report()
    with on_disk(tall) as folder:
        _routes(report, folder, _by_solver(TALL) | WORKERS, "256MB", repeats)
        _peers(report, folder, "", 0, repeats)
    with on_disk(wide) as folder:
        _routes(report, folder, _by_solver(WIDE) | WIDE_WORKERS, "300MB", repeats)
        _peers(report, folder, "-wide", 1, repeats)
    with on_disk(square) as folder:
        for suffix, solver in FILES.items():
            _files(report, folder, suffix, solver, "60MB" if quick else "128MB", repeats)
    return {
        "problem": f"{tall} (primal, svd), {wide} (dual), {square} (files), 11 alphas",
        "rows": report.rows,
        "left_out": report.left_out,
        "figures": report.figures,
    }


def _by_solver(routes: dict) -> dict:
    """Options of rows that have the name of their route."""
    return {route: {"solver": route} | options for route, options in routes.items()}


def _routes(report: Report, folder: Path, routes: dict, limit: str, repeats: int) -> None:
    """Rows of routes, run in turn."""
    names = {name: {"memory_limit": limit} | options for name, options in routes.items()}
    _in_turn(report, folder, {name: ("Route", options) for name, options in names.items()}, repeats)
    for name, options in names.items():
        _compare_with_plan(report, folder, name, options)


def _peers(report: Report, folder: Path, suffix: str, place: int, repeats: int) -> None:
    """Rows of peers, and how much more they take than the route that solves their problem."""
    for name, (contender, routes) in PEERS.items():
        if contender.missing:
            report.left_out.append(_absence(contender) + suffix)
            continue
        label, options = contender.name + suffix, contender.options
        _in_turn(report, folder, {label: (contender.solver, options)}, repeats, contender.note)
        ratio = report.peak(label) / report.peak(routes[place])
        report.figures[f"{name}_peak_over_ridgemm{suffix.replace('-', '_')}"] = ratio


def _files(
    report: Report, folder: Path, suffix: str, solver: str, limit: str, repeats: int
) -> None:
    """The same fit with its square matrices in scratch files and in RAM."""
    limits = {f"matrices-in-files{suffix}": limit, f"matrices-in-ram{suffix}": "4GB"}
    fits = {
        name: {"solver": solver, "cv": 2, "memory_limit": some} for name, some in limits.items()
    }
    _in_turn(report, folder, {name: ("Route", options) for name, options in fits.items()}, repeats)
    for name, options in fits.items():
        _compare_with_plan(report, folder, name, options)
    seconds = {row["contender"]: row["median_seconds"] for row in report.rows}
    report.figures[f"seconds_in_files_over_in_ram{suffix.replace('-', '_')}"] = (
        seconds[f"matrices-in-files{suffix}"] / seconds[f"matrices-in-ram{suffix}"]
    )


def _in_turn(
    report: Report, folder: Path, fits: dict[str, tuple[str, dict]], repeats: int, note: str = ""
) -> None:
    runs: dict[str, list[dict]] = {name: [] for name in fits}
    for _ in range(repeats):
        for name, (solver, options) in fits.items():
            runs[name].append(_measure(folder, solver, options))
            print(f"  {name}: {runs[name][-1]['seconds']:.3g} s", file=sys.stderr)
    report.rows += [_row(Contender(name, "", note=note), runs[name], repeats) for name in fits]


def _compare_with_plan(report: Report, folder: Path, name: str, options: dict) -> None:
    """Set a row beside what `ridgemm.plan` says of it."""
    forecast = plan(RidgeCV(ALPHAS, **options), folder / "X.npy", folder / "Y.npy")
    limit, planned = forecast.bytes["memory limit"], forecast.bytes["memory"]
    row = next(row for row in report.rows if row["contender"] == name)
    peak = report.peak(name)
    row["note"] = (
        f"limit {limit / 1e6:.0f} MB, planned {planned / 1e6:.0f} MB, took {peak / 1e6:.0f} MB"
    )
    slug = name.replace("-", "_")
    report.figures |= {
        f"limit_bytes_{slug}": limit,
        f"planned_bytes_{slug}": planned,
        f"peak_bytes_{slug}": peak,
        f"peak_over_limit_{slug}": peak / limit,
        f"plan_seconds_over_taken_{slug}": forecast.seconds / row["median_seconds"],
    }


# -- one run, in a process of its own ----------------------------------------------------------


class Route(contenders.Ridgemm):
    """A fit of memory-mapped files by one route; dual coefficients are left as they are."""

    def __init__(self, **options) -> None:
        super().__init__()
        self.model.set_params(**options)

    def fit(self, X, Y):
        return self.model.fit(X, Y)


def _measure(folder: Path, solver: str, options: dict) -> dict:
    task = {"folder": str(folder), "solver": solver, "options": options}
    command = [sys.executable, "-m", "bench.memory", json.dumps(task)]
    finished = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(finished.stdout.splitlines()[-1])


def main(task: dict) -> dict:
    """Run a task and return its seconds and bytes."""
    folder = Path(task["folder"])
    solver = Route if task["solver"] == "Route" else getattr(contenders, task["solver"])
    contender = solver(**task["options"])
    contender.fit(*contender.load(folder / "warmup"))
    with peak_memory() as memory:
        X, Y = contender.load(folder)
        start = time.perf_counter()
        contender.fit(X, Y)
        seconds = time.perf_counter() - start
    return {"seconds": seconds, "baseline": memory.baseline, "peak": memory.peak}


if __name__ == "__main__":
    print(json.dumps(main(json.loads(sys.argv[1]))))
