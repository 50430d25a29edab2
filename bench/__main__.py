"""Command line: ``python -m bench NAME [--quick] [--repeats N] [--json FILE]``.

The permutation tests take ``--permutations N`` as well, ``genetics`` ``--shared-permutations``;
``--precision`` is for these and the whole-brain problems, ``--scale`` for the latter.
"""

from __future__ import annotations

import argparse
import inspect
import json
from pathlib import Path

from bench import (
    brain,
    cache,
    cluster,
    cold,
    efficiency,
    forecast,
    genetics,
    growth,
    hardening,
    lowram,
    memory,
    nullmemory,
    peers,
    scaling,
    threads,
    views,
    xty,
)
from bench._machine import machine, sgemm_gflops, versions
from bench._run import table

BENCHMARKS = {
    "peers-square": (peers.square, "5000 x 1000 x 10000 against himalaya and scikit-learn"),
    "peers-tall": (peers.tall, "20000 x 500 x 8000 against himalaya and scikit-learn"),
    "xty": (xty.run, "a whole cross-validated fit against the bare product X.T @ Y"),
    "lowram": (lowram.run, "an 8 GB Y under memory_limit='1GB' (16 GB of free disk)"),
    "cache": (cache.run, "a second fit with the same X and folds under one cache_dir"),
    "cold": (cold.run, "a tile of columns of a file that is not in RAM (4 GB of free disk)"),
    "genetics": (genetics.run, "a nested permutation test on 1500 x 500000 int8 x 1000"),
    "bmor": (brain.bmor, "10000 x 16384 x 264805, LOO, one alpha (40 GB of free disk)"),
    "wholebrain": (brain.wholebrain, "69202 x 16384 x 264805, GCV (40 GB of free disk)"),
    "roi": (brain.roi, "69202 x 16384 x 6728, LOO"),
    "parcel": (brain.parcel, "69202 x 16384 x 444, LOO"),
    "efficiency": (efficiency.run, "useful flops of fits and nulls as a share of sgemm"),
    "forecast": (forecast.run, "seconds that a plan predicts against those that it took"),
    "threads": (threads.run, "one fit by workers x threads"),
    "growth": (growth.run, "the peers as samples, targets and alphas grow"),
    "null-memory": (nullmemory.run, "nulls on 200000 targets under memory_limit='1GB'"),
    "memory": (memory.run, "every route under a memory_limit against its plan, and peers"),
    "cluster": (
        cluster.run,
        "2000 x 3277 x 26480 on a Dask cluster of this machine, against B-MOR",
    ),
    "hardening": (hardening.run, "the suites of faults, fuzz, kills and memory, counted"),
    "views": (views.run, "a fit on delays made while they are read, against a file of them"),
    "scaling": (scaling.run, "a model on paper of 69202 x 16384 x 264805 on 8 and 1000 nodes"),
}
OPTIONS = {
    "permutations": "permutations that are measured",
    "shared_permutations": "permutations with one alpha for all targets",
    "whole": "permutations, in all, to which genetics goes on in its last precision",
}


def run(name: str, quick: bool, repeats: int | None, **options: int | float | str) -> dict:
    """Run a benchmark and return its report."""
    size = 500 if quick else 4000
    start = sgemm_gflops(size)
    result = BENCHMARKS[name][0](quick, repeats or (1 if quick else None), **options)
    sgemm = {"size": size, "start": start, "end": sgemm_gflops(size)}
    return {
        "name": name,
        "quick": quick,
        "machine": machine() | {"sgemm_gflops": sgemm},
        "versions": versions(),
    } | result


def _positive(text: str) -> int:
    if int(text) < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return int(text)


def _share(text: str) -> float:
    if not 0 < float(text) < 1:
        raise argparse.ArgumentTypeError("must lie between 0 and 1")
    return float(text)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("name", nargs="?", choices=BENCHMARKS, help="left out: list them")
    parser.add_argument("--quick", action="store_true", help="a small form, for tests")
    parser.add_argument("--repeats", type=_positive, help="runs of each contender")
    for option, line in OPTIONS.items():
        parser.add_argument("--" + option.replace("_", "-"), type=_positive, metavar="N", help=line)
    parser.add_argument("--scale", type=_share, metavar="PART", help="of the targets alone")
    parser.add_argument("--precision", metavar="NAME", help="single, mixed or bf16")
    parser.add_argument("--shapes", metavar="NAME,...", help="of efficiency alone: tall, ...")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the report here")
    arguments = parser.parse_args()
    if arguments.name is None:
        for name, (_, line) in BENCHMARKS.items():
            print(f"{name:14}{line}")
        return
    names = [*OPTIONS, "scale", "precision", "shapes"]
    options = {key: value for key in names if (value := getattr(arguments, key)) is not None}
    for option in options.keys() - inspect.signature(BENCHMARKS[arguments.name][0]).parameters:
        parser.error(f"{arguments.name} does not take --{option.replace('_', '-')}")
    report = run(arguments.name, arguments.quick, arguments.repeats, **options)
    print(report.pop("text", None) or table(report))
    if arguments.json:
        arguments.json.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
