"""A tile of a file of rows that is not in RAM, asked for ahead and left to the system.

Between the turns the system is asked to forget the file (``posix_fadvise``).
"""

from __future__ import annotations

import os
import time
from pathlib import Path

import numpy as np

from bench._memory import peak_memory
from bench._run import Contender, _row
from bench.problems import _temporary_folder
from ridgemm.sources import Reader, as_source
from ridgemm.threads import Team
from ridgemm.workspace import Workspace

REPEATS = 5


def run(quick: bool, repeats: int | None) -> dict:
    n, t, size = (500, 50_000, 512) if quick else (20_000, 50_000, 3072)
    columns = slice(t // 3, t // 3 + size)
    with _temporary_folder(4 * n * t) as folder:
        path = folder / "Y.npy"
        _write(path, n, t)
        runs: dict[str, list[dict]] = {"ahead": [], "left-alone": []}
        for _ in range(repeats or REPEATS):
            for name, done in runs.items():
                done.append(_measure(path, columns, name == "ahead"))
    sums = {run["sum"] for done in runs.values() for run in done}
    rows = [_row(Contender(name, ""), done, repeats) for name, done in runs.items()]
    seconds = {row["contender"]: row["median_seconds"] for row in rows}
    figures = {"speedup_of_a_tile": seconds["left-alone"] / seconds["ahead"]}
    for name, done in runs.items():
        share = np.median([run["read"] for run in done]) / (4 * n * size)
        figures[f"bytes_read_over_tile_{name.replace('-', '_')}"] = float(share)
    figures["different_sums_of_a_tile"] = len(sums)
    figures["tile_megabytes_per_second"] = 4 * n * size / 1e6 / seconds["ahead"]
    return {
        "problem": f"a tile of {size} of {t} targets, {n} samples, float32, from the disk",
        "rows": rows,
        "left_out": [],
        "figures": figures,
    }


def _write(path: Path, n: int, t: int) -> None:
    Y = np.lib.format.open_memmap(path, "w+", np.float32, (n, t))
    row = np.random.default_rng(0).standard_normal(t, dtype=np.float32)
    for i in range(n):
        Y[i] = row + i
    Y.flush()


def _measure(path: Path, columns: slice, ahead: bool) -> dict:
    with open(path, "rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    Y = np.load(path, mmap_mode="r")
    reader = Reader(as_source(Y, "Y"), np.zeros(Y.shape[1], np.float32))
    before = _bytes_read()
    with peak_memory() as memory, Team(2) as team:
        start = time.perf_counter()
        if ahead:
            tile = reader.tile(slice(0, len(Y)), columns, Workspace(), "Y", team, stays=True)
        else:
            tile = np.array(Y[:, columns])
        seconds = time.perf_counter() - start
    return {
        "seconds": seconds,
        "read": _bytes_read() - before,
        "sum": float(tile.sum(dtype=np.float64)),
        "baseline": memory.baseline,
        "peak": memory.peak,
    }


def _bytes_read() -> int:
    lines = Path("/proc/self/io").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("read_bytes"))
