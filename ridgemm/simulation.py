"""A simulated brain on disk, whose truth is known: what the demonstration fits."""

import itertools
import math
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np

from ridgemm.errors import InputError
from ridgemm.store import open_array
from ridgemm.tiles import spans, width

FEATURE_AR = 0.5  # slow features and slow noise, as in functional MRI: the null of a correlation
NOISE_AR = 0.4  # is then wider than 1 / sqrt(n), which a threshold has to know
LEAST_EXPLAINED = 0.1
LEAST_GIGABYTES = 1e-3  # some 500 targets: every region still has one
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
