r"""
Which rows may be exchanged
===========================

A permutation test compares a score with those of the same data in other orders,

.. math:: p = \frac{1 + \#\{i : s_i \ge s\}}{1 + m} .

It keeps its promise, at most 5 % of the targets without an effect at :math:`p \le 0.05`, only if
all the orders would have been as likely as the observed one. Volumes of a scan are not cards in a
deck: neighbours resemble each other, and so do those of a run. The script simulates targets that
have nothing to do with the features and counts how often each scheme finds an effect.

+------------+--------------------------------------+-------------------------------------------+
| scheme     | exchanges                            | is right if, without an effect,           |
+============+======================================+===========================================+
| "free"     | any rows                             | rows are independent and alike            |
+------------+--------------------------------------+-------------------------------------------+
| "within"   | rows of one run                      | rows of one run are                       |
+------------+--------------------------------------+-------------------------------------------+
| "whole"    | runs, the rows of each in order      | runs are, whatever goes on inside         |
+------------+--------------------------------------+-------------------------------------------+
| "circular" | nothing: shifts each run in a circle | runs are stationary (approximately)       |
+------------+--------------------------------------+-------------------------------------------+
"""

import argparse
from pathlib import Path
from time import perf_counter

import matplotlib.pyplot as plt
import numpy as np
from scipy.signal import lfilter
from scipy.stats import binom
from sklearn.model_selection import GroupKFold, KFold

from ridgemm import RidgeCV, permutation_test

parser = argparse.ArgumentParser(description="Which rows may be exchanged.")
parser.add_argument("--output", type=Path, default="permutation-schemes.png", help="the picture")
parser.add_argument("--permutations", type=int, default=199, help="of each test (default: 199)")
parser.add_argument("--draws", type=int, default=32, help="simulated features (default: 32)")
args = parser.parse_args()

# %%
# Data without an effect
# ----------------------
# Six runs of 40 rows. The features drift slowly and have a level of their own in each run, as
# most features of films and stories do. The targets are of three kinds: white noise, white noise
# about a level of each run, and a first-order autoregression that starts anew in each run,
#
# .. math:: e_t = a \, e_{t-1} + \sqrt{1 - a^2} \, w_t .

N_RUNS, RUN_LENGTH, N_FEATURES, N_TARGETS = 6, 40, 4, 32
KINDS = ("white noise", "a level for each run", "autocorrelated")
runs = np.repeat(np.arange(N_RUNS), RUN_LENGTH)


def autoregress(white, coefficient=0.7):
    """A stationary AR(1) of unit variance along axis 1, from white noise of the same shape."""
    innovations = np.sqrt(1 - coefficient**2) * white
    innovations[:, 0] = white[:, 0]
    return lfilter([1], [1, -coefficient], innovations, axis=1)


def simulate(seed):
    """Features, and as many targets of each kind, side by side; none depends on the features."""
    rng = np.random.default_rng(seed)

    def white(n_columns):
        return rng.standard_normal((N_RUNS, RUN_LENGTH, n_columns))

    def levels(n_columns):
        return rng.standard_normal((N_RUNS, 1, n_columns))

    X = autoregress(white(N_FEATURES)) + levels(N_FEATURES)
    Y = [white(N_TARGETS), white(N_TARGETS) + levels(N_TARGETS), autoregress(white(N_TARGETS))]
    return X.reshape(len(runs), -1), np.concatenate(Y, axis=2).reshape(len(runs), -1)


# %%
# The tests
# ---------
# The outer folds are shuffled, so that they cut through runs: a test row has its neighbours among
# the training rows. The score is then well above zero without any effect. That is a poor choice of
# folds, but not an error of a test whose null repeats it: a scheme that fits the data is right with
# any folds. One that does not fit gives a null that misses the leak.

SCHEMES = ("free", "within", "whole", "circular")
LEVEL = 0.05
model = RidgeCV([1, 100], cv=GroupKFold(2), scoring="correlation")
outer = list(KFold(4, shuffle=True, random_state=0).split(runs))


def rejections(X, Y, scheme, seed):
    """How many targets of each kind have an uncorrected p of at most the level."""
    result = permutation_test(
        model,
        X,
        Y,
        cv=outer,
        groups=runs,
        scheme=scheme,
        n_permutations=args.permutations,
        random_state=seed,
        progress=False,
    )
    return (result.pvalues <= LEVEL).reshape(len(KINDS), -1).sum(axis=1)


start = perf_counter()
counts = np.zeros((len(SCHEMES), len(KINDS)), dtype=int)
for seed in range(args.draws):
    X, Y = simulate(seed)
    for s, scheme in enumerate(SCHEMES):
        counts[s] += rejections(X, Y, scheme, seed)
seconds = perf_counter() - start

# %%
# How often
# ---------
# If a test is right, the number of rejections is binomial. (Targets of one draw share features and
# permutations, which adds a little to its spread; so there are many draws of few targets.)

n_tests = args.draws * N_TARGETS
rates = counts / n_tests
low, high = binom.interval(0.99, n_tests, LEVEL) / np.array(n_tests)

print(f"rejections at {LEVEL}, of {n_tests} targets without an effect in each cell")
print(f"a test that is right lies within {low:.3f} to {high:.3f} (binomial, 99 %)")
print(f"{'':10}" + "".join(f"{kind:>24}" for kind in KINDS))
for scheme, row in zip(SCHEMES, rates, strict=True):
    verdicts = (f"{rate:.3f} {'holds' if rate <= high else 'fails'}" for rate in row)
    print(f"{scheme:10}" + "".join(f"{verdict:>24}" for verdict in verdicts))
print(f"time          {seconds:.1f} s for {len(SCHEMES) * args.draws} tests")

# %%
# White noise is right with every scheme, even against features that drift: it is enough that one
# of the two may be exchanged. A level for each run breaks "free", which mixes the runs. What
# resembles its neighbours breaks "within" as well.

figure, panels = plt.subplots(1, 3, figsize=(10, 3.5), sharey=True, layout="constrained")
for axes, kind, column in zip(panels, KINDS, rates.T, strict=True):
    colors = ["tab:red" if rate > high else "tab:blue" for rate in column]
    bars = axes.bar(SCHEMES, column, color=colors)
    axes.bar_label(bars, fmt="%.3f", padding=2)
    axes.axhspan(low, high, color="gray", alpha=0.4, label="right, binomial 99 %")
    axes.set_title(kind)
panels[0].set(ylabel=f"rejected at {LEVEL}", ylim=(0, 1.08))
panels[0].legend()
figure.savefig(args.output, dpi=120)
print(f"picture       {args.output}")

# %%
# Which to choose
# ---------------
# * Independent samples, such as unrelated people: "free". With sexes or sites that differ in
#   level or spread: "within" those.
# * Series in several runs: "whole" if there are enough runs of one length and each has stimuli of
#   its own. It is exact, but six runs have only 720 orders, and four runs 24, so that p never falls
#   below 0.042. And what all runs have in common, it cannot test: if the stimuli came in the same
#   order in every run, exchanging runs changes nothing.
# * Few long runs: "circular". It is approximate: a shift joins the end of a run to its start, one
#   seam that the observed order does not have, and the allowed shifts are not closed under
#   composition. Both matter less the longer the runs are against their autocorrelation. One run of
#   n rows has n - 1 shifts, so p is at least 1 / n, and short shifts hardly change slow data:
#   ``min_shift`` leaves them out.
