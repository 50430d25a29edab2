"""One product for all dual coefficients, where one alpha is known before targets are read."""

import re
from dataclasses import replace

import numpy as np
import pytest
from sklearn.base import clone

from ridgemm import InputError, MemoryLimitError, Ridge, RidgeCV, fitplan, load, routes

N, P, T = 30, 80, 200


def problem(seed=0):
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((N, P)) + 3
    Y = X @ rng.standard_normal((P, T)) / 9 + rng.standard_normal((N, T)) + 10
    Y[:, 3] = 7
    return X, Y


def oracle(X, Y, alpha, weights):
    """Coefficients (n_targets, n_features) and intercepts, by the normal equations in float64."""
    mean, center = np.average(X, 0, weights), np.average(Y, 0, weights)
    A, B = (X - mean) * weights[:, None] ** 0.5, (Y - center) * weights[:, None] ** 0.5
    coef = np.linalg.solve(A.T @ A + alpha * np.eye(P), A.T @ B).T
    return coef, center - coef @ mean


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("n_jobs", [1, 2])
@pytest.mark.parametrize("known", ["given", "trace"])
def test_coefficients(known, n_jobs, weighted):
    X, Y = problem()
    weights = np.random.default_rng(1).uniform(0.5, 2, N) if weighted else np.ones(N)
    if known == "given":
        model, alpha = Ridge(5.0, n_jobs=n_jobs, solver="dual"), 5.0
    else:
        model = RidgeCV([0.5, 50.0], cv="loo", alpha_per_target=False, n_jobs=n_jobs)
    model.fit(X, Y, sample_weight=weights if weighted else None)
    if known == "trace":
        assert model.route_ == "dual-trace"
        alpha = model.alpha_
    assert model.plan_.smoother_bytes == 4 * N**2
    coef, intercept = oracle(X, Y, alpha, weights)
    size = np.abs(coef).max()
    np.testing.assert_allclose(model.coef_, coef, rtol=0, atol=2e-5 * size)
    np.testing.assert_allclose(model.intercept_, intercept, rtol=0, atol=2e-4 * size)
    assert np.abs(model.coef_[3]).max() < 1e-6
    np.testing.assert_allclose(model.predict(X), X @ coef.T + intercept, rtol=0, atol=1e-3)


def test_as_two_products(monkeypatch):
    X, Y = problem()
    one = Ridge(5.0, solver="dual").fit(X, Y).coef_
    monkeypatch.setattr(fitplan, "takes_smoother", lambda *_: False)
    two = Ridge(5.0, solver="dual").fit(X, Y)
    assert two.plan_.smoother_bytes == 0
    np.testing.assert_allclose(one, two.coef_, rtol=0, atol=1e-5 * np.abs(one).max())


@pytest.fixture
def in_file(monkeypatch):
    """Coefficients do not fit the limit: they go to a file, or are made on demand."""
    fit_tiles = fitplan._fit_tiles
    monkeypatch.setattr(
        fitplan, "_fit_tiles", lambda *args: replace(fit_tiles(*args), coef_in_file=True)
    )


GIVEN = Ridge(5.0, solver="dual")
LOO = RidgeCV([0.5, 50.0], cv="loo", alpha_per_target=False, solver="dual-trace")


@pytest.mark.parametrize("confounded", [False, True])
@pytest.mark.parametrize("mean", [3, 1e4])
@pytest.mark.parametrize(
    ("model", "options"),
    [(GIVEN, {}), (GIVEN, {"standardize": True}), (GIVEN, {"n_jobs": 2}), (LOO, {})],
)
def test_coefficients_on_demand(model, options, mean, confounded, request):
    X, Y = problem()
    X += mean
    C = np.random.default_rng(2).standard_normal((N, 2)) if confounded else None
    known = clone(model).set_params(**options).fit(X, Y, confounds=C)
    request.getfixturevalue("in_file")
    model = clone(model).set_params(**options).fit(X, Y, confounds=C)
    assert model.plan_.coef_on_demand and not known.plan_.coef_on_demand
    assert "on demand" in str(model.plan_) and model.plan_.coef_file_bytes == 0
    assert model.plan_.target_flops < known.plan_.target_flops
    assert model._linear.coef is None
    for name in ("coef_", "dual_coef_"):
        values = getattr(known, name)
        size = np.abs(values).max()
        np.testing.assert_allclose(getattr(model, name), values, rtol=0, atol=1e-6 * size)
    np.testing.assert_allclose(model.y_offset_, known.y_offset_, rtol=0, atol=1e-8)
    np.testing.assert_allclose(model.predict(X), known.predict(X), rtol=0, atol=1e-5)
    np.testing.assert_allclose(model.score(X, Y), known.score(X, Y), rtol=0, atol=1e-6)
    # a sum over features of mean times coefficient
    atol = 1e-6 * np.abs(known.coef_).max() * mean * P**0.5
    np.testing.assert_allclose(model.intercept_, known.intercept_, rtol=0, atol=atol)
    assert model.coef_ is model.coef_ and model.dual_coef_ is model.dual_coef_


@pytest.mark.parametrize("in_a_file", [False, True])
def test_save_and_load_coefficients_on_demand(in_a_file, in_file, tmp_path):
    X, Y = problem()
    if in_a_file:
        np.save(tmp_path / "X.npy", X)
        X = np.load(tmp_path / "X.npy", mmap_mode="r")
    model = clone(GIVEN).fit(X, Y)
    assert model._linear.coef is None
    model.save(tmp_path / "model")
    loaded = load(tmp_path / "model")
    # by reference to X, with dual coefficients, or with primal ones
    assert loaded._linear.coef.shape == (T, N if in_a_file else P)
    np.testing.assert_allclose(loaded.predict(X), model.predict(X), rtol=0, atol=1e-5)
    np.testing.assert_allclose(loaded.coef_, model.coef_, rtol=0, atol=1e-6)


def test_targets_that_changed_are_refused(in_file, tmp_path):
    X, Y = problem()
    model = clone(GIVEN).fit(X, Y)
    before = model.predict(X)
    Y *= 2
    for use in (
        lambda: model.predict(X),
        lambda: model.score(X, Y),
        lambda: model.coef_,
        lambda: model.dual_coef_,
        lambda: model.save(tmp_path / "model"),
    ):
        with pytest.raises(InputError, match=r"Y has changed since the fit.*fit again"):
            use()
    assert not list(tmp_path.iterdir())
    Y /= 2
    np.testing.assert_array_equal(model.predict(X), before)


def test_one_target_on_demand(in_file):
    X, Y = problem()
    models = [clone(GIVEN).fit(X, y) for y in (Y[:, 0], Y)]
    assert models[0].coef_.shape == (P,) and models[0].predict(X).shape == (N,)
    np.testing.assert_allclose(models[0].coef_, models[1].coef_[0], rtol=0, atol=1e-5)


def test_weighted_samples_have_coefficients(in_file):
    X, Y = problem()
    model = clone(GIVEN).fit(X, Y, sample_weight=np.linspace(1, 2, N))
    assert model.plan_.smoother_bytes and not model.plan_.coef_on_demand
    assert model._linear.coef.shape == (T, N)


def test_targets_that_are_read_again_fit_the_limit(in_file):
    X, Y = problem()
    model = clone(GIVEN).fit(X, Y.repeat(40, axis=1))
    expected = model.predict(X[:3])
    model.set_params(memory_limit=1000)
    with pytest.raises(MemoryLimitError) as refusal:
        model.predict(X[:3])
    limit = int(re.search(r"at least (\d+) bytes", str(refusal.value))[1])
    steps = model._linear.steps(3, limit, 3 * 4 * 40 * T, scored=False)
    assert steps.targets < 40 * T
    predicted = model.set_params(memory_limit=limit).predict(X[:3])
    np.testing.assert_allclose(predicted, expected, rtol=0, atol=1e-5)


def test_only_where_it_saves_flops():
    def takes(t, shared=True, kind="fixed", method="fixed", family="dual"):
        problem = routes.Problem(
            N, P, t, 1, kind, (), 1, 1, shared, "neg_mean_squared_error", False, 1.0
        )
        return routes.takes_smoother(problem, family, method)

    assert takes(T) and takes(T, kind="loo", method="trace")
    assert not takes(N)
    assert not takes(T, shared=False)
    assert not takes(T, family="primal")
    assert not takes(T, kind="loo", method="loo")


@pytest.mark.parametrize("size", [1e-12, 1e15])
def test_left_out_errors_of_any_size(size):
    X, Y = problem()
    Y = size * np.clip(Y - 10, -1, 1)
    scores = [
        RidgeCV([0.5, 50.0], cv="loo", alpha_per_target=False, solver=solver).fit(X, Y).cv_scores_
        for solver in ("dual-trace", "dual-loo")
    ]
    np.testing.assert_allclose(*scores, rtol=0, atol=1e-5)
