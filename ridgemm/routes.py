r"""Routes: which algebra, at what cost.

A route is a family (which square matrix is factored) and a method (how candidates are scored):

======================  =====================================================================
primal-statistics       tall: held-out moments from fold statistics, no sample seen twice
primal-products         tall, small folds: held-out predictions by products
svd-products            as primal-products, from a tiled QR, for alphas too small for a Gram
dual-products           wide: held-out predictions from sub-blocks of one n x n Gram
dual-trace              one alpha for all targets, by the trace identity; also LOO
primal-, svd-, dual-    ``-loo`` and ``-gcv``: all samples fitted once; ``-fixed``: with alphas
                        that are given
======================  =====================================================================

Costs are float32 flops; the square-matrix work is float64 and weighs twice, an
eigendecomposition of order m as much as ``18 m^3``.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from ridgemm.errors import InputError, one_line
from ridgemm.quadratic import has_few_rows, square_flops

FAMILIES = ("primal", "svd", "dual")
METHODS = {
    "folds": ("statistics", "products", "trace"),
    "loo": ("loo", "trace"),
    "gcv": ("gcv",),
    "fixed": ("fixed",),
}
EIGH = 18
# of a shrinkage basis that meet a direction, as a rule: of one in parts, of one as a whole, and for
# the residuals of the trace identity
MEMBERS, WHOLE_MEMBERS, _TRACE_MEMBERS = 5, 6, 10
# smallest alpha, as a share of the largest eigenvalue, below which rounding of float32
# cross-products (amplified by s_max / sqrt(alpha)) is no longer small against 1e-4
PRIMAL_RESOLUTION = 1e-8
# more features for each sample cost the svd too much
WIDE = 4


@dataclass(frozen=True)
class Problem:
    """The numbers that a route's cost depends on.

    Attributes
    ----------
    n, p, t : int
        Samples, features, targets.
    n_alphas : int
    kind : {"folds", "loo", "gcv", "fixed"}
    folds : tuple of (n_train, n_test)
    n_passes : int
        Fold groups, each of which reads the data once.
    n_atoms : int
        Largest number of atoms of a group.
    shared : bool
        One alpha for all targets.
    scoring : str
    standardize : bool
    smallest_alpha : float
        As a share of the largest eigenvalue of the Gram.
    n_confounds : int
    weighted : bool
        Samples have weights.
    precision : str
        Of products with targets, see `ridgemm.products`.
    """

    n: int
    p: int
    t: int
    n_alphas: int
    kind: str
    folds: tuple[tuple[int, int], ...]
    n_passes: int
    n_atoms: int
    shared: bool
    scoring: str
    standardize: bool
    smallest_alpha: float
    n_confounds: int = 0
    weighted: bool = False
    precision: str = "single"


@dataclass(frozen=True)
class Route:
    """A family, a method and their costs in flops.

    Attributes
    ----------
    family, method : str
    factor_flops : float
        Without targets; spared by the cache.
    target_flops : float
    """

    family: str
    method: str
    factor_flops: float
    target_flops: float

    @property
    def name(self) -> str:
        """As in ``solver`` and ``route_``."""
        return f"{self.family}-{self.method}"

    @property
    def flops(self) -> float:
        """Of the whole fit."""
        return self.factor_flops + self.target_flops


def possible_routes(problem: Problem) -> list[Route]:
    """Every route that solves a problem, the cheapest first.

    Examples
    --------
    >>> wide = Problem(100, 5000, 50, 5, "folds", ((80, 20),) * 5, 1, 5, False, "r2", False, 1.0)
    >>> possible_routes(wide)[0].name
    'dual-products'
    """
    routes = []
    for family in FAMILIES:
        for method in METHODS[problem.kind]:
            if _is_possible(problem, family, method):
                target = target_flops(problem, family, method)
                factor = _factor_flops(problem, family, method)
                routes.append(Route(family, method, factor, target))
    return sorted(routes, key=lambda route: route.flops)


def _is_possible(problem: Problem, family: str, method: str) -> bool:
    if method == "trace":
        return family == "dual" and problem.shared and problem.scoring != "correlation"
    if method == "statistics":
        return family == "primal"
    # LOO and GCV of a tall family subtract a fit that may interpolate: leave it some room
    return problem.kind in ("folds", "fixed") or family == "dual" or problem.n >= 1.25 * problem.p


def _factor_flops(problem: Problem, family: str, method: str) -> float:
    n, p = problem.n, problem.p
    trains = [n_train for n_train, _ in problem.folds] + [n]
    if family == "dual":
        n_grams = len(trains) if problem.standardize else 1
        return 2 * n_grams * n**2 * p + sum(EIGH * m**3 for m in trains)
    if family == "svd":
        return sum(8 * m * p**2 + 2 * EIGH * min(m, p) ** 3 for m in trains)
    held_out = _heldout_flops(problem, method)
    return 2 * problem.n_passes * n * p**2 + len(trains) * EIGH * p**3 + held_out


def _heldout_flops(problem: Problem, method: str) -> float:
    """What the test rows of a primal fold add: they, or their Gram, in its eigenbasis."""
    n, p = problem.n, problem.p
    tests = [n_test for _, n_test in problem.folds] + ([n] if method == "loo" else [])
    pairs = method == "statistics"
    return sum(
        6 * p**3 if pairs and not has_few_rows(n_test, p) else 4 * n_test * p**2 for n_test in tests
    )


def target_flops(problem: Problem, family: str, method: str) -> float:
    """Flops of products with targets that every alpha of the problem takes part in."""
    n, p, t, r = problem.n, problem.p, problem.t, problem.n_alphas
    if family == "dual":
        refit = 4 * n**2 * t
    else:
        refit = 4 * p**2 * t + (2 * n * p * t if family == "svd" else 0)
    passes = 2 * problem.n_passes * n * p * t if family == "primal" else 0
    if takes_smoother(problem, family, method):
        refit = 2 * n**2 * t + n**3
    if method in ("gcv", "fixed"):
        return refit + passes
    if method == "loo":
        return refit + passes + 2 * r * n * (n if family == "dual" else p) * t
    if method == "trace":
        if problem.kind == "loo":
            return refit + n**2 * t + (5 + min(r, _TRACE_MEMBERS)) * n**3
        n_grams = len(problem.folds) if problem.scoring == "r2" else 1
        return refit + n_grams * n**2 * t + sum(8 * m**3 for m, _ in problem.folds)
    if method == "statistics":
        squares = sum(square_flops(n_test, p, r) for _, n_test in problem.folds)
        return refit + passes + (4 * len(problem.folds) * p**2 + squares) * t
    products = sum(_products(family, m, n_test, p, r) for m, n_test in problem.folds)
    return refit + passes + products * t


def takes_smoother(problem: Problem, family: str, method: str) -> bool:
    """Whether one matrix makes all coefficients: alpha is known when targets are read, for many."""
    known = method == "trace" or (method == "fixed" and problem.shared)
    return family == "dual" and known and problem.t > problem.n


def _products(family: str, n_train: int, n_test: int, p: int, r: int) -> float:
    """Flops per target of a fold scored by products."""
    if family == "dual":
        return 2 * n_train**2 + 2 * r * n_test * n_train
    projection = 2 * p**2 if family == "primal" else 2 * n_train * p
    return projection + 2 * r * n_test * p


def allowed_routes(problem: Problem, solver: str) -> list[Route]:
    """Routes that `solver` allows, the cheapest first.

    Parameters
    ----------
    problem : Problem
    solver : str
        "auto", a family, or the name of a route. "auto" leaves out the primal routes where
        the smallest alpha is below what they resolve, and there takes the svd unless X is very
        wide.

    Raises
    ------
    InputError
        An unknown solver, or one that cannot solve this problem.
    """
    routes = possible_routes(problem)
    if not isinstance(solver, str):
        raise InputError(f"solver={one_line(solver)} is not a text; choose 'auto' or a family.")
    if solver == "auto":
        if problem.smallest_alpha < PRIMAL_RESOLUTION:
            routes = [route for route in routes if route.family != "primal"]
            # dual coefficients are large where alpha is small, and their rounding is, too
            if problem.p <= WIDE * problem.n:
                routes = [route for route in routes if route.family == "svd"] or routes
        elif problem.p <= problem.n:
            # the QR costs more and resolves what no alpha asks for
            routes = [route for route in routes if route.family != "svd"]
        return routes
    chosen = [route for route in routes if solver in (route.name, route.family)]
    if not chosen:
        names = ", ".join(_names(routes))
        raise InputError(
            f"solver={solver!r} cannot solve this problem; choose 'auto', a family "
            f"({', '.join(FAMILIES)}) or one of {names}."
        )
    return chosen


def _names(routes: Sequence[Route]) -> list[str]:
    return sorted(route.name for route in routes)
