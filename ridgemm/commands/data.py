"""Features, targets and groups as the command line names them."""

import argparse
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ridgemm.commands.options import UsageError
from ridgemm.commands.tables import is_table, read_column, read_numbers
from ridgemm.errors import InputError, StorageError, one_line

if TYPE_CHECKING:
    import numpy as np

_IMAGES = (".nii", ".nii.gz")
TARGETS, IMAGES = "targets.npy", "images.json"


@dataclass(frozen=True)
class Problem:
    """What a fit or a test is made of.

    Attributes
    ----------
    X, Y : objects with ``shape``, ``dtype`` and 2-D slicing
    groups : (n_samples,) array or None
    features : dict
        How X was made of its file, for predictions from another one.
    confounds : (n_samples, n_confounds) array or None
    """

    X: Any
    Y: Any
    groups: "np.ndarray | None"
    features: dict[str, Any]
    confounds: Any = None


def open_problem(options: argparse.Namespace, folder: Path | None) -> Problem:
    """The sources that the options name.

    Parameters
    ----------
    options : Namespace
        Of `ridgemm.commands.options.add_data`.
    folder : Path or None
        Where voxels of images are kept, as ``targets.npy``. Without one Y has the right shape
        and no values, which is enough for a plan.

    Raises
    ------
    InputError, StorageError, UsageError
    """
    groups = read_groups(options.groups)
    if options.baseline is not None and not is_table(options.X):
        raise UsageError("--baseline needs conditions: X as TABLE:COLUMN.")
    features = {
        "conditions": _conditions(options.X, options.baseline) if is_table(options.X) else None,
        "baseline": options.baseline,
        "delays": options.delays and list(options.delays),
    }
    X = open_features(options.X, groups, features)
    confounds = read_confounds(options.confounds)
    return Problem(X, open_targets(options, options.Y, folder), groups, features, confounds)


def open_features(spec: str, groups: "np.ndarray | None", features: Mapping[str, Any]) -> Any:
    """X from a file, its conditions and delays as `features` says."""
    if is_table(spec):
        data = _one_hot(read_column(spec, "X"), features)
    else:
        data = _open_files([spec], "X")
    if features["delays"]:
        from ridgemm import delayed

        data = delayed(data, features["delays"], groups)
    return _checked(data, "X")


def open_targets(options: argparse.Namespace, specs: list[str], folder: Path | None) -> Any:
    """Y from a file, or from images and a mask."""
    images = [spec for spec in specs if spec.lower().endswith(_IMAGES)]
    if options.mask is None and images:
        raise UsageError(f"Y={images[0]!r} is an image: --mask says which voxels to take.")
    if options.mask is not None and len(images) < len(specs):
        other = next(spec for spec in specs if spec not in images)
        raise UsageError(f"--mask is for images (.nii, .nii.gz), but Y={other!r} is none.")
    if images:
        if folder is None:
            return _checked(_empty_bold(images, options.mask), "Y")
        path = _write_bold(images, options.mask, folder, options.memory_limit)
        return _checked(path, "Y")
    return _checked(_open_files(specs, "Y"), "Y")


def read_groups(spec: str | None) -> "np.ndarray | None":
    """Labels of samples from a ``.npy`` or a text file."""
    if spec is None:
        return None
    if is_table(spec):
        return read_column(spec, "groups")
    if not spec.endswith(".npy"):
        raise InputError(f"groups={spec!r} is neither .npy nor a text file (.txt, .csv, .tsv).")
    import numpy as np

    try:
        with open(spec, "rb") as file:
            return np.lib.format.read_array(file, allow_pickle=False)
    except Exception as error:
        raise InputError(
            f"groups={spec!r} cannot be read as a .npy file ({one_line(error)})."
        ) from error


def read_confounds(spec: str | None) -> Any:
    """Confounds from a file, of a text file all columns."""
    if spec is None:
        return None
    return read_numbers(spec, "confounds") if is_table(spec) else _open_files([spec], "confounds")


def _open_files(specs: list[str], name: str) -> Any:
    """One array of the rows of all files."""
    from ridgemm.files import open_source

    return open_source(specs if len(specs) > 1 else specs[0], name)


def _checked(data: Any, name: str) -> Any:
    from ridgemm.sources import as_source

    return as_source(data, name).data


def _write_bold(images: list[str], mask: str, folder: Path, memory_limit: str | None) -> Path:
    """The targets of a run, which are those of one set of images for good."""
    from ridgemm.neuro import masked_bold
    from ridgemm.store import replaced

    note, now = folder / IMAGES, [os.path.abspath(name) for name in (*images, mask)]
    try:
        before = list(json.loads(note.read_text())) if note.exists() else now
    except (OSError, ValueError, TypeError) as error:
        raise StorageError(f"{str(note)!r} cannot be read ({error}); remove it.") from error
    if before != now:
        *old, old_mask = map(os.path.relpath, before)
        raise InputError(
            f"run={str(folder)!r} was made of {', '.join(old)} and the mask {old_mask}; give "
            "another folder, or the same images."
        )
    path = masked_bold(images, mask, folder / TARGETS, memory_limit)
    if not note.exists():
        with replaced(note) as partial:
            partial.write_text(json.dumps(now, indent=1))
    return path


def _empty_bold(images: list[str], mask: str) -> "np.ndarray":
    """What `masked_bold` would make, without values and without memory."""
    import numpy as np

    from ridgemm.images import check_grid, inside_mask, load_image, open_runs

    runs, grid = open_runs(images), load_image(mask, "mask")
    for run in runs:
        check_grid(run.image, grid, run.name)
    shape = sum(run.n_volumes for run in runs), np.count_nonzero(inside_mask(grid))
    return np.broadcast_to(np.float32(0), shape)


def _conditions(spec: str, baseline: str | None) -> list[str]:
    """Conditions in order, as texts, the baseline left out."""
    import numpy as np

    found = [str(label) for label in np.unique(read_column(spec, "X"))]
    if baseline is None:
        return found
    if baseline not in found:
        raise InputError(
            f"--baseline {baseline!r} is no condition of X; it has {', '.join(map(repr, found))}."
        )
    return [label for label in found if label != baseline]


def _one_hot(labels: "np.ndarray", features: Mapping[str, Any]) -> "np.ndarray":
    """(n_samples, n_conditions) float32: 1 where a sample is of a condition."""
    import numpy as np

    labels, conditions = labels.astype(str), features["conditions"]
    if conditions is None:
        raise InputError("X is a column of conditions, but the model was not fitted to conditions.")
    known = sorted({*conditions, features["baseline"]} - {None})
    new = np.setdiff1d(labels, known)
    if len(new):
        raise InputError(
            f"X has the condition {str(new[0])!r}, but the model was fitted to "
            f"{', '.join(map(repr, known))}."
        )
    return (labels[:, None] == np.array(conditions)).astype(np.float32)
