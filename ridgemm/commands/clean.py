"""Remove what is of no use from a cache or a run.

What dead processes left, damaged entries and damaged parts go; results and finished parts stay.
With --size, the entries of a cache that were of use the longest time ago go too.

examples:
  ridgemm clean run1
  ridgemm clean cache --size 10GB
"""

import argparse
from dataclasses import asdict
from pathlib import Path

from ridgemm.commands import output


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the verb."""
    parser.add_argument("folder", type=Path, metavar="DIR")
    parser.add_argument("--size", help="what a cache may keep, such as 10GB")
    parser.add_argument("--json", action="store_true", help="print JSON instead of text")


def run(given: argparse.Namespace) -> int:
    """Run the verb."""
    from ridgemm.maintenance import clean

    done = clean(given.folder, given.size)
    output.show_report(given, done, asdict(done))
    return 0
