"""Predict from a fitted model, score predictions, or both.

DIR is the run folder of "ridgemm fit", or what model.save wrote. Delays and conditions of the
fit are made again of the new X; --groups says where its runs begin.

examples:
  ridgemm predict run1 X_new.npy --out prediction.npy
  ridgemm predict run1 X_new.npy --score Y_new.npy
  ridgemm predict run1 X_new.npy --score Y_new.npy --score-map scores.npy --json
"""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ridgemm.commands import data, options, output
from ridgemm.commands.fit import read_features
from ridgemm.errors import InputError, as_path

if TYPE_CHECKING:
    import numpy as np

    from ridgemm.estimators import RidgeCV


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the verb."""
    parser.add_argument("folder", metavar="DIR", help="run folder of a fit, or a saved model")
    parser.add_argument("X", help=options.X_HELP)
    parser.add_argument("--out", metavar="FILE", help="predictions, a .npy file")
    parser.add_argument("--score", metavar="Y", nargs="+", help=options.Y_HELP)
    parser.add_argument("--score-map", metavar="FILE", help="scores, .npy or .nii.gz (--mask)")
    options.add_mask(parser)
    options.add_groups(parser)
    options.add_memory(parser)
    options.add_output(parser)


def run(given: argparse.Namespace) -> int:
    """Run the verb."""
    from ridgemm.results import PermutationResult, load

    _check(given)
    folder = as_path(given.folder, "folder")
    model = load(folder)
    if isinstance(model, PermutationResult):
        raise InputError(
            f"{str(folder)!r} holds a permutation test, which predicts nothing; give the folder "
            "of a fit."
        )
    model.set_params(memory_limit=given.memory_limit)
    X = data.open_features(given.X, data.read_groups(given.groups), read_features(folder))
    rows: dict[str, Any] = {"samples": X.shape[0], "targets": len(model.y_offset_)}
    if given.out is not None:
        _predict(model, X, Path(given.out))
        rows["prediction"] = given.out
    if given.score is not None:
        scores = _score(model, X, given)
        rows |= {"scoring": model.scoring, "score": output.spread(scores)}
        if given.score_map is not None:
            _write_scores(scores, given)
            rows["map"] = given.score_map
    output.show(given, rows)
    return 0


def _check(given: argparse.Namespace) -> None:
    if given.out is None and given.score is None:
        raise options.UsageError("nothing to do: give --out, --score or both.")
    if given.score is None and (given.score_map or given.mask):
        raise options.UsageError("--score-map and --mask need --score.")
    if given.out is not None and not given.out.endswith(".npy"):
        raise options.UsageError(f"--out {given.out!r} must end in .npy.")
    name = given.score_map
    if name is not None and not name.endswith((".npy", ".nii", ".nii.gz")):
        raise options.UsageError(f"--score-map {name!r} must end in .npy, .nii or .nii.gz.")
    if name is not None and not name.endswith(".npy") and given.mask is None:
        raise options.UsageError(f"--score-map {name!r} needs --mask.")


def _predict(model: "RidgeCV", X: Any, path: Path) -> None:
    """Predictions straight into a file, which gets its name when it is whole."""
    import numpy as np

    from ridgemm.store import check_space, create_array, replaced

    shape = (X.shape[0], len(model.y_offset_))
    check_space(path.parent, 4 * shape[0] * shape[1], str(path))
    with replaced(path) as partial:
        model.predict(X, out=create_array(partial, shape, np.float32))


def _score(model: "RidgeCV", X: Any, given: argparse.Namespace) -> "np.ndarray":
    from ridgemm.private import remove, temporary_folder

    folder = temporary_folder(None)
    try:
        return model.score(X, data.open_targets(given, given.score, folder))
    finally:
        remove(folder)


def _write_scores(scores: "np.ndarray", given: argparse.Namespace) -> None:
    path = Path(given.score_map)
    if path.suffix == ".npy":
        from ridgemm.store import replaced, save_array

        with replaced(path) as partial:
            save_array(partial, scores)
    else:
        from ridgemm.neuro import write_map

        write_map(scores, given.mask, path)
