r"""
An encoding model of visual categories
======================================

Which voxels can be predicted from what a person looks at? Haxby and colleagues showed blocks
of faces, houses and six kinds of things in twelve runs of functional MRI [1]_. An encoding
model predicts the signal of each voxel from the category on the screen some seconds before,

.. math:: \hat y_v(t) = \sum_c \sum_{d=1}^{4} x_c(t - d) \, b_{cdv},

by ridge regression with a penalty for each voxel. Its map is the correlation of the predicted
with the measured signal of runs that the model has not seen.

The script simulates a slice. ``--data FOLDER`` reads a real one instead: ``bold.nii.gz``
(x, y, 1, volumes), ``mask.nii.gz`` and ``attributes_literal.txt``, the condition and run of each
volume. ``--fetch`` downloads subject 1 by nilearn (300 MB) and takes one slice of it.

.. [1] J. V. Haxby et al., "Distributed and overlapping representations of faces and objects in
   ventral temporal cortex", Science 293, 2001.
"""

import argparse
from pathlib import Path
from time import perf_counter

import matplotlib.pyplot as plt
import numpy as np
from _haxby import CONDITIONS, add_source, delay, load_slice, remove_lines, scale
from sklearn.linear_model import Ridge
from sklearn.model_selection import LeaveOneGroupOut

from ridgemm import RidgeCV
from ridgemm.plots import plot_map

parser = argparse.ArgumentParser(description="An encoding model of visual categories.")
add_source(parser)
parser.add_argument("--output", type=Path, default="haxby-encoding.png", help="the picture")
args = parser.parse_args()

# %%
# The data
# --------
# A slice is an array ``bold`` (x, y, volumes), a mask (x, y), and the condition and run of each
# volume. All three sources, in ``_haxby.py`` beside this script, give these four.

bold, mask, labels, runs = load_slice(args)
print(f"{len(runs)} volumes in {len(np.unique(runs))} runs, {mask.sum()} voxels")

# %%
# Features
# --------
# A category is a column that is 1 while it is shown. Rest has no column: it is the baseline that
# the others are measured from, and with a column of its own the columns would add up to one,
# which is the intercept again.
#
# The blood flow answers late. Instead of assuming a shape for the answer, a finite impulse
# response gives each category one coefficient for each delay, of 1 to 4 volumes (2.5 s each). A
# run starts with nothing shown: what ended the run before does not reach into it.

DELAYS = range(1, 5)
shown = (labels[:, None] == CONDITIONS).astype(np.float32)
X = delay(shown, runs, DELAYS)

# %%
# Cleaning
# --------
# The scanner drifts, and every run has its own level. A line is fitted to each run and removed,
# from the features as well, so that the model is asked about what is left of both; voxels are
# then scaled to unit variance in each run. A run is cleaned by itself, so a held-out run tells
# the others nothing.

X = remove_lines(X, runs)
Y = scale(remove_lines(bold[mask].T, runs), runs)

# %%
# The model
# ---------
# Volumes of one run resemble each other, so whole runs are held out: the scikit-learn splitter
# leaves out each of the groups in turn. ``best_score_`` is the correlation in the held-out run,
# averaged over runs, of each voxel at its own penalty.

alphas = np.logspace(-1, 4, 11)
start = perf_counter()
model = RidgeCV(alphas, cv=LeaveOneGroupOut(), scoring="correlation").fit(X, Y, groups=runs)
seconds = perf_counter() - start
print(model.plan_)
print(f"ridgemm       {seconds:.2f} s")

# %%
# The penalty of a voxel is the best of eleven by the score that the map shows, which favours
# noise a little: one penalty for all voxels has next to no such choice, and its mean is not far
# below. A study that reports the map holds out further runs that chose nothing, and calls
# ``model.score`` on them.

shared = model.cv_scores_.mean(axis=1).max()
print(f"mean correlation over voxels {model.best_score_.mean():.3f}, with one alpha {shared:.3f}")
print(f"best voxel {model.best_score_.max():.3f}, above 0.2: {(model.best_score_ > 0.2).sum()}")

# %%
# The same by scikit-learn
# ------------------------
# Fold by fold and alpha by alpha in float64, the plain way. Not only the map is compared: each
# of the candidates of each voxel is.


def correlation(a, b):
    """Pearson's correlation of the columns of a and b, 0 where one is constant."""
    a, b = a - a.mean(axis=0), b - b.mean(axis=0)
    norms = np.sqrt((a**2).sum(axis=0) * (b**2).sum(axis=0))
    return np.divide((a * b).sum(axis=0), norms, out=np.zeros_like(norms), where=norms > 0)


def reference_scores(X, Y, runs, alphas):
    """(n_alphas, n_targets) correlations by scikit-learn, averaged over folds."""
    X, Y = X.astype(np.float64), Y.astype(np.float64)
    folds = list(LeaveOneGroupOut().split(X, groups=runs))
    total = np.zeros((len(alphas), Y.shape[1]))
    for train, test in folds:
        X_train, Y_train, X_test, Y_test = X[train], Y[train], X[test], Y[test]
        for a, alpha in enumerate(alphas):
            predicted = Ridge(alpha).fit(X_train, Y_train).predict(X_test)
            total[a] += correlation(predicted, Y_test)
    return total / len(folds)


start = perf_counter()
reference = reference_scores(X, Y, runs, alphas)
seconds = perf_counter() - start
difference = np.abs(model.cv_scores_ - reference).max()
same_alpha = np.mean(model.alpha_ == alphas[reference.argmax(axis=0)])
print(f"scikit-learn  {seconds:.2f} s")
print(f"largest difference of a correlation {difference:.1e}, same alpha in {same_alpha:.1%}")
assert difference < 1e-4

# %%
# The maps
# --------
# ``coef_`` (n_targets, n_features) has the features in the order of the columns of X: all
# categories at the first delay, then all at the second. The mean over delays says how strongly a
# voxel answers a category, and the difference of two what it prefers. Voxels below a
# correlation of 0.1 are left out, so that the mean image shows through.

answers = model.coef_.reshape(-1, len(DELAYS), len(CONDITIONS)).mean(axis=1)
preference = answers[:, CONDITIONS.index("face")] - answers[:, CONDITIONS.index("house")]
predicted = model.best_score_ > 0.1

figure = plt.figure(figsize=(11, 3.3), layout="constrained")
left, right = figure.subfigures(1, 2)
plot_map(
    np.where(predicted, model.best_score_, np.nan),
    mask,
    background=bold.mean(axis=2),
    title="What the categories predict",
    label="correlation in held-out runs",
    figure=left,
)
plot_map(
    np.where(predicted, preference, np.nan),
    mask,
    background=bold.mean(axis=2),
    signed=True,
    title="Faces (red) or houses (blue)",
    label="coefficient of faces less houses",
    figure=right,
)
figure.savefig(args.output, dpi=120)
print(f"picture       {args.output}")
