"""The references agree with scikit-learn and SciPy, and the strategies keep their promises."""

import numpy as np
import pytest
from hypothesis import Phase, find, given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from scipy.stats import pearsonr
from sklearn.linear_model import Ridge, RidgeCV
from sklearn.metrics import make_scorer, mean_squared_error, r2_score
from sklearn.model_selection import (
    GridSearchCV,
    GroupKFold,
    KFold,
    LeaveOneGroupOut,
    cross_val_score,
)
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from tests import naive, strategies

ALPHAS = np.logspace(-1, 4, 6)
SCORERS = {
    "r2": "r2",
    "correlation": make_scorer(lambda y, yhat: pearsonr(y, yhat).statistic),
    "neg_mean_squared_error": "neg_mean_squared_error",
}


def problem(n=30, p=8, t=5):
    """X of mean 5 and unequal scales, Y with noise that grows from target to target."""
    rng = np.random.default_rng(0)
    X = 5 + rng.standard_normal((n, p)) * np.linspace(0.5, 2, p)
    noise = np.logspace(-1, 1.5, t) * rng.standard_normal((n, t))
    return X, 3 + (X - 5) @ rng.standard_normal((p, t)) / np.sqrt(p) + noise


def sklearn_ridge(fit_intercept=True, standardize=False):
    model = Ridge(fit_intercept=fit_intercept)
    return make_pipeline(StandardScaler(), model) if standardize else make_pipeline(model)


@pytest.mark.parametrize("standardize", [False, True])
@pytest.mark.parametrize("fit_intercept", [False, True])
@pytest.mark.parametrize("shape", [(30, 8, 5), (12, 40, 3), (20, 20, 1), (20, 1, 2)])
@pytest.mark.parametrize("alpha", [0.1, 100.0])
def test_ridge(shape, alpha, fit_intercept, standardize):
    X, Y = problem(*shape)
    X[:, 0] = 2.7
    ref = sklearn_ridge(fit_intercept, standardize).set_params(ridge__alpha=alpha).fit(X, Y)
    comp = naive.ridge(X, Y, alpha, fit_intercept, standardize)
    X_new = X[::2] + 1
    ref_new = ref.predict(X_new).reshape(-1, shape[2])
    assert_allclose(naive.predict(X_new, *comp), ref_new, rtol=1e-9, atol=1e-9)
    if not standardize:
        assert_allclose(comp[0], ref["ridge"].coef_.reshape(shape[2], -1), atol=1e-12)


def test_ridge_alpha_of_each_target():
    X, Y = problem()
    alpha = np.array([0.1, 1, 10, 100, 1000])
    ref = Ridge(alpha=alpha).fit(X, Y)
    coef, intercept = naive.ridge(X, Y, alpha)
    assert_allclose(coef, ref.coef_)
    assert_allclose(intercept, ref.intercept_)


@settings(deadline=None, max_examples=50)
@given(strategies.problems())
def test_ridge_is_augmented_least_squares(drawn):
    X, Y = drawn.X.astype(float), drawn.Y.astype(float)
    alpha = drawn.alphas[0]
    X_mean, Y_mean = X.mean(axis=0), Y.mean(axis=0)
    A = np.vstack([X - X_mean, np.sqrt(alpha) * np.eye(X.shape[1])])
    B = np.vstack([Y - Y_mean, np.zeros((X.shape[1], Y.shape[1]))])
    ref = np.linalg.lstsq(A, B)[0].T
    coef, intercept = naive.ridge(drawn.X, drawn.Y, alpha)
    assert_allclose(coef, ref, rtol=1e-8, atol=1e-9)
    assert_allclose(intercept + coef @ X_mean, Y_mean, rtol=1e-8, atol=1e-9)


def test_score():
    _, Y = problem()
    P = Y[:, ::-1] + 1
    assert_allclose(naive.score(Y, P, "r2"), r2_score(Y, P, multioutput="raw_values"))
    mse = mean_squared_error(Y, P, multioutput="raw_values")
    assert_allclose(naive.score(Y, P, "neg_mean_squared_error"), -mse)
    correlation = [pearsonr(y, p).statistic for y, p in zip(Y.T, P.T, strict=True)]
    assert_allclose(naive.score(Y, P, "correlation"), correlation)


def test_score_of_constants():
    varying, constant = np.arange(4.0)[:, None], np.full((4, 1), 0.1)
    nearly = constant + 1e-16 * varying
    assert naive.score(constant, constant, "r2") == 0
    assert naive.score(constant, varying, "r2") == 0
    assert naive.score(constant, varying, "correlation") == 0
    assert naive.score(varying, nearly, "correlation") == 0
    assert naive.score(varying, 1e-6 * varying, "correlation") == pytest.approx(1)
    assert naive.score(constant, constant + 2, "neg_mean_squared_error") == pytest.approx(-4)


@pytest.mark.parametrize("standardize", [False, True])
@pytest.mark.parametrize("fit_intercept", [False, True])
@pytest.mark.parametrize("scoring", naive.SCORINGS)
@pytest.mark.parametrize("cv", [3, KFold(4, shuffle=True, random_state=0)])
def test_kfold_scores(cv, scoring, fit_intercept, standardize):
    X, Y = problem()
    comp = naive.cv_scores(X, Y, ALPHAS, cv, scoring, fit_intercept, standardize)
    ref = np.empty_like(comp)
    for a, alpha in enumerate(ALPHAS):
        model = sklearn_ridge(fit_intercept, standardize).set_params(ridge__alpha=alpha)
        for j, y in enumerate(Y.T):
            ref[a, j] = cross_val_score(model, X, y, cv=cv, scoring=SCORERS[scoring]).mean()
    assert_allclose(comp, ref, rtol=1e-6)


@pytest.mark.parametrize("shape", [(30, 8, 5), (12, 40, 3)])
@pytest.mark.parametrize("scoring", ["r2", "neg_mean_squared_error"])
@pytest.mark.parametrize("alpha_per_target", [False, True])
@pytest.mark.parametrize("fit_intercept", [False, True])
def test_loo(shape, scoring, alpha_per_target, fit_intercept):
    X, Y = problem(*shape)
    comp = naive.ridge_cv(X, Y, ALPHAS, "loo", scoring, alpha_per_target, fit_intercept)
    ref = RidgeCV(
        ALPHAS, scoring=scoring, alpha_per_target=alpha_per_target, fit_intercept=fit_intercept
    ).fit(X, Y)
    assert_array_equal(comp.alpha, ref.alpha_)
    assert_allclose(comp.best_score, ref.best_score_, rtol=1e-6)
    assert_allclose(comp.coef, ref.coef_, rtol=1e-6)
    assert_allclose(comp.intercept, ref.intercept_, rtol=1e-6)


def test_loo_correlation_is_of_pooled_predictions():
    X, Y = problem()
    H = naive.hat_matrix(X, 10.0)
    held_out = Y - (Y - H @ Y) / (1 - np.diag(H))[:, None]
    ref = [pearsonr(y, p).statistic for y, p in zip(Y.T, held_out.T, strict=True)]
    assert_allclose(naive.loo_scores(X, Y, [10.0], "correlation")[0], ref)


@pytest.mark.parametrize("fit_intercept", [False, True])
@pytest.mark.parametrize("shape", [(30, 8, 5), (12, 40, 3)])
def test_gcv_scores(shape, fit_intercept):
    X, Y = problem(*shape)
    n, p = X.shape
    Xc = X - X.mean(axis=0) if fit_intercept else X
    errors = []
    for alpha in ALPHAS:
        H = Xc @ np.linalg.solve(Xc.T @ Xc + alpha * np.eye(p), Xc.T) + fit_intercept / n
        errors.append(n * np.sum((Y - H @ Y) ** 2, axis=0) / (n - np.trace(H)) ** 2)
    args = (X, Y, ALPHAS, "gcv")
    comp = naive.cv_scores(*args, "neg_mean_squared_error", fit_intercept)
    assert_allclose(comp, -np.array(errors), rtol=1e-6)
    comp = naive.cv_scores(*args, "r2", fit_intercept)
    assert_allclose(comp, 1 - np.array(errors) / Y.var(axis=0), rtol=1e-6)


def test_gcv_has_no_correlation():
    with pytest.raises(ValueError, match="GCV"):
        naive.cv_scores(*problem(), ALPHAS, "gcv", "correlation")


def test_select_takes_the_first_of_equal_scores():
    scores = np.array([[0.0, 2.0, 1.0], [1.0, 2.0, 0.0], [1.0, 0.0, 2.0]])
    assert_array_equal(naive.select(scores, [3, 1, 2], True), [1, 3, 2])
    assert naive.select(scores, [3, 1, 2], False) == 3


def test_split():
    groups = np.repeat([0, 1, 2], [3, 4, 5])
    pairs = [(np.array([0, 2]), np.array([1]))]
    for cv, ref in [
        (2, GroupKFold(2).split(groups, groups=groups)),
        (LeaveOneGroupOut(), LeaveOneGroupOut().split(groups, groups=groups)),
        (pairs, pairs),
    ]:
        comp = naive.split(cv, len(groups), groups)
        for (train, test), (ref_train, ref_test) in zip(comp, ref, strict=True):
            assert_array_equal(train, ref_train)
            assert_array_equal(test, ref_test)


def searches(X, y, outer_folds, groups=None):
    """Held-out predictions by a grid search within each outer fold's training rows."""
    cv = KFold(3) if groups is None else GroupKFold(3)
    search = GridSearchCV(Ridge(), {"alpha": ALPHAS}, cv=cv, scoring="r2")
    for train, test in outer_folds:
        fitted = search.fit(X[train], y[train], groups=None if groups is None else groups[train])
        yield test, fitted.predict(X[test])


@pytest.mark.parametrize("groups", [None, np.arange(30) % 7])
def test_nested_scores(groups):
    X, Y = problem()
    folds = naive.split(4, len(X), groups)
    comp = naive.nested_scores(X, Y, ALPHAS, folds, 3, "r2", True, groups=groups)
    ref = [
        np.mean([r2_score(y[test], p) for test, p in searches(X, y, folds, groups)]) for y in Y.T
    ]
    assert_allclose(comp, ref)

    shared = naive.nested_scores(X, Y, ALPHAS, folds, 3, "r2", False, groups=groups)
    ref = np.mean([r2_score(Y[test], P) for test, P in searches(X, Y, folds, groups)])
    assert shared.mean() == pytest.approx(ref)
    assert not np.allclose(shared, comp)


def test_permutation_scores():
    X, Y = problem(t=2)
    folds = naive.split(4, len(X))
    rng = np.random.default_rng(1)
    permutations = np.array([np.arange(30), rng.permutation(30), rng.permutation(30)])
    comp = naive.permutation_scores(X, Y, permutations, ALPHAS, folds, 3, "r2")
    heldout = naive.heldout_permutation_scores(X, Y, permutations, ALPHAS, folds, 3, "r2")
    assert comp.shape == heldout.shape == (3, 2)
    for i, rows in enumerate(permutations):
        for j, y in enumerate(Y.T):
            ref = np.mean([r2_score(y[rows][f], p) for f, p in searches(X, y[rows], folds)])
            assert comp[i, j] == pytest.approx(ref)
            ref = np.mean([r2_score(y[rows][f], p) for f, p in searches(X, y, folds)])
            assert heldout[i, j] == pytest.approx(ref)
    assert not np.allclose(comp[1:], heldout[1:])


@settings(deadline=None, max_examples=100)
@given(strategies.problems(), strategies.scorings(), st.data())
def test_strategies(drawn, scoring, data):
    X, Y, alphas = drawn
    assert len(X) == len(Y) and X.ndim == Y.ndim == 2
    assert np.isfinite(X).all() and np.isfinite(Y).all() and (alphas > 0).all()
    assert not X.flags.writeable and not Y.flags.writeable
    cv = data.draw(strategies.cvs(len(X), scoring))
    if not isinstance(cv, str):
        for train, test in naive.split(cv, len(X)):
            assert len(train) >= 2 and len(test) >= 1 and not np.isin(train, test).any()
    model = naive.ridge_cv(X, Y, alphas, cv, scoring)
    assert model.cv_scores.shape == (len(alphas), Y.shape[1])
    assert np.isfinite(model.cv_scores).all() and np.isfinite(model.coef).all()


@pytest.mark.parametrize(
    "condition",
    [
        lambda X, Y, alphas: X.shape[1] >= 5 * X.shape[0],
        lambda X, Y, alphas: X.shape[0] >= 10 * X.shape[1] > 10,
        lambda X, Y, alphas: X.shape[0] == X.shape[1],
        lambda X, Y, alphas: X.shape[1] == 1 < Y.shape[1],
        lambda X, Y, alphas: Y.shape[1] == 1 < X.shape[1],
        lambda X, Y, alphas: X.dtype == "float16" and X.mean() > 900,
        lambda X, Y, alphas: (np.ptp(X, axis=0) == 0).any() and (np.ptp(Y, axis=0) == 0).any(),
        lambda X, Y, alphas: not (X.flags.c_contiguous or X.flags.f_contiguous),
        lambda X, Y, alphas: len(np.unique(naive.ridge_cv(X, Y, alphas, 3, "r2").alpha)) >= 3,
    ],
    ids=[
        "wide", "tall", "square", "one feature", "one target", "raised float16", "constants",
        "strided", "several alphas",
    ],
)  # fmt: skip
def test_problems_reach(condition):
    quick = settings(phases=[Phase.generate], max_examples=500, derandomize=True)
    find(strategies.problems(), lambda drawn: condition(*drawn), settings=quick)
