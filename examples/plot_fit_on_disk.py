r"""
A fit on disk
=============

X and Y lie in files, together larger than the memory that the fit may take. Every target gets a
penalty of its own,

.. math:: \min_{b_j} \|y_j - X b_j\|^2 + \alpha_j \|b_j\|^2 ,

chosen among eleven by 5-fold cross-validation, and the predictions of new samples go to a file
again. The script makes its data, whose truth is known, and looks at what memory it really took.
"""

import argparse
import tempfile
from pathlib import Path
from time import perf_counter

import matplotlib.pyplot as plt
import numpy as np
from sklearn.linear_model import Ridge
from sklearn.metrics import r2_score
from sklearn.model_selection import KFold

import ridgemm
from ridgemm.demo import PeakMemory

parser = argparse.ArgumentParser(description="A fit on disk.")
parser.add_argument("--output", type=Path, default="fit-on-disk.png", help="the picture")
parser.add_argument("--targets", type=int, default=18_000, help="number of targets")
args = parser.parse_args()

# %%
# The data
# --------
# Three kinds of targets: some follow a few features and little noise, some follow all features a
# little, and some follow none. They are written by blocks of rows, as a recording would arrive.

N_SAMPLES, N_NEW, N_FEATURES = 4000, 500, 300
KINDS = ("few features", "all features", "none")


def true_coefficients(rng, n_targets):
    """Coefficients (n_features, n_targets), a kind after the other, and the kind of each."""
    kind = np.arange(n_targets) * len(KINDS) // n_targets
    B = rng.standard_normal((N_FEATURES, n_targets), dtype=np.float32)
    B[20:, kind == 0] = 0
    B *= np.sqrt([2 / 20, 0.1 / N_FEATURES, 0], dtype=np.float32)[kind]
    return B, kind


def write_data(folder, n_targets, seed=0):
    """Write X and Y, old and new samples; the truth comes back."""
    rng = np.random.default_rng(seed)
    B, kind = true_coefficients(rng, n_targets)
    for name, n in (("", N_SAMPLES), ("_new", N_NEW)):
        shapes = {"X": (n, N_FEATURES), "Y": (n, n_targets)}
        X, Y = (
            np.lib.format.open_memmap(folder / f"{key}{name}.npy", "w+", np.float32, shape)
            for key, shape in shapes.items()
        )
        for start in range(0, n, 500):
            rows = slice(start, min(start + 500, n))
            rng.standard_normal(out=(x := np.empty_like(X[rows])), dtype=np.float32)
            rng.standard_normal(out=(y := np.empty_like(Y[rows])), dtype=np.float32)
            X[rows], Y[rows] = x, y + x @ B
    return kind


temporary = tempfile.TemporaryDirectory(prefix="ridgemm-disk-", ignore_cleanup_errors=True)
folder = Path(temporary.name)
kind = write_data(folder, args.targets)
on_disk = sum((folder / name).stat().st_size for name in ("X.npy", "Y.npy"))
print(f"{on_disk / 1e6:.0f} MB on disk")

# %%
# The plan
# --------
# A plan reads a sample of X and no more. It says which algebra will be used, in which tiles, with
# how many bytes of memory and disk, and about how long it will take.

LIMIT = "200MB"
alphas = np.logspace(0, 5, 11)
cv = KFold(5)
model = ridgemm.RidgeCV(alphas, cv=cv, memory_limit=LIMIT, cache_dir=folder / "cache")
forecast = ridgemm.plan(model, folder / "X.npy", folder / "Y.npy")
print(forecast)

# %%
# The fit
# -------
# ``memory_limit`` counts the program's own memory above what importing took. Pages of the two files
# do not count: the system takes them back whenever it needs them.

start = perf_counter()
with PeakMemory() as memory:
    model.fit(folder / "X.npy", folder / "Y.npy")
seconds = perf_counter() - start
print(f"ridgemm       {seconds:.2f} s, {(memory.peak - memory.before) / 1e6:.0f} MB of memory")

# %%
# Other targets, the same X
# -------------------------
# The square-matrix work on X is kept in the cache. The next subject, or another preprocessing of
# Y, finds it there.

start = perf_counter()
again = ridgemm.RidgeCV(alphas, cv=cv, memory_limit=LIMIT, cache_dir=folder / "cache")
again.fit(folder / "X.npy", np.load(folder / "Y.npy", mmap_mode="r")[:, ::10])
print(f"cached        {perf_counter() - start:.2f} s for a tenth of the targets, ", end="")
print(f"{again.factors_computed_} factors computed (before: {model.factors_computed_})")

# %%
# Predictions
# -----------
# ``out=`` takes a memmap. ``score`` compares with measured targets, by the model's own scoring, and
# never holds all predictions. X makes two thirds of the variance of the first kind of targets, a
# tenth of that of the second and nothing of the third: much of a weak signal is lost, as its many
# small coefficients have to be learned from noise.

shape = (N_NEW, args.targets)
predicted = np.lib.format.open_memmap(folder / "predicted.npy", "w+", np.float32, shape)
model.predict(folder / "X_new.npy", out=predicted)
scores = model.score(folder / "X_new.npy", folder / "Y_new.npy")
for k, label in enumerate(KINDS):
    print(f"{label:14}R2 {scores[kind == k].mean():.3f} in new samples")

# %%
# Keep it
# -------
# A saved model is a folder of ``.npy`` files and a manifest. Loading reads no coefficient until it
# is wanted.

model.save(folder / "model")
loaded = ridgemm.load(folder / "model")
assert np.array_equal(loaded.predict(folder / "X_new.npy"), predicted)
print(f"saved         {sorted(path.name for path in (folder / 'model').iterdir())}")

# %%
# The same by scikit-learn
# ------------------------
# Sixty of the targets, twenty of each kind, fold by fold and alpha by alpha in float64.

some = np.concatenate([np.flatnonzero(kind == k)[:20] for k in range(len(KINDS))])
X = np.load(folder / "X.npy").astype(np.float64)
Y = np.load(folder / "Y.npy", mmap_mode="r")[:, some].astype(np.float64)
start = perf_counter()
reference = np.zeros((len(alphas), len(some)))
for train, test in cv.split(X):
    for a, alpha in enumerate(alphas):
        fold_prediction = Ridge(alpha).fit(X[train], Y[train]).predict(X[test])
        fold_scores = r2_score(Y[test], fold_prediction, multioutput="raw_values")
        reference[a] += fold_scores / cv.get_n_splits()
print(f"scikit-learn  {perf_counter() - start:.2f} s for {len(some)} targets")
difference = np.abs(model.cv_scores_[:, some] - reference).max()
print(f"largest difference of an R2 {difference:.1e}")
assert difference < 1e-4

# %%
# The picture
# -----------
# Left, the scores of all candidates, averaged over the targets of a kind, with the spread of nine
# targets in ten; a dot is the alpha chosen most often. One alpha for all would serve no kind well.
# Right, what was on disk and what was in memory.

figure, (left, right) = plt.subplots(
    1, 2, figsize=(10, 4), layout="constrained", gridspec_kw={"width_ratios": (3, 2)}
)
for k, (label, color) in enumerate(zip(KINDS, ("C0", "C1", "C7"), strict=True)):
    curves = model.cv_scores_[:, kind == k]
    low, high = np.percentile(curves, (5, 95), axis=1)
    left.fill_between(alphas, low, high, color=color, alpha=0.25, linewidth=0)
    left.plot(alphas, curves.mean(axis=1), color=color, label=label)
    chosen = np.bincount(np.searchsorted(alphas, model.alpha_[kind == k])).argmax()
    left.plot(alphas[chosen], curves[chosen].mean(), "o", color=color)
left.axhline(0, color="gray", linewidth=0.8)
left.set(xscale="log", xlabel="alpha", ylabel="R2, 5-fold", title="Candidates, by kind of target")
left.legend(title="follows")
sizes = {
    "X and Y on disk": on_disk,
    "memory_limit": model.plan_.memory_limit,
    "planned": model.plan_.peak_bytes,
    "measured": memory.peak - memory.before,
}
bars = right.barh(list(sizes), [size / 1e6 for size in sizes.values()], color="C0")
bars[0].set_color("C7")
right.bar_label(bars, fmt="%.0f", padding=3)
right.invert_yaxis()
right.margins(x=0.15)
right.set(xlabel="MB", title="Disk and memory")
figure.savefig(args.output, dpi=120)
temporary.cleanup()
print(f"picture       {args.output}")
