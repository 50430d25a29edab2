"""permutation_test with confounds, against Freedman and Lane by a float64 double loop."""

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from sklearn.model_selection import LeaveOneGroupOut

from ridgemm import InputError, RidgeCV, permutation_test, plan
from tests import naive
from tests.test_permutation import SOLVERS, orders
from tests.test_validity import assert_binomial

ALPHAS = (0.1, 3.0, 100.0)
N = 36
RUNS = np.repeat(np.arange(4), 9)


def problem(n=N, p=5, t=4, q=2, seed=0, size=2.0):
    """X and Y driven by confounds of other scales; the first target by X, too."""
    rng = np.random.default_rng(seed)
    C = rng.standard_normal((n, q))
    X = rng.standard_normal((n, p)) + size * C @ rng.standard_normal((q, p))
    Y = rng.standard_normal((n, t)) + size * C @ rng.standard_normal((q, t))
    Y[:, 0] += 3 * X[:, 0]
    Y[:, -1] += 5
    return X, Y, 3 + C * 10.0 ** np.arange(q)


def freedman_lane(Y, C, rows, signs, intercept):
    """The fit over all samples, and what it leaves in another order."""
    design = np.hstack([np.ones((len(C), 1)), C]) if intercept else C
    # columns of one size: lstsq drops what is small beside the largest
    design = design / np.linalg.norm(design, axis=0)
    fit = design @ np.linalg.lstsq(design, Y, rcond=1e-10)[0]
    return fit + signs[:, None] * (Y - fit)[rows]


def inner_scores(X, Y, C, rows, cv, alpha, scoring, options, groups):
    """Score of one alpha within some rows, (n_targets,)."""
    if cv == "loo":
        error = np.zeros((len(rows), Y.shape[1]))
        for i, row in enumerate(rows):
            coef, x, y = naive.confound_fit(X, Y, C, rows[rows != row], alpha, *options)
            error[i] = y[row] - x[row] @ coef.T
        y = naive.confound_fit(X, Y, C, rows, alpha, *options)[2][rows]
        return naive.score(y, y - error, scoring)
    if cv == "gcv":
        coef, x, y = naive.confound_fit(X, Y, C, rows, alpha, *options)
        x, y = x[rows], y[rows]
        hat = np.trace(x @ naive.ridge(x, np.eye(len(rows)), alpha, False)[0].T)
        removed = C.shape[1] + options[0]
        error = (y - x @ coef.T) / (1 - (hat + removed) / len(rows))
        return naive.score(y, y - error, scoring)
    each = []
    for train, test in naive.split(cv, len(rows), None if groups is None else groups[rows]):
        coef, x, y = naive.confound_fit(X, Y, C, rows[train], alpha, *options)
        each.append(naive.score(y[rows[test]], x[rows[test]] @ coef.T, scoring))
    return np.mean(each, axis=0)


def chosen(X, Y, C, train, model, groups):
    """The alpha of each target in an outer fold."""
    options = (model.fit_intercept, model.standardize)
    scores = [
        inner_scores(X, Y, C, train, model.cv, alpha, model.scoring, options, groups)
        for alpha in model.alphas
    ]
    alpha = naive.select(np.array(scores), model.alphas, model.alpha_per_target)
    return np.broadcast_to(alpha, Y.shape[1])


def outer_models(X, Y, C, folds, model, groups):
    """(coef, test rows of x and of y without confounds) of every outer fold."""
    options = (model.fit_intercept, model.standardize)
    for train, test in folds:
        alpha = chosen(X, Y, C, train, model, groups)
        coef, x, y = naive.confound_fit(X, Y, C, train, alpha, *options)
        yield coef, x[test], y[test]


def nested(X, Y, C, folds, model, groups=None):
    """Mean outer score, (n_targets,)."""
    made = outer_models(X, Y, C, folds, model, groups)
    return np.mean([naive.score(y, x @ coef.T, model.scoring) for coef, x, y in made], axis=0)


def heldout(X, Y, moved, C, folds, model, groups):
    """Scores of the models of Y on held-out rows of `moved`, by the training effects of Y."""
    made, total = outer_models(X, Y, C, folds, model, groups), 0
    for (train, test), (coef, x, _) in zip(folds, made, strict=True):
        mixed = np.array(Y)
        mixed[test] = moved[test]
        basis = naive.confound_basis(C, model.fit_intercept)
        y = naive.without_confounds(mixed, basis, train, model.fit_intercept)[test]
        total = total + naive.score(y, x @ coef.T, model.scoring)
    return total / len(folds)


def assert_as_reference(model, X, Y, C, *, cv, scheme="free", m=5, null="refit", groups=None):
    result = permutation_test(
        model,
        X,
        Y,
        confounds=C,
        cv=cv,
        groups=groups,
        scheme=scheme,
        n_permutations=m,
        null=null,
        keep_null=True,
    )
    folds = [(np.sort(train), np.sort(test)) for train, test in naive.split(cv, len(X), groups)]
    rows, signs = orders(scheme, folds, len(X), m, groups, 0, null, 1)
    signs = np.ones(rows.shape) if signs is None else signs
    stars = [
        freedman_lane(Y, C, row, sign, model.fit_intercept)
        for row, sign in zip(rows, signs, strict=True)
    ]
    observed = nested(X, Y, C, folds, model, groups)
    if null == "refit":
        expected = np.array([nested(X, star, C, folds, model, groups) for star in stars])
    else:
        expected = np.array([heldout(X, Y, star, C, folds, model, groups) for star in stars])
    assert np.ptp(expected[:, 1]) > 1e-3
    assert np.all(np.abs(result.scores - observed) <= 1e-4 * (1 + np.abs(observed)))
    assert np.all(np.abs(result.null - expected) <= 1e-4 * (1 + np.abs(expected)))
    return result


# -- against the double loop -----------------------------------------------------------------


@pytest.mark.parametrize("scoring", naive.SCORINGS)
@pytest.mark.parametrize("per_target", [True, False])
@pytest.mark.parametrize("solver", SOLVERS)
def test_every_route(solver, per_target, scoring):
    X, Y, C = problem()
    alphas = np.array(ALPHAS)
    if solver == "dual-residuals":
        if not per_target or scoring == "correlation":
            pytest.skip("not for one alpha, nor for correlations of large alphas")
        # the confounds make the largest eigenvalue
        alphas *= 10
    model = RidgeCV(alphas, cv=2, scoring=scoring, alpha_per_target=per_target, solver=solver)
    result = assert_as_reference(model, X, Y, C, cv=3)
    traced = solver.startswith("dual") and scoring == "neg_mean_squared_error" and not per_target
    assert result.description["route"] == solver + "-trace" * traced
    assert result.description["confounds"] == 2


@pytest.mark.parametrize("null", ["refit", "heldout"])
@pytest.mark.parametrize("p", [5, 50])
@pytest.mark.parametrize(("fit_intercept", "standardize"), [(True, True), (False, False)])
def test_intercept_and_standardize(null, p, fit_intercept, standardize):
    X, Y, C = problem(p=p)
    model = RidgeCV(ALPHAS, cv=2, fit_intercept=fit_intercept, standardize=standardize)
    assert_as_reference(model, X, Y, C, cv=3, null=null)


@pytest.mark.parametrize("inner", ["loo", "gcv"])
@pytest.mark.parametrize("p", [5, 50])
def test_inner_cv(inner, p):
    X, Y, C = problem(p=p)
    assert_as_reference(RidgeCV(ALPHAS, cv=inner), X, Y, C, cv=3, m=2)


@pytest.mark.parametrize("null", ["refit", "heldout"])
@pytest.mark.parametrize("scoring", naive.SCORINGS)
@pytest.mark.parametrize(
    ("scheme", "groups"),
    [
        ("sign", None),
        ("sign", np.repeat(np.arange(18), 2)),
        ("within", np.arange(N) % 2),
        ("whole", np.repeat(np.arange(18), 2)),
        ("circular", None),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_schemes(null, scoring, scheme, groups):
    X, Y, C = problem()
    model = RidgeCV(ALPHAS, cv=2, scoring=scoring)
    cv = list(naive.split(3, N))
    assert_as_reference(model, X, Y, C, cv=cv, scheme=scheme, groups=groups, null=null)


@pytest.mark.parametrize(
    ("null", "fit_intercept"), [("refit", True), ("refit", False), ("heldout", True)]
)
@pytest.mark.parametrize("per_target", [True, False])
@pytest.mark.parametrize("scoring", naive.SCORINGS)
@pytest.mark.parametrize("solver", ["primal-statistics", "svd", "dual"])
def test_runs_that_are_held_out(null, per_target, scoring, solver, fit_intercept):
    """No training fold shows the indicator of the run it leaves out: its fit stays in place."""
    X, Y, C = problem(size=0.5)
    Y += 3 * RUNS[:, None]
    C = np.hstack([C[:, :1], RUNS[:, None] == np.arange(4 - fit_intercept)])
    folds = list(LeaveOneGroupOut().split(X, groups=RUNS))
    model = RidgeCV(
        ALPHAS,
        cv=2,
        scoring=scoring,
        alpha_per_target=per_target,
        solver=solver,
        fit_intercept=fit_intercept,
    )
    result = assert_as_reference(model, X, Y, C, cv=folds, null=null)
    assert not result.description["route"].endswith("trace")


def test_the_observed_score_is_that_of_fits():
    """Fits of training rows, scored on test rows; and of a fit whose cv are the outer folds."""
    X, Y, C = problem()
    result = permutation_test(RidgeCV(ALPHAS, cv=2), X, Y, confounds=C, cv=3, n_permutations=2)
    each = [
        RidgeCV(ALPHAS, cv=2)
        .fit(X[train], Y[train], confounds=C[train])
        .score(X[test], Y[test], confounds=C[test])
        for train, test in naive.split(3, N)
    ]
    np.testing.assert_allclose(result.scores, np.mean(each, axis=0), atol=1e-5)
    runs = np.hstack([C, RUNS[:, None] == np.arange(4)])
    folds = list(LeaveOneGroupOut().split(X, groups=RUNS))
    whole = RidgeCV([3.0], cv=folds).fit(X, Y, confounds=runs)
    one = permutation_test(RidgeCV([3.0], cv=2), X, Y, confounds=runs, cv=folds, n_permutations=2)
    np.testing.assert_allclose(one.scores, whole.best_score_, atol=1e-4)


def test_what_confounds_explain_wholly_is_never_found():
    X, Y, C = problem(size=1e3)
    Y[:, 1] = 4 + C @ [1.0, 2.0]
    result = permutation_test(RidgeCV(ALPHAS, cv=2), X, Y, confounds=C, cv=3, n_permutations=19)
    assert result.scores[1] == 0 and result.pvalues[1] == 1
    assert result.pvalues[0] == 0.05


def test_constant_confounds_are_none():
    X, Y, _ = problem()
    options = dict(cv=3, n_permutations=5, keep_null=True)
    plain = permutation_test(RidgeCV(ALPHAS, cv=2), X, Y, **options)
    ones = np.ones(N)
    same = permutation_test(RidgeCV(ALPHAS, cv=2), X, Y, confounds=ones, **options)
    assert_array_equal(same.null, plain.null)


def test_missing_targets_are_skipped():
    X, Y, C = problem()
    options = dict(confounds=C, cv=3, n_permutations=5, keep_null=True)
    whole = permutation_test(RidgeCV(ALPHAS, cv=2), X, Y, **options)
    Y[3, 1], Y[4, 2] = np.nan, np.inf
    result = permutation_test(RidgeCV(ALPHAS, cv=2), X, Y, missing="skip", **options)
    assert np.isnan(result.pvalues).tolist() == [False, True, True, False]
    np.testing.assert_allclose(result.null[:, [0, 3]], whole.null[:, [0, 3]], atol=1e-6)


# -- validity --------------------------------------------------------------------------------


def null_data(seed, t, n=30):
    """X and Y that have nothing in common but a strong confound."""
    rng = np.random.default_rng([seed, 11])
    C = rng.standard_normal((n, 1))
    X = rng.standard_normal((n, 3)) + 2 * C
    return X, rng.standard_normal((n, t)) + 3 * C, C


def rejections(n_data_sets, t, null, cv, confounds):
    """(n_data_sets, n_targets) bool: which targets are found at 0.05."""
    found = []
    for seed in range(n_data_sets):
        X, Y, C = null_data(seed, t)
        result = permutation_test(
            RidgeCV((1.0, 30.0), cv=2),
            X,
            Y,
            confounds=C if confounds else None,
            cv=cv,
            null=null,
            n_permutations=19,
            random_state=seed,
        )
        found.append(result.pvalues <= 0.05)
    return np.array(found)


@pytest.fixture
def _fast_disk(monkeypatch):
    # hundreds of runs of a few milliseconds: durability would take most of the time
    monkeypatch.setattr("os.fsync", lambda descriptor: None)


# "heldout" has one outer fold: models of several share samples, which it ignores
SPLIT = [(np.arange(15), np.arange(15, 30))]


@pytest.mark.usefixtures("_fast_disk")
@pytest.mark.parametrize(
    ("null", "cv"), [("refit", 2), ("heldout", SPLIT)], ids=["refit", "heldout"]
)
@pytest.mark.parametrize(
    ("n_data_sets", "t"), [(60, 50), pytest.param(1000, 5, marks=pytest.mark.slow)]
)
def test_rejection_rates(null, cv, n_data_sets, t):
    assert rejections(10, t, null, cv, confounds=False).mean() > 0.9
    assert_binomial(rejections(n_data_sets, t, null, cv, confounds=True))


# -- the run ---------------------------------------------------------------------------------


@pytest.mark.parametrize("null", ["refit", "heldout"])
@pytest.mark.parametrize(
    ("solver", "runs"), [("primal", False), ("svd", True), ("dual", False), ("dual", True)]
)
@pytest.mark.parametrize("per_target", [True, False])
def test_workers_change_no_bit(null, solver, per_target, runs):
    X, Y, C = problem(t=70)
    cv = 3
    if runs:
        C = np.hstack([C, RUNS[:, None] == np.arange(4)])
        cv = list(LeaveOneGroupOut().split(X, groups=RUNS))
    model = RidgeCV(
        ALPHAS, cv=2, alpha_per_target=per_target, solver=solver, scoring="neg_mean_squared_error"
    )
    options = dict(confounds=C, cv=cv, null=null, n_permutations=9, keep_null=True)
    one, two = (permutation_test(model, X, Y, n_jobs=n, **options) for n in (1, 2))
    assert_array_equal(one.scores, two.scores)
    assert_array_equal(one.null, two.null)
    assert_array_equal(one.pvalues, two.pvalues)


def test_a_run_goes_on_to_the_same_bits(tmp_path):
    X, Y, C = problem()
    model, options = RidgeCV(ALPHAS, cv=2), dict(cv=3, keep_null=True)
    whole = permutation_test(model, X, Y, confounds=C, n_permutations=40, **options)
    out = tmp_path / "run"
    permutation_test(model, X, Y, confounds=C, n_permutations=15, out=out, **options)
    again = permutation_test(model, X, Y, confounds=C, n_permutations=40, out=out, **options)
    assert_array_equal(again.null, whole.null)
    assert_array_equal(again.pvalues, whole.pvalues)
    for other, said in ((C + 1, "changed"), (C[:, :1], "changed"), (None, "was .* and is None")):
        with pytest.raises(InputError, match=f"holds a run that differs: confounds {said}"):
            permutation_test(model, X, Y, confounds=other, n_permutations=40, out=out, **options)


def test_a_run_without_confounds_does_not_take_any(tmp_path):
    X, Y, C = problem()
    model, options = RidgeCV(ALPHAS, cv=2), dict(cv=3, n_permutations=5, out=tmp_path / "run")
    permutation_test(model, X, Y, **options)
    with pytest.raises(InputError, match="confounds was None and is"):
        permutation_test(model, X, Y, confounds=C, **options)


def test_the_cache_tells_confounds_apart(tmp_path):
    X, Y, C = problem()
    cached, fresh = RidgeCV(ALPHAS, cv=2, cache_dir=tmp_path), RidgeCV(ALPHAS, cv=2)
    options = dict(cv=3, n_permutations=5, keep_null=True)
    for confounds in (None, C, C[:, :1]):
        found = permutation_test(cached, X, Y, confounds=confounds, **options)
        expected = permutation_test(fresh, X, Y, confounds=confounds, **options)
        assert_array_equal(found.null, expected.null)


def test_a_plan_counts_them():
    X, Y, C = problem(t=3000)
    model = RidgeCV(ALPHAS, cv=2)
    forecast = plan(model, X, Y, confounds=C, n_permutations=9)
    assert forecast.bytes["memory"] > plan(model, X, Y, n_permutations=9).bytes["memory"]


# -- what is refused -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda C: C[:-1], "confounds has 35 rows and X has 36"),
        (lambda C: np.where(C[7, 1] == C, np.nan, C), "confounds has 1 value.*row 7, column 1"),
        (lambda C: C.astype(str), "confounds has dtype"),
        (lambda C: np.eye(N)[:, :20], "confounds has rank 20, which leaves nothing"),
    ],
)
@pytest.mark.parametrize("call", [permutation_test, plan])
def test_refused(call, change, words):
    X, Y, C = problem()
    with pytest.raises(InputError, match=words):
        call(RidgeCV(ALPHAS, cv=2), X, Y, confounds=change(C), cv=3, n_permutations=5)


def test_refused_settings():
    X, Y, C = problem()
    # two samples of a kind, one of which is held out: the other is fitted by itself
    pair = np.hstack([C, np.isin(np.arange(N), [7, 20])[:, None]])
    with pytest.raises(InputError, match=r"confounds fit sample 20 by itself.*cv='loo'"):
        permutation_test(RidgeCV(ALPHAS, cv="loo"), X, Y, confounds=pair, cv=3, n_permutations=5)
    model = RidgeCV(ALPHAS, cv=2, standardize=True, fit_intercept=False)
    with pytest.raises(InputError, match="standardize=True need fit_intercept=True"):
        permutation_test(model, X, Y, confounds=C, cv=3, n_permutations=5)
