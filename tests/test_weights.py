"""Sample weights on every route, against weighted least squares written out."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from sklearn import linear_model
from sklearn.model_selection import KFold, ShuffleSplit

from ridgemm import InputError, Ridge, RidgeCV, load, plan
from ridgemm.nuisance import make_nuisance
from ridgemm.weights import as_weights
from tests import naive
from tests.test_fit import ROUTES, assert_close_models, assert_equal_models, every_route

ALPHAS = [0.3, 10.0, 300.0]


def problem(n=48, p=8, t=5, seed=0, zeros=True, raised=True):
    """X and Y, with large means if `raised`, and weights that matter, some of them zero.

    Without an intercept such means swamp the signal, weights or none (`tests.strategies`).
    """
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((n, p)) + 3 * raised
    Y = X @ rng.standard_normal((p, t)) + 2 * rng.standard_normal((n, t)) - 7 * raised
    w = 10 ** rng.uniform(-1, 1, n)
    if zeros:
        w[rng.choice(n, n // 8, replace=False)] = 0
    return X, Y, w


# -- the reference ---------------------------------------------------------------------------


def weighted_fit(X, Y, w, alpha, fit_intercept=True, standardize=False):
    """coef (p, t) and intercept: lstsq of rows times root w, below them the penalty's rows."""
    p, root, scale = X.shape[1], np.sqrt(w)[:, None], np.ones(X.shape[1])
    mean = np.zeros(p)
    if fit_intercept or standardize:
        mean = np.average(X, axis=0, weights=w)
    if standardize:
        scale = np.sqrt(np.average((X - mean) ** 2, axis=0, weights=w))
    A = np.hstack([np.full((len(X), int(fit_intercept)), 1.0), (X - mean) / scale])
    penalty = np.sqrt(alpha) * np.eye(A.shape[1])[int(fit_intercept) :]
    stacked = np.vstack([root * A, penalty]), np.vstack([root * Y, np.zeros((p, Y.shape[1]))])
    beta = np.linalg.lstsq(*stacked, rcond=None)[0]
    coef = beta[int(fit_intercept) :] / scale[:, None]
    intercept = beta[0] if fit_intercept else np.zeros(Y.shape[1])
    return coef, intercept - mean @ coef


def weighted_score(y, yhat, w, scoring):
    error = np.average((y - yhat) ** 2, axis=0, weights=w)
    if scoring == "neg_mean_squared_error":
        return -error
    dy, df = (a - np.average(a, axis=0, weights=w) for a in (y, yhat))
    if scoring == "r2":
        return 1 - error / np.average(dy**2, axis=0, weights=w)
    return (w @ (dy * df)) / np.sqrt((w @ dy**2) * (w @ df**2))


def weighted_scores(X, Y, w, alphas, cv, scoring, **options):
    kept = np.flatnonzero(w)
    scores = []
    for alpha in alphas:
        if cv == "loo":
            held_out = np.zeros(Y.shape)
            for i in kept:
                rest = kept[kept != i]
                coef, intercept = weighted_fit(X[rest], Y[rest], w[rest], alpha, **options)
                held_out[i] = X[i] @ coef + intercept
            scores.append(weighted_score(Y[kept], held_out[kept], w[kept], scoring))
        elif cv == "gcv":
            x, y, v = X[kept], Y[kept], w[kept]
            hat, offset = weighted_fit(x, np.eye(len(x)), v, alpha, **options)
            trace = np.trace(x @ hat + offset)
            coef, intercept = weighted_fit(x, y, v, alpha, **options)
            residual = (y - x @ coef - intercept) / (1 - trace / len(x))
            scores.append(weighted_score(y, y - residual, v, scoring))
        else:
            each = []
            for train, test in naive.split(cv, len(X)):
                coef, intercept = weighted_fit(X[train], Y[train], w[train], alpha, **options)
                each.append(weighted_score(Y[test], X[test] @ coef + intercept, w[test], scoring))
            scores.append(np.mean(each, axis=0))
    return np.array(scores)


def assert_right(model, X, Y, w):
    """Scores, coefficients and predictions of the reference, at the alphas of the model."""
    options = dict(fit_intercept=model.fit_intercept, standardize=model.standardize)
    ref = weighted_scores(X, Y, w, model.alphas, model.cv, model.scoring, **options)
    ref = ref if model.alpha_per_target else ref.mean(axis=1)
    assert np.all(np.abs(model.cv_scores_ - ref) <= 1e-4 * (1 + np.abs(ref)))
    # ties are broken before scores are rounded to float32
    alphas = np.atleast_1d(model.alpha_)
    scores = np.reshape(model.cv_scores_, (len(model.alphas), -1))
    chosen = scores[np.searchsorted(model.alphas, alphas), np.arange(len(alphas))]
    assert_allclose(chosen, scores.max(axis=0), rtol=1e-6, atol=1e-6)
    alphas = np.broadcast_to(model.alpha_, Y.shape[1])
    fits = [weighted_fit(X, Y[:, [j]], w, a, **options) for j, a in enumerate(alphas)]
    coef = np.hstack([coef for coef, _ in fits])
    intercept = np.hstack([intercept for _, intercept in fits])
    assert_allclose(model.coef_, coef.T, atol=1e-4 * np.abs(coef).max())
    assert_allclose(model.intercept_, intercept, atol=1e-4 * np.abs(Y).max())
    assert_allclose(model.predict(X), X @ coef + intercept, atol=1e-4 * np.abs(Y).max())


# -- every route -----------------------------------------------------------------------------


@pytest.mark.parametrize("scoring", naive.SCORINGS)
@pytest.mark.parametrize("fit_intercept", [True, False])
@pytest.mark.parametrize("p", [8, 30])
@every_route
def test_every_route(options, p, fit_intercept, scoring):
    if scoring == "correlation" and options["solver"].endswith(("gcv", "trace")):
        pytest.skip("not defined")
    X, Y, w = problem(p=p, raised=fit_intercept)
    model = RidgeCV(ALPHAS, scoring=scoring, fit_intercept=fit_intercept, **options)
    assert_right(model.fit(X, Y, sample_weight=w), X, Y, w)
    assert model.route_ == options["solver"]


@pytest.mark.parametrize("fit_intercept", [True, False])
@pytest.mark.parametrize("options", [o for o in ROUTES if o["cv"] != "loo"], ids=str)
def test_standardised(options, fit_intercept):
    X, Y, w = problem()
    X *= 10.0 ** np.arange(-3, 5)
    Y = Y if fit_intercept else Y + 7
    model = RidgeCV(ALPHAS, standardize=True, fit_intercept=fit_intercept, **options)
    model.fit(X, Y, sample_weight=w)
    if fit_intercept:
        assert_right(model, X, Y, w)
        return
    # of centred features without an intercept: the offset is no part of the fit
    mean = np.average(X, axis=0, weights=w)
    scale = np.sqrt(np.average((X - mean) ** 2, axis=0, weights=w))
    alphas = np.broadcast_to(model.alpha_, Y.shape[1])
    centred = (X - mean) / scale
    for j, alpha in enumerate(alphas):
        coef = weighted_fit(centred, Y[:, [j]], w, alpha, fit_intercept=False)[0][:, 0] / scale
        assert_allclose(
            model.coef_[j] * scale, coef * scale, atol=1e-4 * np.abs(coef * scale).max()
        )


@given(
    seed=st.integers(0, 2**32 - 1),
    options=st.sampled_from(ROUTES),
    n=st.integers(16, 45),
    p=st.integers(1, 40),
    zeros=st.booleans(),
    scoring=st.sampled_from(naive.SCORINGS),
    fit_intercept=st.booleans(),
    random=st.booleans(),
    unit=st.sampled_from([1.0, 1e-8, 1e6]),
)
def test_any_shape(seed, options, n, p, zeros, scoring, fit_intercept, random, unit):
    tall_only = not options["solver"].startswith("dual") and options["cv"] in ("loo", "gcv")
    p = min(p, n // 2) if tall_only else p
    if scoring == "correlation" and options["solver"].endswith(("gcv", "trace")):
        scoring = "r2"
    X, Y, w = problem(n, p, 4, seed, zeros, raised=fit_intercept)
    Y = Y / Y.std()
    if random and options["cv"] == 3:
        folds = ShuffleSplit(3, test_size=0.4, random_state=seed % 1000).split(X)
        options = {**options, "cv": list(folds)}
    if options["cv"] not in ("loo", "gcv"):
        # two samples in every test set: a variation of one is none
        w[[test[i] for _, test in naive.split(options["cv"], n) for i in (0, 1)]] = 1.0
    alphas = [unit * alpha for alpha in ALPHAS]
    model = RidgeCV(alphas, scoring=scoring, fit_intercept=fit_intercept, **options)
    assert_right(model.fit(X, Y, sample_weight=unit * w), X, Y, unit * w)


@every_route
def test_weights_of_one_are_none(options):
    X, Y, _ = problem()
    plain = RidgeCV(ALPHAS, **options).fit(X, Y)
    for ones in (np.ones(48), 1.0, [1] * 48):
        assert_close_models(RidgeCV(ALPHAS, **options).fit(X, Y, sample_weight=ones), plain, 1e-5)


@every_route
def test_zero_is_left_out(options):
    """What a sample of weight zero holds has no effect, and its fold goes on without it."""
    X, Y, w = problem()
    w = (w > 0).astype(float)
    other = np.where(w[:, None] > 0, X, 1e6), np.where(w[:, None] > 0, Y, -1e6)
    one, two = (RidgeCV(ALPHAS, **options).fit(*d, sample_weight=w) for d in ((X, Y), other))
    assert_equal_models(one, two)
    kept = np.flatnonzero(w)
    if not isinstance(options["cv"], str):
        place = np.cumsum(w).astype(int) - 1
        folds = [
            tuple(place[np.intersect1d(rows, kept)] for rows in pair)
            for pair in KFold(options["cv"]).split(X)
        ]
        options = {**options, "cv": folds}
    assert_close_models(one, RidgeCV(ALPHAS, **options).fit(X[kept], Y[kept]), 1e-5)


@pytest.mark.parametrize("options", [o for o in ROUTES if o["cv"] == 3], ids=str)
def test_whole_weights_repeat_samples(options):
    X, Y, _ = problem()
    w = np.random.default_rng(1).integers(0, 4, 48)
    fold = np.arange(48) // 16
    model = RidgeCV(ALPHAS, **options).fit(X, Y, sample_weight=w)
    again, groups = np.repeat(np.arange(48), w), np.repeat(fold, w)
    folds = [(np.flatnonzero(groups != k), np.flatnonzero(groups == k)) for k in range(3)]
    repeated = RidgeCV(ALPHAS, **{**options, "cv": folds}).fit(X[again], Y[again])
    assert_close_models(model, repeated, 1e-5)


@pytest.mark.parametrize("standardize", [False, True])
@pytest.mark.parametrize("solver", ["primal", "svd", "dual"])
def test_repeated_samples(solver, standardize):
    X, Y, _ = problem()
    w = np.random.default_rng(1).integers(0, 4, 48)
    again = np.repeat(np.arange(48), w)
    model = Ridge(3.0, solver=solver, standardize=standardize)
    weighed = model.fit(X, Y, sample_weight=w).predict(X)
    assert_allclose(weighed, model.fit(X[again], Y[again]).predict(X), rtol=1e-5, atol=1e-5)


@every_route
def test_two_workers_give_the_same_bits(options):
    X, Y, w = problem(t=40)
    one, two = (RidgeCV(ALPHAS, n_jobs=n, **options).fit(X, Y, sample_weight=w) for n in (1, 2))
    assert_equal_models(two, one)


@every_route
def test_constants(options):
    X, Y, w = problem()
    Y[:, 2], X[:, 3] = 0.1, 1234.567
    model = RidgeCV(ALPHAS, **options).fit(X, Y, sample_weight=w)
    assert model.n_constant_targets_ == 1
    assert np.abs(model.coef_[2]).max() < 1e-6 and np.abs(model.coef_[:, 3]).max() < 1e-6
    if model.alpha_per_target:
        assert (model.cv_scores_[:, 2] == 0).all()


@every_route
def test_constants_of_positive_weight(options):
    """Constant but for samples that are left out."""
    X, Y, w = problem()
    Y[:, 2] = np.where(w > 0, 0.1, 5.0)
    assert RidgeCV(ALPHAS, **options).fit(X, Y, sample_weight=w).n_constant_targets_ == 1


# -- with confounds --------------------------------------------------------------------------


@pytest.mark.parametrize("fit_intercept", [True, False])
@every_route
def test_confounds(options, fit_intercept):
    """Weighted, removed inside the folds: as features without a penalty, to the reference."""
    X, Y, w = problem()
    C = np.random.default_rng(2).standard_normal((48, 2)) * [1, 100] + 1
    X, Y = X + C @ np.ones((2, 8)) / 50, Y + C @ np.ones((2, 5)) / 50
    model = RidgeCV([0.3], fit_intercept=fit_intercept, scoring="neg_mean_squared_error", **options)
    model.fit(X, Y, confounds=C, sample_weight=w)

    # confounds that are huge are as good as without a penalty
    wide, kept = np.hstack([X, 1e6 * C]), np.flatnonzero(w)
    ref = weighted_scores(
        wide[kept],
        Y[kept],
        w[kept],
        [0.3],
        _refold(options["cv"], kept),
        model.scoring,
        fit_intercept=fit_intercept,
    )
    ref = ref if model.alpha_per_target else ref.mean(axis=1)
    assert_allclose(model.cv_scores_, ref, rtol=1e-3)
    coef, intercept = weighted_fit(wide, Y, w, 0.3, fit_intercept)
    assert_allclose(model.coef_, coef[:8].T, atol=2e-4 * np.abs(coef[:8]).max())
    whole = wide @ coef + intercept
    assert_allclose(model.predict(X, confounds=C), whole, atol=2e-4 * np.abs(Y).max())


def _refold(cv, kept):
    if isinstance(cv, str):
        return cv
    place = np.full(48, -1)
    place[kept] = np.arange(len(kept))
    return [tuple(place[rows][place[rows] >= 0] for rows in p) for p in naive.split(cv, 48)]


def test_the_projection_is_weighted():
    """N W N' is the orthogonal projection on the scaled columns, whatever the rows."""
    w = problem(50)[2]
    C = np.random.default_rng(3).standard_normal((50, 3)) + 4
    weights = as_weights(w, 50)
    for ones in (True, False):
        nuisance = make_nuisance(50, ones, ones, C, weights)
        m = len(weights.kept)
        for rows in (np.arange(m), np.arange(10, m), np.arange(0, m, 3)):
            kept = weights.kept[rows]
            N = np.hstack([np.ones((len(kept), int(ones))), C[kept]]) * np.sqrt(w[kept, None])
            H = nuisance.N[rows] @ nuisance.y_weights(nuisance.gram(rows)) @ nuisance.N[rows].T
            assert_allclose(H, N @ np.linalg.pinv(N), atol=1e-8)
            Q = nuisance.directions(rows)
            assert_allclose(Q @ Q.T, np.eye(len(Q)), atol=1e-8)
            assert_allclose(Q.T @ Q, H, atol=1e-8)


# -- scikit-learn ----------------------------------------------------------------------------


@pytest.mark.parametrize("solver", ["primal", "svd", "dual"])
@pytest.mark.parametrize("fit_intercept", [True, False])
def test_ridge_is_that_of_scikit_learn(solver, fit_intercept):
    X, Y, w = problem()
    alpha = np.logspace(-1, 3, 5)
    model = Ridge(alpha, solver=solver, fit_intercept=fit_intercept).fit(X, Y, sample_weight=w)
    ref = linear_model.Ridge(alpha, fit_intercept=fit_intercept).fit(X, Y, sample_weight=w)
    assert_allclose(model.coef_, ref.coef_, rtol=1e-4, atol=1e-5)
    assert_allclose(model.intercept_, ref.intercept_, rtol=1e-4, atol=1e-4)
    assert_allclose(model.predict(X), ref.predict(X), rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("solver", ["primal", "svd", "dual"])
@pytest.mark.parametrize("per_target", [True, False])
@pytest.mark.parametrize("seed", range(4))
def test_leave_one_out_chooses_as_scikit_learn(seed, per_target, solver):
    X, Y, w = problem(seed=seed)
    alphas = np.logspace(-1, 4, 11)
    model = RidgeCV(
        alphas,
        cv="loo",
        scoring="neg_mean_squared_error",
        alpha_per_target=per_target,
        solver=f"{solver}-loo",
    ).fit(X, Y, sample_weight=w)
    ref = linear_model.RidgeCV(alphas, alpha_per_target=per_target).fit(X, Y, sample_weight=w)
    assert_array_equal(model.alpha_, ref.alpha_)
    # ours is a mean over weights, theirs over samples
    assert_allclose(model.best_score_ * w.sum() / len(w), ref.best_score_, rtol=1e-4)
    assert_allclose(model.coef_, ref.coef_, atol=1e-4 * np.abs(ref.coef_).max())


# -- sources, caches, models -----------------------------------------------------------------


@pytest.mark.parametrize("solver", ["primal", "dual"])
def test_files_and_saved_models(solver, tmp_path):
    X, Y, w = problem()
    np.save(tmp_path / "X.npy", X)
    np.save(tmp_path / "Y.npy", Y.astype(np.float32))
    paths = tmp_path / "X.npy", tmp_path / "Y.npy"
    for weights in (w, w + 1):
        model = RidgeCV(ALPHAS, cv=3, solver=solver).fit(*paths, sample_weight=weights)
        ram = RidgeCV(ALPHAS, cv=3, solver=solver).fit(X, Y, sample_weight=weights)
        assert_close_models(model, ram, 1e-5)
        model.save(tmp_path / f"model-{weights[0]}")
        again = load(tmp_path / f"model-{weights[0]}")
        assert_allclose(again.predict(X), ram.predict(X), rtol=1e-4, atol=1e-4)
        assert_allclose(again.coef_, ram.coef_, rtol=1e-4, atol=1e-5)


def test_dual_coefficients_are_those_of_the_samples():
    X, Y, w = problem(p=60)
    model = Ridge(solver="dual").fit(X, Y, sample_weight=w)
    kept = w > 0
    assert model.dual_coef_.shape == (5, kept.sum())
    assert_allclose(model.dual_coef_ @ (X[kept] - model.x_offset_), model.coef_, atol=1e-5)


@pytest.mark.parametrize("solver", ["primal", "svd", "dual"])
def test_the_cache_tells_weights_apart(solver, tmp_path):
    X, Y, w = problem()
    model = RidgeCV(ALPHAS, cv=3, cache_dir=tmp_path, solver=solver)
    assert model.fit(X, Y).factors_computed_ == 4
    for weights in (w, 2 * w, w + 1):
        assert model.fit(X, Y, sample_weight=weights).factors_computed_ == 4
        assert model.fit(X, Y[:, :2], sample_weight=weights).factors_computed_ == 0
        fresh = RidgeCV(ALPHAS, cv=3, solver=solver).fit(X, Y[:, :2], sample_weight=weights)
        assert_equal_models(model, fresh)
    assert model.fit(X, Y).factors_computed_ == 0


def test_a_plan_counts_them():
    X, Y, w = problem(t=3000)
    model = RidgeCV(ALPHAS, cv=3)
    forecast = plan(model, X, Y, sample_weight=w)
    assert forecast.bytes["memory"] > plan(model, X, Y).bytes["memory"]
    assert forecast.bytes["memory"] == model.fit(X, Y, sample_weight=w).plan_.peak_bytes
    with pytest.raises(InputError, match="sample_weight is taken by a fit alone"):
        plan(model, X, Y, sample_weight=w, n_permutations=9)


def test_groups_belong_to_the_samples_as_given():
    X, Y, w = problem()
    groups = np.arange(48) % 4
    model = RidgeCV(ALPHAS, cv=4).fit(X, Y, groups, sample_weight=w)
    folds = [(np.flatnonzero(groups != k), np.flatnonzero(groups == k)) for k in range(4)]
    ref = weighted_scores(X, Y, w, ALPHAS, folds, "r2")
    assert_allclose(model.cv_scores_, ref, atol=1e-4)


# -- what is refused -------------------------------------------------------------------------


@pytest.mark.parametrize("model", [Ridge(), RidgeCV(ALPHAS, cv=3), RidgeCV(ALPHAS, cv="loo")])
@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda w: -w, r"sample_weight has 42 value\(s\) that are negative"),
        (lambda w: np.where(w == w[7], np.nan, w), "sample_weight has 1 value.*sample 7"),
        (lambda w: w * np.inf, "sample_weight has .*NaN or beyond 1e"),
        (lambda w: w[:-1], r"sample_weight has shape \(47,\) and X has 48 rows"),
        (lambda w: w[:, None], r"sample_weight has shape \(48, 1\)"),
        (lambda w: 0 * w, "sample_weight is zero, or below 1e-15, for every"),
        (lambda w: 0.0, "sample_weight is zero, or below 1e-15, for every"),
        (lambda w: w + 1j, "sample_weight=.*complex"),
        (lambda w: ["heavy"] * 48, "sample_weight=.*no numbers"),
    ],
)
def test_refused(change, words, model):
    X, Y, w = problem()
    with np.errstate(invalid="ignore"), pytest.raises(InputError, match=words):
        model.fit(X, Y, sample_weight=change(w))


def test_refused_within_folds():
    X, Y, w = problem(zeros=False)
    w[16:] = 0
    with pytest.raises(InputError, match=r"zero for every training sample of fold 0"):
        RidgeCV(ALPHAS, cv=3).fit(X, Y, sample_weight=w)
    w[:] = 1
    w[16:32] = 0
    with pytest.raises(InputError, match=r"zero for every test sample of fold 1"):
        RidgeCV(ALPHAS, cv=3).fit(X, Y, sample_weight=w)
    w[20] = 1
    with pytest.raises(InputError, match=r"2 test samples of positive sample_weight.*one has 1"):
        RidgeCV(ALPHAS, cv=3).fit(X, Y, sample_weight=w)
    w[:] = 0
    w[3] = 1
    with pytest.raises(InputError, match=r"at least 2 samples of positive sample_weight"):
        RidgeCV(ALPHAS, cv="loo").fit(X, Y, sample_weight=w)
    with pytest.raises(InputError, match="X has 48 rows and Y has 47"):
        Ridge().fit(X, Y[1:], sample_weight=w)
