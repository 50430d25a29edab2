r"""
Genomic prediction of growth
============================

How much of the growth of a mouse is written in its genes? Mice of Gough Island are twice as
heavy as other house mice. Gray and colleagues crossed them with a common strain, crossed the
offspring among themselves, and weighed their 1,212 grandchildren weekly for 16 weeks [1]_. With
the genotype of each mouse at 11,833 markers, ridge regression predicts all weights and growth
rates at once, each with its own penalty,

.. math:: \min_{b_j} \|y_j - X b_j\|^2 + \alpha_j \|b_j\|^2 .

There are ten times as many features as samples. So all that the fit needs of X is the Gram
:math:`X X^T`, made in one pass over the file: a dual route.

The script simulates a cross. ``--data FOLDER`` reads a real one instead: ``genotypes.npy``, int8
(mice, markers), copies of one parent's allele and -1 where missing; ``phenotypes.npy``, float32
with NaN where missing; ``phenotype_names.txt``; and ``sex.npy``, 1 for males.

.. [1] M. M. Gray et al., "Genetics of rapid and extreme size evolution in island mice",
   Genetics 201, 2015.
"""

import argparse
import tempfile
from pathlib import Path
from time import perf_counter

import matplotlib.pyplot as plt
import numpy as np
from _gough import KINDS, WEEKS, centre_within_sex, read_cross, simulate_cross, write_features
from sklearn.linear_model import Ridge
from sklearn.metrics import r2_score
from sklearn.model_selection import KFold

from ridgemm import RidgeCV

parser = argparse.ArgumentParser(description="Genomic prediction of growth.")
parser.add_argument("--data", type=Path, help="folder of the cross (default: simulate one)")
parser.add_argument("--output", type=Path, default="gough-growth.png", help="the picture")
args = parser.parse_args()

# %%
# The data
# --------
# Three kinds of phenotype by week: the weight (``wk1``), the weight smoothed over weeks
# (``wk1sm``), and the growth rate, the derivative of the smooth curve (``wk1deriv``).

genotypes, phenotypes, names, sex = read_cross(args.data) if args.data else simulate_cross()

# %%
# What is missing
# ---------------
# All phenotypes share the factors of X, so they need the same mice: those that miss none.

complete = ~np.isnan(phenotypes).any(axis=1)
genotypes, phenotypes, sex = genotypes[complete], phenotypes[complete], sex[complete]
print(f"{complete.sum()} of {len(complete)} mice miss no phenotype")
print(f"{len(names)} phenotypes, {genotypes.shape[1]} markers")

# %%
# Males grow faster, and that is no news. Sex is a covariate without a penalty, which is the same
# as taking the mean of each sex off both sides, phenotypes and genotypes. R2 then is the share of
# the variance within a sex. (The two means include held-out mice; of several hundred each, they
# hardly tell one of them.)

Y = centre_within_sex(phenotypes, sex)

# %%
# Features on disk
# ----------------
# A missing genotype gets the mean of its marker. The features go to a ``.npy`` file by blocks of
# markers, and ridgemm reads them from there by tiles: the half million markers of a human study
# need not fit in RAM.

folder = tempfile.TemporaryDirectory(prefix="ridgemm-gough-", ignore_cleanup_errors=True)
path = Path(folder.name) / "X.npy"
write_features(genotypes, sex, path)

# %%
# The model
# ---------
# Five folds, shuffled once. ``route_`` tells that the algebra was dual, and ``plan_`` what the
# others would have cost.

alphas = np.logspace(2, 6, 9)
cv = KFold(5, shuffle=True, random_state=0)
start = perf_counter()
model = RidgeCV(alphas, cv=cv, scoring="r2").fit(path, Y)
seconds = perf_counter() - start
print(model.plan_)
print(f"ridgemm       {seconds:.2f} s")

# %%
# The same by scikit-learn
# ------------------------
# Fold by fold and alpha by alpha in float64, the plain way, for every phenotype and candidate.


def reference_scores(X, Y, cv, alphas):
    """(n_alphas, n_targets) R2 by scikit-learn, averaged over folds."""
    X, Y = X.astype(np.float64), Y.astype(np.float64)
    total = np.zeros((len(alphas), Y.shape[1]))
    for train, test in cv.split(X):
        X_train, X_test = X[train], X[test]
        for a, alpha in enumerate(alphas):
            predicted = Ridge(alpha).fit(X_train, Y[train]).predict(X_test)
            total[a] += r2_score(Y[test], predicted, multioutput="raw_values")
    return total / cv.get_n_splits()


start = perf_counter()
reference = reference_scores(np.load(path), Y, cv, alphas)
seconds = perf_counter() - start
difference = np.abs(model.cv_scores_ - reference).max()
same_alpha = np.mean(model.alpha_ == alphas[reference.argmax(axis=0)])
print(f"scikit-learn  {seconds:.2f} s")
print(f"largest difference of an R2 {difference:.1e}, same alpha in {same_alpha:.1%}")
assert difference < 1e-4

# %%
# Which weeks are predicted
# -------------------------
# An R2 of 0 is a prediction no better than the mean, which a strong enough penalty gives to
# anything; only what lies clearly above it counts as predicted. Littermates share more than
# genes: where litters are known, ``fit(path, Y, groups=litters)`` keeps each in one fold.

scores = dict(zip(names, model.best_score_, strict=True))
by_kind = {kind: np.array([scores[f"wk{week}{kind}"] for week in WEEKS]) for kind in KINDS}

print("R2 by week" + "".join(f"{label:>17}" for label in KINDS.values()))
for week, row in zip(WEEKS, np.transpose(list(by_kind.values())), strict=True):
    print(f"{week:10d}" + "".join(f"{value:17.3f}" for value in row))

figure, axes = plt.subplots(figsize=(8, 4.5), layout="constrained")
for (kind, label), line in zip(KINDS.items(), ("o-", "s--", "^-"), strict=True):
    axes.plot(WEEKS, by_kind[kind], line, label=label)
axes.axhline(0, color="gray", linewidth=0.8)
axes.set(xlabel="week", ylabel="R2 in held-out mice", xticks=WEEKS)
axes.set_title("Growth predicted from genotypes")
axes.legend()
figure.savefig(args.output, dpi=120)
folder.cleanup()
print(f"picture       {args.output}")
