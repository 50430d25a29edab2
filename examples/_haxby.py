"""What the examples on the Haxby data share: a slice, its features and cleaning."""

from pathlib import Path

import numpy as np
from scipy.signal import detrend

CONDITIONS = ["bottle", "cat", "chair", "face", "house", "scissors", "scrambledpix", "shoe"]


def read_slice(folder):
    """The slice in the files of a folder."""
    import nibabel

    bold = np.asarray(nibabel.load(folder / "bold.nii.gz").dataobj)[:, :, 0]
    mask = np.asarray(nibabel.load(folder / "mask.nii.gz").dataobj)[:, :, 0] > 0
    labels, runs = np.loadtxt(folder / "attributes_literal.txt", dtype=str).T
    return bold, mask, labels, runs.astype(int)


def fetch_slice():
    """The axial slice of subject 1 that holds most of the ventral temporal mask."""
    import nibabel
    from nilearn.datasets import fetch_haxby

    haxby = fetch_haxby(subjects=[1])
    ventral = np.asarray(nibabel.load(haxby.mask_vt[0]).dataobj) > 0
    z = np.argmax(ventral.sum(axis=(0, 1)))
    bold = np.asarray(nibabel.load(haxby.func[0]).dataobj[:, :, z])
    mask = np.asarray(nibabel.load(haxby.mask).dataobj[:, :, z]) > 0
    labels, runs = np.loadtxt(haxby.session_target[0], dtype=str, skiprows=1).T
    return bold, mask, labels, runs.astype(int)


def simulate_slice(seed=0):
    """A slice of a like design: one patch prefers faces and one houses, the rest is noise."""
    rng = np.random.default_rng(seed)
    n_runs, n_volumes, shape = 12, 121, (30, 20)
    labels = np.full((n_runs, n_volumes), "rest", dtype="U12")
    for run in labels:
        for start, condition in zip(range(6, 105, 14), rng.permutation(CONDITIONS), strict=True):
            run[start : start + 9] = condition
    runs = np.repeat(np.arange(n_runs), n_volumes)

    x, y = np.indices(shape)
    mask = ((x - 14.5) / 14) ** 2 + ((y - 9.5) / 9) ** 2 < 1
    patches = [np.exp(-((x - centre) ** 2 + (y - 9) ** 2) / 12) for centre in (8, 21)]
    tuning = rng.gamma(2, 8, size=(2, len(CONDITIONS)))
    tuning[[0, 1], [CONDITIONS.index("face"), CONDITIONS.index("house")]] += 30
    amplitudes = np.tensordot(patches, tuning, axes=(0, 0))
    # the blood flow answers over some seconds; noise drifts, and a part of it is common to all
    shown = (labels[:, :, None] == CONDITIONS).astype(float)
    answer = sum(w * np.roll(shown, d, axis=1) for d, w in enumerate((0.2, 0.5, 0.3), start=1))
    drift = np.linspace(-20, 20, n_volumes) * rng.standard_normal((*shape, n_runs, 1))
    bold = 1000 + 200 * mask[:, :, None] * np.ones(len(runs))
    bold += amplitudes @ answer.reshape(len(runs), -1).T + drift.reshape(*shape, -1)
    bold += 25 * rng.standard_normal(bold.shape) + 5 * rng.standard_normal(len(runs))
    return bold.astype(np.int16), mask, labels.ravel(), runs


def add_source(parser):
    """Add the options that say where the slice comes from."""
    source = parser.add_mutually_exclusive_group()
    source.add_argument("--data", type=Path, help="folder of the slice (default: simulate one)")
    source.add_argument("--fetch", action="store_true", help="download the data by nilearn")


def load_slice(args):
    """The slice that the options ask for."""
    if args.data:
        return read_slice(args.data)
    return fetch_slice() if args.fetch else simulate_slice()


def image_files(args, folder):
    """Paths of the recording and its mask, written to a folder unless they are files already."""
    import nibabel

    if args.data:
        return args.data / "bold.nii.gz", args.data / "mask.nii.gz"
    bold, mask, _, _ = load_slice(args)
    affine = np.diag([-3.1, 3.75, 3.75, 1])
    for name, array in (("bold", bold), ("mask", mask.astype(np.uint8))):
        image = nibabel.Nifti1Image(np.expand_dims(array, 2), affine)
        image.to_filename(folder / f"{name}.nii.gz")
    return folder / "bold.nii.gz", folder / "mask.nii.gz"


def delay(features, runs, delays):
    """Copies of the features, each so many volumes later, side by side; rows are by run."""
    copies = np.zeros((len(delays), *features.shape), features.dtype)
    for copy, d in zip(copies, delays, strict=True):
        same_run = runs[d:] == runs[:-d]
        copy[d:] = features[:-d] * same_run[:, None]
    return np.hstack(copies)


def remove_lines(columns, runs):
    """The columns less a line in each run."""
    cleaned = np.empty(columns.shape, dtype=np.float32)
    for run in np.unique(runs):
        cleaned[runs == run] = detrend(columns[runs == run].astype(np.float64), axis=0)
    return cleaned


def scale(columns, runs):
    """The columns, of unit variance in each run; constant ones stay."""
    scaled = columns.copy()
    for run in np.unique(runs):
        spread = columns[runs == run].std(axis=0)
        scaled[runs == run] /= np.where(spread > 0, spread, 1)
    return scaled
