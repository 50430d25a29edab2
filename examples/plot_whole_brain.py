r"""
A whole brain, out of core
==========================

An encoding model of a whole brain: features of a film, the signal of every voxel, runs. The
recording is simulated on disk, so that the truth is known: six regions follow the features, each in
a way of its own,

.. math:: y_v = \sqrt{s_v}\, X w_{r(v)} + \sqrt{1 - s_v}\, e_v ,

with :math:`e_v` an autoregression within each run, and all else is noise. Ten runs are fitted
within a memory limit, two that no choice has seen give the map. ``--gigabytes 2`` makes the
recording of a real study; the fit does not care, but the disk has to hold it.
"""

import argparse
import tempfile
from pathlib import Path
from time import perf_counter

import matplotlib.pyplot as plt
import numpy as np
from sklearn.linear_model import Ridge

import ridgemm
from ridgemm.demo import PeakMemory
from ridgemm.simulation import N_TEST_RUNS, N_TRAIN_RUNS, simulate_brain, sizes

parser = argparse.ArgumentParser(description="A whole brain, out of core.")
parser.add_argument("--output", type=Path, default="whole-brain.png", help="the picture")
parser.add_argument("--gigabytes", type=float, default=0.3, help="of the fitted runs")
args = parser.parse_args()

# %%
# The recording
# -------------
# X, Y and the runs are ``.npy`` files; ``brain.mask`` says where in the volume the targets lie.

temporary = tempfile.TemporaryDirectory(prefix="ridgemm-brain-", ignore_cleanup_errors=True)
n_samples, n_features, shape = sizes(args.gigabytes)
n_runs = N_TRAIN_RUNS + N_TEST_RUNS
start = perf_counter()
brain = simulate_brain(temporary.name, n_samples, n_features, shape, n_runs)
n_train = int(np.searchsorted(brain.runs, N_TRAIN_RUNS))
print(f"{n_train} volumes to fit, {n_samples - n_train} to test, {n_features} features")
print(f"{brain.Y.shape[1]} voxels, Y has {brain.Y.nbytes / 1e6:.0f} MB")
print(f"simulated     {perf_counter() - start:.1f} s")

# %%
# The fit
# -------
# Volumes of a run resemble each other, so whole runs are held out: with ``groups``, an int means
# ``GroupKFold``. A slice of a memmap is a source like any other; nothing is copied.

model = ridgemm.RidgeCV(np.logspace(0, 5, 11), cv=5, scoring="correlation", memory_limit="200MB")
start = perf_counter()
with PeakMemory() as memory:
    model.fit(brain.X[:n_train], brain.Y[:n_train], groups=brain.runs[:n_train])
seconds = perf_counter() - start
print(model.plan_)
print(f"ridgemm       {seconds:.1f} s, {(memory.peak - memory.before) / 1e6:.0f} MB of memory")

# %%
# The map
# -------
# ``score`` reads the held-out runs once and gives the correlation of every voxel. As alpha was
# chosen without them, the map may be shown as it is.

scores = model.score(brain.X[n_train:], brain.Y[n_train:])
truth = np.sqrt(brain.explained)
signal = brain.region >= 0
print(f"correlation   {scores[signal].mean():.3f} where there is signal, ", end="")
print(f"{scores[~signal].mean():.3f} elsewhere")

# %%
# The same by scikit-learn
# ------------------------
# In float64, at the alphas that were chosen, for a hundred voxels with signal.

some = np.flatnonzero(signal)[:: max(1, signal.sum() // 100)]
X, Y = (a[:n_train].astype(np.float64) for a in (brain.X, brain.Y[:, some]))
reference = Ridge(model.alpha_[some]).fit(X, Y).predict(brain.X[n_train:].astype(np.float64))
correlations = [
    np.corrcoef(y, prediction)[0, 1]
    for y, prediction in zip(brain.Y[n_train:, some].T, reference.T, strict=True)
]
difference = np.abs(scores[some] - correlations).max()
print(f"scikit-learn  largest difference of a correlation {difference:.1e}")
assert difference < 1e-4

# %%
# Slices
# ------
# The estimate cannot reach the truth, as the weights have to be learned from noisy volumes. Regions
# show up in the map of penalties as well: they agree on one, while a voxel of mere noise takes any,
# mostly the smallest or the largest, as all predict it equally badly.

volumes = np.full((3, *brain.mask.shape), np.nan)
values = (truth, scores, np.log10(model.alpha_))
for volume, value in zip(volumes, values, strict=True):
    volume[brain.mask] = value
levels = (np.linspace(0.3, 0.85, 6) * brain.mask.shape[2]).astype(int)
labels = ("true correlation", "in held-out runs", "log10 of alpha")
limits = ((0, truth.max()), (0, truth.max()), tuple(np.log10(model.alphas[[0, -1]])))

figure, panels = plt.subplots(3, len(levels), figsize=(11, 6.6), layout="constrained")
for row, volume, label, limit, colors in zip(
    panels, volumes, labels, limits, ("inferno", "inferno", "viridis_r"), strict=True
):
    for axes, level in zip(row, levels, strict=True):
        image = axes.imshow(
            volume[:, :, level].T, cmap=colors, vmin=limit[0], vmax=limit[1], origin="lower"
        )
        axes.set_axis_off()
    figure.colorbar(image, ax=row, label=label, shrink=0.8)
for axes, level in zip(panels[0], levels, strict=True):
    axes.set_title(f"z = {level}", fontsize="medium")
figure.savefig(args.output, dpi=120)
del brain
temporary.cleanup()
print(f"picture       {args.output}")
