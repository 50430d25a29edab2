"""The data of every benchmark: seeded, float32, `.npy` files in a temporary folder."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

ALPHAS = np.logspace(0, 5, 11)
RANK = 16
TILE_BYTES = 64 * 2**20
MINIMUM = 20


@dataclass(frozen=True)
class Problem:
    """The shape of a regression: X is (n_samples, n_features), Y is (n_samples, n_targets)."""

    n_samples: int
    n_features: int
    n_targets: int

    def __str__(self) -> str:
        return f"{self.n_samples}x{self.n_features}x{self.n_targets}"

    @property
    def n_bytes(self) -> int:
        return 4 * self.n_samples * (self.n_features + self.n_targets)

    def tenth(self) -> Problem:
        """Return a tenth of the problem in every direction, for an untimed warm-up."""
        return Problem(
            max(MINIMUM, self.n_samples // 10),
            max(2, self.n_features // 10),
            max(MINIMUM, self.n_targets // 10),
        )


@contextmanager
def on_disk(problem: Problem, targets: tuple[str, ...] = ("Y",)) -> Iterator[Path]:
    """Write `X.npy` and one file per name of `targets`; remove them at the end.

    The subfolder `warmup` holds the same files for a tenth of the problem. The folder is
    made where `tempfile` puts it: set TMPDIR to a disk if the default lives in RAM.
    """
    with tempfile.TemporaryDirectory(prefix="ridgemm-bench-") as name:
        folder = Path(name)
        _require_free(folder, 2 * len(targets) * problem.n_bytes)
        _write(folder, problem, targets)
        _write(folder / "warmup", problem.tenth(), targets)
        yield folder


def _write(folder: Path, problem: Problem, targets: tuple[str, ...]) -> None:
    folder.mkdir(exist_ok=True)
    rng = np.random.default_rng(0)
    X = rng.standard_normal((problem.n_samples, problem.n_features), dtype=np.float32)
    np.save(folder / "X.npy", X)
    for seed, target in enumerate(targets, start=1):
        write_targets(folder / f"{target}.npy", X, problem.n_targets, seed)


def write_targets(path: Path, X: np.ndarray, n_targets: int, seed: int) -> None:
    """Write a file of targets, some rows at a time.

    ::

        Y = X A W diag(sqrt(f)) + E diag(sqrt(1 - f))

    A, W and E are normal. The part f of a target's variance that X explains goes from 1 %
    to 99 %, so the chosen alphas spread over the grid; every target has variance one, so
    squared errors and R2 are on one scale. ``B = A W`` has rank 16: a tile of Y of any
    width then costs little, and no contender can make use of it.
    """
    rng = np.random.default_rng(seed)
    n_samples, n_features = X.shape
    signal = 10.0 ** rng.uniform(-2, 2, n_targets)
    explained = (signal / (1 + signal)).astype(np.float32)
    A = rng.standard_normal((n_features, RANK), dtype=np.float32) / np.sqrt(n_features)
    W = rng.standard_normal((RANK, n_targets), dtype=np.float32)
    W *= np.sqrt(explained) / np.linalg.norm(W, axis=0)
    Y = np.lib.format.open_memmap(path, "w+", np.float32, (n_samples, n_targets))
    n_rows = max(1, TILE_BYTES // (4 * n_targets))
    for start in range(0, n_samples, n_rows):
        rows = X[start : start + n_rows]
        tile = rng.standard_normal((len(rows), n_targets), dtype=np.float32)
        tile *= np.sqrt(1 - explained)
        tile += (rows @ A.astype(np.float32)) @ W
        Y[start : start + n_rows] = tile


def _require_free(folder: Path, n_bytes: int) -> None:
    free = shutil.disk_usage(folder).free
    if free < n_bytes:
        raise SystemExit(
            f"this benchmark needs {n_bytes / 1e9:.1f} GB free under {folder.parent}, "
            f"there is {free / 1e9:.1f} GB; set TMPDIR to a larger disk"
        )
