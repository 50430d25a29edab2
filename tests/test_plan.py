"""Plans: the route for a shape, tiles within a memory limit, and what they print."""

import re
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from ridgemm import InputError, MemoryLimitError, RidgeCV, permutation_test
from ridgemm.fitplan import OVERHEAD, format_bytes, make_plan, parse_memory
from ridgemm.routes import PRIMAL_RESOLUTION, Problem, allowed_routes, possible_routes


def shape(n=100, p=5000, t=50, **changes):
    """The problem of a wide X, or what `changes` make of it."""
    folds = ((n - n // 5, n // 5),) * 5
    problem = Problem(n, p, t, 5, "folds", folds, 1, 5, False, "r2", False, 1.0)
    return replace(problem, **changes)


# -- routes ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("problem", "name"),
    [
        (shape(n=20000, p=500, t=8000), "primal-statistics"),
        (shape(), "dual-products"),
        # small folds: fewer rows than half the features
        (shape(n=2000, p=500, t=5000, folds=((1900, 100),) * 20), "primal-products"),
        (shape(shared=True, t=50000), "dual-trace"),
        (shape(shared=True, scoring="correlation"), "dual-products"),
        (shape(n=5000, p=100, smallest_alpha=1e-12), "svd-products"),
        (shape(kind="loo", folds=(), n=5000, p=100), "primal-loo"),
        (shape(kind="loo", folds=()), "dual-loo"),
        (shape(kind="loo", folds=(), shared=True, t=10**5), "dual-trace"),
        (shape(kind="gcv", folds=(), n=5000, p=100), "primal-gcv"),
        (shape(kind="gcv", folds=()), "dual-gcv"),
    ],
)
def test_auto_takes_the_cheapest_route_that_is_exact_enough(problem, name):
    routes = allowed_routes(problem, "auto")
    assert routes[0].name == name
    assert [route.flops for route in routes] == sorted(route.flops for route in routes)
    if problem.smallest_alpha < PRIMAL_RESOLUTION:
        assert not any(route.family == "primal" for route in routes)


def test_solver_names_a_family_or_a_route():
    problem = shape(shared=True)
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
        allowed_routes(shape(), solver)


# -- memory ---------------------------------------------------------------------------------


def test_a_lower_limit_makes_smaller_tiles():
    problem = shape(n=1000, p=200, t=10**6)
    routes = allowed_routes(problem, "primal-statistics")
    limits = [parse_memory(limit) for limit in ("20GB", "2GB", "500MB")]
    plans = [make_plan(problem, routes, limit, 1, 2) for limit in limits]
    assert all(plan.peak_bytes <= limit for plan, limit in zip(plans, limits, strict=True))
    assert plans[0].tile == 10**6 > plans[1].tile > plans[2].tile
    assert all(plan.tile % plan.strip == 0 for plan in plans[1:])
    assert [plan.coef_in_file for plan in plans] == [False, True, True]
    # strips fix the order of the sums: they stay unless the limit is tight
    assert plans[0].strip == plans[1].strip == 1024


def test_strips_are_narrow_where_four_wide_ones_do_not_fit():
    problem = shape(n=4000, p=2000, t=20_000)
    routes = allowed_routes(problem, "primal-statistics")
    plans = [make_plan(problem, routes, 10**7 * limit, 1, 2) for limit in range(20, 90)]
    wide = [plan.strip > 512 for plan in plans]
    assert wide == sorted(wide) and any(wide) and not all(wide)
    assert all(plan.tile >= 4 * plan.strip for plan in plans if plan.strip > 512)
    assert max(plan.tile for plan in plans if plan.strip <= 512) > 2048


@pytest.mark.parametrize("n_workers", [1, 2])
def test_tiles_are_as_few_as_fit(n_workers):
    problem = shape(n=4000, p=2000, t=264_805)
    routes = allowed_routes(problem, "primal-statistics")
    n_strips = -(-problem.t // 1024)
    for limit in range(2, 17):
        plan = make_plan(problem, routes, 10**9 * limit, n_workers, 2)
        n_passes = -(-n_strips // (n_workers * plan.tile // plan.strip))
        # as large as they have to be, and one less of them would not fit
        strips = -(-n_strips // (n_workers * n_passes))
        assert (plan.strip, plan.tile) == (1024, 1024 * strips)
        if n_passes > 1:
            more = -(-n_strips // (n_workers * (n_passes - 1)))
            larger = replace(plan, tile=1024 * more)
            rest = plan.peak_bytes - n_workers * plan.worker_bytes
            assert rest + n_workers * larger.worker_bytes > plan.memory_limit


def test_workers_share_the_limit():
    problem = shape(n=1000, p=200, t=10**5)
    routes = allowed_routes(problem, "primal-statistics")
    one, four = (make_plan(problem, routes, 10**9, n, 1) for n in (1, 4))
    assert four.tile < one.tile and four.peak_bytes <= 10**9
    with pytest.raises(MemoryLimitError, match="or lower n_jobs"):
        make_plan(problem, routes, 10**8, 4, 1)


def test_a_refusal_names_a_solver_that_fits():
    # tall: the dual Gram and its blocks are large, the primal ones small
    problem = shape(n=20_000, p=50, t=100)
    limit = parse_memory("100MB")
    with pytest.raises(MemoryLimitError, match="solver='primal-statistics' would fit") as caught:
        make_plan(problem, allowed_routes(problem, "dual"), limit, 1, 1)
    assert "route dual-products needs at least" in str(caught.value)
    named = re.search(r"solver='(.*)' would", str(caught.value))[1]
    plan = make_plan(problem, allowed_routes(problem, named), limit, 1, 1)
    assert plan.peak_bytes <= limit
    with pytest.raises(MemoryLimitError, match=r"raise the limit\.$"):
        make_plan(problem, allowed_routes(problem, "dual"), 1000, 1, 1)


@pytest.mark.parametrize("solver", ["primal-statistics", "svd-products", "dual-products"])
def test_matrices_of_any_order_within_the_integers_of_lapack_have_files(solver):
    # each of a fold's matrices takes 3 GB
    problem = shape(n=20_000, p=20_000, t=100)
    plan = make_plan(problem, allowed_routes(problem, solver), 10**9, 1, 2)
    assert plan.factors_in_files and plan.matrix_bytes > 9 * 10**9 > 9 * plan.peak_bytes


@given(
    n=st.integers(20, 30_000),
    p=st.integers(2, 30_000),
    t=st.integers(1, 10**6),
    n_alphas=st.sampled_from([1, 11, 100]),
    kind=st.sampled_from(["folds", "loo", "gcv"]),
    workers=st.sampled_from([(1, 2), (2, 1), (3, 1), (8, 4)]),
    megabytes=st.integers(30, 3000),
)
def test_the_limit_that_a_refusal_names_is_not_refused(n, p, t, n_alphas, kind, workers, megabytes):
    folds = ((n - n // 5, n // 5),) * 5 if kind == "folds" else ()
    problem = shape(n, p, t, n_alphas=n_alphas, kind=kind, folds=folds, shared=True)
    for route in possible_routes(problem):
        try:
            plan = make_plan(problem, [route], megabytes * 10**6, *workers)
            assert plan.peak_bytes <= megabytes * 10**6
        except MemoryLimitError as refusal:
            named = int(re.search(r"at least (\d+) bytes", str(refusal))[1])
            plan = make_plan(problem, [route], named, *workers)
            assert megabytes * 10**6 < plan.peak_bytes <= named
        # the shares of all processes
        if workers[0] > 1:
            assert workers[0] * plan.worker_bytes + OVERHEAD <= plan.peak_bytes


WAYS = [
    ("primal-statistics", 4, False),
    ("primal-products", 4, True),
    ("svd-products", 4, True),
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


@pytest.mark.parametrize(("solver", "cv", "per_target"), WAYS)
def test_smallest_limit_of_every_route(solver, cv, per_target):
    rng = np.random.default_rng(0)
    X, Y = rng.standard_normal((90, 30)) + 3, rng.standard_normal((90, 75))
    Y += X @ rng.standard_normal((30, 75)) / 5
    options = dict(cv=cv, solver=solver, alpha_per_target=per_target)
    ref = RidgeCV(**options).fit(X, Y)
    with pytest.raises(MemoryLimitError, match=f"route {solver} needs") as caught:
        RidgeCV(memory_limit="1KB", **options).fit(X, Y)
    limit = int(re.search(r"at least (\d+) bytes", str(caught.value))[1])
    with pytest.raises(MemoryLimitError):
        RidgeCV(memory_limit=limit - 1, **options).fit(X, Y)
    comp = RidgeCV(memory_limit=limit, **options).fit(X, Y)
    assert comp.plan_.peak_bytes <= limit
    # the smallest tiles, strips and steps change nothing but rounding
    assert comp.plan_.strip < ref.plan_.strip
    assert_allclose(comp.cv_scores_, ref.cv_scores_, atol=1e-5)
    assert_allclose(comp.coef_, ref.coef_, atol=1e-5)


@pytest.mark.parametrize(
    ("limit", "n_bytes"),
    [
        (10, 10),
        (np.int64(10), 10),
        (1.5e9, 1_500_000_000),
        (np.float64(2e9), 2 * 10**9),
        ("2GB", 2 * 10**9),
        (" 0.5 gib ", 2**29),
        ("64 KiB", 2**16),
        ("1000", 1000),
    ],
)
def test_parse_memory(limit, n_bytes):
    assert parse_memory(limit) == n_bytes


@pytest.mark.parametrize("limit", ["3T", "-1GB", "2 G B", "1e9", "", np.inf, 2**61])
def test_parse_memory_refuses(limit):
    with pytest.raises(InputError, match=re.escape(f"memory_limit={limit!r}")):
        parse_memory(limit)


def test_default_limit_is_half_of_what_is_available():
    assert 0 < parse_memory(None) < 2**60


def test_plan_prints_as_a_table():
    problem = shape(n=20000, p=500, t=8000)
    plan = make_plan(problem, allowed_routes(problem, "auto"), parse_memory("1GB"), 2, 4)
    lines = [(line[:13].strip(), line[13:].strip()) for line in str(plan).splitlines()]
    rejected = [value for name, value in lines if name == "rejected"]
    assert [value.split(",")[0] for value in rejected] == [r.name for r in plan.rejected]
    table = dict(lines)
    assert table["problem"] == "20000 samples x 500 features x 8000 targets"
    assert table["route"].startswith("primal-statistics, ")
    assert table["tile"] == f"{plan.tile} targets, in strips of {plan.strip}"
    assert table["workers"] == "2 x 4 threads"
    assert table["memory limit"] == "1.0 GB"
    assert table["planned peak"] == f"{format_bytes(plan.peak_bytes)}"
    assert table["coefficients"] == "16.0 MB in RAM"


def test_a_resumed_run_keeps_to_the_limit_of_today(tmp_path):
    rng = np.random.default_rng(0)
    X, Y = rng.standard_normal((600, 5)), rng.standard_normal((600, 2500))

    def run(out, limit, n_permutations):
        model = RidgeCV((1.0, 30.0), cv=2, memory_limit=limit)
        return permutation_test(
            model, X, Y, cv=2, n_permutations=n_permutations, out=tmp_path / out, progress=False
        )

    def refused(out, limit):
        with pytest.raises(MemoryLimitError) as refusal:
            run(out, limit, 5)
        return int(re.search(r"at least (\d+) bytes", str(refusal.value))[1])

    run("out", "1GB", 3)
    # does for a new run, whose tiles are small, and not for the tiles of this one
    limit = refused("new", 1000)
    run("new", limit, 5)
    named = refused("out", limit)
    assert named > limit and refused("out", named - 1) == named
    comp, ref = run("out", named, 5), run("whole", "1GB", 5)
    assert_array_equal(comp.null_max, ref.null_max)
    assert_array_equal(comp.pvalues, ref.pvalues)
