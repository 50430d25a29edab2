"""Command line of ridgemm."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ridgemm import demo
from ridgemm.errors import InputError, RidgemmError, one_line
from ridgemm.estimators import RidgeCV
from ridgemm.maintenance import clean, verify
from ridgemm.planning import plan


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a subcommand; a ridgemm error is one line on stderr and exit status 2."""
    parser = argparse.ArgumentParser(prog="ridgemm", description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    command = commands.add_parser("demo", help="simulate a small brain on disk and fit it")
    demo.add_arguments(command)
    command.set_defaults(run=_demo)
    _add_plan(commands.add_parser("plan", help="what a fit or a permutation test would take"))
    command = commands.add_parser("verify", help="check every checksum of a cache, run or model")
    command.add_argument("folder", type=Path, metavar="DIR")
    command.set_defaults(run=_verify)
    command = commands.add_parser("clean", help="remove what is of no use from a cache or run")
    command.add_argument("folder", type=Path, metavar="DIR")
    command.add_argument("--size", help="what a cache may keep, such as 10GB")
    command.set_defaults(run=_clean)
    options = parser.parse_args(arguments)
    try:
        return options.run(options)
    except RidgemmError as error:
        print(f"ridgemm: {error}", file=sys.stderr)
        return 2


def _add_plan(command: argparse.ArgumentParser) -> None:
    command.add_argument("X", help="features, a .npy file")
    command.add_argument("Y", help="targets, a .npy file")
    command.add_argument("--alphas", help="comma-separated (default: RidgeCV's)")
    command.add_argument("--cv", default="5", help="number of folds, loo or gcv (default: 5)")
    command.add_argument("--scoring", default="r2")
    command.add_argument("--solver", default="auto")
    command.add_argument("--one-alpha", action="store_true", help="one alpha for all targets")
    command.add_argument("--standardize", action="store_true")
    command.add_argument("--memory-limit")
    command.add_argument("--n-jobs", type=int, default=1)
    command.add_argument("--groups", help="a .npy file: run, session or family of each sample")
    command.add_argument("--n-permutations", type=int, help="plan a permutation test")
    command.add_argument("--outer-cv", type=int, default=5, help="of the permutation test")
    command.add_argument("--scheme", default="free")
    command.add_argument("--null", default="refit")
    command.add_argument("--level", type=float, default=0.05)
    command.add_argument("--json", type=Path, help="write the plan there, too")
    command.set_defaults(run=_plan)


def _plan(options: argparse.Namespace) -> int:
    parameters = {
        "cv": options.cv if options.cv in ("loo", "gcv") else _number(options.cv, "--cv", int),
        "scoring": options.scoring,
        "solver": options.solver,
        "alpha_per_target": not options.one_alpha,
        "standardize": options.standardize,
        "memory_limit": options.memory_limit,
        "n_jobs": options.n_jobs,
    }
    if options.alphas is not None:
        texts = options.alphas.split(",")
        parameters["alphas"] = [_number(text, "--alphas", float) for text in texts]
    nested = {}
    if options.n_permutations is not None:
        names = ("n_permutations", "scheme", "null")
        nested = {name: getattr(options, name) for name in names} | {"cv": options.outer_cv}
    forecast = plan(
        RidgeCV(**parameters),
        options.X,
        options.Y,
        groups=None if options.groups is None else _load_groups(options.groups),
        level=options.level,
        **nested,
    )
    print(forecast)
    if options.json is not None:
        forecast.save(options.json)
    return 0


def _number(text: str, option: str, kind: type) -> float:
    try:
        return kind(text)
    except ValueError:
        raise InputError(f"{option}: {text!r} is not a number.") from None


def _load_groups(path: str) -> np.ndarray:
    try:
        with open(path, "rb") as file:
            return np.lib.format.read_array(file, allow_pickle=False)
    except Exception as error:
        raise InputError(
            f"--groups {path!r} cannot be read as a .npy file ({one_line(error)})."
        ) from error


def _demo(options: argparse.Namespace) -> int:
    demo.main(options)
    return 0


def _verify(options: argparse.Namespace) -> int:
    found = verify(options.folder)
    print(found)
    return 0 if found.sound else 1


def _clean(options: argparse.Namespace) -> int:
    print(clean(options.folder, options.size))
    return 0


if __name__ == "__main__":
    sys.exit(main())
