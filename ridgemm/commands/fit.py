"""Choose alphas by cross-validation and fit, into a run folder.

The folder holds the model (ridgemm.load and "ridgemm predict" read it), best_score.npy and
alpha.npy, and with --mask the images scores.nii.gz and alphas.nii.gz. The same command again
says that it is done; after a kill it goes on with the factors of X that were finished. Another
command on the same folder is refused.

examples:
  ridgemm fit X.npy Y.npy --run run1
  ridgemm fit X.npy Y.npy --run run2 --alphas 1e0:1e5:11 --cv 5 --groups runs.npy
  ridgemm fit X.npy Y.npy --run run3 --cv loo --shared-alpha --memory-limit 2GB --cache cache
  ridgemm fit data.h5:features data.h5:targets --run run4 --scoring correlation --json
  ridgemm fit design.txt:0 bold.nii.gz --mask mask.nii.gz --groups design.txt:1 --run run5
"""

import argparse
import json
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ridgemm.commands import data, options, output
from ridgemm.errors import InputError, StorageError, as_path

if TYPE_CHECKING:
    from ridgemm.estimators import RidgeCV
    from ridgemm.forecast import Forecast

log = logging.getLogger("ridgemm")

OWN_CACHE = "factors"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the verb."""
    options.add_data(parser)
    options.add_run(parser)
    options.add_model(parser)
    options.add_output(parser)
    parser.set_defaults(resumes=True)


def run(given: argparse.Namespace) -> int:
    """Run the verb."""
    from ridgemm.journal import REQUEST, hold_request
    from ridgemm.planning import plan
    from ridgemm.results import load
    from ridgemm.store import MANIFEST

    model = options.make_model(given)
    folder = as_path(given.run_folder, "run")
    problem = data.open_problem(given, folder)
    groups, confounds = problem.groups, problem.confounds
    forecast = plan(model, problem.X, problem.Y, groups=groups, confounds=confounds)
    request = {"asked": _asked(model, problem), "chosen": {}}
    begun = (folder / REQUEST).exists()
    if begun:
        hold_request(folder, request)
    elif (folder / MANIFEST).exists():
        raise InputError(
            f"run={str(folder)!r} holds something that this command did not make; give another "
            "folder."
        )
    if begun and is_finished(folder):
        log.info("%s holds this fit already; nothing is computed", folder)
    else:
        _fit(given, model, problem, forecast)
        # not before: until then there is nothing that another fit would spoil
        hold_request(folder, request)
        _publish(model, folder)
    output.show(given, _describe(load(folder), problem, given))
    return 0


def is_finished(folder: Path) -> bool:
    """Whether a folder holds a whole model."""
    from ridgemm.store import MANIFEST, wrong_files

    return (folder / MANIFEST).exists() and not wrong_files(folder, verify=False)


def read_features(folder: Path) -> dict[str, Any]:
    """How the X of a fit was made of its file; a model saved from Python says nothing."""
    from ridgemm.journal import REQUEST

    path = folder / REQUEST
    if not path.exists():
        return {"delays": None, "conditions": None, "baseline": None}
    try:
        return dict(json.loads(path.read_text())["asked"]["features"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StorageError(f"{str(path)!r} cannot be read ({error}); fit again.") from error


def _asked(model: "RidgeCV", problem: data.Problem) -> dict[str, Any]:
    """What the result depends on: the values of X and Y, and not where they lie."""
    import numpy as np

    from ridgemm.mapreduce import Crew, threads_per_worker
    from ridgemm.sources import as_source
    from ridgemm.store import fingerprint, key

    with Crew(threads_per_worker(1)) as crew:
        prints = {
            name: fingerprint(as_source(getattr(problem, name), name), crew.team)
            for name in ("X", "Y", "confounds")
            if getattr(problem, name) is not None
        }
    groups = problem.groups
    labels = None if groups is None else np.unique(groups, return_inverse=True)[1].tolist()
    names = ("cv", "scoring", "solver", "alpha_per_target", "fit_intercept", "standardize")
    names += ("precision",)
    return {
        "command": "fit",
        **prints,
        "alphas": list(model.alphas),
        **{name: getattr(model, name) for name in names},
        "groups": labels and key(labels),
        "features": problem.features,
    }


def _fit(
    given: argparse.Namespace, model: "RidgeCV", problem: data.Problem, forecast: "Forecast"
) -> None:
    from ridgemm.journal import Journal
    from ridgemm.private import sweep
    from ridgemm.store import check_folder

    folder = Path(given.run_folder)
    check_folder(folder, "run")
    sweep(folder)
    log.info("about %d s", max(1, round(forecast.seconds)))
    for warning in forecast.warnings:
        log.warning("warning: %s", warning)
    # without a cache that stays, one that a second call finds after a kill
    model.set_params(cache_dir=given.cache or folder / OWN_CACHE)
    model.fit(problem.X, problem.Y, problem.groups, confounds=problem.confounds)
    model.set_params(cache_dir=given.cache)
    journal = Journal(folder)
    journal.keep_plan(forecast.as_dict())
    journal.took(model.took_)


def _publish(model: "RidgeCV", folder: Path) -> None:
    """The files of the model, into the run folder; its own cache has served."""
    from ridgemm.private import private_folder, remove
    from ridgemm.store import publish_files, storage_error

    try:
        with private_folder(folder, "model") as partial:
            model.save(partial / "model")
            publish_files(partial / "model", folder)
    except OSError as error:
        raise storage_error(folder, error) from error
    remove(folder / OWN_CACHE)


def _describe(model: "RidgeCV", problem: data.Problem, given: argparse.Namespace) -> dict[str, Any]:
    """The rows of the table; maps are written on the way."""
    folder = Path(given.run_folder)
    maps, alpha, score = [], model.alpha_, model.best_score_
    if model.alpha_per_target:
        maps = output.write_maps(folder, {"scores": score, "alphas": alpha}, given.mask)
        alpha, score = output.spread(alpha), output.spread(score)
    return {
        "samples": problem.X.shape[0],
        "features": problem.X.shape[1],
        "targets": problem.Y.shape[1],
        "constant_targets": model.n_constant_targets_,
        "route": model.route_,
        "alpha": alpha,
        "scoring": model.scoring,
        "score": score,
        "run": str(folder),
        "maps": maps or [str(folder / "best_score.npy"), str(folder / "alpha.npy")],
    }
