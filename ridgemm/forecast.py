"""What a fit or a permutation test will take, before it starts."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ridgemm.engine import Settings
from ridgemm.errors import StorageError
from ridgemm.factors import CONCURRENT
from ridgemm.fitplan import Plan, format_bytes
from ridgemm.folds import Fold
from ridgemm.nullplan import NullPlan, NullProblem
from ridgemm.quadratic import max_values
from ridgemm.rates import Rates, machine_rates
from ridgemm.routes import EIGH, PRIMAL_RESOLUTION
from ridgemm.sources import Source
from ridgemm.transport import written_bytes

# of the product rate: gathers, moments and the edges of strips take the rest
_EFFICIENCY = 0.8
# seconds on one core of the calls that score a strip in a fold, however small it is
_CALL = 4.5e-4
# of a factor entry beside its algebra: files, checks, a manifest
_ENTRY = 0.02
_SINGLE, _DOUBLE = 4, 8
_VECTORS, _HEADERS = 40, 3000


@dataclass(frozen=True)
class Stage:
    """A part of a run.

    Attributes
    ----------
    name : str
    flops : float
    n_bytes : int
        Read from the sources.
    seconds : float
        Estimated.
    """

    name: str
    flops: float
    n_bytes: int
    seconds: float


@dataclass(frozen=True)
class Forecast:
    """What a run will do and take. Prints as a table.

    Attributes
    ----------
    kind : {"fit", "permutation test"}
    route : str
    rejected : dict of str to float
        Routes that were not taken, and their flops over those of the route taken.
    tiles : dict of str to int
    bytes : dict of str to int
        ``memory`` (planned peak of all processes), ``memory limit``, ``cache`` (factors on
        disk), ``scratch``, and ``coefficients`` or ``results``.
    stages : tuple of Stage
    warnings : tuple of str
    """

    kind: str
    route: str
    rejected: dict[str, float]
    tiles: dict[str, int]
    bytes: dict[str, int]
    stages: tuple[Stage, ...]
    warnings: tuple[str, ...]

    @property
    def seconds(self) -> float:
        """Estimated time of all stages."""
        return sum(stage.seconds for stage in self.stages)

    def as_dict(self) -> dict[str, Any]:
        """All of it, ready for JSON."""
        return asdict(self) | {"seconds": self.seconds}

    def save(self, path: str | Path) -> None:
        """Write it as JSON."""
        try:
            Path(path).write_text(json.dumps(self.as_dict(), indent=1))
        except OSError as error:
            raise StorageError(
                f"{str(path)!r} cannot be written ({error.strerror or error}); give another path."
            ) from error

    def __str__(self) -> str:
        rows = [(self.kind, self.route)]
        rows += [
            ("rejected", f"{name}, {ratio:.1f} times") for name, ratio in self.rejected.items()
        ]
        rows += [("tiles", ", ".join(f"{name} {size}" for name, size in self.tiles.items()))]
        rows += [(name, format_bytes(size)) for name, size in self.bytes.items()]
        for stage in self.stages:
            work = f"{stage.flops / 1e9:.1f} Gflop, {format_bytes(stage.n_bytes)} read"
            rows.append((stage.name, f"{_duration(stage.seconds)}, {work}"))
        rows.append(("together", _duration(self.seconds)))
        rows += [("warning", warning) for warning in self.warnings]
        return "\n".join(f"{name:<17} {value}" for name, value in rows)


@dataclass(frozen=True)
class FactorWork:
    """Square-matrix work of all folds.

    Attributes
    ----------
    flops : float
        Of float64 products.
    cubes : float
        Sum of ``k^3`` over eigendecompositions of order k.
    n_entries, at_once : int
        Folds, and how many are made side by side; 0 if a fold is large, and takes all cores.
    disk_bytes, scratch_bytes : int
        Of factors, and of what is needed to make them.
    """

    flops: float
    cubes: float
    n_entries: int
    at_once: int
    disk_bytes: int
    scratch_bytes: int

    def stage(self, n_bytes: int, rates: Rates) -> Stage:
        """The stage of this work that reads `n_bytes` of X."""
        seconds = self.flops / rates.product_double + n_bytes / rates.reading
        seconds += _ENTRY * self.n_entries
        seconds += self.cubes / (rates.eigen * self.at_once or rates.eigen_large)
        # an eigendecomposition counted as what it would be in products
        return Stage("factors", self.flops + EIGH * self.cubes, n_bytes, seconds)


def factor_work(
    family: str,
    shape: tuple[int, int],
    folds: Sequence[tuple[int, int]],
    n_passes: int,
    n_atoms: int,
    standardize: bool,
    at_once: int,
    method: str,
    n_alphas: int,
) -> FactorWork:
    """Work of the factors of `folds`, given as numbers of training and test rows."""
    n, p = shape
    # an entry: vectors of one side, headers, a manifest
    side = n if family == "dual" else p
    disk = len(folds) * (_VECTORS * side + _HEADERS)
    if family == "dual":
        n_grams = len(folds) if standardize else 1
        flops = n_grams * n**2 * p + sum(2 * m**2 * n_test for m, n_test in folds)
        disk += sum(_SINGLE * m * (m + n_test) for m, n_test in folds)
        # means and scales of the features: of every Gram, and of folds that are all samples
        n_means = len(folds) if standardize else 1 + sum(m == n for m, _ in folds)
        disk += 2 * _DOUBLE * p * n_means + _VECTORS * n + _HEADERS
        disk += 0 if standardize else _DOUBLE * n**2
        scratch = n_grams * _DOUBLE * (n**2 + 2 * p) + _HEADERS
        cubes = sum(m**3 for m, _ in folds)
        if method == "operators":
            disk += sum(_SINGLE * n_alphas * m * n_test + _HEADERS for m, n_test in folds)
    elif family == "svd":
        flops = sum(4 * m * p**2 + 2 * (m + n_test) * p**2 for m, n_test in folds)
        disk += sum(_SINGLE * min(m, p) * (p + m + n_test) for m, n_test in folds)
        scratch, cubes = 0, sum(2 * min(m, p) ** 3 for m, _ in folds)
    else:
        flops = n_passes * n * p**2 + 5 * len(folds) * p**3
        tests = [n_test for _, n_test in folds]
        rows = [max_values(m, p) if method == "statistics" else m * p for m in tests]
        disk += _SINGLE * (len(folds) * p**2 + sum(rows))
        scratch, cubes = _DOUBLE * (n_atoms + 1) * p**2 + _HEADERS, len(folds) * p**3
    at_once = at_once if side <= CONCURRENT else 0
    return FactorWork(float(flops), float(cubes), len(folds), at_once, disk, scratch)


def downdate_work(n: int, p: int, asides: Sequence[tuple[int, int]], r: int) -> FactorWork:
    """Work of `ridgemm.downdates`: one eigendecomposition, and an inverse for each fold and alpha.

    `asides` are numbers of rows that a fold does not train on, and of those it tests.
    """
    work = factor_work("dual", (n, p), [(n, 0)], 1, 1, False, 1, "residuals", r)
    flops = 2 * r * n**3 + sum(r * (m**3 / 3 + 2 * m**2 * n_test) for m, n_test in asides)
    operators = n**2 + sum(m * n_test for m, n_test in asides)
    return replace(
        work,
        flops=work.flops + flops,
        n_entries=work.n_entries + 1 + len(asides),
        disk_bytes=work.disk_bytes + _SINGLE * r * operators + _HEADERS * (1 + len(asides)),
    )


def forecast_fit(settings: Settings, plan: Plan, folds: Sequence[Fold], X: Source, Y: Source):
    """Forecast of `RidgeCV.fit`, from its plan."""
    problem, rates = plan.problem, machine_rates()
    family = plan.route.family
    passes = problem.n_passes if family == "primal" else 1
    loo = problem.kind == "loo" and family == "primal"
    sizes = [*problem.folds, (problem.n, problem.n if loo else 0)]
    at_once = plan.factors_at_once
    work = factor_work(
        family,
        X.shape,
        sizes,
        passes,
        problem.n_atoms,
        settings.standardize,
        at_once,
        plan.route.method,
        problem.n_alphas,
    )
    stages = (
        _reading("scan", _n_bytes(X) + _n_bytes(Y), rates),
        work.stage(passes * _n_bytes(X), rates),
        _targets(
            "targets",
            plan.target_flops,
            passes * (_n_bytes(X) + _n_bytes(Y)),
            rates,
            settings.precision,
        ),
    )
    return Forecast(
        "fit",
        plan.route.name,
        {route.name: route.flops / plan.route.flops for route in plan.rejected},
        {"targets": plan.tile, "strip": plan.strip, "rows": plan.row_step, "block": plan.block},
        {
            "memory": plan.peak_bytes,
            "memory limit": plan.memory_limit,
            "cache": work.disk_bytes,
            "scratch": work.scratch_bytes
            + plan.matrix_bytes
            + plan.smoother_bytes
            + plan.job_bytes
            + (_travelling(X, Y) if plan.n_workers > 1 else 0)
            + plan.coef_file_bytes,
            "coefficients": plan.coef_bytes,
        },
        stages,
        tuple(_warnings(settings, problem.smallest_alpha, family, [folds])),
    )


def forecast_null(
    problem: NullProblem,
    plan: NullPlan,
    X: Source,
    Y: Source,
    at_once: int,
    level: float,
    kept: bool,
    tail: str | None = None,
) -> Forecast:
    """Forecast of `permutation_test`, from its plan."""
    settings, rates, m = problem.settings, machine_rates(), problem.n_permutations
    n_folds = len(problem.asides)
    # LOO and GCV inside hold out no set of rows
    inner = [f for split in problem.splits for f in split.inner if settings.kind == "folds"]
    levels = inner, [split.outer for split in problem.splits]
    passes = len(problem.splits) if plan.family == "primal" else 1
    observed = 1 if plan.shared_pass else passes
    work = _null_work(problem, plan, passes, at_once)
    null_bytes = 4 * m * problem.t if kept else 0
    predicted = 4 * problem.n * problem.t if problem.heldout else 0
    each = problem.n * problem.t * 2 * len(problem.splits) if problem.heldout else plan.flops
    observed_precision = "single" if settings.precision == "bf16" else settings.precision
    stages = (
        _reading("scan", 2 * (_n_bytes(X) + _n_bytes(Y)), rates),
        work.stage(passes * _n_bytes(X), rates),
        _targets(
            "observed", plan.flops, observed * _n_bytes(X) + _n_bytes(Y), rates, observed_precision
        ),
        _null_stage(problem, plan, m * each, n_folds, -(-m // plan.batch) * _n_bytes(Y), rates),
    )
    return Forecast(
        "permutation test",
        plan.route,
        {},
        {"targets": plan.tile, "strip": plan.strip, "permutations": plan.batch},
        {
            "memory": plan.peak_bytes,
            "memory limit": settings.memory_limit,
            "cache": work.disk_bytes,
            # parts of a null that is kept, until they are in one file
            "scratch": work.scratch_bytes
            + null_bytes
            + plan.matrix_bytes(problem)
            + plan.operator_bytes(problem)
            + (_travelling(X, Y) + 100 * problem.t if settings.n_workers > 1 else 0),
            "results": 60 * problem.t + 8 * m + null_bytes + predicted,
        },
        stages,
        (
            *_warnings(settings, problem.smallest_alpha, plan.family, levels),
            *_p_warnings(m, problem.t, level, tail),
        ),
    )


def _null_work(problem: NullProblem, plan: NullPlan, passes: int, at_once: int) -> FactorWork:
    """Factors and operators of all folds of both levels."""
    shape, r = (problem.n, problem.p), len(problem.settings.alphas)
    if plan.method == "residuals":
        return downdate_work(*shape, problem.asides, r)
    sizes = [(problem.n - aside, n_test) for aside, n_test in problem.asides]
    n_atoms = max(len(split.group.atoms) for split in problem.splits)
    standardize = problem.settings.standardize
    return factor_work(
        plan.family, shape, sizes, passes, n_atoms, standardize, at_once, plan.method, r
    )


def _null_stage(
    problem: NullProblem, plan: NullPlan, flops: float, n_folds: int, n_bytes: int, rates: Rates
) -> Stage:
    """Products, reading and, where these are small, the calls that make them."""
    stage = _targets("null", flops, n_bytes, rates, problem.settings.precision)
    if problem.heldout:
        return stage
    n_strips = -(-plan.at_once * plan.tile // plan.strip) * -(-problem.t // plan.tile)
    n_calls = n_strips * n_folds * -(-problem.n_permutations // plan.at_once)
    return replace(stage, seconds=stage.seconds + n_calls * _CALL / rates.n_cores)


def _reading(name: str, n_bytes: int, rates: Rates) -> Stage:
    return Stage(name, 0.0, n_bytes, n_bytes / rates.reading)


def _targets(name: str, flops: float, n_bytes: int, rates: Rates, precision: str) -> Stage:
    seconds = flops / (rates.products(precision) * _EFFICIENCY) + n_bytes / rates.reading
    return Stage(name, float(flops), n_bytes, seconds)


def _travelling(X: Source, Y: Source) -> int:
    """What is written for workers, of sources in RAM."""
    return written_bytes(X.data) + written_bytes(Y.data)


def _n_bytes(source: Source) -> int:
    return source.shape[0] * source.shape[1] * source.dtype.itemsize


def _warnings(
    settings: Settings, smallest_alpha: float, family: str, levels: Sequence[Sequence[Fold]]
) -> Iterator[str]:
    if smallest_alpha < PRIMAL_RESOLUTION and family == "primal":
        yield (
            f"the smallest alpha is {smallest_alpha:.1g} of the largest eigenvalue of X'X, below "
            f"what float32 cross-products resolve ({PRIMAL_RESOLUTION:g}); use solver='svd', or "
            "larger alphas"
        )
    held_out = [[len(fold.test) for fold in folds if len(fold.test)] for folds in levels]
    held_out = [sizes for sizes in held_out if sizes]
    uneven = [sizes for sizes in held_out if max(sizes) > 2 * min(sizes)]
    if uneven:
        yield (
            f"folds hold out between {min(uneven[0])} and {max(uneven[0])} samples: a score of few "
            "samples counts as much as one of many; merge small groups"
        )
    fewest = min(map(min, held_out), default=10)
    if fewest < 10 and settings.scoring != "neg_mean_squared_error":
        yield (
            f"a fold holds out {fewest} samples, and scoring={settings.scoring!r} of so few is "
            "very noisy; use fewer folds or larger groups"
        )


def _p_warnings(m: int, t: int, level: float, tail: str | None) -> Iterator[str]:
    smallest = 1 / (1 + m)
    if smallest > level:
        yield (
            f"{m} permutations reach no p below {smallest:.2g}, so that nothing can be found at "
            f"level {level:g}; ask for at least {int(np.ceil(1 / level))}"
        )
    elif m < 20 / level:
        sd = np.sqrt(level * (1 - level) / m)
        yield (
            f"p-values near {level:g} have a standard error of {sd:.2g} with {m} permutations; "
            f"{int(np.ceil(100 / level))} would make it {np.sqrt(level**2 * (1 - level) / 100):.2g}"
        )
    needed = int(np.ceil(t * smallest / level))
    if smallest <= level and needed > 1 and tail is None:
        yield (
            f"FDR over {t} targets finds something at {level:g} only if {needed} or more targets "
            f"share the smallest p; n_permutations={int(np.ceil(t / level))}, or tail='gpd', would "
            "find a single one"
        )


def _duration(seconds: float) -> str:
    for limit, unit, size in ((60, "s", 1), (3600, "min", 60), (86400, "h", 3600)):
        if seconds < limit:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds / 86400:.3g} days"
