"""Held-out predictions from the residuals of all samples, against fits to the other rows."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.model_selection import KFold, ShuffleSplit

from ridgemm import InputError, RidgeCV, estimators, nullplan, permutation_test, plan
from ridgemm.downdates import (
    downdate,
    residual_operators,
    resolves,
    rows_aside,
    runs,
)
from ridgemm.factors import FactorMaker
from ridgemm.folds import Fold
from ridgemm.nuisance import make_nuisance
from ridgemm.sources import as_source
from ridgemm.store import Store
from tests import naive
from tests.strategies import seeds


def maker_of(X, folder, intercept=True, confounds=None):
    nuisance = make_nuisance(len(X), intercept, intercept, confounds)
    shift = np.zeros(X.shape[1], np.float32)
    store = Store(folder, durable=False)
    return FactorMaker(as_source(X, "X"), shift, store, "x", nuisance, False, 64, folder)


@st.composite
def held_out_folds(draw, n):
    """Folds of all kinds: blocks and scattered rows, and rows in neither set."""
    rng = np.random.default_rng(draw(seeds(), label="fold seed"))
    rows = np.arange(n) if draw(st.booleans(), label="blocks") else rng.permutation(n)
    n_test, n_unused = draw(st.integers(1, n // 3)), draw(st.integers(0, n // 4))
    start = draw(st.integers(0, n - n_test - n_unused), label="start")
    unused, test = np.split(rows[start : start + n_unused + n_test], [n_unused])
    train = np.setdiff1d(np.arange(n), np.r_[unused, test])
    return Fold(train, np.sort(test))


@given(data=st.data())
def test_predictions_are_those_of_a_fit_to_the_training_rows(data, tmp_path_factory):
    n, p = data.draw(st.integers(8, 40), label="n"), data.draw(st.integers(1, 60), label="p")
    rng = np.random.default_rng(data.draw(seeds(), label="seed"))
    intercept = data.draw(st.booleans(), label="intercept")
    X = (rng.standard_normal((n, p)) + 2 * intercept).astype(np.float32)
    Y = X @ rng.standard_normal((p, 3)) + rng.standard_normal((n, 3)) + 3 * intercept
    largest = np.linalg.norm(X - intercept * X.mean(axis=0), 2) ** 2
    alphas = largest * 10 ** np.array(data.draw(st.lists(st.floats(-4, 2), min_size=1, max_size=3)))
    maker = maker_of(X, tmp_path_factory.mktemp("factors"), intercept)
    Q = residual_operators(maker, alphas)
    for fold in data.draw(st.lists(held_out_folds(n), min_size=1, max_size=3), label="folds"):
        A = downdate(maker, fold, alphas, Q)
        aside = rows_aside(fold, n)
        for q, a, alpha in zip(Q.astype(np.float64), A, alphas, strict=True):
            found = Y[fold.test] + a @ (q @ Y)[aside]
            ridge = naive.ridge(X[fold.train], Y[fold.train], alpha, intercept)
            expected = naive.predict(X[fold.test], *ridge)
            # float32 operators
            assert_allclose(found, expected, rtol=0, atol=2e-5 * np.abs(Y).max())


def test_residuals_are_those_of_all_samples(tmp_path):
    rng = np.random.default_rng(0)
    X, Y = rng.standard_normal((600, 40)).astype(np.float32), rng.standard_normal((600, 5))
    N = rng.standard_normal((600, 2))
    alphas = np.array([1.0, 100.0])
    for Q, alpha in zip(residual_operators(maker_of(X, tmp_path), alphas), alphas, strict=True):
        expected = Y - naive.predict(X, *naive.ridge(X, Y, alpha))
        assert_allclose(Q @ Y, expected, atol=2e-6)
        assert_allclose(Q @ np.ones(600), 0, atol=1e-5)
    with_confounds = maker_of(X, tmp_path, confounds=N)
    for Q in residual_operators(with_confounds, alphas):
        assert_allclose(Q @ N, 0, atol=1e-5)


@given(st.sets(st.integers(0, 300), min_size=1).map(sorted) | st.integers(1, 300).map(range))
def test_runs_are_all_rows_once(rows):
    rows = np.array(rows)
    pieces = runs(rows)
    places = np.concatenate([np.arange(len(rows))[place] for place, _ in pieces])
    assert_array_equal(places, np.arange(len(rows)))
    everything = np.arange(301)
    assert_array_equal(np.concatenate([everything[piece] for _, piece in pieces]), rows)


def test_long_runs_are_not_gathered():
    assert all(isinstance(rows, slice) for _, rows in runs(np.r_[0:64, 100:164, 200:264]))
    assert [type(rows) for _, rows in runs(np.r_[0:64, 100:163])] == [np.ndarray]


# The route ---------------------------------------------------------------------------------

N_SAMPLES = 90


def problem(p=150, t=40):
    rng = np.random.default_rng(1)
    X = rng.standard_normal((N_SAMPLES, p)).astype(np.float32)
    Y = X[:, :5] @ rng.standard_normal((5, t)) + 2 * rng.standard_normal((N_SAMPLES, t)) + 3
    return X, Y.astype(np.float32)


def run(X, Y, solver="auto", model=None, **options):
    model = {"alphas": (10.0, 100.0, 1000.0), "cv": 5, "solver": solver, **(model or {})}
    options = {"cv": 6, "n_permutations": 20, "keep_null": True, "random_state": 0, **options}
    return permutation_test(RidgeCV(**model), X, Y, **options)


@given(
    outer=st.integers(2, 6) | st.builds(KFold, st.integers(2, 6), shuffle=st.just(True)),
    inner=st.integers(2, 4) | st.builds(ShuffleSplit, st.integers(1, 3), random_state=st.just(0)),
    scoring=st.sampled_from(("r2", "neg_mean_squared_error")),
    scheme=st.sampled_from(("free", "sign", "circular")),
    strip=st.sampled_from((16, 48, 256)),
    at_once=st.integers(1, 5),
    intercept=st.booleans(),
    n_jobs=st.sampled_from((1, 1, 1, 2)),
    shape=st.sampled_from(((150, 40), (30, 17), (400, 1))),
)
@settings(max_examples=15)
def test_the_null_is_that_of_operators(
    outer, inner, scoring, scheme, strip, at_once, intercept, n_jobs, shape
):
    X, Y = problem(*shape)
    if not intercept:
        Y -= Y.mean(axis=0)
    if isinstance(outer, KFold):
        outer.random_state = 0
    model = {"cv": inner, "scoring": scoring, "fit_intercept": intercept, "n_jobs": n_jobs}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(nullplan, "STRIP", strip)
        patch.setattr(nullplan, "_AT_ONCE", at_once)
        one, two = (
            run(X, Y, f"dual-{method}", model, cv=outer, scheme=scheme, n_permutations=6)
            for method in ("operators", "residuals")
        )
    for name in ("scores", "null", "null_max"):
        assert_allclose(getattr(two, name), getattr(one, name), rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("confounds", [False, True])
def test_it_is_taken_where_it_is_cheapest(confounds):
    X, Y = problem()
    given_too = {}
    if confounds:
        given_too = {"confounds": np.random.default_rng(2).standard_normal((N_SAMPLES, 2))}
    found = run(X, Y, **given_too)
    assert found.description["route"] == "dual-residuals"
    other = run(X, Y, "dual-operators", **given_too)
    assert_allclose(found.null, other.null, rtol=2e-5, atol=2e-5)
    assert_allclose(found.pvalues, other.pvalues)


def test_correlations_of_alphas_that_leave_predictions_their_size():
    X, Y = problem()
    model = {"alphas": (10.0, 100.0), "scoring": "correlation"}
    found, other = (run(X, Y, f"dual-{name}", model) for name in ("residuals", "operators"))
    assert_allclose(found.null, other.null, atol=1e-5)


@pytest.mark.parametrize(
    ("model", "options"),
    [
        ({"alphas": (10.0, 1e5), "scoring": "correlation"}, {}),
        ({"alphas": (1e-4, 10.0)}, {}),
        ({"alpha_per_target": False}, {}),
        ({"standardize": True}, {}),
        ({"cv": "loo"}, {}),
        ({}, {"null": "heldout"}),
        # an indicator of the first outer fold: no other rows show it
        ({}, {"confounds": (np.arange(N_SAMPLES) < 15).astype(float)}),
    ],
    ids=str,
)
def test_it_is_not_for_everything(model, options):
    with pytest.raises(InputError, match="solver='dual-residuals' cannot run this"):
        run(*problem(), "dual-residuals", model, **options)


def test_parts_in_bfloat16_are_not_enlarged(monkeypatch):
    monkeypatch.setattr(estimators, "usable_precision", lambda precision: precision)
    with pytest.raises(InputError, match="solver='dual-residuals' cannot run this"):
        run(*problem(), "dual-residuals", {"precision": "mixed"})


def test_what_a_run_was_begun_with_stays(tmp_path, monkeypatch):
    """A run by operators, as earlier versions planned it, goes on by operators."""
    X, Y = problem()
    monkeypatch.setattr(nullplan, "_residuals_serve", lambda _: False)
    first = run(X, Y, out=tmp_path, n_permutations=10)
    monkeypatch.undo()
    more = run(X, Y, out=tmp_path)
    assert first.description["route"] == more.description["route"] == "dual-operators"
    assert_array_equal(more.null[:10], first.null)
    assert run(X, Y).description["route"] == "dual-residuals"


def test_one_eigendecomposition_serves_all_folds(tmp_path):
    X, Y = problem()
    run(X, Y, model={"cache_dir": tmp_path / "cache"}, out=tmp_path / "run")
    kinds = [entry.name.split("-")[0] for entry in (tmp_path / "cache").iterdir()]
    assert {kind: kinds.count(kind) for kind in set(kinds)} == {
        "gram": 1,
        "dual": 1,
        "residuals": 1,
        "downdate": 6 * (5 + 1),
    }


def test_the_plan_says_so():
    forecast = plan(RidgeCV((10.0, 100.0), cv=5), *problem(), cv=6, n_permutations=20)
    assert forecast.route == "dual-residuals"


@pytest.mark.parametrize(("limit", "method"), [("1GB", "residuals"), ("200MB", "operators")])
def test_operators_that_do_not_stay_in_memory(limit, method):
    """Every permutation reads all of them: 11 times 1500 x 1500 and what the folds need."""
    rng = np.random.default_rng(0)
    X, Y = (rng.standard_normal((1500, k)).astype(np.float32) for k in (40, 8))
    options = {"cv": 10, "n_permutations": 20}
    model = RidgeCV(np.logspace(1, 3, 11), cv=10, memory_limit=limit, solver="dual")
    assert plan(model, X, Y, **options).route == f"dual-{method}"
    # unless it is asked for
    model.set_params(solver="dual-residuals")
    assert plan(model, X, Y, **options).route == "dual-residuals"


def test_limits_of_alphas():
    assert resolves(1e-4, 1e9, "r2") and not resolves(0.9e-4, 1.0, "r2")
    assert resolves(1.0, 1.0, "correlation") and not resolves(1.0, 1.1, "correlation")
