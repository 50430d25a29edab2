"""Write one HTML page of a fit or a permutation test: plan, tables, pictures.

Pictures need matplotlib and, with --mask, nilearn: pip install 'ridgemm[plot,neuro]'.

examples:
  ridgemm report run1
  ridgemm report test4 --mask mask.nii.gz --out test4.html
"""

import argparse
from pathlib import Path

from ridgemm.commands import options
from ridgemm.errors import as_path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the verb."""
    parser.add_argument("folder", metavar="DIR", help="run folder, or a saved model")
    parser.add_argument("--out", metavar="FILE", help="the page (default: DIR/report.html)")
    options.add_mask(parser)


def run(given: argparse.Namespace) -> int:
    """Run the verb."""
    from ridgemm.results import load

    folder = as_path(given.folder, "folder")
    found = load(folder)
    path = folder / "report.html" if given.out is None else Path(given.out)
    print(found.report(path, given.mask))
    return 0
