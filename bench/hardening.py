"""What was tried against ridgemm, and what came of it: the suites of hard knocks, counted."""

from __future__ import annotations

import re
import subprocess
import sys

from bench._run import ROOT

#: Files of tests, and what each tries.
SUITES = {
    "test_faults": "every write, fsync, rename and mkdir fails in turn; SIGKILL, SIGINT; full disk",
    "test_resume": "permutation tests killed at random moments, and resumed to the same bits",
    "test_maintenance": "every file of caches, runs and models truncated, flipped, swapped",
    "test_fuzz": "odd data, parameters, .npy headers and manifests, drawn at random",
    "test_memory": "drawn problems on every route, parent and workers, under RLIMIT_DATA",
    "test_memory_together": "all processes of a job under one control group",
    "test_fit_memory": "targets larger than the limit under RLIMIT_DATA",
    "test_cluster": "workers of a Dask cluster killed, interrupted, without the files",
}


def run(quick: bool, repeats: int | None) -> dict:
    """Run the suites in their short forms, or in `quick` one of them; slow ones are marked."""
    figures, lines = {}, [f"{'suite':18}{'passed':>8}{'failed':>8}{'skipped':>9}  what is tried"]
    for name, what in SUITES.items():
        if quick and name != "test_fit_memory":
            continue
        counts = _run(name)
        figures |= {f"{name}_{kind}": count for kind, count in counts.items()}
        row = "".join(f"{count:8d}" for count in counts.values())
        lines.append(f"{name:18}{row}   {what}")
    text = "\n".join(lines)
    report = {"problem": "suites of hard knocks", "rows": [], "left_out": [], "figures": figures}
    return report | {"text": text}


def _run(name: str) -> dict[str, int]:
    command = [sys.executable, "-m", "pytest", "-q", "-m", "not slow", f"tests/{name}.py"]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    words = {"passed": "passed", "failed": "(?:failed|error)", "skipped": "skipped"}
    last = done.stdout.splitlines()[-1]
    found = {kind: re.search(rf"(\d+) {word}", last) for kind, word in words.items()}
    return {kind: int(match[1]) if match else 0 for kind, match in found.items()}
