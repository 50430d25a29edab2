"""Confounds on every route: removed from X and Y inside each training fold."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.model_selection import LeaveOneGroupOut, ShuffleSplit

from ridgemm import InputError, Ridge, RidgeCV, load, plan
from ridgemm.nuisance import make_nuisance
from tests import naive
from tests.test_fit import ROUTES, assert_close_models, assert_equal_models, every_route

ALPHAS = [0.3, 10.0, 300.0]


def problem(n=50, p=8, t=6, q=3, seed=0, size=3.0):
    """X and Y that confounds drive by `size`, of other scales and means."""
    rng = np.random.default_rng(seed)
    C = rng.standard_normal((n, q)) * 10.0 ** rng.integers(-3, 4, q)
    shared = (C - C.mean(axis=0)) / np.maximum(C.std(axis=0), 1e-300)
    X = rng.standard_normal((n, p)) + size * shared @ rng.standard_normal((q, p))
    Y = X @ rng.standard_normal((p, t)) + size * shared @ rng.standard_normal((q, t))
    Y += 2 * rng.standard_normal((n, t))
    return X, Y / Y.std(), C + 5 * C.std(axis=0)


def assert_right(model, X, Y, C):
    """Scores, coefficients and predictions of the oracle, at the alphas of the model."""
    options = dict(fit_intercept=model.fit_intercept, standardize=model.standardize)
    ref = naive.confound_scores(X, Y, C, model.alphas, model.cv, model.scoring, **options)
    ref = ref if model.alpha_per_target else ref.mean(axis=1)
    assert np.all(np.abs(model.cv_scores_ - ref) <= 1e-4 * (1 + np.abs(ref)))
    everything = np.arange(len(X))
    alpha = np.broadcast_to(model.alpha_, Y.shape[1])
    coef, x, y = naive.confound_fit(X, Y, C, everything, alpha, **options)
    assert_allclose(model.coef_, coef, atol=1e-4 * np.abs(coef).max())
    whole = x @ coef.T + (Y - y)
    assert_allclose(model.predict(X, confounds=C), whole, atol=1e-4 * np.abs(Y).max())
    assert_allclose(
        model.score(X, Y, confounds=C), naive.score(y, x @ coef.T, model.scoring), atol=1e-4
    )


@pytest.mark.parametrize("scoring", naive.SCORINGS)
@pytest.mark.parametrize("fit_intercept", [True, False])
@pytest.mark.parametrize("p", [8, 35])
@every_route
def test_every_route(options, p, fit_intercept, scoring):
    if scoring == "correlation" and options["solver"].endswith(("gcv", "trace")):
        pytest.skip("not defined")
    X, Y, C = problem(p=p)
    model = RidgeCV(ALPHAS, scoring=scoring, fit_intercept=fit_intercept, **options)
    assert_right(model.fit(X, Y, confounds=C), X, Y, C)


@pytest.mark.parametrize("options", [o for o in ROUTES if o["cv"] != "loo"], ids=str)
def test_standardised(options):
    X, Y, C = problem()
    X *= 10.0 ** np.arange(-3, 5)
    model = RidgeCV(ALPHAS, standardize=True, **options)
    assert_right(model.fit(X, Y, confounds=C), X, Y, C)


RUNS = np.repeat(np.arange(5), 10)


@pytest.mark.parametrize("fit_intercept", [True, False])
@pytest.mark.parametrize("options", [o for o in ROUTES if o["cv"] == 3], ids=str)
def test_runs_that_are_held_out(options, fit_intercept):
    """The indicator of a held-out run is zero in training: it has no effect."""
    X, Y, C = problem(size=0.5)
    C = np.hstack([C, RUNS[:, None] == np.arange(5)])
    folds = list(LeaveOneGroupOut().split(X, groups=RUNS))
    model = RidgeCV(ALPHAS, fit_intercept=fit_intercept, **{**options, "cv": folds})
    assert_right(model.fit(X, Y, confounds=C), X, Y, C)


@given(
    seed=st.integers(0, 2**32 - 1),
    options=st.sampled_from(ROUTES),
    n=st.integers(14, 45),
    p=st.integers(1, 40),
    q=st.integers(1, 4),
    repeated=st.booleans(),
    fit_intercept=st.booleans(),
    random=st.booleans(),
)
def test_any_shape(seed, options, n, p, q, repeated, fit_intercept, random):
    tall_only = not options["solver"].startswith("dual") and options["cv"] in ("loo", "gcv")
    p = min(p, n // 2) if tall_only else p
    X, Y, C = problem(n, p, 4, q, seed)
    C = np.hstack([C, C[:, :1] - 2 * C[:, -1:], np.ones((n, 1))]) if repeated else C
    if not fit_intercept:
        C = C[:, :q]
    if random and options["cv"] == 3:
        folds = ShuffleSplit(3, test_size=0.3, random_state=seed % 1000).split(X)
        options = {**options, "cv": list(folds)}
    model = RidgeCV(ALPHAS, fit_intercept=fit_intercept, **options)
    assert_right(model.fit(X, Y, confounds=C), X, Y, C)


@every_route
def test_a_constant_confound_is_none(options):
    X, Y, _ = problem()
    constant = RidgeCV(ALPHAS, **options).fit(X, Y, confounds=np.full((50, 2), 7.0))
    assert_close_models(constant, RidgeCV(ALPHAS, **options).fit(X, Y), 1e-5)


@every_route
def test_coding_does_not_matter(options):
    X, Y, C = problem()
    recoded = C @ np.random.default_rng(1).standard_normal((3, 3)) / C.std() + 1e3
    one, other = (RidgeCV(ALPHAS, **options).fit(X, Y, confounds=c) for c in (C, recoded))
    assert_allclose(other.cv_scores_, one.cv_scores_, atol=1e-5)
    assert_allclose(other.coef_, one.coef_, atol=1e-5 * np.abs(one.coef_).max())


@every_route
def test_confounds_that_dominate(options):
    """A thousand times the rest: removed while reading, before float32 has lost the rest."""
    X, Y, C = problem(size=1e3)
    model = RidgeCV(ALPHAS, **options).fit(X, Y, confounds=C)
    ref = naive.confound_scores(X, Y, C, ALPHAS, options["cv"], "r2")
    ref = ref if model.alpha_per_target else ref.mean(axis=1)
    assert_allclose(model.cv_scores_, ref, atol=1e-4)


@every_route
def test_what_confounds_explain_wholly(options):
    X, Y, C = problem()
    Y[:, 2], X[:, 3] = 4 + C @ [1.0, 2.0, 3.0], C[:, 1]
    model = RidgeCV(ALPHAS, **options).fit(X, Y, confounds=C)
    assert model.n_constant_targets_ == 1
    assert np.abs(model.coef_[2]).max() < 1e-6
    if model.alpha_per_target:
        assert (model.cv_scores_[:, 2] == 0).all()
    assert_allclose(model.predict(X, confounds=C)[:, 2], Y[:, 2], rtol=1e-5)


@every_route
def test_two_workers_give_the_same_bits(options):
    X, Y, C = problem(t=40)
    one, two = (RidgeCV(ALPHAS, n_jobs=n, **options).fit(X, Y, confounds=C) for n in (1, 2))
    assert_equal_models(two, one)


@pytest.mark.parametrize("solver", ["primal", "svd", "dual"])
def test_ridge(solver):
    X, Y, C = problem()
    alpha = np.logspace(-1, 3, 6)
    model = Ridge(alpha, solver=solver).fit(X, Y, confounds=C)
    coef, *_ = naive.confound_fit(X, Y, C, np.arange(50), alpha)
    assert_allclose(model.coef_, coef, atol=1e-4 * np.abs(coef).max())


# -- predictions -----------------------------------------------------------------------------


@pytest.mark.parametrize("solver", ["primal", "dual"])
def test_predictions_of_new_samples(solver, tmp_path):
    X, Y, C = problem()
    X_new, Y_new, C_new = problem(n=20, seed=1)
    model = RidgeCV(ALPHAS, cv=3, solver=solver).fit(X, Y, confounds=C)
    coef = model.coef_.astype(np.float64)
    # least squares of what X leaves, on the confounds, of unpenalised effect
    N = np.hstack([np.ones((50, 1)), C])
    effects = np.linalg.lstsq(N, Y - X @ coef.T, rcond=None)[0]
    whole = X_new @ coef.T + np.hstack([np.ones((20, 1)), C_new]) @ effects
    assert_allclose(model.predict(X_new, confounds=C_new), whole, rtol=1e-3, atol=1e-3)
    at_means = X_new @ coef.T + np.hstack([[1.0], C.mean(axis=0)]) @ effects
    assert_allclose(model.predict(X_new), at_means, rtol=1e-3, atol=1e-3)
    assert_allclose(model.predict(X_new), X_new @ coef.T + model.intercept_, atol=1e-3)
    assert_allclose(model.confound_offset_, C.mean(axis=0))
    assert model.confound_coef_.shape == (6, 3)
    model.save(tmp_path / "model")
    again = load(tmp_path / "model")
    assert_allclose(again.predict(X_new, confounds=C_new), whole, rtol=1e-3, atol=1e-3)
    kept = model.score(X_new, Y_new, confounds=C_new)
    assert_allclose(again.score(X_new, Y_new, confounds=C_new), kept, atol=1e-4)


def test_one_target_and_one_confound():
    X, Y, C = problem(q=1)
    flat = RidgeCV(ALPHAS, cv=3).fit(X, Y[:, 0], confounds=C[:, 0].tolist())
    column = RidgeCV(ALPHAS, cv=3).fit(X, Y[:, :1], confounds=C)
    assert_array_equal(flat.coef_, column.coef_[0])
    assert flat.predict(X, confounds=C[:, 0]).shape == (50,)
    assert flat.confound_coef_.shape == (1,)


def test_the_cache_tells_confounds_apart(tmp_path):
    X, Y, C = problem()
    model = RidgeCV(ALPHAS, cv=3, cache_dir=tmp_path)
    assert model.fit(X, Y).factors_computed_ == 4
    assert model.fit(X, Y, confounds=C).factors_computed_ == 4
    assert model.fit(X, Y[:, :2], confounds=C).factors_computed_ == 0
    assert model.fit(X, Y, confounds=C[:, :2]).factors_computed_ == 4
    fresh = RidgeCV(ALPHAS, cv=3).fit(X, Y, confounds=C[:, :2])
    assert_allclose(model.fit(X, Y, confounds=C[:, :2]).coef_, fresh.coef_, rtol=1e-6)


def test_a_plan_counts_them():
    X, Y, C = problem(t=3000)
    model = RidgeCV(ALPHAS, cv=3)
    forecast = plan(model, X, Y, confounds=C)
    assert forecast.bytes["memory"] > plan(model, X, Y).bytes["memory"]
    assert forecast.bytes["memory"] == model.fit(X, Y, confounds=C).plan_.peak_bytes


# -- what is refused -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda C: C[:-1], "confounds has 49 rows and X has 50"),
        (lambda C: np.where(C[7, 1] == C, np.nan, C), "confounds has 1 value.*row 7, column 1"),
        (lambda C: C[None], r"confounds must be 2-D \(n_samples, n_confounds\)"),
        (lambda C: C.astype(str), "confounds has dtype"),
        (lambda C: np.eye(50)[:, :40], "confounds has rank 40, which leaves nothing"),
    ],
)
def test_refused(change, words):
    X, Y, C = problem()
    with pytest.raises(InputError, match=words):
        RidgeCV(ALPHAS, cv=3).fit(X, Y, confounds=change(C))


def test_refused_later():
    X, Y, C = problem()
    spike = np.hstack([C, np.arange(50)[:, None] == 7])
    with pytest.raises(InputError, match=r"confounds fit sample 7 by itself.*cv='loo'"):
        RidgeCV(ALPHAS, cv="loo").fit(X, Y, confounds=spike)
    with pytest.raises(InputError, match="standardize=True need fit_intercept=True"):
        Ridge(standardize=True, fit_intercept=False).fit(X, Y, confounds=C)
    model = Ridge().fit(X, Y, confounds=C)
    with pytest.raises(InputError, match=r"confounds has 2 columns.*with 3"):
        model.predict(X, confounds=C[:, :2])
    with pytest.raises(InputError, match="fitted without any"):
        Ridge().fit(X, Y).predict(X, confounds=C)


def test_weights_are_the_projection():
    """N W N' is the orthogonal projection on the columns of N, whatever the rows."""
    C = np.hstack([problem()[2], RUNS[:, None] == np.arange(5)])
    for ones in (True, False):
        nuisance = make_nuisance(50, ones, ones, C)
        for rows in (np.arange(50), np.arange(10, 50), np.arange(0, 50, 3)):
            N = nuisance.N[rows] if ones else nuisance.confounds[rows]
            W = nuisance.y_weights(nuisance.gram(rows))
            H = nuisance.N[rows] @ W @ nuisance.N[rows].T
            assert_allclose(H, N @ np.linalg.pinv(N, rcond=1e-6), atol=1e-8)
            assert_allclose(nuisance.leverage(rows), np.diag(H), atol=1e-8)
            Q = nuisance.directions(rows)
            assert_allclose(Q @ Q.T, np.eye(len(Q)), atol=1e-8)
            assert_allclose(Q[: nuisance.rank(rows)].T @ Q[: nuisance.rank(rows)], H, atol=1e-8)
