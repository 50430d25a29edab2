"""The plan: what will be computed, in which tiles, with how many bytes and flops.

``memory_limit`` bounds anonymous memory (what the kernel cannot drop and read again from a
file) above what importing costs, of the calling process and its workers together. Sources,
factors and large outputs are file cache, and so is whatever travels to a worker. While workers
run, the calling process holds the small outputs and no workspace; while it has workspaces of its
own, they wait.

Strips and row steps depend on the problem's shape alone unless the limit is tight, so that
neither the limit nor ``n_jobs`` changes a bit of the result.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from numbers import Real

import psutil

from ridgemm.crossvalidation import moment_bytes, prediction_rows
from ridgemm.errors import InputError, MemoryLimitError
from ridgemm.factors import CONCURRENT
from ridgemm.lapack import LARGEST_ORDER, LARGEST_RANK, stack_rows
from ridgemm.predictplan import plan_steps
from ridgemm.products import gram_block, workspace_bytes
from ridgemm.quadratic import square_bytes
from ridgemm.routes import (
    MEMBERS,
    Problem,
    Route,
    allowed_routes,
    takes_smoother,
    target_flops,
)
from ridgemm.shrinkage import most_members
from ridgemm.tiles import TileGrid

# of a process: interpreter objects, compiled kernels, thread stacks, BLAS packing buffers
OVERHEAD = 48 << 20
# targets of a strip, and how many times wider it is where there are targets and memory enough: a
# product packs its left factor once for each strip
STRIP, WIDE = 512, 2
TRACE_STEP = 128
_SMALLEST_STRIP = 16
# strips that targets are cut into before these get wider, and wide ones of a tile at least
_FEW_STRIPS, _FEW_WIDE = 16, 4
_UNITS = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
_UNITS |= {"KIB": 2**10, "MIB": 2**20, "GIB": 2**30, "TIB": 2**40}


@dataclass(frozen=True)
class Plan:
    """A route and its tiles.

    Attributes
    ----------
    problem : Problem
    route : Route
    rejected : tuple of Route
    tile, strip : int
        Targets per task and per thread.
    row_step : int
        Rows of X in one product with targets.
    block : int
        Rows (primal, svd) or columns (dual) of X in one product of a Gram.
    n_workers, n_threads : int
        Processes, and threads in each.
    memory_limit, peak_bytes : int
        Anonymous memory: allowed, and planned for all processes together.
    coef_bytes : int
    coef_in_file : bool
        Coefficients go to a memmap instead of RAM.
    """

    problem: Problem
    route: Route
    rejected: tuple[Route, ...]
    tile: int
    strip: int
    row_step: int
    block: int
    n_workers: int
    n_threads: int
    memory_limit: int
    peak_bytes: int
    coef_bytes: int
    coef_in_file: bool

    @property
    def factors_at_once(self) -> int:
        """Folds whose factors are made side by side, within the memory limit."""
        problem, n_cores = self.problem, self.n_workers * self.n_threads
        return factors_at_once(
            self.route.family, problem.n, problem.p, self.block, self._free_for_factors, n_cores
        )

    @property
    def factors_in_files(self) -> bool:
        """Square matrices lie in scratch files, because the memory limit is too small for them."""
        problem, family, free = self.problem, self.route.family, self._free_for_factors
        if self.route.method == "trace" and _trace_bytes(self, in_files=False) > free:
            return problem.n <= LARGEST_ORDER
        return needs_files(family, problem.n, problem.p, self.block, free)

    @property
    def matrix_bytes(self) -> int:
        """Of scratch files for matrices; 0 where they lie in RAM."""
        problem, family = self.problem, self.route.family
        if not self.factors_in_files:
            return 0
        size = matrix_bytes(family, problem.n, problem.p, self.block)
        return max(size, 12 * problem.n**2 if self.route.method == "trace" else 0)

    @property
    def smoother_bytes(self) -> int:
        """Of the scratch file with the matrix that makes all dual coefficients."""
        made = takes_smoother(self.problem, self.route.family, self.route.method)
        return 4 * self.problem.n**2 if made else 0

    @property
    def coef_on_demand(self) -> bool:
        """Dual coefficients are made when they are wanted: the matrix that makes them is less."""
        return self.coef_in_file and self.smoother_bytes > 0 and not self.problem.weighted

    @property
    def coef_file_bytes(self) -> int:
        """Of the file that tasks write coefficients to, if there is one."""
        in_file = (self.coef_in_file or self.n_workers > 1) and not self.coef_on_demand
        return self.coef_bytes if in_file else 0

    @property
    def target_flops(self) -> float:
        """Of products with targets, as a shrinkage basis is expected to need them.

        A route counts every alpha instead, so that what is chosen depends on no guess.
        """
        problem = replace(self.problem, n_alphas=min(self.problem.n_alphas, MEMBERS))
        spared = 2 * problem.n**2 * problem.t if self.coef_on_demand else 0
        return target_flops(problem, self.route.family, self.route.method) - spared

    @property
    def job_bytes(self) -> int:
        """Of files for workers beside the sources: outputs, and rows of the folds."""
        return 2 * _output_bytes(self.problem) if self.n_workers > 1 else 0

    @property
    def _coef_place(self) -> str:
        if self.coef_on_demand:
            return "on demand"
        return "in a file" if self.coef_in_file else "in RAM"

    @property
    def _free_for_factors(self) -> int:
        coef = 0 if self.coef_in_file else self.coef_bytes
        return self.memory_limit - overhead(self.n_workers) - _output_bytes(self.problem) - coef

    @property
    def worker_bytes(self) -> int:
        """The share of one worker; the calling process has the rest while workers run."""
        return OVERHEAD + _task_bytes(self)

    def __str__(self) -> str:
        problem = self.problem
        rows = [
            ("problem", f"{problem.n} samples x {problem.p} features x {problem.t} targets"),
            ("route", f"{self.route.name}, {self.route.flops / 1e9:.1f} Gflop"),
            *(
                ("rejected", f"{route.name}, {route.flops / 1e9:.1f} Gflop")
                for route in self.rejected
            ),
            ("tile", f"{self.tile} targets, in strips of {self.strip}"),
            ("workers", f"{self.n_workers} x {self.n_threads} threads"),
            ("precision", problem.precision),
            ("matrices", "in scratch files" if self.factors_in_files else "in RAM"),
            ("memory limit", format_bytes(self.memory_limit)),
            ("planned peak", format_bytes(self.peak_bytes)),
            ("coefficients", f"{format_bytes(self.coef_bytes)} {self._coef_place}"),
        ]
        return "\n".join(f"{name:<13} {value}" for name, value in rows)


def overhead(n_workers: int) -> int:
    """Bytes of all processes beside their arrays: of the calling one and of its workers.

    Examples
    --------
    >>> [overhead(n) // OVERHEAD for n in (1, 2, 3)]
    [1, 3, 4]
    """
    return OVERHEAD * (1 if n_workers == 1 else 1 + n_workers)


def format_bytes(n_bytes: float) -> str:
    """Bytes for people.

    Examples
    --------
    >>> format_bytes(1_500_000)
    '1.5 MB'
    """
    for unit in ("B", "KB", "MB"):
        if n_bytes < 1000:
            return f"{n_bytes:.0f} {unit}" if unit == "B" else f"{n_bytes:.1f} {unit}"
        n_bytes /= 1000
    return f"{n_bytes:.1f} GB"


def parse_memory(limit: int | float | str | None, argument: str = "memory_limit") -> int:
    """Bytes of a memory limit; None is half of what is available now.

    Raises
    ------
    InputError
        Not a positive number of bytes, nor a text such as "2GB".

    Examples
    --------
    >>> parse_memory("2GB")
    2000000000
    """
    if limit is None:
        return psutil.virtual_memory().available // 2
    if isinstance(limit, str):
        match = re.fullmatch(r"\s*([0-9]*\.?[0-9]+)\s*([KMGT]?I?B?)\s*", limit.upper())
        if match and match[2] in _UNITS:
            limit = float(match[1]) * _UNITS[match[2]]
    if isinstance(limit, Real) and not isinstance(limit, bool) and 0 < limit < 2**60:
        return int(limit)
    raise InputError(f"{argument}={limit!r} is not understood; give bytes or a text such as '2GB'.")


def make_plan(
    problem: Problem, routes: list[Route], memory_limit: int, n_workers: int, n_threads: int
) -> Plan:
    """The cheapest of `routes` that fits the limit, and its tiles.

    Raises
    ------
    MemoryLimitError
        None fits; the smallest limit that would do is in the text.

    Examples
    --------
    >>> from ridgemm.routes import possible_routes
    >>> wide = Problem(100, 5000, 50, 5, "folds", ((80, 20),) * 5, 1, 5, False, "r2", False, 1.0)
    >>> plan = make_plan(wide, possible_routes(wide), 10**9, 1, 1)
    >>> plan.route.name, plan.tile
    ('dual-products', 50)
    """

    def fit(route: Route) -> Plan:
        for in_file in _coef_places(problem, route, memory_limit):
            plan = _fit_tiles(problem, route, memory_limit, n_workers, n_threads, in_file)
            if plan.peak_bytes <= memory_limit:
                break
        return plan

    smallest = []
    for route in routes:
        plan = fit(route)
        if plan.peak_bytes <= memory_limit:
            return replace(plan, rejected=tuple(other for other in routes if other is not route))
        smallest.append(plan)
    best = min(smallest, key=lambda plan: plan.peak_bytes)
    others = [route for route in allowed_routes(problem, "auto") if route not in routes]
    fitting = [route.name for route in others if fit(route).peak_bytes <= memory_limit]
    raise MemoryLimitError(
        f"memory_limit={format_bytes(memory_limit)} is too small: route {best.route.name} needs "
        f"at least {best.peak_bytes} bytes ({format_bytes(best.peak_bytes)}) for {problem.n} "
        f"samples x {problem.p} features; raise the limit"
        + (" or lower n_jobs" if n_workers > 1 else "")
        + (f"; solver={fitting[0]!r} would fit." if fitting else ".")
    )


def factors_at_once(family: str, n: int, p: int, block: int, free: int, n_cores: int) -> int:
    """Folds whose factors may be made side by side, in `free` bytes."""
    if family == "svd" or (n if family == "dual" else p) > CONCURRENT:
        return 1
    return max(1, min(n_cores, 4, free // factor_bytes(family, n, p, block)))


def strip_width(t: int) -> int:
    """Targets of a strip where memory is no concern.

    Examples
    --------
    >>> strip_width(444), strip_width(8000), strip_width(12_000), strip_width(264_805)
    (444, 512, 752, 1024)
    """
    n_strips = max(-(-t // (WIDE * STRIP)), min(_FEW_STRIPS, -(-t // STRIP)))
    strip = -(-t // n_strips)
    # whole cache lines
    return min(strip if strip < 16 else -(-strip // 16) * 16, t)


def trace_grid(strip: int, t: int) -> TileGrid:
    """Targets in one product of the trace identity, whatever the tiles of the tasks are."""
    strip = min(strip, STRIP)
    return TileGrid(t, min(8 * strip, t), strip)


def row_step(p: int) -> int:
    """Rows of X in one product with targets: a block that stays near the processor."""
    return min(max((1 << 23) // p, 128), 2048)


def block_size(other: int) -> int:
    """Rows or columns of X in one product of a Gram of order `other`."""
    return min(max((1 << 22) // other, 64), 4096)


def _coef_bytes(problem: Problem, route: Route) -> int:
    return 4 * problem.t * (problem.n if route.family == "dual" else problem.p)


def _coef_places(problem: Problem, route: Route, limit: int) -> list[bool]:
    """Whether coefficients go to a file: if they are large, or if nothing else fits."""
    return [True] if _coef_bytes(problem, route) > limit // 4 else [False, True]


def _fit_tiles(
    problem: Problem, route: Route, limit: int, n_workers: int, n_threads: int, in_file: bool
) -> Plan:
    """The largest tiles of a route that fit, or its smallest plan where none does."""
    n, p, t = problem.n, problem.p, problem.t
    other = n if route.family == "dual" else p
    plan = Plan(
        problem,
        route,
        (),
        tile=0,
        strip=strip_width(t),
        row_step=row_step(p),
        block=block_size(other),
        n_workers=n_workers,
        n_threads=n_threads,
        memory_limit=limit,
        peak_bytes=0,
        coef_bytes=_coef_bytes(problem, route),
        coef_in_file=in_file,
    )
    while True:
        fewest = _FEW_WIDE if plan.strip > STRIP else 1
        for tile in _tiles(t, plan.strip, n_workers, fewest):
            fitted = replace(plan, tile=tile)
            fitted = replace(fitted, peak_bytes=_peak_bytes(fitted))
            if fitted.peak_bytes <= limit:
                return fitted
        if plan.strip > STRIP:
            plan = replace(plan, strip=STRIP)
            continue
        if plan.strip <= min(_SMALLEST_STRIP, t) and max(plan.row_step, plan.block) <= 64:
            return fitted
        plan = replace(
            plan,
            strip=max(min(_SMALLEST_STRIP, t), plan.strip // 2),
            row_step=max(64, plan.row_step // 2),
            block=max(64, plan.block // 2),
        )


def _tiles(t: int, strip: int, n_workers: int, fewest: int) -> Iterator[int]:
    """Targets of a tile where every worker takes one, two, ... of them; X is read for each.

    A tile is a whole number of strips, `fewest` or more but for the first.
    """
    n_strips = -(-t // strip)
    most, *less = dict.fromkeys(-(-n_strips // (n_workers * k)) for k in range(1, n_strips + 1))
    for n in [most, *(n for n in less if n >= fewest)]:
        yield min(strip * n, t)


def _peak_bytes(plan: Plan) -> int:
    coef = 0 if plan.coef_in_file else plan.coef_bytes
    problem = plan.problem
    in_files = plan.factors_in_files
    factors = factor_bytes(plan.route.family, problem.n, problem.p, plan.block, in_files)
    factors *= plan.factors_at_once
    workers = plan.n_workers * _task_bytes(plan)
    stages = max(factors, workers, _trace_bytes(plan, in_files), _prediction_bytes(plan))
    return overhead(plan.n_workers) + _output_bytes(plan.problem) + coef + stages


def _prediction_bytes(plan: Plan) -> int:
    """What `predict` and `score` need at least: a limit that does for the fit does for them."""
    problem, dual = plan.problem, plan.route.family == "dual"
    shape = problem.n, problem.p, problem.t
    # this process uses all cores
    n_threads = plan.n_workers * (plan.n_threads + 1)
    n_train, on_demand = problem.n if dual else 0, plan.coef_on_demand
    return plan_steps(shape, n_train, n_threads, 0, scored=True, on_demand=on_demand).n_bytes


def _output_bytes(problem: Problem) -> int:
    per_target = 4 * problem.n_alphas + 100
    indices = 16 * problem.n * (len(problem.folds) + 1)
    c = problem.n_confounds + problem.weighted
    # slopes, as they are used and as they are kept
    confounds = 8 * c * (2 * (problem.t + problem.p) + 3 * problem.n)
    return per_target * problem.t + 100 * problem.p + indices + confounds


def factor_bytes(family: str, n: int, p: int, block: int, in_files: bool = False) -> int:
    """Memory for the factors of one fold: square matrices in float64, and blocks of rows.

    An eigendecomposition works in place beside a workspace of twice its size, and so do a primal
    fold's vectors beside its test Gram; a tiled QR passes through seven or eight. In files, only
    the blocks are memory.
    """
    side = n if family == "dual" else p
    blocks = max(2 * n * block, 4 * 512 * n) if family == "dual" else (3 * block + 2 * 512) * p
    squares = 0 if in_files else matrix_bytes(family, n, p, block)
    return squares + 8 * (blocks + 300 * side)


def matrix_bytes(family: str, n: int, p: int, block: int) -> int:
    """Matrices of one fold that lie in RAM or in files."""
    if family == "dual":
        return 8 * 3 * n**2
    if family == "primal":
        return 8 * 3 * p**2
    k = min(n, p)
    return 8 * (stack_rows(n, p, block) * p + k * p + 5 * k**2)


def needs_files(family: str, n: int, p: int, block: int, free: int) -> bool:
    """Whether square matrices have to lie in files, and can."""
    side = n if family == "dual" else p
    fits = min(n, p) <= LARGEST_RANK if family == "svd" else side <= LARGEST_ORDER
    return fits and factor_bytes(family, n, p, block) > free


def _task_bytes(plan: Plan) -> int:
    """Workspaces of one worker: what a tile holds, and what each thread holds of a strip."""
    problem, family, method = plan.problem, plan.route.family, plan.route.method
    n, p, r, b = problem.n, problem.p, problem.n_alphas, plan.tile
    k = n if family == "dual" else p
    rows = min(prediction_rows(k), n)
    shared = 8 * b * (r + 2 * problem.n_atoms) + 4 * plan.row_step * b
    if family == "primal":
        # several have a sum
        n_products = problem.n_atoms + (problem.n_atoms > 1)
        shared += 4 * (n_products * p * b + plan.row_step * p)
    if family != "primal" or method in ("products", "loo"):
        shared += 4 * n * b
    strip = 3 * k + moment_bytes(r) // 4
    if method == "statistics":
        strip += max(square_bytes(n_test, p, r) for _, n_test in problem.folds) // 4
    elif method != "gcv":
        strip += (1 + most_members(r)) * rows
    if family != "primal":
        strip += n
    confounds = 0
    if c := problem.n_confounds + problem.weighted:
        # their products with the tile; pieces of 64 rows while reading, blocks in float64
        confounds = 8 * c * problem.n_atoms * b
        confounds += plan.n_threads * 8 * (64 * max(b, p) + (plan.row_step + n + c) * plan.strip)
    parts = plan.n_threads * workspace_bytes(problem.precision)
    return shared + confounds + parts + plan.n_threads * 4 * strip * plan.strip


def _trace_bytes(plan: Plan, in_files: bool) -> int:
    """Grams of targets and residuals, unless they lie in files; blocks of each thread; a tile."""
    if plan.route.method != "trace":
        return 0
    n = plan.problem.n
    squares = 0 if in_files else 12 * n**2
    # in this process, on all cores
    n_threads = plan.n_workers * (plan.n_threads + 1)
    blocks = 8 * 8 * TRACE_STEP * n + 4 * min(gram_block(n), n) ** 2
    blocks += workspace_bytes(plan.problem.precision)
    return squares + n_threads * blocks + 8 * n * trace_grid(plan.strip, plan.problem.t).tile
