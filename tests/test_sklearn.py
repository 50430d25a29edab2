"""RidgeCV and Ridge as estimators of scikit-learn: its own checks, and its tools around them."""

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from sklearn import linear_model
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV, KFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from ridgemm import InputError, Ridge, RidgeCV, load
from tests import naive

# asks for the digits of float64, which coefficients in float32 do not have
EXPECTED_FAILURES = {
    "check_sample_weight_equivalence_on_dense_data": "asks for predictions equal to 1e-7, which is "
    "less than float32 resolves; to 1e-5: test_weights.test_whole_weights_repeat_samples, "
    "test_repeated_samples",
}


@parametrize_with_checks(
    [RidgeCV(), Ridge()], expected_failed_checks=lambda estimator: EXPECTED_FAILURES
)
def test_sklearn_checks(estimator, check):
    check(estimator)


def signal(n=60, p=5, t=4, seed=0):
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((n, p)) + 3
    return X, X @ rng.standard_normal((p, t)) + rng.standard_normal((n, t)) - 7


# -- Ridge ----------------------------------------------------------------------------------

SOLVERS = ("primal", "svd", "dual")


@pytest.mark.parametrize("standardize", [False, True])
@pytest.mark.parametrize("fit_intercept", [False, True])
@pytest.mark.parametrize("p", [5, 90])
@pytest.mark.parametrize("solver", SOLVERS)
def test_ridge_is_the_oracle(solver, p, fit_intercept, standardize):
    X, Y = signal(p=p)
    for alpha in (3.0, np.array([0.5, 20.0, 1.0, 300.0])):
        options = dict(fit_intercept=fit_intercept, standardize=standardize)
        model = Ridge(alpha, solver=solver, **options).fit(X, Y)
        coef, intercept = naive.ridge(X, Y, alpha, **options)
        assert model.route_ == f"{solver}-fixed"
        assert_allclose(model.coef_, coef, atol=1e-4 * np.abs(coef).max())
        assert_allclose(model.intercept_, intercept, atol=1e-4 * np.abs(Y).max())
        expected = naive.predict(X, coef, intercept)
        assert_allclose(model.predict(X), expected, atol=1e-4 * np.sqrt(np.mean(Y**2)))
        assert_allclose(model.score(X, Y), naive.score(Y, expected, "r2"), atol=1e-5)


def test_ridge_is_that_of_scikit_learn():
    X, Y = signal()
    alpha = [0.1, 1.0, 10.0, 100.0]
    ref = linear_model.Ridge(alpha).fit(X, Y)
    assert_allclose(Ridge(alpha).fit(X, Y).coef_, ref.coef_, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("n_jobs", [1, 2])
def test_ridge_finishes_a_search(n_jobs):
    X, Y = signal(t=40)
    search = RidgeCV([0.1, 1.0, 100.0], cv=3).fit(X, Y)
    model = Ridge(search.alpha_, n_jobs=n_jobs).fit(X, Y)
    assert_allclose(model.coef_, search.coef_, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("solver", SOLVERS)
def test_ridge_is_saved(solver, tmp_path):
    X, Y = signal()
    np.save(tmp_path / "X.npy", X)
    model = Ridge([1.0, 2.0, 3.0, 4.0], solver=solver).fit(tmp_path / "X.npy", Y)
    model.save(tmp_path / "model")
    again = load(tmp_path / "model")
    assert isinstance(again, Ridge) and again.alpha == [1.0, 2.0, 3.0, 4.0]
    assert_array_equal(again.alpha_, model.alpha_)
    assert_array_equal(again.predict(X), model.predict(X))
    assert_array_equal(again.coef_, model.coef_)


def test_ridge_finds_the_factors_of_before(tmp_path):
    X, Y = signal()
    assert Ridge(cache_dir=tmp_path).fit(X, Y).factors_computed_ == 1
    assert Ridge(5.0, cache_dir=tmp_path).fit(X, Y[:, :2]).factors_computed_ == 0


@pytest.mark.parametrize(
    ("alpha", "words"),
    [
        ([1.0, 2.0], "alpha has 2 penalties and Y has 4"),
        (0.0, "alpha holds 0.0"),
        ("many", "alpha='many'"),
        ([[1.0]], r"alpha has shape \(1, 1\)"),
    ],
)
def test_ridge_refuses(alpha, words):
    with pytest.raises(InputError, match=words):
        Ridge(alpha).fit(*signal())


# -- one target without an axis --------------------------------------------------------------

MODELS = [
    Ridge(2.0),
    Ridge([2.0], solver="dual"),
    RidgeCV([0.1, 1.0], cv=3),
    RidgeCV([0.1, 1.0], cv="loo", solver="dual"),
    RidgeCV([0.1, 1.0], cv=3, alpha_per_target=False),
]


@pytest.mark.parametrize("kind", [np.asarray, list, pd.Series, "path"])
@pytest.mark.parametrize("model", MODELS, ids=repr)
def test_one_dimensional_y(model, kind, tmp_path):
    X, Y = signal()
    y = Y[:, 0]
    if kind == "path":
        given = tmp_path / "y.npy"
        np.save(given, y)
    else:
        given = kind(y)
    column, flat = clone(model).fit(X, y[:, None]), clone(model).fit(X, given)
    for name, ndim in dict(coef_=1, intercept_=0, alpha_=0).items():
        assert np.ndim(getattr(flat, name)) == ndim
        assert_array_equal(np.ravel(getattr(column, name)), np.ravel(getattr(flat, name)))
    if hasattr(flat, "cv_scores_"):
        assert flat.cv_scores_.shape == (2,) and np.ndim(flat.best_score_) == 0
    out = np.empty(len(X))
    assert flat.predict(X, out=out) is out
    assert_array_equal(flat.predict(X), column.predict(X)[:, 0])
    assert_array_equal(out, flat.predict(X))
    score = flat.score(X, given)
    assert isinstance(score, float) and score == column.score(X, y[:, None])[0]
    flat.save(tmp_path / "model")
    again = load(tmp_path / "model")
    assert again.coef_.shape == (5,) and isinstance(again.intercept_, float)
    # a dual model is saved with primal coefficients
    assert_allclose(again.predict(X), flat.predict(X), rtol=1e-5, atol=1e-5)
    with pytest.raises(InputError, match=r"out.*\(60,\)"):
        flat.predict(X, out=np.empty((60, 1), np.float32))


def test_score_of_many_targets():
    X, Y = signal()
    model = RidgeCV(cv=3).fit(X, Y)
    scores = model.score(X, Y)
    assert scores.shape == (4,)
    assert_array_equal(model.score(X, Y, multioutput="raw_values"), scores)
    assert model.score(X, Y, multioutput="uniform_average") == scores.mean()
    with pytest.raises(InputError, match="multioutput='mean'"):
        model.score(X, Y, multioutput="mean")


# -- tools around an estimator ---------------------------------------------------------------


@pytest.mark.parametrize("model", [Ridge(), RidgeCV(cv=3)])
def test_data_may_be_given_by_name(model):
    X, Y = signal()
    named = clone(model).fit(X=X, y=Y)
    assert_array_equal(named.predict(X=X), clone(model).fit(X, Y).predict(X))
    assert_array_equal(named.score(X=X, y=Y), named.score(X, Y))


def test_parameters_are_kept_and_cloned():
    model = RidgeCV([1.0, 2.0], cv=KFold(3), n_jobs=2, scoring="correlation")
    other = clone(model)
    assert repr(other) == repr(model) and other.get_params().keys() == model.get_params().keys()
    assert other.set_params(cv=4, alphas=[3.0]).fit(*signal()).alpha_.tolist() == [3.0] * 4


@pytest.mark.parametrize("model", [Ridge(), RidgeCV(cv=3)])
def test_cross_val_score(model):
    X, Y = signal(n=90)
    ours = cross_val_score(model, X, Y[:, 0], cv=3)
    theirs = cross_val_score(linear_model.Ridge(), X, Y[:, 0], cv=3)
    assert_allclose(ours, theirs, atol=0.05)
    # a scorer of scikit-learn makes one number of many targets
    ours = cross_val_score(model, X, Y, cv=3, scoring="r2")
    assert_allclose(ours, cross_val_score(linear_model.Ridge(), X, Y, cv=3), atol=0.05)


def test_grid_search_in_a_pipeline():
    X, Y = signal()
    alphas = [0.1, 10.0, 1000.0]
    searches = [
        GridSearchCV(make_pipeline(StandardScaler(), ridge), {"ridge__alpha": alphas}, cv=3)
        for ridge in (Ridge(), linear_model.Ridge())
    ]
    ours, theirs = (search.fit(X, Y[:, 1]) for search in searches)
    assert ours.best_params_ == theirs.best_params_
    assert_allclose(ours.best_score_, theirs.best_score_, atol=1e-5)


def test_a_transformer_may_hand_on_a_table():
    X, Y = signal()
    table = pd.DataFrame(X, columns=list("abcde"))
    pipeline = make_pipeline(StandardScaler(), Ridge()).set_output(transform="pandas")
    pipeline.fit(table, pd.DataFrame(Y))
    assert pipeline[-1].feature_names_in_.tolist() == list("abcde")
    plain = make_pipeline(StandardScaler(), Ridge()).fit(X, Y)
    assert_array_equal(pipeline.predict(table), plain.predict(X))


def test_names_of_features(tmp_path):
    X, Y = signal()
    table = pd.DataFrame(X, columns=list("abcde"))
    model = Ridge().fit(table, Y)
    with pytest.raises(InputError, match="feature names should match"):
        model.predict(table[list("edcba")])
    model.save(tmp_path / "model")
    assert load(tmp_path / "model").feature_names_in_.tolist() == list("abcde")
    assert not hasattr(model.fit(X, Y), "feature_names_in_")
    np.save(tmp_path / "X.npy", X)
    model.fit(table, Y)
    assert not hasattr(model.fit(tmp_path / "X.npy", Y), "feature_names_in_")
