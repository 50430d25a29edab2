"""Plans: routes, memory, and that neither tiles nor workers change a result."""

import re
from dataclasses import replace

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from ridgemm import InputError, MemoryLimitError, RidgeCV, estimators, mapreduce
from ridgemm.plan import format_bytes, make_plan, parse_memory
from ridgemm.routes import PRIMAL_RESOLUTION, Problem, allowed_routes, possible_routes

ALPHAS = np.logspace(-1, 4, 6)

# solver, cv and alpha_per_target of every way through the engine
WAYS = [
    ("primal-statistics", 4, True),
    ("primal-statistics", 4, False),
    ("primal-products", 4, True),
    ("svd-products", 4, True),
    ("dual-products", 4, True),
    ("dual-products", 4, False),
    ("dual-trace", 4, False),
    ("primal-loo", "loo", True),
    ("svd-loo", "loo", True),
    ("dual-loo", "loo", False),
    ("dual-trace", "loo", False),
    ("primal-gcv", "gcv", True),
    ("svd-gcv", "gcv", False),
    ("dual-gcv", "gcv", True),
]


def data(n=90, p=30, t=75):
    rng = np.random.default_rng(0)
    X = rng.standard_normal((n, p)) + 3
    Y = X @ rng.standard_normal((p, t)) + np.logspace(0, 2, t) * rng.standard_normal((n, t))
    return X, Y


def fit(way, **options):
    solver, cv, per_target = way
    model = RidgeCV(ALPHAS, cv=cv, solver=solver, alpha_per_target=per_target, **options)
    return model.fit(*data())


def assert_same(comp, ref, check):
    check(comp.cv_scores_, ref.cv_scores_)
    assert_array_equal(comp.alpha_, ref.alpha_)
    check(comp.best_score_, ref.best_score_)
    check(comp.coef_, ref.coef_)
    check(comp.intercept_, ref.intercept_)


def close(comp, ref):
    assert_allclose(comp, ref, rtol=1e-5, atol=1e-5)


@pytest.fixture
def change_plan(monkeypatch):
    """A function that makes all later fits run with a changed plan."""
    plan_fit = estimators.plan_fit

    def change(**changes):
        def changed(*args):
            plan, folds = plan_fit(*args)
            return replace(plan, **changes), folds

        monkeypatch.setattr(estimators, "plan_fit", changed)

    return change


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    "changes",
    [
        dict(tile=75, strip=16),
        dict(tile=32, strip=16),
        dict(tile=7, strip=7),
        dict(row_step=13, block=17),
        dict(coef_in_file=True),
    ],
    ids=str,
)
def test_tiles_change_nothing(way, changes, change_plan):
    ref = fit(way)
    assert ref.plan_.tile == ref.plan_.strip == 75
    change_plan(**changes)
    comp = fit(way)
    assert replace(comp.plan_, **changes) == comp.plan_
    assert_same(comp, ref, close)
    assert isinstance(comp._linear.coef, np.memmap) == comp.plan_.coef_in_file


@pytest.mark.parametrize("way", WAYS)
def test_workers_change_no_bit(way, change_plan):
    change_plan(tile=32, strip=16)
    ref = fit(way)
    change_plan(tile=16, strip=16)
    assert_same(fit(way, n_jobs=2), ref, assert_array_equal)


@pytest.mark.parametrize("way", WAYS)
def test_threads_change_no_bit(way, change_plan, monkeypatch):
    change_plan(tile=48, strip=16, row_step=20)
    fits = []
    for n_threads in (1, 2, 3):
        for module in ("engine", "mapreduce", "prediction"):
            name = f"ridgemm.{module}.threads_per_worker"
            monkeypatch.setattr(name, lambda n_workers, n_threads=n_threads: n_threads)
        fits.append(fit(way))
    assert mapreduce.threads_per_worker(1) == 3
    for comp in fits[1:]:
        assert_same(comp, fits[0], assert_array_equal)
        X_new = data(n=40)[0]
        assert_array_equal(comp.predict(X_new), fits[0].predict(X_new))


def test_more_workers_than_tiles():
    X, Y = data(t=1)
    ref = RidgeCV(ALPHAS).fit(X, Y)
    assert_same(RidgeCV(ALPHAS, n_jobs=2).fit(X, Y), ref, assert_array_equal)


@pytest.mark.parametrize("way", WAYS)
def test_smallest_limit_works(way):
    with pytest.raises(MemoryLimitError, match="memory_limit=1000 B is too small") as caught:
        fit(way, memory_limit=1000)
    limit = int(re.search(r"at least (\d+) bytes", str(caught.value))[1])
    with pytest.raises(MemoryLimitError):
        fit(way, memory_limit=limit - 1)
    comp = fit(way, memory_limit=limit)
    assert comp.plan_.peak_bytes <= limit
    assert_same(comp, fit(way), close)


def test_a_lower_limit_makes_smaller_tiles():
    problem = wide_problem(n=1000, p=200, t=10**6)
    routes = allowed_routes(problem, "primal-statistics")
    limits = ("20GB", "2GB", "500MB")
    plans = [make_plan(problem, routes, parse_memory(limit), 1, 2) for limit in limits]
    assert [plan.tile for plan in plans] == sorted((plan.tile for plan in plans), reverse=True)
    for plan, limit in zip(plans, limits, strict=True):
        assert plan.peak_bytes <= parse_memory(limit)
        assert plan.tile % plan.strip == 0
    assert plans[-1].coef_in_file and not plans[0].coef_in_file
    # strips fix the order of the sums: they stay unless the limit is tight
    assert plans[0].strip == plans[1].strip == 512


def test_workers_share_the_limit():
    problem = wide_problem(n=1000, p=200, t=10**5)
    routes = allowed_routes(problem, "primal-statistics")
    one, four = (make_plan(problem, routes, 10**9, n, 1) for n in (1, 4))
    assert four.tile < one.tile and four.peak_bytes <= 10**9
    with pytest.raises(MemoryLimitError, match="or lower n_jobs"):
        make_plan(problem, routes, 10**8, 4, 1)


def wide_problem(n=100, p=5000, t=50, **changes):
    folds = ((n - n // 5, n // 5),) * 5
    problem = Problem(n, p, t, 5, "folds", folds, 1, 5, False, "r2", False, 1.0)
    return replace(problem, **changes)


@pytest.mark.parametrize(
    ("problem", "name"),
    [
        (wide_problem(n=20000, p=500, t=8000), "primal-statistics"),
        (wide_problem(), "dual-products"),
        # small folds: fewer rows than half the features
        (wide_problem(n=2000, p=500, t=5000, folds=((1900, 100),) * 20), "primal-products"),
        (wide_problem(shared=True, t=50000), "dual-trace"),
        (wide_problem(shared=True, scoring="correlation"), "dual-products"),
        (wide_problem(n=5000, p=100, smallest_alpha=1e-12), "svd-products"),
        (wide_problem(kind="loo", folds=(), n=5000, p=100), "primal-loo"),
        (wide_problem(kind="loo", folds=()), "dual-loo"),
        (wide_problem(kind="loo", folds=(), shared=True, t=10**5), "dual-trace"),
        (wide_problem(kind="gcv", folds=(), n=5000, p=100), "primal-gcv"),
        (wide_problem(kind="gcv", folds=()), "dual-gcv"),
    ],
)
def test_auto_takes_the_cheapest_route_that_is_exact_enough(problem, name):
    routes = allowed_routes(problem, "auto")
    assert routes[0].name == name
    assert [route.flops for route in routes] == sorted(route.flops for route in routes)
    if problem.smallest_alpha < PRIMAL_RESOLUTION:
        assert not any(route.family == "primal" for route in routes)


def test_solver_names_a_family_or_a_route():
    problem = wide_problem(shared=True)
    families = {route.family for route in allowed_routes(problem, "dual")}
    assert families == {"dual"}
    assert {route.name for route in possible_routes(problem)} == {
        "primal-statistics",
        "primal-products",
        "svd-products",
        "dual-products",
        "dual-trace",
    }
    for route in possible_routes(problem):
        assert allowed_routes(problem, route.name) == [route]


@pytest.mark.parametrize("solver", ["cholesky", "primal-loo", "dual-trace", "Auto", ""])
def test_solver_that_cannot(solver):
    with pytest.raises(InputError, match=rf"solver='{solver}' cannot.*dual-products, primal"):
        allowed_routes(wide_problem(), solver)


@pytest.mark.parametrize(
    ("limit", "n_bytes"),
    [
        (10, 10),
        (1.5e9, 1_500_000_000),
        (np.float64(2e9), 2 * 10**9),
        ("2GB", 2 * 10**9),
        (" 0.5 gib ", 2**29),
        ("64 KiB", 2**16),
        ("3T", None),
        ("1000", 1000),
    ],
)
def test_parse_memory(limit, n_bytes):
    if n_bytes is None:
        with pytest.raises(InputError, match="memory_limit='3T'"):
            parse_memory(limit)
    else:
        assert parse_memory(limit) == n_bytes


@pytest.mark.parametrize(
    "limit", [0, -1, np.nan, np.inf, True, "", "lots", "-1GB", "2 G B", "1e9", [1]]
)
def test_memory_limit_that_is_none(limit):
    with pytest.raises(InputError, match=re.escape(f"memory_limit={limit!r}")):
        RidgeCV(memory_limit=limit).fit(*data())


def test_memory_limit_of_any_integer_type():
    assert parse_memory(np.int64(2 * 10**9)) == 2 * 10**9


def test_plan_prints_as_a_table():
    model = fit(WAYS[0], memory_limit="2GB")
    lines = dict(line.split(maxsplit=1) for line in str(model.plan_).splitlines())
    assert lines["problem"] == "90 samples x 30 features x 75 targets"
    assert lines["route"].startswith("primal-statistics, ")
    assert lines["tile"] == "75 targets, in strips of 75"
    assert lines["coefficients"] == "9.0 KB in RAM"
    assert format_bytes(model.plan_.peak_bytes) in str(model.plan_)
    auto = RidgeCV(ALPHAS).fit(*data())
    assert str(auto.plan_).count("rejected") == len(auto.plan_.rejected) > 0
