"""One permutation test in a fresh process: ``python -m bench._permutation TASK``.

The memory baseline is taken after the imports, so that the peak above it is what
``memory_limit`` bounds. A warm-up is a process of its own (`warm_up`): it leaves compiled
code on disk, and nothing in the memory of the one that is measured.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from bench._memory import peak_memory
from bench._run import ROOT, Contender, _row
from ridgemm import RidgeCV, permutation_test


def measure(folder: Path, out: Path, model: dict, **test) -> dict:
    """Run `permutation_test` on the files of a folder.

    Parameters
    ----------
    folder : Path
        Holds `X.npy` and `Y.npy`.
    out : Path
        Run folder.
    model, test : dict
        Parameters of `RidgeCV` and of `permutation_test`.

    Returns
    -------
    dict
        ``seconds``, ``baseline`` and ``peak`` (bytes), ``route``.
    """
    task = {"folder": str(folder), "out": str(out), "model": model, "test": test}
    command = [sys.executable, "-m", "bench._permutation", json.dumps(task)]
    finished = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(finished.stdout.splitlines()[-1])


def warm_up(folder: Path, model: dict, **test) -> None:
    """Compile, on the small problem of a folder, what `measure` will run."""
    with tempfile.TemporaryDirectory(dir=folder) as out:
        measure(folder / "warmup", Path(out), model, **test | {"n_permutations": 2})


def row(name: str, runs: list[dict]) -> dict:
    """The row of a report for runs of `measure`; its note is the route."""
    for run in runs:
        print(f"  {name}: {run['seconds']:.3g} s", file=sys.stderr)
    return _row(Contender(name, "", note=runs[-1]["route"]), runs, len(runs))


def main(task: dict) -> dict:
    """Run a task and return what `measure` does."""
    folder = Path(task["folder"])
    with peak_memory() as memory:
        start = time.perf_counter()
        result = permutation_test(
            RidgeCV(**task["model"]),
            folder / "X.npy",
            folder / "Y.npy",
            out=task["out"],
            progress=False,
            **task["test"],
        )
        seconds = time.perf_counter() - start
    return {
        "seconds": seconds,
        "baseline": memory.baseline,
        "peak": memory.peak,
        "route": result.description["route"],
    }


if __name__ == "__main__":
    print(json.dumps(main(json.loads(sys.argv[1]))))
