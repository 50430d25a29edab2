r"""
A map of visual categories, tested
==================================

Which of the voxels that an encoding model predicts are predicted better than by chance? The
model is that of :ref:`sphx_glr_auto_examples_plot_haxby_encoding.py`: categories at four delays,
the correlation of predicted and measured signal in held-out runs. Every voxel is compared with

.. math:: p_v = \frac{1 + \#\{i : \max_u r_{iu} \ge r_v\}}{1 + m},

its chance that any voxel u reaches the correlation of v when the rows are permuted, which keeps the
chance of a single false voxel in the whole map below 5 % (family-wise error, FWER). What chance is
depends on the rows that are permuted. The script draws the map of three schemes.

It simulates a slice; ``--data FOLDER`` and ``--fetch`` are those of the encoding example.
"""

import argparse
from pathlib import Path
from time import perf_counter

import matplotlib.pyplot as plt
import numpy as np
from _haxby import CONDITIONS, add_source, delay, load_slice, remove_lines, scale
from sklearn.model_selection import GroupKFold, LeaveOneGroupOut

from ridgemm import RidgeCV, permutation_test
from ridgemm.plots import plot_map

parser = argparse.ArgumentParser(description="A map of visual categories, tested.")
add_source(parser)
parser.add_argument("--output", type=Path, default="haxby-permutation.png", help="the picture")
parser.add_argument("--permutations", type=int, default=1000, help="of each scheme (default: 1000)")
args = parser.parse_args()

# %%
# Features and targets
# --------------------
# As in the encoding example: a finite impulse response for each category, a line removed from
# each run, voxels of unit variance in each run.

bold, mask, labels, runs = load_slice(args)
shown = (labels[:, None] == CONDITIONS).astype(np.float32)
X = remove_lines(delay(shown, runs, range(1, 5)), runs)
Y = scale(remove_lines(bold[mask].T, runs), runs)
print(f"{len(runs)} volumes in {len(np.unique(runs))} runs, {Y.shape[1]} voxels")

# %%
# What the runs have in common
# ----------------------------
# Each run shows the categories in an order of its own. But blocks start at the same volumes in
# all of them, so that whether *anything* is shown at a time is the same in every run.

by_run = [labels[runs == run] for run in np.unique(runs)]
n_orders = len({tuple(some) for some in by_run})
n_timings = len({tuple(some != "rest") for some in by_run})
print(f"{n_orders} orders of the categories, {n_timings} timing of the blocks")

# %%
# Three nulls
# -----------
# Each run is held out in turn; the penalty of a voxel comes from four folds of the other runs.
# With ``null="refit"`` that choice is repeated for every permutation, so that the map may show the
# score by which nothing was chosen: the outer one.
#
# * "within" permutes the volumes of each run. Volumes resemble their neighbours, so this null is
#   too narrow and its p-values too small. It is here to be compared.
# * "whole" gives each run the stimuli of another one. The timing of the blocks stays where it was,
#   and so does what a voxel answers to just anything on the screen. The null hypothesis is that a
#   voxel does not care *which* category it is; it is exact, whatever the noise.
# * "circular" shifts each run by its own number of volumes. The null hypothesis is that a voxel has
#   nothing to do with the screen, and its noise keeps its autocorrelation.

SCHEMES = ("within", "whole", "circular")
model = RidgeCV(np.logspace(0, 4, 5), cv=GroupKFold(4), scoring="correlation")

results, seconds = {}, {}
for scheme in SCHEMES:
    start = perf_counter()
    results[scheme] = permutation_test(
        model,
        X,
        Y,
        cv=LeaveOneGroupOut(),
        groups=runs,
        scheme=scheme,
        n_permutations=args.permutations,
        null="refit",
    )
    seconds[scheme] = perf_counter() - start
print(results["circular"].summary())

# %%
# The observed map is the same for all three, to the bit. The null is not: the average voxel has a
# spread under "circular" that is half as large again as under "within" in the real slice, and
# under "whole" a mean well above zero, that of the answer to anything.
#
# The maximum over voxels treats them as equal, which they are not under "whole": the largest null
# value always comes from a voxel that sees everything, and hides one that answers a single category
# weakly. There the false discovery rate (FDR), from p-values of each voxel by itself, finds more.

LEVEL = 0.05
print(f"{'scheme':10}{'null mean':>10}{'null sd':>9}{'FWER 0.05':>11}{'FDR 0.05':>10}{'time':>9}")
for scheme, result in results.items():
    n_fwer, n_fdr = ((p <= LEVEL).sum() for p in (result.pvalues_fwer, result.pvalues_fdr))
    print(
        f"{scheme:10}{result.null_mean.mean():10.3f}{result.null_sd.mean():9.3f}"
        f"{n_fwer:11d}{n_fdr:10d}{seconds[scheme]:7.1f} s"
    )

# %%
# The maps
# --------
# The correlation in held-out runs, of the voxels with a FWER-corrected p of at most 0.05.

figure = plt.figure(figsize=(13, 2.8), layout="constrained")
panels = figure.subfigures(1, len(SCHEMES))
for panel, (scheme, result) in zip(panels, results.items(), strict=True):
    found = result.pvalues_fwer <= LEVEL
    plot_map(
        np.where(found, result.scores, np.nan),
        mask,
        background=bold.mean(axis=2),
        vmax=result.scores.max(),
        title=f'"{scheme}": {found.sum()} voxels',
        label="correlation",
        figure=panel,
    )
figure.savefig(args.output, dpi=120)
print(f"picture       {args.output}")
