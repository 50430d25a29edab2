"""The plan of a permutation test: route, tiles, permutations at once and per task."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from ridgemm.crossvalidation import moment_bytes
from ridgemm.downdates import downdate_bytes, resolves
from ridgemm.engine import Settings
from ridgemm.errors import InputError, MemoryLimitError
from ridgemm.fitplan import (
    OVERHEAD,
    STRIP,
    WIDE,
    block_size,
    factor_bytes,
    factors_at_once,
    format_bytes,
    matrix_bytes,
    needs_files,
    overhead,
    row_step,
)
from ridgemm.folds import refine
from ridgemm.mapreduce import threads_per_worker
from ridgemm.nested import NestedSplit, one_pass_pays, target_flops
from ridgemm.products import gram_block, workspace_bytes
from ridgemm.quadratic import square_bytes
from ridgemm.routes import PRIMAL_RESOLUTION
from ridgemm.shrinkage import most_members

_METHODS = (
    ("primal", "statistics"),
    ("primal", "products"),
    ("svd", "products"),
    ("dual", "residuals"),
    ("dual", "operators"),
    ("dual", "products"),
)
_SMALLEST_STRIP = 16
_PART = 1500  # of a part's path, name and task
_STRIPS = 4  # of a tile: neither workers nor threads change the shape of a product
_AT_ONCE = 32  # at most: a range is filled up to a multiple of it
_TASK_FLOPS = 4e11  # a few seconds: what a kill costs
_TASK_BYTES = 32 << 20  # of the orders and scores of a task, or less under a small limit
_BATCHES = 32  # at least, where permutations suffice: work for many workers
TRACE_BATCH = 32  # permutations that share one reading of the error matrices
_LARGEST_TRACE = 40_000  # n^2 has to fit the integers of BLAS


@dataclass(frozen=True)
class NullPlan:
    """Tiles of a permutation test.

    Attributes
    ----------
    family, method : str
    trace : bool
        The shared alpha comes from the trace identity.
    tile, strip : int
        Targets per task; columns per thread.
    at_once : int
        Permutations in one product.
    batch : int
        Permutations per task.
    row_step, block : int
    factors_in_files : bool
        As in `ridgemm.fitplan.Plan`.
    shared_pass : bool
        One pass over the samples, or one fit to all of them, serves all outer folds.
    flops : float
        Of one permutation of all targets.
    peak_bytes : int
        Planned anonymous memory of all processes.
    """

    family: str
    method: str
    trace: bool
    tile: int
    strip: int
    at_once: int
    batch: int
    row_step: int
    block: int
    factors_in_files: bool
    flops: float
    peak_bytes: int
    # runs that were begun without it go on without it
    shared_pass: bool = False

    @property
    def route(self) -> str:
        """Family, method and whether the trace identity chooses the alpha."""
        return f"{self.family}-{self.method}" + ("-trace" if self.trace else "")

    def matrix_bytes(self, problem: "NullProblem") -> int:
        """Of scratch files for matrices; 0 where they lie in RAM."""
        if not self.factors_in_files:
            return 0
        size = matrix_bytes(self.family, problem.n, problem.p, self.block)
        return max(size, 12 * problem.n**2 if self.trace else 0)

    def operator_bytes(self, problem: "NullProblem") -> int:
        """Of scratch files for operators in bfloat16."""
        settings = problem.settings
        if settings.precision != "bf16" or self.method != "operators":
            return 0
        folds = (fold for split in problem.splits for fold in (*split.inner, split.outer))
        return sum(2 * len(settings.alphas) * len(f.train) * len(f.test) for f in folds)

    def chosen(self) -> dict[str, Any]:
        """What a resumed run keeps."""
        return asdict(self)


@dataclass(frozen=True)
class NullProblem:
    """The numbers that the plan depends on.

    `shown` says whether every training set shows all directions of the confounds.
    """

    settings: Settings
    splits: Sequence[NestedSplit]
    n: int
    p: int
    t: int
    n_permutations: int
    heldout: bool
    smallest_alpha: float  # share of the largest eigenvalue
    largest_alpha: float  # multiple of the mean one
    n_threads: int
    n_confounds: int = 0
    shown: bool = True

    @property
    def shared_refit(self) -> bool:
        """One alpha for all targets, chosen again in every permutation."""
        return not self.settings.per_target and not self.heldout

    @cached_property
    def refined(self) -> tuple[tuple[np.ndarray, ...], list[tuple[np.ndarray, ...]]]:
        """Pieces of the atoms of all splits, as `ridgemm.folds.refine` gives them."""
        return refine([split.group for split in self.splits], self.n)

    @cached_property
    def asides(self) -> list[tuple[int, int]]:
        """Numbers of rows that a fold does not train on, and of those it tests."""
        folds = (fold for split in self.splits for fold in (*split.inner, split.outer))
        return [(self.n - len(fold.train), len(fold.test)) for fold in folds]


def plan_null(problem: NullProblem) -> NullPlan:
    """The cheapest route that fits the memory limit.

    Raises
    ------
    InputError
        The model's solver cannot run nested.
    MemoryLimitError
        No route fits.
    """
    settings = problem.settings
    smallest = []
    for family, method in _allowed(problem):
        for shared_pass in _passes(problem, family, method):
            plan = _fit_tiles(problem, family, method, shared_pass)
            if plan.peak_bytes <= settings.memory_limit:
                return plan
        smallest.append(plan)
    best = min(smallest, key=lambda plan: plan.peak_bytes)
    raise MemoryLimitError(
        f"memory_limit={format_bytes(settings.memory_limit)} is too small: the permutation test "
        f"needs at least {best.peak_bytes} bytes ({format_bytes(best.peak_bytes)}) by route "
        f"{best.family}-{best.method} for n_permutations={problem.n_permutations}; raise the limit"
        + (" or lower n_jobs." if settings.n_workers > 1 else ".")
    )


def _passes(problem: NullProblem, family: str, method: str) -> tuple[bool, ...]:
    """What `NullPlan.shared_pass` may be, the better one first."""
    if method == "residuals":
        return (True,)
    if family != "primal" or problem.heldout:
        return (False,)
    shape, limit = (problem.n, problem.p), problem.settings.memory_limit
    pays = one_pass_pays(problem.splits, problem.refined[1], shape, limit)
    return (True, False) if pays else (False,)


def _residuals_serve(problem: NullProblem) -> bool:
    """Whether the residuals of one fit to all samples make the predictions of every fold.

    One alpha for all has the trace identity, and what is written predictions of the outer folds
    alone.
    """
    settings = problem.settings
    if problem.heldout or settings.kind != "folds" or not settings.per_target:
        return False
    # standardised features differ from fold to fold, directions that are not shown likewise
    if settings.standardize or not problem.shown or settings.precision != "single":
        return False
    return resolves(problem.smallest_alpha, problem.largest_alpha, settings.scoring)


def _residuals_stay(problem: NullProblem) -> bool:
    """Whether their operators, all of which every permutation reads, stay in memory."""
    values = problem.n**2 + sum(aside * n_test for aside, n_test in problem.asides)
    return 4 * len(problem.settings.alphas) * values <= problem.settings.memory_limit


def _allowed(problem: NullProblem) -> list[tuple[str, str]]:
    settings, n, p = problem.settings, problem.n, problem.p
    if not isinstance(settings.solver, str):
        raise InputError(f"solver={settings.solver!r} is not a text; choose 'auto'.")
    smallest_train = min(len(split.outer.train) for split in problem.splits)
    found = []
    for family, method in _METHODS:
        if settings.solver not in ("auto", family, f"{family}-{method}"):
            continue
        if settings.solver == "auto":
            if family == "primal" and problem.smallest_alpha < PRIMAL_RESOLUTION:
                continue
            if family == "svd" and problem.smallest_alpha >= PRIMAL_RESOLUTION:
                continue
        if method == "residuals":
            asked = settings.solver == "dual-residuals"
            if not _residuals_serve(problem) or not (asked or _residuals_stay(problem)):
                continue
        # LOO and GCV of a tall family subtract a fit that may interpolate
        if settings.kind != "folds" and family != "dual" and smallest_train < 1.25 * p:
            continue
        found.append((family, method))
    if not found:
        raise InputError(
            f"solver={settings.solver!r} cannot run this permutation test; use 'auto', or one of "
            + ", ".join(f"{family}-{method}" for family, method in _METHODS)
            + " where it suits."
        )
    r = len(settings.alphas)
    return sorted(found, key=lambda way: target_flops(problem.splits, *way, n, p, r))


def _fit_tiles(problem: NullProblem, family: str, method: str, shared_pass: bool) -> NullPlan:
    settings, n, p, t = problem.settings, problem.n, problem.p, problem.t
    other = n if family == "dual" else p
    trace = (
        problem.shared_refit
        and family == "dual"
        and settings.kind == "folds"
        and settings.scoring == "neg_mean_squared_error"
        and n <= _LARGEST_TRACE
        # what stays in place is not permuted with Y Y'
        and problem.shown
    )
    r = len(settings.alphas)
    flops = target_flops(problem.splits, family, method, n, p, r, shared_pass)
    plan = NullPlan(
        family,
        method,
        trace,
        tile=0,
        strip=WIDE * STRIP,
        at_once=1,
        batch=1,
        row_step=row_step(p),
        block=block_size(other),
        factors_in_files=False,
        flops=flops * t,
        peak_bytes=0,
        shared_pass=shared_pass,
    )
    least = None
    while True:
        tile = min(_STRIPS * plan.strip, t)
        while True:
            fitted = _with_tile(problem, replace(plan, tile=min(tile, t)), flops)
            if fitted.peak_bytes <= settings.memory_limit:
                return fitted
            # the smallest tiles leave the most parts
            least = min(fitted, least or fitted, key=lambda plan: plan.peak_bytes)
            if tile <= plan.strip or plan.strip > STRIP:
                break
            tile = max(plan.strip, tile // 2)
        if plan.strip > STRIP:
            plan = replace(plan, strip=STRIP)
            continue
        if plan.strip <= _SMALLEST_STRIP:
            return least
        plan = replace(
            plan,
            strip=plan.strip // 2,
            row_step=max(64, plan.row_step // 2),
            block=max(64, plan.block // 2),
        )


def _with_tile(problem: NullProblem, plan: NullPlan, flops: float) -> NullPlan:
    # few targets: several permutations fill the strips; with a shared alpha each permutation has
    # its own, and a product to itself
    at_once = 1
    if not problem.shared_refit:
        at_once = min(_AT_ONCE, max(1, _STRIPS * plan.strip // plan.tile))
    columns = at_once * plan.tile
    n_strips = max(-(-columns // plan.strip), min(_STRIPS, -(-columns // STRIP)))
    strip = -(-columns // n_strips)
    wanted = int(_TASK_FLOPS / (flops * plan.tile)) if not problem.heldout else 200
    # the same for any n_jobs: sums over a batch are added to those of others
    share = -(-problem.n_permutations // _BATCHES)
    room = min(_TASK_BYTES, problem.settings.memory_limit // 16)
    batch = max(1, min(wanted, share, 1000, room // _order_bytes(problem, plan)))
    batch = -(-batch // at_once) * at_once
    return _with_peak(problem, replace(plan, strip=strip, at_once=at_once, batch=batch))


def _order_bytes(problem: NullProblem, plan: NullPlan) -> int:
    """Of a permutation that waits for the next fold: its rows, signs and scores so far."""
    return 12 * problem.n + 8 * plan.tile


def kept_plan(problem: NullProblem, chosen: Mapping[str, Any]) -> NullPlan:
    """The plan that a run was begun with, under the limit and the workers of today.

    Raises
    ------
    MemoryLimitError
        Its tiles, which cannot change any more, need more.
    """
    plan, settings = _with_peak(problem, NullPlan(**chosen)), problem.settings
    if plan.peak_bytes > settings.memory_limit:
        raise MemoryLimitError(
            f"memory_limit={format_bytes(settings.memory_limit)} is too small: the permutation "
            f"test needs at least {plan.peak_bytes} bytes ({format_bytes(plan.peak_bytes)}) to go "
            "on with the tiles that it was begun with; raise the limit, lower n_jobs, or give "
            "another out."
        )
    return plan


def _free_for_factors(problem: NullProblem, plan: NullPlan) -> int:
    """What the limit leaves for factors that are being made."""
    return problem.settings.memory_limit - _fixed_bytes(problem, plan)


def null_factors_at_once(problem: NullProblem, plan: NullPlan) -> int:
    """Folds whose factors are made side by side, within the memory limit."""
    free = _free_for_factors(problem, plan)
    n_cores = threads_per_worker(1)
    return factors_at_once(plan.family, problem.n, problem.p, plan.block, free, n_cores)


def _with_peak(problem: NullProblem, plan: NullPlan) -> NullPlan:
    free = _free_for_factors(problem, plan)
    in_files = needs_files(plan.family, problem.n, problem.p, plan.block, free)
    in_files |= _trace_bytes(problem, plan, False) > free
    plan = replace(plan, factors_in_files=in_files)
    return replace(plan, peak_bytes=_peak_bytes(problem, plan))


def _peak_bytes(problem: NullProblem, plan: NullPlan) -> int:
    settings, n, p = problem.settings, problem.n, problem.p
    n_test = _largest_test(problem)
    factors = factor_bytes(plan.family, n, p, plan.block, plan.factors_in_files)
    factors *= null_factors_at_once(problem, plan)
    if plan.method == "residuals":
        factors = max(factors, *(downdate_bytes(n, *sizes) for sizes in problem.asides))
    trace = _trace_bytes(problem, plan, plan.factors_in_files)
    stages = max(factors, settings.n_workers * _task_bytes(problem, plan, n_test), trace)
    return _fixed_bytes(problem, plan) + stages


def _trace_bytes(problem: NullProblem, plan: NullPlan, in_files: bool) -> int:
    """Of the trace identity, in this process and on all cores."""
    if not plan.trace:
        return 0
    n, n_threads = problem.n, threads_per_worker(1)
    blocks = n * (64 * TRACE_BATCH + 32 * _largest_test(problem)) + 4 * min(gram_block(n), n) ** 2
    blocks += workspace_bytes(problem.settings.precision)
    return 4 * n * plan.tile + n_threads * blocks + (0 if in_files else 12 * n**2)


def _fixed_bytes(problem: NullProblem, plan: NullPlan) -> int:
    """What stays: processes, outputs, and the names of the parts."""
    fixed = overhead(problem.settings.n_workers) + _output_bytes(problem)
    return fixed + _PART * _n_parts(problem, plan)


def worker_bytes(problem: NullProblem, plan: NullPlan) -> int:
    """The share of one worker; the calling process has the rest while workers run."""
    return OVERHEAD + _task_bytes(problem, plan, _largest_test(problem))


def _largest_test(problem: NullProblem) -> int:
    folds = (f for split in problem.splits for f in (*split.inner, split.outer))
    return max(len(fold.test) for fold in folds)


def _square_bytes(problem: NullProblem, r: int) -> int:
    folds = (f for split in problem.splits for f in (*split.inner, split.outer))
    return max(square_bytes(len(fold.test), problem.p, r) for fold in folds)


def _output_bytes(problem: NullProblem) -> int:
    folds = [f for split in problem.splits for f in (*split.inner, split.outer)]
    indices = 16 * sum(len(fold.train) + len(fold.test) for fold in folds)
    choices = 0
    if not problem.settings.per_target:
        each = len(problem.splits) * (len(problem.settings.alphas) + 2)
        choices = 8 * each * (1 + problem.n_permutations)
    confounds = 8 * problem.n_confounds * (3 * (problem.t + problem.p) + 3 * problem.n)
    outputs = 120 * problem.t + 100 * problem.p + 24 * problem.n_permutations
    return outputs + indices + choices + confounds


def _n_parts(problem: NullProblem, plan: NullPlan) -> int:
    """Tasks, and files that they leave; a shared alpha takes a round of its own."""
    rounds = -(-problem.n_permutations // plan.batch) * (2 if problem.shared_refit else 1)
    return -(-problem.t // plan.tile) * (1 + rounds)


def _task_bytes(problem: NullProblem, plan: NullPlan, n_test: int) -> int:
    n, p, r = problem.n, problem.p, len(problem.settings.alphas)
    columns = plan.tile * plan.at_once
    k = n if plan.family == "dual" else p
    n_atoms = max(len(split.group.atoms) for split in problem.splits)
    if plan.shared_pass:
        # the pieces, the atoms of a fold that they make, and their sum
        n_atoms += 1 + len(problem.refined[0])
    shared = 4 * n * plan.tile + columns * (16 * n_atoms + 8 * (r + 4)) + 20 * n * plan.at_once
    shared += 32 * max(plan.tile, plan.batch) + 16 * plan.at_once * plan.tile
    shared += plan.batch * _order_bytes(problem, plan)
    if plan.family == "primal":
        shared += 4 * ((n_atoms + 1) * p * columns + plan.row_step * p)
    strip = 2 * n + 3 * k + moment_bytes(r) // 4 + n_test
    if problem.settings.precision == "bf16":
        # the rows of the tile, and training rows beside those of the observed map
        shared += 2 * n * plan.tile
        strip += n // 2
    widest = {
        "statistics": _square_bytes(problem, r) // 4,
        "operators": r * n_test,
        "products": (1 + most_members(r)) * n_test,
        "residuals": r * n_test + max(aside for aside, _ in problem.asides),
    }
    strip += max(widest[plan.method], (1 + r) * n_test if problem.heldout else 0)
    if plan.method == "residuals":
        shared += 4 * r * n * columns
    confounds = 0
    if c := problem.n_confounds:
        # as in a fit: products with the tile, pieces of 64 rows while reading, float64 blocks
        confounds = 8 * c * n_atoms * columns
        block = 64 * max(plan.tile, p) + (plan.row_step + n + c) * plan.strip
        confounds += problem.n_threads * 8 * (block + (3 * 64 * n_test if problem.heldout else 0))
    parts = problem.n_threads * workspace_bytes(problem.settings.precision)
    return shared + confounds + parts + problem.n_threads * 4 * strip * plan.strip
