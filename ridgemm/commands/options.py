"""Options that verbs share, and the objects that they stand for."""

import argparse
from typing import TYPE_CHECKING, Any

from ridgemm.errors import RidgemmError

if TYPE_CHECKING:
    from ridgemm.estimators import RidgeCV

X_HELP = "features: .npy, FILE.h5:DATASET, .zarr, .bed, or TABLE:COLUMN of conditions"
Y_HELP = "targets: the same, or NIfTI images (.nii, .nii.gz) with --mask"


class UsageError(RidgemmError):
    """Options that do not go together."""


def alphas(text: str) -> list[float]:
    """Penalties: "1,10,100", or "1e0:1e5:11" for 11 of them evenly spaced in their logarithm.

    Examples
    --------
    >>> alphas("1:100:3"), alphas("0.5,20")
    ([1.0, 10.0, 100.0], [0.5, 20.0])
    """
    if ":" not in text:
        return [_number(part, float) for part in text.split(",")]
    parts = text.split(":")
    if len(parts) != 3:
        raise argparse.ArgumentTypeError(f"{text!r} is not FIRST:LAST:COUNT, such as 1e0:1e5:11")
    first, last, count = _number(parts[0], float), _number(parts[1], float), _number(parts[2], int)
    if not (0 < first < float("inf") and 0 < last < float("inf") and count > 1):
        raise argparse.ArgumentTypeError(
            f"{text!r} needs two positive ends and a count of at least 2, such as 1e0:1e5:11"
        )
    from numpy import geomspace

    return geomspace(first, last, count).tolist()


def folds(text: str) -> int | str:
    """A number of folds, "loo" or "gcv"."""
    return text if text in ("loo", "gcv") else _number(text, int, "a number, loo or gcv")


def integers(text: str) -> tuple[int, ...]:
    """Whole numbers, separated by commas.

    Examples
    --------
    >>> integers("1,2,3")
    (1, 2, 3)
    """
    return tuple(_number(part, int, "a whole number") for part in text.split(","))


def _number(text: str, kind: type, what: str = "a number") -> Any:
    try:
        return kind(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not {what}") from None


def add_data(parser: argparse.ArgumentParser) -> None:
    """X, Y and how they are read."""
    parser.add_argument("X", help=X_HELP)
    parser.add_argument("Y", nargs="+", help=f"{Y_HELP}, one after the other in time")
    add_mask(parser)
    add_groups(parser)
    parser.add_argument(
        "--confounds",
        metavar="FILE",
        help="removed from X and Y inside each training fold: as X, or a text file of numbers",
    )
    parser.add_argument(
        "--delays",
        type=integers,
        metavar="N,...",
        help="copies of X, each so many samples later, such as 1,2,3,4",
    )
    parser.add_argument(
        "--baseline", metavar="CONDITION", help="of conditions: the one without a column"
    )


def add_mask(parser: argparse.ArgumentParser) -> None:
    """The mask of NIfTI images."""
    parser.add_argument("--mask", metavar="NIFTI", help="voxels to take; maps are NIfTI then, too")


def add_groups(parser: argparse.ArgumentParser) -> None:
    """Labels of samples."""
    parser.add_argument(
        "--groups",
        metavar="FILE",
        help="run, session or family of each sample, held out together: .npy, or TABLE:COLUMN "
        "(.txt, .csv, .tsv; a number from 0, or a name in the first line)",
    )


def add_run(parser: argparse.ArgumentParser) -> None:
    """The run folder."""
    # "run" itself is what the verb does
    parser.add_argument(
        "--run", dest="run_folder", metavar="DIR", required=True, help="run folder, made if need be"
    )


def add_model(parser: argparse.ArgumentParser) -> None:
    """Parameters of `ridgemm.RidgeCV`."""
    parser.add_argument(
        "--alphas",
        type=alphas,
        default=(0.1, 1.0, 10.0),
        help="penalties, 1,10,100 or FIRST:LAST:COUNT in logarithmic steps, such as 1e0:1e5:11 "
        "(default: 0.1,1,10)",
    )
    parser.add_argument(
        "--cv",
        type=folds,
        default=5,
        metavar="N",
        help="folds that choose alpha, loo or gcv (default: 5)",
    )
    parser.add_argument(
        "--scoring", default="r2", help="r2, correlation or neg_mean_squared_error (default: r2)"
    )
    parser.add_argument("--solver", default="auto", help="family or route (default: auto)")
    parser.add_argument(
        "--precision",
        default="single",
        help="single, mixed or, for permutations, bf16: faster on processors with AMX, with "
        "ridgemm[mkl]; bf16 also with AVX512_BF16, with ridgemm[onednn] (default: single)",
    )
    parser.add_argument("--shared-alpha", action="store_true", help="one alpha for all targets")
    parser.add_argument(
        "--standardize", action="store_true", help="scale features to unit variance"
    )
    parser.add_argument("--no-intercept", action="store_true", help="do not remove means")
    add_memory(parser)
    parser.add_argument(
        "--n-jobs", type=int, default=1, metavar="N", help="worker processes (default: 1)"
    )
    parser.add_argument("--cache", metavar="DIR", help="keep factors of X there, for other calls")


def add_memory(parser: argparse.ArgumentParser) -> None:
    """The limit on memory."""
    parser.add_argument(
        "--memory-limit", metavar="SIZE", help="such as 2GB (default: half of what is available)"
    )


def add_test(parser: argparse.ArgumentParser, n_permutations: int | None) -> None:
    """Parameters of `ridgemm.permutation_test`."""
    add = parser.add_argument
    default = "a fit" if n_permutations is None else n_permutations
    add(
        "--n-permutations",
        type=int,
        metavar="N",
        default=n_permutations,
        help=f"(default: {default})",
    )
    add(
        "--outer-cv",
        type=int,
        metavar="N",
        default=5,
        help="folds that give the score (default: 5)",
    )
    add("--scheme", default="free", help="free, within, whole, circular or sign (default: free)")
    add("--null", default="refit", help="refit or heldout (default: refit)")
    add(
        "--alpha-level",
        type=float,
        metavar="P",
        default=0.05,
        help="level of significance (default: 0.05)",
    )
    add("--seed", type=int, metavar="N", default=0, help="of the permutations (default: 0)")
    add("--two-sided", action="store_true", help="test the magnitude of the score")
    add(
        "--min-shift",
        type=int,
        metavar="N",
        default=1,
        help="shortest shift of circular (default: 1)",
    )
    add("--missing", default="raise", help="raise, or skip targets with NaN (default: raise)")
    add("--tail", help="gpd: small p-values from a fitted tail")
    add("--stop", help="besag-clifford: stop targets early; there is no FWER then")
    add("--keep-null", action="store_true", help="keep all null scores")


def add_output(parser: argparse.ArgumentParser) -> None:
    """What is printed."""
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.add_argument("--quiet", action="store_true", help="nothing on stderr but errors")


def make_model(options: argparse.Namespace) -> "RidgeCV":
    """The model that the options describe, its parameters checked."""
    from ridgemm.estimators import RidgeCV

    # of permuted targets alone
    permuted = options.precision == "bf16" and getattr(options, "n_permutations", None) is not None
    model = RidgeCV(
        alphas=options.alphas,
        cv=options.cv,
        scoring=options.scoring,
        alpha_per_target=not options.shared_alpha,
        fit_intercept=not options.no_intercept,
        standardize=options.standardize,
        solver=options.solver,
        precision="single" if permuted else options.precision,
        memory_limit=options.memory_limit,
        cache_dir=options.cache,
        n_jobs=options.n_jobs,
    )
    model.checked_settings()
    return model


def permutation_options(options: argparse.Namespace) -> dict[str, Any]:
    """Arguments of `ridgemm.permutation_test`."""
    names = ("scheme", "n_permutations", "null", "two_sided", "missing", "min_shift", "tail")
    return {name: getattr(options, name) for name in (*names, "stop", "keep_null")} | {
        "cv": options.outer_cv,
        "random_state": options.seed,
        "precision": options.precision,
    }
