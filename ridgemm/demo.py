"""The demonstration: a simulated brain on disk, larger than the memory it is fitted in.

``python -m ridgemm demo`` writes a recording whose truth is known, fits it by ``RidgeCV`` within
a memory limit, scores held-out runs, and draws the true map beside the estimated one.
"""

import contextlib
import itertools
import math
import tempfile
import threading
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from scipy.stats import norm

from ridgemm.errors import InputError
from ridgemm.estimators import RidgeCV
from ridgemm.store import check_folder, check_space, open_array
from ridgemm.tiles import spans, width

FEATURE_AR = 0.5  # slow features and slow noise, as in functional MRI: the null of a correlation
NOISE_AR = 0.4  # is then wider than 1 / sqrt(n), which the threshold has to know
LEAST_EXPLAINED = 0.1
LEAST_GIGABYTES = 1e-3  # some 500 targets: every region still has one
CHANCE = 1e-3
N_TRAIN_RUNS, N_TEST_RUNS = 10, 2
BLOCK_BYTES = 32 * 2**20

# Centre in units of the half axes of the ellipsoid (x left to right, y back to front, z up),
# standard deviation in the same units, and explained variance at the centre.
REGIONS = (
    ((-0.28, -0.66, -0.05), 0.16, 0.60),
    ((0.28, -0.66, -0.05), 0.16, 0.60),
    ((-0.66, 0.02, -0.10), 0.14, 0.50),
    ((0.66, 0.02, -0.10), 0.14, 0.50),
    ((-0.42, 0.52, 0.22), 0.17, 0.35),
    ((0.05, 0.10, 0.62), 0.17, 0.45),
)


@dataclass(frozen=True)
class Brain:
    """A simulated recording and its truth.

    Attributes
    ----------
    X, Y : memmap of shape (n_samples, n_features), (n_samples, n_targets)
        Features and targets, float32.
    runs : ndarray of shape (n_samples,)
        The run of each sample, ascending.
    mask : ndarray of bool, 3-D
        Where the targets lie, in C order.
    weights : ndarray of shape (n_features, n_regions)
        Feature weights of each region's signal, columns of unit norm.
    region : ndarray of shape (n_targets,)
        The region of each target, -1 where there is only noise.
    explained : ndarray of shape (n_targets,)
        The share of each target's variance that ``X`` explains.
    """

    X: np.memmap
    Y: np.memmap
    runs: np.ndarray
    mask: np.ndarray
    weights: np.ndarray
    region: np.ndarray
    explained: np.ndarray


@dataclass(frozen=True)
class Report:
    """What the demonstration measured; ``str`` gives the table."""

    n_samples: int
    n_features: int
    n_targets: int
    route: str
    memory_limit: str
    bytes_before_fit: int
    peak_bytes: int
    seconds: dict[str, float]
    threshold: float
    n_signal: int
    n_found: int
    n_noise: int
    n_false: int
    scores: np.ndarray

    def __str__(self) -> str:
        x_bytes = 4 * self.n_samples * self.n_features
        y_bytes = 4 * self.n_samples * self.n_targets
        rows = [
            ("X", f"{self.n_samples} x {self.n_features}, {_in_units(x_bytes)} on disk"),
            ("Y", f"{self.n_samples} x {self.n_targets}, {_in_units(y_bytes)} on disk"),
            ("route", self.route),
            ("memory limit", self.memory_limit),
            ("anonymous memory before fit", _in_units(self.bytes_before_fit)),
            ("peak anonymous memory in fit", _in_units(self.peak_bytes)),
            *((f"seconds, {stage}", f"{value:.1f}") for stage, value in self.seconds.items()),
            (
                "threshold",
                f"r > {self.threshold:.3f} in the held-out runs ({CHANCE:.1%} of noise by chance)",
            ),
            (
                "signal targets found",
                f"{self.n_found} of {self.n_signal} ({self.n_found / self.n_signal:.1%})",
            ),
            (
                "noise targets found",
                f"{self.n_false} of {self.n_noise} ({CHANCE * self.n_noise:.0f} expected)",
            ),
        ]
        return "\n".join(f"{label:<30}{value}" for label, value in rows)


def _in_units(n_bytes: int) -> str:
    """Bytes as a person reads them, in powers of ten."""
    return f"{n_bytes / 1e9:.2f} GB" if n_bytes >= 1e9 else f"{n_bytes / 1e6:.1f} MB"


def ellipsoid(shape: tuple[int, int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Coordinates of every voxel in units of the half axes, and which lie in the ellipsoid."""
    axes = [(np.arange(n) + 0.5) * 2 / n - 1 for n in shape]
    coordinates = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1)
    return coordinates, np.sum(coordinates**2, axis=-1) <= 1


def sizes(gigabytes: float) -> tuple[int, int, tuple[int, int, int]]:
    """Problem whose training targets fill at least so many gigabytes.

    Samples grow as the fourth root, so that even a small demonstration has enough of them to
    find something; features are a tenth of the training samples.

    Returns
    -------
    n_samples, n_features : int
    shape : tuple of int
        Of the volume that holds the mask.
    """
    if not LEAST_GIGABYTES <= gigabytes < math.inf:
        raise InputError(f"gigabytes={gigabytes}; give a number of at least {LEAST_GIGABYTES}.")
    run_length = math.ceil(340 * (gigabytes / 2) ** 0.25)
    n_train = N_TRAIN_RUNS * run_length
    n_targets = math.ceil(gigabytes * 1e9 / (4 * n_train))
    # An ellipsoid fills pi / 6 of its box, edge x 1.2 edge x edge; its voxels are then counted.
    first = int((n_targets / (1.2 * math.pi / 6)) ** (1 / 3))
    for edge in itertools.count(max(first, 2)):
        shape = (edge, round(1.2 * edge), edge)
        if np.count_nonzero(ellipsoid(shape)[1]) >= n_targets:
            return (N_TRAIN_RUNS + N_TEST_RUNS) * run_length, n_train // 10, shape


def autoregress(
    white: np.ndarray,
    coefficient: float,
    scale: float | np.ndarray,
    previous: np.ndarray | None = None,
) -> None:
    """Turn rows of white noise into a stationary AR(1) process, in place.

        e_0 = scale * white_0
        e_t = coefficient * e_{t-1} + sqrt(1 - coefficient^2) * scale * white_t

    Parameters
    ----------
    white : ndarray of shape (n_rows, n_columns)
        Standard normal on entry, the process on return.
    coefficient : float
    scale : float or ndarray of shape (n_columns,)
        Standard deviation of the process.
    previous : ndarray of shape (n_columns,), optional
        The row before the first one; without it the process starts here.
    """
    innovation = np.float32(math.sqrt(1 - coefficient**2)) * np.asarray(scale, np.float32)
    for row in white:
        if previous is None:
            row *= scale
        else:
            row *= innovation
            row += np.float32(coefficient) * previous
        previous = row


def place_regions(shape: tuple[int, int, int]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mask of the brain, and for each target in it the region and the explained variance."""
    coordinates, mask = ellipsoid(shape)
    points = coordinates[mask]
    bumps = np.stack(
        [
            peak * np.exp(-np.sum((points - centre) ** 2, axis=1) / (2 * radius**2))
            for centre, radius, peak in REGIONS
        ]
    )
    explained, region = bumps.max(axis=0), bumps.argmax(axis=0)
    # A tail of effects too small for anyone to find would blur what "found" means.
    outside = explained < LEAST_EXPLAINED
    explained[outside] = 0
    region[outside] = -1
    return mask, region, explained.astype(np.float32)


def simulate_brain(
    folder: str | Path,
    n_samples: int,
    n_features: int,
    shape: tuple[int, int, int],
    n_runs: int,
    seed: int = 0,
) -> Brain:
    """Write a recording with known signal to a folder, a block of rows at a time.

        y_j = sqrt(v_j) X w_region(j) + sqrt(1 - v_j) e_j,    e_j AR(1) inside each run

    so that target j has unit variance, of which ``X`` explains v_j. All arrays are .npy files
    named as the fields of `Brain`.

    Parameters
    ----------
    folder : path
        An existing folder without .npy files: none is overwritten.
    n_samples, n_features : int
    shape : tuple of 3 int
        The volume; the targets are the voxels of its inscribed ellipsoid.
    n_runs : int
    seed : int

    Returns
    -------
    Brain
    """
    folder = Path(folder)
    if any(folder.glob("*.npy")):
        raise InputError(f"folder={str(folder)!r} holds .npy files already; give another folder.")
    mask, region, explained = place_regions(shape)
    runs = np.arange(n_samples) * n_runs // n_samples
    rng_x, rng_w, rng_y = map(np.random.default_rng, np.random.SeedSequence(seed).spawn(3))
    X = rng_x.standard_normal((n_samples, n_features), dtype=np.float32)
    for run in _run_slices(runs):
        autoregress(X[run], FEATURE_AR, 1.0)
    weights = rng_w.standard_normal((n_features, len(REGIONS)), dtype=np.float32)
    weights /= np.linalg.norm(weights, axis=0)

    small = dict(X=X, runs=runs, mask=mask, weights=weights, region=region, explained=explained)
    for name, array in small.items():
        np.save(folder / f"{name}.npy", array)
    _write_targets(folder / "Y.npy", X @ weights, runs, region, explained, rng_y)
    return load_brain(folder)


def _write_targets(
    path: Path,
    signals: np.ndarray,
    runs: np.ndarray,
    region: np.ndarray,
    explained: np.ndarray,
    rng: np.random.Generator,
) -> None:
    """Write signal plus noise to a .npy file, whole rows at a time.

    Plain writes, not a memory map: a disk that fills up is then an ``OSError``, not a crash.
    """
    n_samples, n_targets = len(signals), len(region)
    active = np.flatnonzero(region >= 0)
    amplitude = np.sqrt(explained[active])
    noise_sd = np.sqrt(1 - explained)
    block_rows = max(1, BLOCK_BYTES // (4 * n_targets))
    scratch = np.empty((block_rows, n_targets), dtype=np.float32)
    with open(path, "wb") as file:
        header = dict(descr="<f4", fortran_order=False, shape=(n_samples, n_targets))
        np.lib.format.write_array_header_1_0(file, header)
        for run in _run_slices(runs):
            previous = None
            for rows in spans(width(run), block_rows):
                block = scratch[: width(rows)]
                rng.standard_normal(out=block, dtype=np.float32)
                autoregress(block, NOISE_AR, noise_sd, previous)
                previous = block[-1].copy()
                block[:, active] += signals[run][rows, region[active]] * amplitude
                file.write(block.astype("<f4", copy=False))


def _run_slices(runs: np.ndarray) -> list[slice]:
    """The rows of each run."""
    starts = np.flatnonzero(np.diff(runs, prepend=-1)).tolist()
    return [slice(*bounds) for bounds in itertools.pairwise([*starts, len(runs)])]


def load_brain(folder: str | Path) -> Brain:
    """The brain that `simulate_brain` wrote; ``X`` and ``Y`` stay on disk."""
    arrays = {field.name: open_array(Path(folder) / f"{field.name}.npy") for field in fields(Brain)}
    return Brain(**{name: a if name in ("X", "Y") else np.array(a) for name, a in arrays.items()})


def chance_threshold(n_samples: int, chance: float) -> float:
    """Correlation that a target without signal exceeds with the given probability.

        var(r) = (1 + a b) / (1 - a b) / n

    for independent AR(1) series of coefficients a and b (Bartlett, 1935). A prediction is a sum
    of features of one autocorrelation and so has theirs, whatever the weights.
    """
    product = FEATURE_AR * NOISE_AR
    return norm.isf(chance) * math.sqrt((1 + product) / (1 - product) / n_samples)


def anonymous_bytes() -> int:
    """Resident memory of this process without file pages, or with them where none can tell."""
    info = psutil.Process().memory_info()
    return info.rss - getattr(info, "shared", 0)


class PeakMemory:
    """Peak anonymous memory of this process inside a ``with`` block, sampled by a thread.

    Pages of memory maps do not count: the kernel takes them back whenever it needs them.
    """

    def __init__(self, interval: float = 0.01):
        self.interval = interval

    def __enter__(self) -> "PeakMemory":
        self.before = self.peak = anonymous_bytes()
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._done.set()
        self._thread.join()
        self.peak = max(self.peak, anonymous_bytes())

    def _sample(self) -> None:
        while not self._done.wait(self.interval):
            self.peak = max(self.peak, anonymous_bytes())


@contextlib.contextmanager
def _timed(seconds: dict[str, float], stage: str) -> Iterator[None]:
    start = time.perf_counter()
    yield
    seconds[stage] = time.perf_counter() - start


def _figure_class() -> Any:
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError("the picture needs matplotlib: pip install 'ridgemm[plot]'") from error
    return Figure


def draw_maps(path: str | Path, mask: np.ndarray, truth: np.ndarray, estimate: np.ndarray) -> None:
    """Draw four axial slices of two maps side by side, on one colour scale, into a file.

    Parameters
    ----------
    path : path
        Of the picture; its ending names the format.
    mask : ndarray of bool, 3-D
    truth, estimate : ndarray of shape (n_targets,)
        One value per voxel of the mask.
    """
    volumes = np.full((2, *mask.shape), np.nan, dtype=np.float32)
    volumes[0][mask], volumes[1][mask] = truth, estimate
    share = np.cumsum(np.nansum(volumes[0], axis=(0, 1)))
    levels = np.searchsorted(share / share[-1], (0.15, 0.5, 0.8, 0.95))

    figure = _figure_class()(figsize=(11, 6), layout="constrained")
    titles = ("True correlation", "Estimated correlation, held-out runs")
    panels = figure.subfigures(1, 2)
    for panel, volume, title in zip(panels, volumes, titles, strict=True):
        panel.suptitle(title)
        grid = panel.subplots(2, 2)
        for axes, level in zip(grid.flat, levels, strict=True):
            image = axes.imshow(
                volume[:, :, level].T, origin="lower", cmap="inferno", vmin=0, vmax=truth.max()
            )
            axes.set_title(f"z = {level}", fontsize="medium")
            axes.set_axis_off()
        panel.colorbar(image, ax=grid, label="Pearson r", shrink=0.8)
    figure.savefig(path, dpi=120)


def run_demo(
    folder: str | Path,
    gigabytes: float = 2.0,
    memory_limit: int | str = "512MB",
    picture: str | Path = "ridgemm-demo.png",
    seed: int = 0,
) -> Report:
    """Simulate, fit, score held-out runs and draw.

    Parameters
    ----------
    folder : path
        Where the data are written; made if need be, without .npy files.
    gigabytes : float
        Least size of the training targets.
    memory_limit : int or str
        As for `RidgeCV`.
    picture : path
    seed : int

    Returns
    -------
    Report
    """
    _figure_class()  # a missing package must show before the work, not after it
    folder = Path(folder)
    check_folder(folder, "folder")
    n_runs = N_TRAIN_RUNS + N_TEST_RUNS
    check_space(folder, gigabytes * 1e9 * n_runs / N_TRAIN_RUNS, "the simulated recording")
    n_samples, n_features, shape = sizes(gigabytes)
    seconds: dict[str, float] = {}
    with _timed(seconds, "simulate"):
        brain = simulate_brain(folder, n_samples, n_features, shape, n_runs, seed)

    n_train = np.searchsorted(brain.runs, N_TRAIN_RUNS)
    model = RidgeCV(cv=5, scoring="correlation", alpha_per_target=True, memory_limit=memory_limit)
    with _timed(seconds, "fit"), PeakMemory() as memory:
        model.fit(brain.X[:n_train], brain.Y[:n_train], groups=brain.runs[:n_train])
    with _timed(seconds, "score"):
        scores = model.score(brain.X[n_train:], brain.Y[n_train:])
    with _timed(seconds, "draw"):
        draw_maps(picture, brain.mask, np.sqrt(brain.explained), scores)

    threshold = chance_threshold(n_samples - n_train, CHANCE)
    found, signal = scores > threshold, brain.region >= 0
    return Report(
        n_samples=n_samples,
        n_features=n_features,
        n_targets=len(brain.region),
        route=model.route_,
        memory_limit=str(memory_limit),
        bytes_before_fit=memory.before,
        peak_bytes=memory.peak,
        seconds=seconds,
        threshold=threshold,
        n_signal=np.count_nonzero(signal),
        n_found=np.count_nonzero(found & signal),
        n_noise=np.count_nonzero(~signal),
        n_false=np.count_nonzero(found & ~signal),
        scores=scores,
    )


def add_arguments(parser: ArgumentParser) -> None:
    """Add the options of the demonstration to an ``argparse`` parser."""
    parser.add_argument(
        "--gigabytes", type=float, default=2.0, help="size of the training targets (default: 2)"
    )
    parser.add_argument(
        "--memory-limit", default="512MB", help="memory limit of the fit (default: 512MB)"
    )
    parser.add_argument(
        "--folder",
        type=Path,
        help="where to write and keep the data (default: a temporary folder, removed)",
    )
    parser.add_argument(
        "--picture",
        type=Path,
        default=Path("ridgemm-demo.png"),
        help="file of the two maps (default: ridgemm-demo.png)",
    )


def main(args: Namespace) -> None:
    """Run the demonstration with parsed arguments and print its table."""
    with contextlib.ExitStack() as stack:
        folder = args.folder or stack.enter_context(
            tempfile.TemporaryDirectory(prefix="ridgemm-demo-")
        )
        report = run_demo(folder, args.gigabytes, args.memory_limit, args.picture)
    print(report)
    print(f"{'picture':<30}{args.picture}")
