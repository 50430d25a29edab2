r"""
Which parcels of the brain are heritable
========================================

Brain images and genomes of the same few hundred people: a hundred thousand voxels on one side,
half a million markers on the other, and effects so weak that no voxel shows them. Da Mota and
colleagues, at EuroSciPy 2013, took the way of this script [1]_. Neighbouring voxels that go
together become a parcel, by Ward's clustering; ridge regression predicts every parcel from all
markers at once; permutations tell which of the predictions are better than chance, and the
maximum over parcels corrects for their number,

.. math:: p_j = \frac{1 + \#\{i : \max_k r^{(i)}_k \ge r_j\}}{1 + m},

with :math:`r_j` the held-out correlation of parcel j and :math:`r^{(i)}_k` that of parcel k
under permutation i of m.

The brain is simulated: a slice in which two regions of eight have a genetic part. The genotypes
go to a PLINK ``.bed`` file, two bits each, and are read from there by tiles.

.. [1] B. Da Mota et al., "Machine learning patterns for neuroimaging-genetic studies in the
   cloud", Frontiers in Neuroinformatics 8, 2014.
"""

import argparse
import tempfile
from pathlib import Path
from time import perf_counter

import matplotlib.pyplot as plt
import numpy as np
from bed_reader import to_bed
from scipy.ndimage import gaussian_filter
from sklearn.cluster import FeatureAgglomeration
from sklearn.feature_extraction.image import grid_to_graph
from sklearn.linear_model import Ridge
from sklearn.model_selection import KFold

from ridgemm import RidgeCV, open_bed, permutation_test

parser = argparse.ArgumentParser(description="Heritable parcels of a simulated brain.")
parser.add_argument("--output", type=Path, default="parcels-genetics.png", help="the picture")
parser.add_argument("--permutations", type=int, default=999, help="default: 999")
args = parser.parse_args()

# %%
# People
# ------
# Markers close to each other are inherited together: a chromosome is a patchwork of a few
# ancestral ones. One genotype of a hundred is missing.

N_PEOPLE, N_MARKERS, SIDE = 400, 3000, 44
rng = np.random.default_rng(0)


def simulate_genotypes(n_ancestors=20):
    """Copies of the rarer allele, NaN where missing, (N_PEOPLE, N_MARKERS)."""
    ancestors = rng.random((n_ancestors, N_MARKERS)) < rng.uniform(0.05, 0.5, N_MARKERS)
    chromosomes = np.empty((2 * N_PEOPLE, N_MARKERS), dtype=bool)
    for chromosome in chromosomes:
        # a new ancestor every fifty markers or so
        piece = np.cumsum(rng.random(N_MARKERS) < 0.02)
        origin = rng.integers(n_ancestors, size=piece[-1] + 1)[piece]
        chromosome[:] = ancestors[origin, np.arange(N_MARKERS)]
    genotypes = chromosomes.reshape(N_PEOPLE, 2, N_MARKERS).sum(axis=1).astype(float)
    genotypes[rng.random(genotypes.shape) < 0.01] = np.nan
    return genotypes


genotypes = simulate_genotypes()

# %%
# Their brains
# ------------
# Each of eight round regions has an activity of its own in every person. In the first and the
# fifth, genes make 70 % of its variance. Every voxel adds noise, smooth over its neighbours.

angles = np.arange(8) * np.pi / 4
centres = SIDE / 2 + 13 * np.stack([np.sin(angles), np.cos(angles)], axis=1)
heritable = np.array([1, 0, 0, 0, 1, 0, 0, 0]) * 0.7

grid = np.stack(np.indices((SIDE, SIDE)), axis=-1)
brain = np.hypot(*(grid - (SIDE - 1) / 2).transpose(2, 0, 1)) < SIDE / 2 - 1
regions = np.stack([np.hypot(*(grid - centre).transpose(2, 0, 1)) < 4 for centre in centres])


def simulate_images():
    """Voxels inside the brain, (N_PEOPLE, n_voxels) float32."""
    images = rng.standard_normal((N_PEOPLE, SIDE, SIDE))
    images = 4 * gaussian_filter(images, (0, 1, 1))
    dosages = np.nan_to_num(genotypes, nan=1)
    for region, share in zip(regions, heritable, strict=True):
        effects = rng.standard_normal(N_MARKERS) * (rng.random(N_MARKERS) < 0.02)
        genes = dosages @ effects
        genes = (genes - genes.mean()) / genes.std()
        own = rng.standard_normal(N_PEOPLE)
        activity = np.sqrt(share) * genes + np.sqrt(1 - share) * own
        images += activity[:, None, None] * gaussian_filter(region * 1.5, 1)
    return images[:, brain].astype(np.float32)


images = simulate_images()
print(f"{N_PEOPLE} people, {N_MARKERS} markers, {images.shape[1]} voxels")

# %%
# Parcels
# -------
# Ward's clustering joins what adds least to the variance within parcels, and only neighbours. It
# looks at the images alone: permuting people against genotypes leaves the parcels as they are, so
# the test needs no part of the data put aside for them.

start = perf_counter()
ward = FeatureAgglomeration(60, connectivity=grid_to_graph(SIDE, SIDE, mask=brain[..., None]))
parcels = ward.fit_transform(images)
print(f"parcels       {perf_counter() - start:.2f} s, {parcels.shape[1]} of them")

# %%
# Genotypes in a file
# -------------------
# ``open_bed`` gives missing genotypes the mean of their marker, and ``standardize`` divides by
# what the frequency of the allele says about the spread, so that rare alleles count too.

folder = tempfile.TemporaryDirectory(prefix="ridgemm-parcels-", ignore_cleanup_errors=True)
path = Path(folder.name) / "people.bed"
to_bed(path, genotypes)
X = open_bed(path, standardize=True)
print(f"{path.stat().st_size / 1e6:.1f} MB on disk, {X}")

# %%
# Prediction, and chance
# ----------------------
# Five outer folds give the correlation of prediction and parcel in people who were held out, five
# inner ones choose the penalty. The file is read for one Gram, of which every fold is a block.

ALPHAS = np.logspace(2, 5, 4)
model = RidgeCV(ALPHAS, cv=5, scoring="correlation")
start = perf_counter()
result = permutation_test(
    model, X, parcels, cv=5, n_permutations=args.permutations, null="refit", random_state=0
)
print(f"ridgemm       {perf_counter() - start:.2f} s, {args.permutations} permutations")

# %%
# The same by scikit-learn
# ------------------------
# The observed correlations once more, in float64 and the plain way.


def correlations(prediction, target):
    prediction, target = prediction - prediction.mean(axis=0), target - target.mean(axis=0)
    norms = np.linalg.norm(prediction, axis=0) * np.linalg.norm(target, axis=0)
    return (prediction * target).sum(axis=0) / norms


def held_out(X, Y, folds):
    """Correlation of every alpha and parcel, averaged over folds."""
    return np.mean(
        [
            [
                correlations(Ridge(alpha).fit(X[train], Y[train]).predict(X[test]), Y[test])
                for alpha in ALPHAS
            ]
            for train, test in folds.split(X)
        ],
        axis=0,
    )


start = perf_counter()
A, B = np.asarray(X, dtype=np.float64), parcels.astype(np.float64)
reference = np.zeros(B.shape[1])
for train, test in KFold(5).split(A):
    best = held_out(A[train], B[train], KFold(5)).argmax(axis=0)
    models = [Ridge(alpha).fit(A[train], B[train]) for alpha in ALPHAS]
    outer = np.array([correlations(ridge.predict(A[test]), B[test]) for ridge in models])
    reference += outer[best, np.arange(len(best))] / 5
difference = np.abs(result.scores - reference).max()
print(f"scikit-learn  {perf_counter() - start:.2f} s, no permutation")
print(f"largest difference of a correlation {difference:.1e}")
assert difference < 1e-4

# %%
# What is found
# -------------
# A parcel is where most of its voxels are. The picture shows what was put in, what was predicted,
# and which parcels stand out from the maximum under permutation.

LEVEL = 0.05
found = result.pvalues_fwer <= LEVEL
truth = np.tensordot(heritable, regions, 1)
share = np.array([truth[brain][ward.labels_ == k].mean() for k in range(parcels.shape[1])])
print(f"FWER {LEVEL}: {found.sum()} of {len(found)} parcels")
for k in np.flatnonzero(found):
    inside = np.mean(truth[brain][ward.labels_ == k] > 0)
    print(
        f"parcel {k:2d}  r = {result.scores[k]:.2f}  p = {result.pvalues_fwer[k]:.3f}  "
        f"{inside:4.0%} of it in a heritable region"
    )


def as_map(values):
    """Values of voxels as an image of the slice."""
    image = np.full(brain.shape, np.nan)
    image[brain] = values
    return image


figure, axes = plt.subplots(2, 2, figsize=(9, 7.5), layout="constrained")
maps = {
    "heritable part, as simulated": (truth[brain], "magma", 0, 0.7),
    "held-out correlation of parcels": (result.scores[ward.labels_], "magma", 0, None),
    f"r where p(FWER) is at most {LEVEL}": (
        np.where(found, result.scores, np.nan)[ward.labels_],
        "magma",
        0,
        result.scores.max(),
    ),
}
for ax, (title, (values, colours, low, high)) in zip(axes.flat, maps.items(), strict=False):
    ax.imshow(brain, cmap="gray_r", vmin=0, vmax=6)
    drawn = ax.imshow(as_map(values), cmap=colours, vmin=low, vmax=high)
    labels = as_map(ward.labels_.astype(float))
    border = (labels != np.roll(labels, 1, axis=0)) | (labels != np.roll(labels, 1, axis=1))
    ax.contour(border & brain, levels=[0.5], colors="white", linewidths=0.2, alpha=0.5)
    ax.set(title=title, xticks=[], yticks=[])
    figure.colorbar(drawn, ax=ax, shrink=0.8)
ax = axes[1, 1]
ax.hist(result.null_max, bins=30, color="0.7", label="maximum over parcels, permuted")
threshold = np.quantile(result.null_max, 1 - LEVEL)
ax.axvline(threshold, color="0.3", linestyle="--", label="5 % of them lie above")
ax.plot(result.scores, np.zeros_like(result.scores), "|", color="C3", ms=18, label="parcels")
ax.set(xlabel="held-out correlation", ylabel="permutations", title="The null and the observed")
# room for the legend above the bars
ax.margins(y=0.4)
ax.legend(fontsize=8)
figure.savefig(args.output, dpi=120)
folder.cleanup()
print(f"picture       {args.output}")
