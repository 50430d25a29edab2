"""Contenders run in turn, each run in a process of its own, and the table they make."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parents[1]
REPEATS = 5
SLOW = 60.0


@dataclass(frozen=True)
class Contender:
    """A row to be: a class of `bench.contenders`, its options and the packages it needs."""

    name: str
    solver: str
    options: dict = field(default_factory=dict)
    requires: tuple[str, ...] = ()
    note: str = ""

    @property
    def missing(self) -> list[str]:
        return [package for package in self.requires if find_spec(package) is None]


@dataclass
class Outcome:
    """Rows of the contenders that ran, the maps of all their runs, and who was left out."""

    rows: dict[str, dict] = field(default_factory=dict)
    runs: dict[str, list[dict]] = field(default_factory=dict)
    left_out: list[str] = field(default_factory=list)

    @property
    def maps(self) -> dict[str, dict]:
        """Those of the last run of every contender."""
        return {name: runs[-1] for name, runs in self.runs.items()}

    def seconds(self, name: str) -> float:
        """Return the median time of a contender."""
        return self.rows[name]["median_seconds"]

    def report(self, figures: dict) -> dict:
        """Return the part of the JSON a benchmark makes itself."""
        return {"rows": list(self.rows.values()), "left_out": self.left_out, "figures": figures}


def alternate(contenders: list[Contender], folder: Path, repeats: int | None = None) -> Outcome:
    """Run contenders in turn: A B C A B C ..., so that a slow minute hits them all.

    Without `repeats` each runs five times, or once if its first run takes over a minute.
    """
    present = [contender for contender in contenders if not contender.missing]
    outcome = Outcome(left_out=[_absence(c) for c in contenders if c.missing])
    runs: dict[str, list[dict]] = {contender.name: [] for contender in present}
    for turn in range(repeats or REPEATS):
        for contender in present:
            done = runs[contender.name]
            if repeats or turn == 0 or done[0]["seconds"] <= SLOW:
                done.append(_run_once(contender, folder))
                with np.load(_maps_file(contender, folder)) as maps:
                    outcome.runs.setdefault(contender.name, []).append(dict(maps))
                print(f"  {contender.name}: {done[-1]['seconds']:.3g} s", file=sys.stderr)
    for contender in present:
        outcome.rows[contender.name] = _row(contender, runs[contender.name], repeats)
    return outcome


def _absence(contender: Contender) -> str:
    return f"{contender.name}: {', '.join(contender.missing)} not installed"


def _maps_file(contender: Contender, folder: Path) -> Path:
    return folder / f"maps-{contender.name}.npz"


def _run_once(contender: Contender, folder: Path) -> dict:
    task = {
        "solver": contender.solver,
        "options": contender.options,
        "folder": str(folder),
        "maps": str(_maps_file(contender, folder)),
    }
    command = [sys.executable, "-m", "bench._child", json.dumps(task)]
    finished = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(finished.stdout.splitlines()[-1])


def _row(contender: Contender, runs: list[dict], repeats: int | None) -> dict:
    seconds = [run["seconds"] for run in runs]
    largest = max(runs, key=lambda run: run["peak"])
    notes = [contender.note] if contender.note else []
    if not repeats and len(runs) < REPEATS:
        notes.append(f"one run: slower than {SLOW:.0f} s")
    return {
        "contender": contender.name,
        "median_seconds": statistics.median(seconds),
        "min_seconds": min(seconds),
        "max_seconds": max(seconds),
        "repeats": len(runs),
        "baseline_anonymous_bytes": largest["baseline"],
        "peak_anonymous_bytes": largest["peak"],
        "note": "; ".join(notes),
    }


def table(report: dict) -> str:
    """Return a report as text: machine, rows, figures."""
    machine = report["machine"]
    sgemm = machine["sgemm_gflops"]
    blas = {f"{b['internal_api']} {b['version']} ({b['architecture']})" for b in machine["blas"]}
    lines = [
        f"{report['name']}: {report['problem']}",
        f"{machine['cores']} cores, {machine['cpu']}, {', '.join(sorted(blas))}",
        f"sgemm {sgemm['start']:.0f} GF/s before, {sgemm['end']:.0f} GF/s after",
        "",
        "contender".ljust(32)
        + "".join(name.rjust(10) for name in ("median s", "min", "max", "runs"))
        + "".join(name.rjust(9) for name in ("base MB", "peak MB")),
    ]
    for row in report["rows"]:
        lines.append(
            f"{row['contender']:32}{row['median_seconds']:10.3f}{row['min_seconds']:10.3f}"
            f"{row['max_seconds']:10.3f}{row['repeats']:10d}"
            f"{row['baseline_anonymous_bytes'] / 1e6:9.0f}"
            f"{row['peak_anonymous_bytes'] / 1e6:9.0f}  {row['note']}".rstrip()
        )
    lines += [f"left out: {reason}" for reason in report["left_out"]]
    lines += [""] + [f"{name:56}{value:12.4g}" for name, value in report["figures"].items()]
    return "\n".join(lines)
