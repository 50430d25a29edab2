"""One product for all dual coefficients, where one alpha is known before targets are read."""

import numpy as np
import pytest

from ridgemm import Ridge, RidgeCV, fitplan, routes

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
