"""The demonstration: a simulated brain on disk, larger than the memory it is fitted in.

``python -m ridgemm demo`` writes a recording whose truth is known, fits it by ``RidgeCV`` within
a memory limit, scores held-out runs, and draws the true map beside the estimated one.
"""

import contextlib
import math
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil
from scipy.stats import norm

from ridgemm.estimators import RidgeCV
from ridgemm.fitplan import format_bytes
from ridgemm.mapplots import new_figure, plot_map
from ridgemm.simulation import (
    FEATURE_AR,
    N_TEST_RUNS,
    N_TRAIN_RUNS,
    NOISE_AR,
    simulate_brain,
    sizes,
)
from ridgemm.store import check_folder, check_space

CHANCE = 1e-3


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
            ("X", f"{self.n_samples} x {self.n_features}, {format_bytes(x_bytes)} on disk"),
            ("Y", f"{self.n_samples} x {self.n_targets}, {format_bytes(y_bytes)} on disk"),
            ("route", self.route),
            ("memory limit", self.memory_limit),
            ("anonymous memory before fit", format_bytes(self.bytes_before_fit)),
            ("peak anonymous memory in fit", format_bytes(self.peak_bytes)),
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
    volume = np.zeros(mask.shape)
    volume[mask] = truth
    share = np.cumsum(volume.sum(axis=(0, 1)))
    levels = np.searchsorted(share / share[-1], (0.15, 0.5, 0.8, 0.95))

    figure = new_figure(11, 6)
    titles = ("True correlation", "Estimated correlation, held-out runs")
    options = {"slices": levels, "vmax": truth.max(), "label": "Pearson r"}
    panels = figure.subfigures(1, 2)
    for panel, values, title in zip(panels, (truth, estimate), titles, strict=True):
        plot_map(values, mask, title=title, figure=panel, **options)
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
    new_figure()  # a missing package must show before the work, not after it
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
