r"""
On a cluster
============

A permutation test is cut into tasks: a tile of targets and a range of permutations. A task is a
place in files and some indices, it publishes one small file, and permutation i depends on the seed
and i alone. So tasks may run anywhere that sees the files, in any order, twice if a worker dies,
and the result is that of one process, bit by bit.

Here the cluster is two workers of Dask on this machine. On a real one only the first line of the
block changes, to ``Client("scheduler:8786")`` or to ``Client(SLURMCluster(...))`` of dask-jobqueue;
X, Y, ``cache_dir`` and ``out`` then have to lie on a disk that every worker sees. Without Dask
(``pip install 'ridgemm[dask]'``) the script uses worker processes.
"""

import argparse
import contextlib
import importlib.util
import tempfile
from pathlib import Path
from time import perf_counter

import joblib
import matplotlib.pyplot as plt
import numpy as np

import ridgemm

parser = argparse.ArgumentParser(description="On a cluster.")
parser.add_argument("--output", type=Path, default="on-a-cluster.png", help="the picture")
parser.add_argument("--permutations", type=int, default=200, help="default: 200")
args = parser.parse_args()

# %%
# The data
# --------
# In files, which is what travels: a worker gets their names. One target in ten follows X.

temporary = tempfile.TemporaryDirectory(prefix="ridgemm-cluster-", ignore_cleanup_errors=True)
folder = Path(temporary.name)
rng = np.random.default_rng(0)
n_samples, n_features, n_targets = 240, 20, 4500
X = rng.standard_normal((n_samples, n_features), dtype=np.float32)
Y = rng.standard_normal((n_samples, n_targets), dtype=np.float32)
effects = np.arange(n_targets) % 10 == 0
Y[:, effects] += X @ rng.standard_normal((n_features, effects.sum()), dtype=np.float32) / 8
np.save(folder / "X.npy", X)
np.save(folder / "Y.npy", Y)

# %%
# The workers
# -----------
# ``SubprocessCluster`` starts a scheduler and workers as programs of their own, as a cluster would.


@contextlib.contextmanager
def workers():
    """Two workers, chosen for all that joblib runs inside; gives their name."""
    if importlib.util.find_spec("distributed") is None:
        yield "worker processes"
        return
    from distributed import Client, SubprocessCluster

    with (
        SubprocessCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster,
        Client(cluster),
        joblib.parallel_config(backend="dask"),
    ):
        yield "Dask"


# %%
# The test, a first part
# ----------------------
# The factors of X are made once, by the calling process, in the cache; workers read them there.

model = ridgemm.RidgeCV([10, 100, 1000], cv=2, cache_dir=folder / "cache")
arguments = (model, folder / "X.npy", folder / "Y.npy")
options = {"cv": 3, "random_state": 0, "progress": False}
half = args.permutations // 2
start = perf_counter()
with workers() as name:
    ready = perf_counter()
    ridgemm.permutation_test(
        *arguments, **options, n_permutations=half, n_jobs=2, out=folder / "run"
    )
    first = perf_counter()
print(f"{name}: {ready - start:.1f} s until the workers were there")
print(f"{half} permutations took {first - ready:.1f} s")

# %%
# More of them, elsewhere
# -----------------------
# The run's folder holds what was finished. Asked for more permutations, the same call makes only
# the new ones; here in this process alone, as a cluster's time may be up. A run that was killed
# goes on in the same way.

result = ridgemm.permutation_test(
    *arguments, **options, n_permutations=args.permutations, n_jobs=1, out=folder / "run"
)
print(f"{args.permutations - half} more took {perf_counter() - first:.1f} s in one process")
print(result.summary())

# %%
# Bit by bit
# ----------
# One process, without any cluster, from the beginning. (The mean of the null is the exception: a
# run that has grown adds it up in other portions, and the last bit may differ.)

alone = ridgemm.permutation_test(*arguments, **options, n_permutations=args.permutations, n_jobs=1)
for map_name in ("scores", "pvalues", "pvalues_fdr", "pvalues_fwer", "null_max"):
    assert np.array_equal(getattr(result, map_name), getattr(alone, map_name))
np.testing.assert_allclose(result.null_mean, alone.null_mean, atol=1e-12)
print("the same bits as in one process")

# %%
# The picture
# -----------
# Left, the tasks of the run: each rectangle is a file that one task published, by the time at which
# it was there. Right, what the null of the maximum is for: targets above the dashed line have a
# FWER-corrected p below 0.05.

parts = []
for path in (folder / "run" / "parts").glob("null_*.npy"):
    tile, low, high = map(int, path.stem.split("_")[1:4])
    parts.append((tile, low, high, path.stat().st_mtime))
tiles = sorted({part[0] for part in parts})
stops = dict(zip(tiles, [*tiles[1:], n_targets], strict=True))
began = min(part[3] for part in parts)
longest = max(part[3] for part in parts) - began

figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.2), layout="constrained")
colors = plt.get_cmap("viridis")
for tile, low, high, at in parts:
    color = colors((at - began) / max(longest, 1e-9))
    left.bar(low, stops[tile] - tile, high - low, tile, align="edge", color=color, edgecolor="w")
left.axvline(half, color="black", linestyle="--")
left.text(half, n_targets, f"{name}  ", ha="right", va="bottom")
left.text(half, n_targets, "  this process", ha="left", va="bottom")
left.set(xlabel="permutation", ylabel="target", xlim=(0, args.permutations), ylim=(0, n_targets))
scale = plt.cm.ScalarMappable(plt.Normalize(0, longest), colors)
figure.colorbar(scale, ax=left, label="finished after (s)")

threshold = np.sort(result.null_max)[-int(0.05 * (1 + result.n_permutations))]
bins = np.linspace(result.scores.min(), max(result.scores.max(), result.null_max.max()), 60)
right.hist(result.scores[~effects], bins, density=True, alpha=0.6, color="C7", label="no effect")
right.hist(result.scores[effects], bins, density=True, alpha=0.6, color="C0", label="an effect")
right.hist(
    result.null_max, bins, density=True, alpha=0.6, color="C3", label="null, the largest of all"
)
right.axvline(threshold, color="black", linestyle="--", label="FWER 0.05")
right.set(xlabel="R2", ylabel="density", title=f"{result.n_permutations} permutations")
right.legend(fontsize="small")
figure.savefig(args.output, dpi=120)
temporary.cleanup()
print(f"picture       {args.output}")
