"""Test the cross-validated score of every target by permutation, in a run folder.

The folder holds the maps scores.npy, pvalues.npy, pvalues_fdr.npy, pvalues_fwer.npy and
scores_fwer.npy (scores of targets with a FWER-corrected p of at most --alpha-level, NaN
elsewhere), with --mask as .nii.gz too. Killed or stopped, the same command continues; with a
larger --n-permutations only the new ones are computed.

examples:
  ridgemm permute X.npy Y.npy --run test1 --n-permutations 100
  ridgemm permute X.npy Y.npy --run test2 --groups runs.npy --scheme within --alphas 1e0:1e5:11
  ridgemm permute X.npy Y.npy --run test3 --null heldout --alpha-level 0.01 --json
  ridgemm permute design.txt:0 bold.nii.gz --mask mask.nii.gz --groups design.txt:1
      --scheme circular --delays 1,2,3,4 --run test4
"""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ridgemm.commands import data, options, output
from ridgemm.errors import as_path

if TYPE_CHECKING:
    import numpy as np

    from ridgemm.results import PermutationResult


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the verb."""
    options.add_data(parser)
    options.add_run(parser)
    options.add_test(parser, 1000)
    options.add_model(parser)
    options.add_output(parser)
    parser.set_defaults(resumes=True)


def run(given: argparse.Namespace) -> int:
    """Run the verb."""
    from ridgemm.permutation import permutation_test
    from ridgemm.planning import check_level

    check_level(given.alpha_level, "alpha_level")
    model = options.make_model(given)
    folder = as_path(given.run_folder, "run")
    problem = data.open_problem(given, folder)
    result = permutation_test(
        model,
        problem.X,
        problem.Y,
        groups=problem.groups,
        confounds=problem.confounds,
        out=folder,
        progress=False if given.quiet else None,
        **options.permutation_options(given),
    )
    output.show(given, _describe(result, given))
    return 0


def _maps(result: "PermutationResult", level: float) -> dict[str, "np.ndarray"]:
    import numpy as np

    maps = {
        "scores": result.scores,
        "pvalues": result.pvalues,
        "pvalues_fdr": result.pvalues_fdr,
    }
    if result.pvalues_fwer is not None:
        maps["pvalues_fwer"] = result.pvalues_fwer
        maps["scores_fwer"] = np.where(result.pvalues_fwer <= level, result.scores, np.nan)
    return maps


def _describe(result: "PermutationResult", given: argparse.Namespace) -> dict[str, Any]:
    """The rows of the table; maps are written on the way."""
    from ridgemm.store import replaced, save_array

    folder, level = Path(given.run_folder), given.alpha_level
    maps = _maps(result, level)
    if "scores_fwer" in maps:
        with replaced(folder / "scores_fwer.npy") as partial:
            save_array(partial, maps["scores_fwer"])
    images = output.write_maps(folder, maps, given.mask)
    described = result.description
    rows = {
        "targets": len(result.scores),
        "permutations": result.n_permutations,
        "scheme": described["scheme"],
        "null": described["null"],
        "route": described["route"],
        "scoring": described["scoring"],
        "score": output.spread(result.scores),
    }
    for name, correction in (("", "uncorrected"), ("_fdr", "fdr"), ("_fwer", "fwer")):
        p = maps.get(f"pvalues{name}")
        if p is not None:
            smallest = output.spread(p)
            rows[correction] = {
                "level": level,
                "significant": int((p <= level).sum()),
                "smallest_p": smallest and smallest["min"],
            }
    rows["run"] = str(folder)
    rows["maps"] = images or [str(folder / f"{name}.npy") for name in maps]
    return rows
