"""Simulate a small brain on disk, fit it and draw its map.

By itself, "ridgemm demo" simulates 2 GB and fits them within 512 MB. The picture needs
matplotlib: pip install 'ridgemm[plot]'.

examples:
  ridgemm demo --gigabytes 0.01 --picture small.png
"""

import argparse
import contextlib
import tempfile
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the verb."""
    parser.add_argument(
        "--gigabytes", type=float, default=2.0, help="size of the training targets (default: 2)"
    )
    parser.add_argument(
        "--memory-limit", default="512MB", help="memory limit of the fit (default: 512MB)"
    )
    parser.add_argument(
        "--folder",
        type=Path,
        help="where to write and keep the data (default: a temporary folder, removed)",
    )
    parser.add_argument(
        "--picture",
        type=Path,
        default=Path("ridgemm-demo.png"),
        help="file of the two maps (default: ridgemm-demo.png)",
    )


def run(given: argparse.Namespace) -> int:
    """Run the verb."""
    from ridgemm.demo import run_demo

    with contextlib.ExitStack() as stack:
        folder = given.folder or stack.enter_context(
            tempfile.TemporaryDirectory(prefix="ridgemm-demo-")
        )
        report = run_demo(folder, given.gigabytes, given.memory_limit, given.picture)
    print(report)
    print(f"{'picture':<30}{given.picture}")
    return 0
