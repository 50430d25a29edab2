r"""
Genomic prediction, tested
==========================

Which of the weights and growth rates of a mouse are predicted by its genes at all? The cross is
that of :ref:`sphx_glr_auto_examples_plot_gough_growth.py`: 16 weeks, three phenotypes each, and
some thousand markers. A score above zero may be luck; and of 48 scores the best is the luckiest.
So each is compared with the best of all in the same data, permuted,

.. math:: p_j = \frac{1 + \#\{i : \max_k R^2_{ik} \ge R^2_j\}}{1 + m},

where :math:`R^2` is that of nested cross-validation: the penalty is chosen inside the training
mice, and chosen again in every permutation. As a check of the test, it is repeated with
phenotypes whose mice were shuffled beforehand, in which there is nothing to find.

The script simulates a cross; ``--data FOLDER`` reads one as the growth example does.
"""

import argparse
import tempfile
from pathlib import Path
from time import perf_counter

import matplotlib.pyplot as plt
import numpy as np
from _gough import KINDS, WEEKS, centre_within_sex, read_cross, simulate_cross, write_features
from scipy.stats import binom
from sklearn.model_selection import KFold

from ridgemm import RidgeCV, permutation_scheme, permutation_test
from ridgemm.null import fwer_pvalues

parser = argparse.ArgumentParser(description="Genomic prediction, tested.")
parser.add_argument("--data", type=Path, help="folder of the cross (default: simulate one)")
parser.add_argument("--output", type=Path, default="gough-permutation.png", help="the picture")
parser.add_argument("--permutations", type=int, default=2000, help="default: 2000")
args = parser.parse_args()

# %%
# Mice and markers
# ----------------
# As in the growth example: the mice that miss no phenotype, the mean of each sex removed from
# phenotypes and genotypes, the genotypes in a file.

genotypes, phenotypes, names, sex = read_cross(args.data) if args.data else simulate_cross()
complete = ~np.isnan(phenotypes).any(axis=1)
genotypes, phenotypes, sex = genotypes[complete], phenotypes[complete], sex[complete]
Y = centre_within_sex(phenotypes, sex)
print(f"{len(Y)} mice, {len(names)} phenotypes, {genotypes.shape[1]} markers")

folder = tempfile.TemporaryDirectory(prefix="ridgemm-gough-", ignore_cleanup_errors=True)
path = Path(folder.name) / "X.npy"
write_features(genotypes, sex, path)

# %%
# What may be exchanged
# ---------------------
# Grandchildren of two inbred strains are all equally related, as far as anyone can tell before
# looking at a marker: without an effect, any mouse could have had the phenotypes of any other. But
# males vary more than females, so they are exchanged within a sex.
#
# A whole row moves at a time. Weeks of a mouse stay together, and the maximum over 48 correlated
# phenotypes is that of far fewer independent ones: the correction costs little.
#
# ``scheme="within", groups=sex`` says so, but groups are also what folds are made of, and these
# are to hold both sexes. Hence the permutations are drawn here, and given as an array.


def permutations_within_sex(n_permutations, seed):
    """Row numbers, (n_permutations, n_mice)."""
    scheme = permutation_scheme("within", len(sex), n_permutations, sex, random_state=seed)
    return np.array([scheme.draw(i)[0] for i in range(n_permutations)])


# %%
# The test
# --------
# Five outer folds give the score, four inner ones choose the penalty. The Gram of X is made once,
# and each of the 25 folds is a block of it; a permutation moves rows of Y only.

model = RidgeCV(np.logspace(2, 6, 9), cv=KFold(4, shuffle=True, random_state=0), scoring="r2")
outer = KFold(5, shuffle=True, random_state=0)


def test(targets, n_permutations):
    """The result of the nested procedure for some targets, and how long it took."""
    start = perf_counter()
    result = permutation_test(
        model,
        path,
        targets,
        cv=outer,
        scheme=permutations_within_sex(n_permutations, seed=0),
        n_permutations=n_permutations,
        null="refit",
    )
    return result, perf_counter() - start


result, seconds = test(Y, args.permutations)
print(result.summary())
print(f"time          {seconds:.1f} s")

# %%
# What is found
# -------------

LEVEL = 0.05


def table(values):
    """The values of the phenotypes, (n_weeks, n_kinds)."""
    by_name = dict(zip(names, values, strict=True))
    return np.array([[by_name[f"wk{week}{kind}"] for kind in KINDS] for week in WEEKS])


scores, p = table(result.scores), table(result.pvalues_fwer)
print("R2 (p)" + "".join(f"{label:>20}" for label in KINDS.values()))
for week, some_scores, some_p in zip(WEEKS, scores, p, strict=True):
    cells = (f"{r2:.3f} ({fwer:.4f})" for r2, fwer in zip(some_scores, some_p, strict=True))
    print(f"week{week:2d}" + "".join(f"{cell:>20}" for cell in cells))

# %%
# Nothing to find
# ---------------
# One shuffled copy of the phenotypes would tell little: by its promise, the test finds something in
# one of twenty. So here are 200, of another seed, in one call as 9,600 targets. A shuffled copy,
# permuted, is the phenotypes permuted, so the null of all copies is the one at hand; only the
# scores of the copies are new, which are fitted as data, not as permutations.

N_COPIES = 200
shuffled = np.hstack([Y[rows] for rows in permutations_within_sex(N_COPIES, seed=1)])
check, seconds = test(shuffled, n_permutations=1)
copies = check.scores.reshape(N_COPIES, -1)
shuffled_p = fwer_pvalues(copies, result.null_max)
n_found = (shuffled_p <= LEVEL).any(axis=1).sum()
low, high = binom.interval(0.99, N_COPIES, LEVEL)
print(f"time          {seconds:.1f} s, shuffled copies")
print(f"FWER {LEVEL}: {(p <= LEVEL).sum()} of {p.size} phenotypes")
print(f"shuffled:  {(shuffled_p <= LEVEL).sum()} of {shuffled_p.size}, ", end="")
print(f"in {n_found} of {N_COPIES} copies ({low:.0f} to {high:.0f} if the test is right)")
folder.cleanup()

# %%
# By week
# -------
# A score above the dashed line has a FWER-corrected p below 0.05.

# p counts this order too: of 1 + m values, a share of LEVEL may reach the observed one
threshold = np.sort(result.null_max)[-int(LEVEL * (1 + result.n_permutations))]
figure, axes = plt.subplots(figsize=(8, 4.5), layout="constrained")
pale = np.transpose([table(copy) for copy in copies], (1, 0, 2)).reshape(len(WEEKS), -1)
axes.plot(WEEKS, pale, color="gray", linewidth=0.4, alpha=0.2)
for label, line, real in zip(KINDS.values(), ("o-", "s-", "^-"), scores.T, strict=True):
    axes.plot(WEEKS, real, line, label=label)
axes.axhline(threshold, color="black", linestyle="--", label=f"FWER {LEVEL}")
axes.axhline(0, color="gray", linewidth=0.8)
axes.set(xlabel="week", ylabel="R2 in held-out mice", xticks=WEEKS)
axes.set_title("Predicted from genotypes (gray: mice shuffled, 200 times)")
axes.legend()
figure.savefig(args.output, dpi=120)
print(f"picture       {args.output}")
