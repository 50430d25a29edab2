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
N_FOUNDERS = 50
N_SEGMENTS = 100
RUN, LINKAGE = 10, 0.7
HERITABILITY = 0.8


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
    with _temporary_folder(2 * len(targets) * problem.n_bytes) as folder:
        _write(folder, problem, targets)
        _write(folder / "warmup", problem.tenth(), targets)
        yield folder


@contextmanager
def _temporary_folder(n_bytes: int) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="ridgemm-bench-") as name:
        folder = Path(name)
        _require_free(folder, n_bytes)
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


@contextmanager
def genotypes_on_disk(problem: Problem) -> Iterator[Path]:
    """Write int8 dosages `X.npy`, `Y.npy`, `frequencies.npy` and `heritable.npy`.

    As `on_disk`, with room for the factors of 10 x 5 folds.
    """
    n_bytes = problem.n_samples * problem.n_features
    with _temporary_folder(2 * n_bytes + 1000 * problem.n_samples**2) as folder:
        write_genotypes(folder, problem)
        write_genotypes(folder / "warmup", problem.tenth())
        yield folder


def write_genotypes(folder: Path, problem: Problem) -> None:
    """Write dosages 0, 1 and 2 of markers and the targets they explain, a few rows at a time.

    ::

        X[i, j] = founders[a(i, s), j] + founders[b(i, s), j]        marker j on segment s
        Y = G diag(sqrt(h)) + E diag(sqrt(1 - h))                    G = X A, standardised

    Everybody inherits two random founders on each of 100 segments of the genome. Allele
    frequencies are uniform between 0.05 and 0.5 before the founders are drawn; neighbours
    are linked, because founders agree on whole runs of ten markers more often than not. One
    target in 50 is heritable, h = 0.8, by a thousand markers at most; the others have h = 0.
    """
    folder.mkdir(exist_ok=True)
    rng = np.random.default_rng(0)
    n, p, t = problem.n_samples, problem.n_features, problem.n_targets
    founders = _founders(rng, p)
    np.save(folder / "frequencies.npy", founders.mean(axis=0, dtype=np.float64))
    heritable = np.arange(t) % 50 == 0
    np.save(folder / "heritable.npy", heritable)
    causal = np.sort(rng.choice(p, min(p, 1000), replace=False))
    effects = rng.standard_normal((len(causal), heritable.sum()), dtype=np.float32)
    G = np.empty((n, heritable.sum()), dtype=np.float32)
    segments = np.array_split(np.arange(p), min(p, N_SEGMENTS))
    X = np.lib.format.open_memmap(folder / "X.npy", "w+", np.int8, (n, p))
    dosage = np.empty(p, dtype=np.int8)
    for i in range(n):
        parents = rng.integers(0, N_FOUNDERS, (len(segments), 2))
        for (a, b), segment in zip(parents, segments, strict=True):
            here = slice(segment[0], segment[-1] + 1)
            np.add(founders[a, here], founders[b, here], out=dosage[here])
        X[i] = dosage
        G[i] = dosage[causal].astype(np.float32) @ effects
    G = (G - G.mean(axis=0)) / G.std(axis=0)
    Y = rng.standard_normal((n, t), dtype=np.float32)
    Y[:, heritable] = np.sqrt(HERITABILITY) * G + np.sqrt(1 - HERITABILITY) * Y[:, heritable]
    np.save(folder / "Y.npy", Y)


def _founders(rng: np.random.Generator, n_markers: int) -> np.ndarray:
    """Alleles 0 and 1 of the founders, (N_FOUNDERS, n_markers) int8.

    An allele is 1 where a uniform number lies below the marker's frequency. A founder's
    numbers are those of the run of ten markers with probability 0.7, otherwise their own:
    frequencies stay as drawn, and neighbours are correlated.
    """
    frequency = rng.uniform(0.05, 0.5, n_markers).astype(np.float32)
    founders = np.empty((N_FOUNDERS, n_markers), dtype=np.int8)
    for founder in founders:
        own = rng.random(n_markers, dtype=np.float32)
        run = np.repeat(rng.random(-(-n_markers // RUN), dtype=np.float32), RUN)[:n_markers]
        linked = rng.random(n_markers, dtype=np.float32) < LINKAGE
        founder[:] = np.where(linked, run, own) < frequency
    return founders


def typical_eigenvalue(folder: Path) -> float:
    """Mean eigenvalue of the centred dual Gram of dosages, expected: ``sum_j 2 f_j (1 - f_j)``.

    The trace over the number of samples, by the allele frequencies f of the founders.
    """
    frequency = np.load(folder / "frequencies.npy")
    return float(2 * (frequency * (1 - frequency)).sum())


def _require_free(folder: Path, n_bytes: int) -> None:
    free = shutil.disk_usage(folder).free
    if free < n_bytes:
        raise SystemExit(
            f"this benchmark needs {n_bytes / 1e9:.1f} GB free under {folder.parent}, "
            f"there is {free / 1e9:.1f} GB; set TMPDIR to a larger disk"
        )
