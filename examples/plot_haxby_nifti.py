r"""
From NIfTI to a corrected map
=============================

A recording and a mask as NIfTI files go in; a NIfTI file of the voxels that survive a correction
for the whole map comes out, with a report. Between them lie four calls: ``masked_bold`` writes the
voxels of the mask once, as a matrix on disk; ``permutation_test`` scores and tests them;
``write_map`` puts values back where the voxels lie; ``report`` makes a page of all of it.

Features, cleaning and the null are those of
:ref:`sphx_glr_auto_examples_plot_haxby_permutation.py`: runs are shifted by numbers of volumes of
their own, and a voxel is kept if

.. math:: p_v = \frac{1 + \#\{i : \max_u r_{iu} \ge r_v\}}{1 + m} \le 0.05 .

The script simulates a slice; ``--data FOLDER`` and ``--fetch`` are those of the encoding example.
"""

import argparse
from pathlib import Path

import matplotlib.pyplot as plt
import nibabel
import numpy as np
from _haxby import CONDITIONS, add_source, delay, image_files, load_slice, remove_lines, scale
from sklearn.model_selection import GroupKFold, LeaveOneGroupOut

from ridgemm import RidgeCV, permutation_test
from ridgemm.neuro import masked_bold, read_map, write_map
from ridgemm.plots import plot_map

parser = argparse.ArgumentParser(description="From NIfTI to a corrected map.")
add_source(parser)
parser.add_argument("--output", type=Path, default="haxby-nifti", help="folder of what is made")
parser.add_argument("--permutations", type=int, default=1000, help="how many (default: 1000)")
args = parser.parse_args()
args.output.mkdir(parents=True, exist_ok=True)

# %%
# In
# --
# ``masked_bold`` reads a few volumes at a time through nibabel and writes float32 rows, a column
# for each voxel. Made of the same files, the matrix is found the next time.

bold_file, mask_file = image_files(args, args.output)
matrix = masked_bold(bold_file, mask_file, args.output / "bold.npy")
bold = np.load(matrix, mmap_mode="r")
_, _, labels, runs = load_slice(args)
print(f"{bold.shape[0]} volumes, {bold.shape[1]} voxels, {matrix}")

# %%
# The test
# --------
# A finite impulse response for each category; a line removed from each run, and voxels of unit
# variance. Each run is held out in turn, and every permutation chooses its penalties anew.

shown = (labels[:, None] == CONDITIONS).astype(np.float32)
X = remove_lines(delay(shown, runs, range(1, 5)), runs)
Y = scale(remove_lines(bold, runs), runs)
result = permutation_test(
    RidgeCV(np.logspace(0, 4, 5), cv=GroupKFold(4), scoring="correlation"),
    X,
    Y,
    cv=LeaveOneGroupOut(),
    groups=runs,
    scheme="circular",
    n_permutations=args.permutations,
    out=args.output / "run",
    progress=False,
)
print(result.summary())

# %%
# Out
# ---
# Two images: the map of correlations, and what is left of it at a family-wise error of 5 %. Outside
# the mask, and where the null was not beaten, they are NaN, which viewers show as nothing.

found = result.pvalues_fwer <= 0.05
write_map(result.scores, mask_file, args.output / "scores.nii.gz")
corrected = write_map(
    np.where(found, result.scores, np.nan), mask_file, args.output / "scores-fwer.nii.gz"
)
print(f"{found.sum()} voxels in {corrected}")
report = result.report(args.output / "report.html", mask=mask_file)
print(f"report        {report}")

# %%
# The image as it was written, over the mean of the recording: nilearn draws it in the space that
# its affine names.

mean = write_map(bold.mean(axis=0), mask_file, args.output / "mean.nii.gz")
figure = plt.figure(figsize=(6, 3.4))
plot_map(
    read_map(corrected, mask_file),
    nibabel.load(mask_file),
    background=nibabel.load(mean),
    title="FWER-corrected p of at most 0.05",
    label="correlation",
    figure=figure,
)
figure.savefig(args.output / "map.png", dpi=120)
print(f"picture       {args.output / 'map.png'}")
