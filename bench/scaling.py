"""A model on paper of `wholebrain` on clusters: nothing is run but the rates of this machine.

Work, tiles and numbers of tasks are those that ridgemm plans; what a cluster is, and what its
file system does, is assumed (`Assumptions`). Stages follow each other, none overlap.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass

from bench.problems import ALPHAS, Problem
from ridgemm import RidgeCV
from ridgemm.fitplan import make_plan
from ridgemm.folds import make_folds
from ridgemm.forecast import factor_work
from ridgemm.nested import nested_splits
from ridgemm.nullplan import NullProblem, plan_null
from ridgemm.pieces import ROUND
from ridgemm.rates import Rates, machine_rates
from ridgemm.routes import Problem as Shape
from ridgemm.routes import allowed_routes

PROBLEM, SMALLEST_ALPHA, OUTER = Problem(69202, 16384, 264805), 1e-4, 5
JOBS, NODES = ("fit", "heldout", "refit"), (1, 8, 1000)
#: What to change where a stage is the first to count beside the products.
REMEDIES = {
    "scan": "the file system: one process reads X and Y once to check them; more stripes",
    "factors": "one node makes them: keep cache_dir, so that it is once; use fewer nodes",
    "read": "the file system: copy X, Y and the cache to disks of the nodes before the run",
    "reduce": "one process: fewer and larger parts, by a larger memory_limit",
    "journal": "metadata of the file system: fewer and larger tasks, by a larger memory_limit",
    "dispatch": "the scheduler: an array of processes in one run folder, which has none",
}


@dataclass(frozen=True)
class Assumptions:
    """What is not measured."""

    threads: int = 32  # of a node, each a worker
    together: float = 0.7  # of the rate of a core, when all cores of a node work
    eigen_speedup: float = 8.0  # of an eigendecomposition on a node, over one core
    memory: float = 200e9  # of a node
    bandwidth: float = 150e9  # bytes/s of the memory of a node
    disk: float = 20e9  # bytes/s of the shared file system
    link: float = 3e9  # bytes/s of a node's network (25 GbE)
    n_permutations: int = 10_000
    dispatch: float = 5e-4  # seconds of the scheduler for a task
    publish: float = 1e-2  # seconds to write, fsync and rename a part of the journal
    creates: float = 2e4  # files/s of the shared file system
    names: float = 2e5  # names/s of its listings, read and understood
    read_part: float = 1e-3  # seconds to open and check a part where they are reduced


def predict(job: str, nodes: int, a: Assumptions, rates: Rates) -> dict[str, float]:
    """Seconds of the stages of a fit or of a permutation test on `nodes` nodes."""
    n, p, t, m = PROBLEM.n_samples, PROBLEM.n_features, PROBLEM.n_targets, a.n_permutations
    slots, limit = nodes * a.threads, int(nodes * a.memory)
    core = a.together * rates.product / rates.n_cores
    double = a.together * a.threads * rates.product_double / rates.n_cores
    if job == "fit":
        shape = Shape(n, p, t, len(ALPHAS), "loo", (), 1, 1, False, "r2", False, SMALLEST_ALPHA)
        plan = make_plan(shape, allowed_routes(shape, "auto"), limit, slots, 1)
        folds, passes, family, method = [(n, n)], 1, plan.route.family, plan.route.method
        busy, n_batches = plan.route.target_flops / core, 1
    else:
        model = RidgeCV(ALPHAS, cv="loo", memory_limit=limit, n_jobs=slots)
        settings = model.checked_settings()
        splits = nested_splits(settings, make_folds(OUTER, n, None), None, n)
        heldout = job == "heldout"
        plan = plan_null(NullProblem(settings, splits, n, p, t, m, heldout, SMALLEST_ALPHA, 1.0, 1))
        folds = [(len(f.train), len(f.test)) for s in splits for f in (*s.inner, s.outer)]
        passes, family, method = OUTER, plan.family, plan.method
        n_batches = math.ceil(m / plan.batch)
        # held-out rows of Y are gathered, and read with their predictions: memory, not flops
        each = 8 * n * t * a.threads / a.bandwidth if heldout else plan.flops / core
        busy = plan.flops / core + m * each
    n_tasks = math.ceil(t / plan.tile) * n_batches
    n_parts = 0 if job == "fit" else n_tasks
    work = factor_work(family, (n, p), folds, passes, passes, False, 1, method, len(ALPHAS))
    # nodes keep what they have read: X and factors each, Y once a batch or once a node
    x_bytes, y_bytes, coef_bytes = 4 * n * p, 4 * n * t, 4 * t * p
    read = nodes * (x_bytes + work.disk_bytes) + min(n_batches, nodes) * y_bytes
    scans = 1 if job == "fit" else 2  # values, and the fingerprints of a journal
    disk = min(a.disk, nodes * a.link)
    # every round looks at claims and parts, one file of each for a task that is done
    n_rounds = math.ceil(n_parts / (ROUND * slots))
    looks = n_rounds * n_parts / a.names
    part_bytes = 0 if job == "fit" else 32 * max(plan.tile, plan.batch)
    # a fit ends in coefficients on the disk, a null in its parts, added up by one process
    reduce = coef_bytes / disk if job == "fit" else 0.0
    return {
        "scan": scans * (x_bytes + y_bytes) / min(a.disk, a.link),
        "factors": work.flops / double + work.cubes / (rates.eigen * a.eigen_speedup),
        "read": read / disk,
        "products": busy / n_tasks * math.ceil(n_tasks / slots),
        "reduce": reduce + n_parts * (a.read_part + part_bytes / a.link),
        "journal": n_parts * max(a.publish / slots, 2 / a.creates) + looks,
        "dispatch": n_tasks * a.dispatch,
    }


def scaling_model(a: Assumptions | None = None) -> tuple[str, dict[str, float]]:
    """All jobs on all clusters: a table, and its numbers by name."""
    a, rates, figures, lines = a or Assumptions(), machine_rates(), {}, []
    saturated: set[str] = set()
    for job in JOBS:
        one = sum(predict(job, 1, a, rates).values())
        for nodes in NODES:
            stages = predict(job, nodes, a, rates)
            total = sum(stages.values())
            numbers = stages | {"total": total, "speedup": one / total}
            numbers |= {"efficiency": one / total / nodes}
            figures |= {f"{job}_{nodes}_{name}": value for name, value in numbers.items()}
            if not lines:
                lines = [f"{'seconds':16}" + "".join(f"{name:>11}" for name in numbers)]
            beside = max(stages.keys() - {"products"}, key=stages.get)
            row = "".join(f"{value:11.3g}" for value in numbers.values())
            lines.append(f"{job:8}{nodes:5} x {a.threads}".ljust(16) + row + f"  first: {beside}")
            saturated.add(beside)
    lines += ["", *(f"{name:16}{what}" for name, what in REMEDIES.items() if name in saturated)]
    lines += ["", *(f"{name:16}{value:11.3g}" for name, value in asdict(a).items())]
    lines += [f"{name:16}{value:11.3g} (measured)" for name, value in asdict(rates).items()]
    title = (
        f"{PROBLEM}, leave-one-out, 11 alphas, {a.n_permutations} permutations: a model on paper"
    )
    return "\n".join([title, *lines]), figures


def run(quick: bool, repeats: int | None) -> dict:
    text, figures = scaling_model()
    report = {"problem": text.splitlines()[0], "rows": [], "left_out": [], "figures": figures}
    return report | {"text": text}
