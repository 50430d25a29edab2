"""Every route gives the oracle's scores, alphas, coefficients and predictions."""

from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import assume, given, note
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_less
from sklearn import linear_model
from sklearn.model_selection import GroupKFold, TimeSeriesSplit

from ridgemm import RidgeCV
from ridgemm.projections import TargetTile
from ridgemm.routes import possible_routes
from tests import naive, strategies

SCORE_TOLERANCE = 1e-4
# alphas whose scores lie closer than this are a tie: either may be chosen
TIE = 1e-5


class Case(NamedTuple):
    """A problem and the parameters of a fit."""

    problem: strategies.Problem
    options: dict[str, Any]
    groups: np.ndarray | None

    @property
    def reference(self):
        """What the oracle wants to know of the parameters."""
        names = ("cv", "scoring", "fit_intercept", "standardize")
        return {**{name: self.options[name] for name in names}, "groups": self.groups}

    @property
    def folds(self):
        """Index pairs; GCV and LOO fit all samples."""
        X, cv = self.problem.X, self.options["cv"]
        everything = np.arange(len(X))
        if isinstance(cv, str):
            return [(everything, everything)]
        return naive.split(cv, len(X), self.groups)


@st.composite
def unequal_groups(draw, n_samples):
    """Labels of 2 to 4 groups, the first of them the largest, in no order."""
    n_groups = draw(st.integers(2, 4), label="n_groups")
    rng = np.random.default_rng(draw(strategies.seeds(), label="seed"))
    sizes = np.full(n_groups, (n_samples // 2) // n_groups)
    sizes[0] += n_samples - sizes.sum()
    return rng.permutation(np.repeat(np.arange(n_groups), sizes))


@st.composite
def cases(draw):
    """Fits of every kind that the oracle can judge."""
    scoring = draw(strategies.scorings())
    # LOO without an intercept can leave nothing to correlate: see its own test
    fit_intercept = scoring == "correlation" or draw(st.booleans())
    problem = draw(strategies.problems(raised=fit_intercept))
    n_samples = len(problem.X)
    kind = draw(st.sampled_from(("any", "groups", "time series")))
    groups = None
    if kind == "groups" and n_samples >= 8:
        groups = draw(unequal_groups(n_samples))
        n_splits = draw(st.integers(2, len(np.unique(groups))))
        cv = draw(st.sampled_from((n_splits, GroupKFold(n_splits))))
    elif kind == "time series":
        cv = TimeSeriesSplit(draw(st.integers(2, n_samples // 3)))
    else:
        cv = draw(strategies.cvs(n_samples, scoring))
    options = dict(
        cv=cv,
        scoring=scoring,
        fit_intercept=fit_intercept,
        standardize=cv != "loo" and draw(st.booleans()),
        alpha_per_target=draw(st.booleans()),
    )
    case = Case(problem, options, groups)
    # two rows make a score, and three a training set that a fold may standardise
    assume(all(len(train) > 2 and len(test) > 1 for train, test in case.folds))
    return case


def fit_every_route(problem, groups=None, **options):
    """The fitted models of all the routes that solve a problem."""
    X, Y, alphas = problem
    first = RidgeCV(alphas, **options).fit(X, Y, groups)
    yield first
    for route in possible_routes(first.plan_.problem):
        if route.name != first.route_:
            model = RidgeCV(alphas, solver=route.name, **options).fit(X, Y, groups)
            assert model.route_ == route.name
            yield model


def check_scores(model, scores):
    """Scores, and the score of the chosen alphas, of (n_alphas, n_targets) oracle scores."""
    if not model.alpha_per_target:
        scores = scores.mean(axis=1)
    # an R2 of -1000, of a fold whose targets hardly vary, has as many digits as one of 1
    tolerance = SCORE_TOLERANCE * (1 + np.abs(scores))
    assert_array_less(np.abs(model.cv_scores_ - scores), tolerance)
    index = np.argmax(np.atleast_1d(model.alpha_) == model.alphas[:, None], axis=0)
    columns = np.arange(scores.shape[1]) if scores.ndim == 2 else ...
    ours, best = scores[index, columns].ravel(), scores.max(axis=0)
    assert_array_less(best - ours, TIE * (1 + np.abs(best)))
    assert_allclose(model.best_score_, model.cv_scores_.max(axis=0), rtol=1e-6, atol=1e-7)


def feature_scale(X):
    """Standard deviations, 1 for constant features."""
    sd = np.asarray(X, dtype=np.float64).std(axis=0)
    return np.where(np.ptp(X, axis=0) == 0, 1.0, sd)


def check_coefficients(model, X, Y):
    """Coefficients, intercept and predictions against the oracle at the alphas of the model."""
    fit_intercept, standardize = model.fit_intercept, model.standardize
    Y = np.asarray(Y, dtype=np.float64)
    alpha = np.broadcast_to(model.alpha_, Y.shape[1])
    coef, intercept = naive.ridge(X, Y, alpha, fit_intercept, standardize)
    assert model.coef_.shape == coef.shape and model.coef_.dtype == np.float32
    assert model.intercept_.shape == intercept.shape
    # whatever the data, no coefficient of a feature of unit scale exceeds |y| / (2 sqrt(alpha))
    y = Y - Y.mean(axis=0) if fit_intercept else Y
    rounding = 1e-5 * np.linalg.norm(y, axis=0) + 1e-7 * np.linalg.norm(Y, axis=0)
    scale = feature_scale(X) if standardize else 1.0
    slack = (rounding / (2 * np.sqrt(alpha)))[:, None] / scale
    slack += 1e-4 * np.abs(coef).max(axis=1, keepdims=True)
    assert np.all(np.abs(model.coef_ - coef) <= slack)

    predictions = naive.predict(X, coef, intercept)
    # float32 has 24 bits for a prediction of mean 1000
    slack = 1e-4 * np.sqrt(np.mean(y**2, axis=0)) + 1e-6 * np.abs(Y).max() + 1e-12
    assert np.all(np.abs(model.predict(X) - predictions) <= slack)
    from_attributes = naive.predict(X, model.coef_, model.intercept_)
    # the intercept of features of mean 1000 is a difference of large numbers
    slack += 1e-6 * np.abs(model.coef_).sum(axis=1) * np.abs(X).max()
    assert np.all(np.abs(from_attributes - predictions) <= slack)


def correlated(case):
    """Targets whose predictions vary in every fold, for every alpha, by more than rounding."""
    (X, Y, alphas), options = case.problem, case.options
    varies = np.ones(Y.shape[1], dtype=bool)
    for train, test in case.folds:
        size = np.abs(Y[train] - Y[train].mean(axis=0, dtype=np.float64)).max(axis=0)
        for alpha in alphas:
            fit = naive.ridge(X[train], Y[train], alpha, True, options["standardize"])
            predictions = naive.predict(X[test], *fit)
            noise = 1e-2 * np.abs(predictions - fit[1]).max(axis=0) + 1e-9 * size
            varies &= np.ptp(predictions, axis=0) > noise
    return varies


@given(case=cases())
def test_every_route_agrees_with_the_oracle(case):
    (X, Y, alphas), options = case.problem, case.options
    if options["scoring"] == "correlation":
        # predictions that are the same but for rounding have any correlation
        varies = correlated(case)
        assume(varies.any())
        Y = Y[:, varies]
    scores = naive.cv_scores(X, Y, alphas, **case.reference)
    for model in fit_every_route(strategies.Problem(X, Y, alphas), case.groups, **options):
        note(model.route_)
        check_scores(model, scores)
        check_coefficients(model, X, Y)


def signal(n=120, p=15, t=6, mean=0.0, seed=0):
    """A problem with a mean, and noise that grows from target to target."""
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((n, p)) + mean
    Y = (X - mean) @ rng.standard_normal((p, t)) / np.sqrt(p)
    Y += np.logspace(-1, 1, t) * rng.standard_normal((n, t)) + mean
    return strategies.Problem(X, Y, np.logspace(-2, 4, 7))


@pytest.mark.parametrize("cv", [4, "loo", "gcv"])
@pytest.mark.parametrize("shape", [(120, 15), (40, 90)])
def test_raised_means_cost_nothing(shape, cv):
    centered, raised = signal(*shape), signal(*shape, mean=1000.0)
    options = dict(cv=cv, scoring="neg_mean_squared_error")
    reference = naive.cv_scores(*centered, cv, "neg_mean_squared_error")
    for model in fit_every_route(raised, **options):
        check_scores(model, reference)


@pytest.mark.parametrize("cv", [4, "loo"])
@pytest.mark.parametrize("shape", [(120, 15), (40, 90)])
def test_correlation_without_intercept(shape, cv):
    problem = signal(*shape)
    options = dict(cv=cv, scoring="correlation", fit_intercept=False)
    scores = naive.cv_scores(*problem, **options)
    for model in fit_every_route(problem, **options):
        check_scores(model, scores)


def test_correlation_with_targets_constant_in_training():
    # without an intercept a constant is something to fit, and its predictions vary
    X, Y, alphas = signal()
    Y[:60, 0], Y[60:, 1] = 3.0, -2.0
    options = dict(cv=2, scoring="correlation", fit_intercept=False)
    scores = naive.cv_scores(X, Y, alphas, **options)
    for model in fit_every_route(strategies.Problem(X, Y, alphas), **options):
        check_scores(model, scores)


def test_drifting_means():
    # an expanding window over a drift: test folds lie far from the training means
    X, Y, alphas = signal(n=200)
    drift = np.linspace(0, 30, 200)[:, None]
    X, Y = X + drift, Y + drift
    for scoring in naive.SCORINGS:
        options = dict(cv=TimeSeriesSplit(4), scoring=scoring)
        scores = naive.cv_scores(X, Y, alphas, **options)
        for model in fit_every_route(strategies.Problem(X, Y, alphas), **options):
            check_scores(model, scores)


def test_features_of_one_session_only():
    # blocks of features that the test rows lack altogether, turned so that no entry is zero
    rng = np.random.default_rng(0)
    X = np.zeros((60, 8))
    X[:40, :4], X[40:, 4:] = rng.standard_normal((40, 4)), rng.standard_normal((20, 4))
    X @= np.linalg.qr(rng.standard_normal((8, 8)))[0]
    Y = X @ rng.standard_normal((8, 3)) + rng.standard_normal((60, 3))
    rows = np.arange(60)
    cv = [(np.setdiff1d(rows, test), test) for test in (rows[:20], rows[40:50])]
    for fit_intercept in (False, True):
        options = dict(cv=cv, scoring="r2", fit_intercept=fit_intercept)
        scores = naive.cv_scores(X, Y, [0.01, 1.0], **options)
        problem = strategies.Problem(X, Y, np.array([0.01, 1.0]))
        for model in fit_every_route(problem, **options):
            check_scores(model, scores)


@pytest.mark.parametrize("cv", [4, "loo", "gcv"])
@pytest.mark.parametrize("condition", [1e2, 1e4, 1e6])
@pytest.mark.parametrize("shape", [(150, 20), (40, 40), (40, 100)])
def test_ill_conditioned(shape, condition, cv):
    n, p = shape
    rng = np.random.default_rng(1)
    k = min(shape)
    U = np.linalg.qr(rng.standard_normal((n, k)))[0]
    V = np.linalg.qr(rng.standard_normal((p, k)))[0]
    X = np.sqrt(n * p) * U * np.logspace(0, -np.log10(condition), k) @ V.T
    Y = U @ rng.standard_normal((k, 5)) + np.logspace(-3, 0, 5) * rng.standard_normal((n, 5))
    alphas = np.logspace(-10, 0, 6) * np.linalg.norm(X, 2) ** 2
    # read as float32 by every route, the oracle included
    X = X.astype(np.float32)
    model = RidgeCV(alphas, cv=cv).fit(X, Y)
    check_scores(model, naive.cv_scores(X, Y, alphas, cv, "r2"))


@pytest.mark.parametrize("scoring", ["r2", "neg_mean_squared_error"])
@pytest.mark.parametrize("fit_intercept", [False, True])
@pytest.mark.parametrize("shape", [(60, 8), (30, 50)])
def test_one_alpha_by_loo_is_that_of_scikit_learn(shape, fit_intercept, scoring):
    X, Y, alphas = signal(*shape, t=4)
    ref = linear_model.RidgeCV(alphas, scoring=scoring, fit_intercept=fit_intercept).fit(X, Y)
    options = dict(cv="loo", scoring=scoring, fit_intercept=fit_intercept, alpha_per_target=False)
    for comp in fit_every_route(strategies.Problem(X, Y, alphas), **options):
        assert comp.alpha_ == ref.alpha_
        assert_allclose(comp.best_score_, ref.best_score_, rtol=1e-5)
        assert_allclose(comp.coef_, ref.coef_, rtol=1e-4, atol=1e-5)
        assert_allclose(comp.intercept_, ref.intercept_, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("solver", ["primal-gcv", "primal-loo"])
def test_all_samples_are_projected_once(solver, monkeypatch):
    """Scores and coefficients of a strip share Z; it is as if each had made its own."""
    rng = np.random.default_rng(0)
    X, Y = rng.standard_normal((200, 12)), rng.standard_normal((200, 1100))
    made, project = [], TargetTile.project_products

    def counted(tile, fold, atoms, strip, workspace, name):
        made.append(strip.start)
        return project(tile, fold, atoms, strip, workspace, name)

    monkeypatch.setattr(TargetTile, "project_products", counted)
    cv = solver.removeprefix("primal-")
    fitted = RidgeCV([1.0, 100.0], cv=cv, solver=solver).fit(X, Y)
    n_strips = len(made)
    assert n_strips == len(set(made)) > 1

    def again(tile, fold, strip, workspace):
        return project(tile, fold, fold.in_train, strip, workspace, "Z")

    monkeypatch.setattr(TargetTile, "project_all", again)
    other = RidgeCV([1.0, 100.0], cv=cv, solver=solver).fit(X, Y)
    np.testing.assert_array_equal(fitted.coef_, other.coef_)
    np.testing.assert_array_equal(fitted.cv_scores_, other.cv_scores_)
