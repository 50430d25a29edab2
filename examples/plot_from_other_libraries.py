r"""
From scikit-learn and himalaya
==============================

The same fits by three libraries. The penalty is the same number in all of them,

.. math:: \|y - X b\|^2 + \alpha \|b\|^2 ,

so that code moves over by its parameters alone. What differs is what is done when nothing is said:

+--------------------------+---------------------+-------------------+-------------------+
|                          | scikit-learn RidgeCV| himalaya RidgeCV  | ridgemm RidgeCV   |
+==========================+=====================+===================+===================+
| cross-validation         | leave-one-out       | 5 folds           | 5 folds           |
+--------------------------+---------------------+-------------------+-------------------+
| score of a candidate     | squared error       | squared error     | R2                |
+--------------------------+---------------------+-------------------+-------------------+
| alpha                    | one for all targets | one for each      | one for each      |
+--------------------------+---------------------+-------------------+-------------------+
| intercept                | yes                 | no                | yes               |
+--------------------------+---------------------+-------------------+-------------------+
| precision                | that of X           | that of X         | single, sums      |
|                          |                     |                   | double            |
+--------------------------+---------------------+-------------------+-------------------+

The script needs scikit-learn, which ridgemm brings; without himalaya its part is left out.
"""

import argparse
import importlib.util
from pathlib import Path
from time import perf_counter

import matplotlib.pyplot as plt
import numpy as np
from sklearn.linear_model import Ridge
from sklearn.linear_model import RidgeCV as SklearnRidgeCV
from sklearn.model_selection import GridSearchCV, KFold

import ridgemm

parser = argparse.ArgumentParser(description="From scikit-learn and himalaya.")
parser.add_argument("--output", type=Path, default="other-libraries.png", help="the picture")
parser.add_argument("--targets", type=int, default=3000, help="number of targets")
args = parser.parse_args()

# %%
# The data
# --------
# Targets from pure noise to nearly none of it; 1,500 samples to learn from and 500 to judge by.

rng = np.random.default_rng(0)
n_train, n_features = 1500, 200
share = np.linspace(0, 0.9, args.targets)
X = rng.standard_normal((2000, n_features))
B = rng.standard_normal((n_features, args.targets)) / np.sqrt(n_features)
Y = X @ B * np.sqrt(share) + rng.standard_normal((2000, args.targets)) * np.sqrt(1 - share)
X, X_new, Y, Y_new = X[:n_train], X[n_train:], Y[:n_train], Y[n_train:]
alphas = np.logspace(-1, 4, 11)
seconds, scores = {}, {}


def timed(name, fit):
    """What `fit` gives; its time is noted."""
    start = perf_counter()
    result = fit()
    seconds[name] = perf_counter() - start
    return result


def r2(predicted):
    """R2 of every target in the new samples."""
    return 1 - ((Y_new - predicted) ** 2).mean(axis=0) / Y_new.var(axis=0)


timed("first call", lambda: ridgemm.RidgeCV(alphas).fit(X, Y[:, :50]))
print(f"first call    {seconds.pop('first call'):.2f} s, compiles or loads the kernels")

# %%
# From scikit-learn: leave-one-out, an alpha for each target
# ----------------------------------------------------------
# ``cv=None`` is ``cv="loo"`` here; its scoring is the squared error. ``cv_results_`` of
# scikit-learn holds one number for each sample, target and alpha; ``cv_scores_`` of ridgemm one for
# each target and alpha.

theirs = timed("scikit-learn, LOO", lambda: SklearnRidgeCV(alphas, alpha_per_target=True).fit(X, Y))
ours = timed(
    "ridgemm, LOO",
    lambda: ridgemm.RidgeCV(alphas, cv="loo", scoring="neg_mean_squared_error").fit(X, Y),
)
scores["scikit-learn, LOO"] = r2(theirs.predict(X_new)), r2(ours.predict(X_new))
same = np.mean(np.isclose(ours.alpha_, theirs.alpha_))
print(f"LOO: same alpha for {same:.1%} of the targets")

# %%
# From scikit-learn: K folds, one alpha for all
# ---------------------------------------------
# A grid search over ``Ridge`` scores by R2, averaged over targets and folds. ``alpha_`` then is a
# number here, too.

search = timed(
    "scikit-learn, grid",
    lambda: GridSearchCV(Ridge(), {"alpha": alphas}, cv=KFold(5)).fit(X, Y),
)
shared = timed(
    "ridgemm, one alpha",
    lambda: ridgemm.RidgeCV(alphas, cv=5, alpha_per_target=False).fit(X, Y),
)
scores["scikit-learn, grid"] = r2(search.predict(X_new)), r2(shared.predict(X_new))
print(f"grid: alpha {search.best_params_['alpha']:g} and {shared.alpha_:g}")
assert np.isclose(search.best_params_["alpha"], shared.alpha_)
grid_difference = np.abs(search.cv_results_["mean_test_score"] - shared.cv_scores_).max()
print(f"      largest difference of a candidate's score {grid_difference:.1e}")

# %%
# From himalaya: K folds, an alpha for each target
# ------------------------------------------------
# The names that change: ``best_alphas_`` is ``alpha_``, and ``coef_`` is transposed, (n_targets,
# n_features). himalaya's backends choose the device; ridgemm runs on the processor.

per_target = timed(
    "ridgemm, 5 folds",
    lambda: ridgemm.RidgeCV(alphas, cv=5, scoring="neg_mean_squared_error").fit(X, Y),
)
if importlib.util.find_spec("himalaya"):
    from himalaya.ridge import RidgeCV as HimalayaRidgeCV

    other = timed(
        "himalaya, 5 folds",
        lambda: HimalayaRidgeCV(alphas, cv=KFold(5), fit_intercept=True).fit(X, Y),
    )
    scores["himalaya, 5 folds"] = r2(other.predict(X_new)), r2(per_target.predict(X_new))
    same = np.mean(np.isclose(per_target.alpha_, other.best_alphas_))
    print(f"himalaya: same alpha for {same:.1%} of the targets")
else:
    print("himalaya is not installed: pip install himalaya")

# %%
# Targets whose two best candidates score alike to five digits may get either, so scores in new
# samples are compared where the alphas agree, and there to 1e-4.

differences = {}
pairs = [("scikit-learn, LOO", ours.alpha_, theirs.alpha_)]
if "himalaya, 5 folds" in scores:
    pairs.append(("himalaya, 5 folds", per_target.alpha_, other.best_alphas_))
for name, mine, yours in pairs:
    agree = np.isclose(mine, yours)
    assert agree.mean() > 0.99
    differences[name] = np.abs(np.subtract(*scores[name]))[agree].max()
differences["scikit-learn, grid"] = np.abs(np.subtract(*scores["scikit-learn, grid"])).max()
difference = max(differences.values())
for name, value in differences.items():
    print(f"{name:20}largest difference of an R2 in new samples {value:.1e}")
assert difference < 1e-4

# %%
# The picture
# -----------
# Left, the R2 of every target in new samples by the other library and by ridgemm: one line. Right,
# the seconds of this run; ``python -m bench peers-square`` and ``peers-tall`` measure larger
# problems with more care.

figure, (left, right) = plt.subplots(
    1, 2, figsize=(11, 4.2), layout="constrained", gridspec_kw={"width_ratios": (2, 3)}
)
for (name, (their_r2, our_r2)), marker in zip(scores.items(), "sxo", strict=False):
    left.plot(their_r2, our_r2, marker, markersize=4, markevery=37, alpha=0.7, label=name)
left.axline((0, 0), slope=1, color="gray", linewidth=0.8, zorder=0)
left.set(xlabel="R2, the other library", ylabel="R2, ridgemm", title="Targets in new samples")
left.set_aspect("equal")
left.legend(fontsize="small")
order = ("scikit-learn, LOO", "ridgemm, LOO", "scikit-learn, grid", "ridgemm, one alpha")
order += ("himalaya, 5 folds", "ridgemm, 5 folds")
shown = [name for name in order if name in seconds]
colors = ["C0" if name.startswith("ridgemm") else "C7" for name in shown]
bars = right.barh(shown, [seconds[name] for name in shown], color=colors)
right.bar_label(bars, fmt="%.2f s", padding=3)
right.invert_yaxis()
right.margins(x=0.15)
right.set(xlabel="seconds", title=f"{n_train} x {n_features} x {args.targets}, 11 alphas")
figure.savefig(args.output, dpi=120)
print(f"picture       {args.output}")
