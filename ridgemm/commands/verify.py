"""Check every checksum of a cache, a run or a saved model.

Nothing is changed. The exit code is 1 if something is damaged.

examples:
  ridgemm verify run1
  ridgemm verify cache --json
"""

import argparse
from dataclasses import asdict
from pathlib import Path

from ridgemm.commands import output


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the verb."""
    parser.add_argument("folder", type=Path, metavar="DIR")
    parser.add_argument("--json", action="store_true", help="print JSON instead of text")


def run(given: argparse.Namespace) -> int:
    """Run the verb."""
    from ridgemm.maintenance import verify

    found = verify(given.folder)
    output.show_report(given, found, asdict(found) | {"sound": found.sound})
    return 0 if found.sound else 1
