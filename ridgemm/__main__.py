"""Command line of ridgemm."""

import argparse
import sys
from collections.abc import Sequence

from ridgemm import demo
from ridgemm.errors import RidgemmError


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a subcommand; a ridgemm error is one line on stderr and exit status 2."""
    parser = argparse.ArgumentParser(prog="ridgemm", description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    command = commands.add_parser("demo", help="simulate a small brain on disk and fit it")
    demo.add_arguments(command)
    command.set_defaults(run=demo.main)
    options = parser.parse_args(arguments)
    try:
        options.run(options)
    except RidgemmError as error:
        print(f"ridgemm: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
