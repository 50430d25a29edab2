"""permutation_test against a float64 double loop, fast paths against general ones."""

import itertools
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.base import clone
from sklearn.model_selection import KFold, LeaveOneGroupOut, ShuffleSplit

from ridgemm import (
    InputError,
    RidgeCV,
    RidgemmError,
    nullplan,
    nulltasks,
    permutation_scheme,
    permutation_test,
)
from ridgemm.folds import make_folds, refine
from ridgemm.nested import nested_splits, one_pass_pays
from ridgemm.tails import besag_clifford_pvalues, besag_clifford_update, gpd_pvalues
from tests import naive
from tests.strategies import problems, scorings, seeds

ALPHAS = (0.1, 3.0, 100.0)
N = 24
SPLITS = KFold(3, shuffle=True, random_state=0)
PAIRS = list(KFold(3).split(np.zeros(N)))


def problem(n=N, p=5, t=3, seed=0):
    """X and Y, the first target with a clear effect, the last with a mean far from zero."""
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((n, p))
    Y = rng.standard_normal((n, t))
    Y[:, 0] += 2 * X[:, 0]
    Y[:, -1] += 5
    return X, Y


def orders(scheme, folds, n, m, groups, seed, null, min_shift):
    """Rows (m, n) and signs (m, n) or None of all permutations, by the documented rule.

    With null="heldout" every held-out set has a scheme of its own, unless the permutations
    are the user's.
    """
    members, seeds = [np.arange(n)], [seed]
    if null == "heldout" and isinstance(scheme, str):
        members = [test for _, test in folds]
        seeds = np.random.SeedSequence(seed).generate_state(len(folds), np.uint64)
    parts = [
        permutation_scheme(
            scheme, len(rows), m, None if groups is None else groups[rows], int(s), min_shift
        )
        for rows, s in zip(members, seeds, strict=True)
    ]
    permutations = np.tile(np.arange(n), (parts[0].n_permutations, 1))
    signs = np.ones(permutations.shape) if scheme is not None and parts[0].name == "sign" else None
    for rows, part in zip(members, parts, strict=True):
        for i in range(part.n_permutations):
            moved, flips = part.draw(i)
            permutations[i, rows] = rows[moved]
            if flips is not None:
                signs[i, rows] = flips
    return permutations, signs


def reference(model, X, Y, *, cv, groups=None, scheme="free", n_permutations, **options):
    """Observed scores (n_targets,) and null (n_permutations, n_targets) by the double loop."""
    folds = [(np.sort(train), np.sort(test)) for train, test in naive.split(cv, len(X), groups)]
    null = options.get("null", "refit")
    permutations, signs = orders(
        scheme,
        folds,
        len(X),
        n_permutations,
        groups,
        options.get("random_state", 0),
        null,
        options.get("min_shift", 1),
    )
    parameters = (
        model.alphas,
        folds,
        model.cv,
        model.scoring,
        model.alpha_per_target,
        model.fit_intercept,
        model.standardize,
        groups,
    )
    scores = {
        "refit": naive.permutation_scores,
        "heldout": naive.heldout_permutation_scores,
    }[null]
    observed = naive.nested_scores(X, Y, *parameters)
    return observed, scores(X, Y, permutations, *parameters, signs=signs)


def exceedance_bounds(observed, null):
    """Least and most exceedances: a null within 1e-4 of the rule's border may fall either way.

    The rule: null >= observed - 1e-5 (1 + |observed|).
    """
    border = observed - 1e-5 * (1 + np.abs(observed))
    slack = 1e-4 * (1 + np.abs(observed))
    return (null >= border + slack).sum(axis=0), (null >= border - slack).sum(axis=0)


def assert_between(p, bounds, m):
    counts = p * (1 + m) - 1
    low, high = bounds
    assert np.all(counts > low - 0.5) and np.all(counts < high + 0.5)


def by_residuals(model, X, Y, **options):
    """The same test by dual-residuals; None where it is not for that."""
    try:
        return permutation_test(clone(model).set_params(solver="dual-residuals"), X, Y, **options)
    except InputError as error:
        if "solver='dual-residuals' cannot run" not in str(error):
            raise
        return None


def assert_as_reference(model, X, Y, **options):
    """Scores, null, moments and p-values are those of the double loop; the result and it.

    So are those of a tall refit whose outer folds share one pass over the samples, and of one
    whose folds share the residuals of all samples.
    """
    result = permutation_test(model, X, Y, keep_null=True, **options)
    observed, null = reference(model, X, Y, **options)
    if options.get("null") != "heldout" and result.description["route"].startswith("primal"):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(nullplan, "one_pass_pays", lambda *_: True)
            one_pass = permutation_test(model, X, Y, keep_null=True, **options)
        assert np.all(np.abs(one_pass.null - null) <= 1e-4 * (1 + np.abs(null)))
        assert np.all(np.abs(one_pass.scores - observed) <= 1e-4 * (1 + np.abs(observed)))
    if (shared := by_residuals(model, X, Y, keep_null=True, **options)) is not None:
        assert np.all(np.abs(shared.null - null) <= 1e-4 * (1 + np.abs(null)))
        assert np.all(np.abs(shared.scores - observed) <= 1e-4 * (1 + np.abs(observed)))
    m = len(null)
    assert result.n_permutations == m
    assert np.all(np.abs(result.scores - observed) <= 1e-4 * (1 + np.abs(observed)))
    assert result.null.shape == null.shape
    assert np.all(np.abs(result.null - null) <= 1e-4 * (1 + np.abs(null)))
    np.testing.assert_allclose(result.null_mean, result.null.mean(axis=0, dtype=float), 1e-5, 1e-5)
    np.testing.assert_allclose(result.null_sd, result.null.std(axis=0, dtype=float), 1e-4, 1e-4)
    # the maximum is taken before the scores are stored in float32
    np.testing.assert_array_equal(result.null_max.astype(np.float32), result.null.max(axis=1))
    assert_between(result.pvalues, exceedance_bounds(observed, null), m)
    largest = null.max(axis=1)[:, np.newaxis]
    assert_between(result.pvalues_fwer, exceedance_bounds(observed, largest), m)
    return SimpleNamespace(result=result, observed=observed, null=null)


# Against the double loop -------------------------------------------------------------------


@pytest.mark.parametrize("null", ["refit", "heldout"])
@pytest.mark.parametrize("scoring", naive.SCORINGS)
@pytest.mark.parametrize("per_target", [True, False])
@pytest.mark.parametrize("p", [5, 40])
def test_shapes_and_scorings(null, scoring, per_target, p):
    X, Y = problem(p=p)
    model = RidgeCV(ALPHAS, cv=2, scoring=scoring, alpha_per_target=per_target)
    found = assert_as_reference(model, X, Y, cv=3, n_permutations=9, null=null)
    # a test that could not tell two permutations apart would test nothing
    assert np.ptp(found.null, axis=0).min() > 1e-3


@pytest.mark.parametrize("null", ["refit", "heldout"])
@pytest.mark.parametrize(
    ("scheme", "options"),
    [
        ("free", {}),
        # runs that every fold cuts, and runs that stay whole
        ("within", {"groups": np.arange(N) % 2, "cv": PAIRS}),
        ("within", {"groups": np.repeat([0, 1, 2], 8)}),
        ("whole", {"groups": np.repeat(np.arange(12), 2), "n_permutations": 5}),
        ("circular", {"min_shift": 1, "n_permutations": 5}),
        ("circular", {"min_shift": 2, "n_permutations": 4}),
        ("circular", {"groups": np.repeat([0, 1, 2, 3, 4, 5], 4), "n_permutations": 5}),
        ("sign", {}),
        ("sign", {"groups": np.repeat(np.arange(12), 2)}),
    ],
    ids=lambda value: value if isinstance(value, str) else "-".join(value),
)
@pytest.mark.parametrize("fit_intercept", [True, False])
def test_schemes(null, scheme, options, fit_intercept):
    X, Y = problem()
    model = RidgeCV(ALPHAS, cv=2, fit_intercept=fit_intercept)
    options = {"cv": 3, "n_permutations": 7, "random_state": 3, **options}
    assert_as_reference(model, X, Y, scheme=scheme, null=null, **options)


@pytest.mark.parametrize("per_target", [True, False])
@pytest.mark.parametrize("scoring", naive.SCORINGS)
@pytest.mark.parametrize("null", ["refit", "heldout"])
def test_signs_of_a_shared_alpha(null, scoring, per_target):
    X, Y = problem(p=40)
    model = RidgeCV(ALPHAS, cv=2, scoring=scoring, alpha_per_target=per_target)
    assert_as_reference(model, X, Y, cv=3, scheme="sign", null=null, n_permutations=7)


@pytest.mark.parametrize("inner", [2, SPLITS, ShuffleSplit(2, random_state=0), "loo", "gcv"])
@pytest.mark.parametrize("null", ["refit", "heldout"])
@pytest.mark.parametrize("per_target", [True, False])
@pytest.mark.parametrize("p", [5, 40])
def test_inner_cv(inner, null, per_target, p):
    X, Y = problem(p=p)
    model = RidgeCV(ALPHAS, cv=inner, alpha_per_target=per_target)
    assert_as_reference(model, X, Y, cv=SPLITS, null=null, n_permutations=4)


@pytest.mark.parametrize("null", ["refit", "heldout"])
@pytest.mark.parametrize(
    ("fit_intercept", "standardize"), [(True, True), (False, True), (False, False)]
)
@pytest.mark.parametrize("p", [5, 40])
def test_intercept_and_standardize(null, fit_intercept, standardize, p):
    X, Y = problem(p=p)
    X *= np.linspace(0.5, 3, p)
    model = RidgeCV(ALPHAS, cv=2, fit_intercept=fit_intercept, standardize=standardize)
    assert_as_reference(model, X, Y, cv=3, null=null, n_permutations=5)


@pytest.mark.parametrize("null", ["refit", "heldout"])
def test_given_permutations(null):
    X, Y = problem()
    halves = [(np.arange(12, N), np.arange(12)), (np.arange(12), np.arange(12, N))]
    rng = np.random.default_rng(0)
    given_rows = np.array(
        [np.concatenate([rng.permutation(12), 12 + rng.permutation(12)]) for _ in range(8)]
    )
    model = RidgeCV(ALPHAS, cv=2)
    options = {"cv": halves, "scheme": given_rows, "null": null}
    found = assert_as_reference(model, X, Y, n_permutations=6, **options)
    # no more than the array holds
    assert permutation_test(model, X, Y, n_permutations=99, **options).n_permutations == 8
    assert len(found.null) == 6


def test_folds_inside_an_outer_fold_that_cannot_be_made():
    X, Y = problem()
    groups = np.repeat(np.arange(6), 4)
    with pytest.raises(InputError, match=r"model's cv=5 folds of 4 groups.* 4 of 6 groups.* more"):
        permutation_test(RidgeCV(cv=5), X, Y, cv=3, groups=groups)
    with pytest.raises(InputError, match="needs 2 groups or more"):
        permutation_test(RidgeCV(cv=5), X, Y, cv=2, groups=np.repeat([0, 1], 12))


def test_outer_folds_may_overlap_when_refitted():
    X, Y = problem()
    splits = ShuffleSplit(4, test_size=0.3, random_state=0)
    assert_as_reference(RidgeCV(ALPHAS, cv=2), X, Y, cv=splits, n_permutations=5)


@pytest.mark.parametrize("null", ["refit", "heldout"])
def test_targets_constant_in_training(null):
    # brain images hold voxels that are zero, or zero but for one run
    X, Y = problem(t=4)
    Y[:, 1] = 0.1
    Y[:, 2] = 0.1
    Y[:8, 2] = np.arange(8)
    for scoring in naive.SCORINGS:
        model = RidgeCV(ALPHAS, cv=2, scoring=scoring)
        found = assert_as_reference(model, X, Y, cv=3, null=null, n_permutations=6)
        assert found.result.pvalues[1] == 1


@settings(max_examples=15)
@given(drawn=problems(raised=False), scoring=scorings(), data=st.data())
def test_any_problem(drawn, scoring, data):
    """The double loop again, on every shape, dtype and layout, constant columns included."""
    X, Y, alphas = drawn
    if len(X) < 12:
        # R2 and correlation need two rows in every test set
        scoring = "neg_mean_squared_error"
    n_folds = 3 if len(X) >= 12 else 2
    null = data.draw(st.sampled_from(("refit", "heldout")), label="null")
    # a held-out set of three rows has but five permutations
    scheme = "free" if null == "refit" or len(X) // n_folds > 3 else "sign"
    # the correlation of two rows is 1 or -1 for any alpha: only rounding would choose
    few = scoring == "correlation" and len(X) < 30
    n_alphas = 1 if few else data.draw(st.integers(1, 3), label="n_alphas")
    model = RidgeCV(
        alphas[:n_alphas],
        cv=2,
        scoring=scoring,
        alpha_per_target=data.draw(st.booleans(), label="per target"),
        fit_intercept=data.draw(st.booleans(), label="intercept"),
    )
    seed = data.draw(seeds(), label="random_state")
    options = dict(cv=n_folds, scheme=scheme, null=null, n_permutations=3, random_state=seed)
    assert_as_reference(model, X, Y[:, :4], **options)


# Fast paths against general ones -----------------------------------------------------------

SOLVERS = (
    "primal-statistics",
    "primal-products",
    "svd-products",
    "dual-residuals",
    "dual-operators",
    "dual-products",
)


def run(X, Y, *, solver="auto", memory_limit=None, model=None, **options):
    model = {"cv": 2, "solver": solver, "memory_limit": memory_limit, **(model or {})}
    options = {"cv": 3, "n_permutations": 20, "keep_null": True, **options}
    return permutation_test(RidgeCV(ALPHAS, **model), X, Y, **options)


@pytest.mark.parametrize("null", ["refit", "heldout"])
@pytest.mark.parametrize("scoring", naive.SCORINGS)
@pytest.mark.parametrize("per_target", [True, False])
def test_solvers_agree(null, scoring, per_target):
    X, Y = problem(n=40, t=6)
    model = {"scoring": scoring, "alpha_per_target": per_target}
    nulls = {}
    for solver in SOLVERS:
        if null == "heldout" and not solver.endswith("products"):
            continue
        # alphas above the mean eigenvalue: not for correlations
        if solver == "dual-residuals" and (not per_target or scoring == "correlation"):
            continue
        result = run(X, Y, solver=solver, null=null, model=model)
        # the trace identity has its own suffix
        assert result.description["route"].startswith(solver)
        nulls[solver] = np.array(result.null)
    first = nulls.pop("primal-products")
    one_more = per_target and scoring != "correlation"
    assert len(nulls) == {"refit": 4 + one_more, "heldout": 2}[null]
    for other in nulls.values():
        np.testing.assert_allclose(other, first, rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("null", ["refit", "heldout"])
@pytest.mark.parametrize("solver", ["primal", "svd", "dual"])
@pytest.mark.parametrize("per_target", [True, False])
def test_workers_change_no_bit(null, solver, per_target):
    X, Y = problem(n=40, t=70)
    model = {"alpha_per_target": per_target, "scoring": "neg_mean_squared_error"}
    one, two = (
        run(X, Y, solver=solver, null=null, model=model, n_jobs=n_jobs) for n_jobs in (1, 2)
    )
    np.testing.assert_array_equal(one.scores, two.scores)
    np.testing.assert_array_equal(one.null, two.null)
    np.testing.assert_array_equal(one.null_max, two.null_max)
    np.testing.assert_array_equal(one.pvalues, two.pvalues)


@pytest.mark.parametrize("null", ["refit", "heldout"])
@pytest.mark.parametrize("solver", ["primal", "svd", "dual"])
@pytest.mark.parametrize("per_target", [True, False])
def test_tiles_and_batches_change_nothing(null, solver, per_target, monkeypatch, tmp_path):
    X, Y = problem(n=40, t=150)
    options = {"solver": solver, "null": null, "model": {"alpha_per_target": per_target}}
    whole = run(X, Y, **options)
    monkeypatch.setattr(nullplan, "_TASK_FLOPS", 1.0)
    monkeypatch.setattr(nullplan, "STRIP", 16)
    pieces = run(X, Y, out=tmp_path / "pieces", n_jobs=2, **options)
    assert len(list((tmp_path / "pieces" / "parts").glob("null_*"))) > 4
    np.testing.assert_allclose(pieces.null, whole.null, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(pieces.null_max, whole.null_max, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(pieces.null_mean, whole.null_mean, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("per_target", [True, False])
@pytest.mark.parametrize("p", [5, 40])
def test_a_task_stays_with_the_factors_of_a_fold(per_target, p, monkeypatch):
    """All permutations of a task pass through one outer fold before the next."""
    X, Y = problem(p=p)
    scored = []
    for name, scorer in nulltasks.SCORERS.items():

        def recorded(tile, candidates, *args, scorer=scorer):
            scored.append(candidates.view)
            return scorer(tile, candidates, *args)

        monkeypatch.setitem(nulltasks.SCORERS, name, recorded)
    monkeypatch.setattr(nullplan, "one_pass_pays", lambda *_: False)
    monkeypatch.setattr(nullplan, "_AT_ONCE", 2)
    monkeypatch.setattr(nullplan, "_BATCHES", 4)
    model = RidgeCV(alphas=ALPHAS, cv=2, alpha_per_target=per_target, n_jobs=1)
    permutation_test(model, X, Y, cv=PAIRS, n_permutations=40, random_state=0)
    # inner folds train on fewer rows
    visits = [view.test[0] for view in scored if len(view.train) == len(PAIRS[0][0])]
    stays = 1 + sum(a != b for a, b in itertools.pairwise(visits))
    # the observed order and 4 tasks, each with 10 permutations in at least 5 products
    assert stays == 5 * len(PAIRS)
    assert len(visits) >= (1 + 4 * 5) * len(PAIRS)


@pytest.mark.parametrize("one_pass", [False, True])
@pytest.mark.parametrize("per_target", [True, False])
def test_outer_folds_share_one_pass(one_pass, per_target, monkeypatch):
    X, Y = problem(n=60, p=4)
    monkeypatch.setattr(nullplan, "one_pass_pays", lambda *_: one_pass)
    monkeypatch.setattr(nullplan, "_AT_ONCE", 2)
    loaded = []
    load_atoms = nulltasks.TargetTile.load_atoms

    def recorded(tile, atoms, *args):
        loaded.append(len(atoms))
        load_atoms(tile, atoms, *args)

    monkeypatch.setattr(nulltasks.TargetTile, "load_atoms", recorded)
    model = RidgeCV(ALPHAS, cv=3, alpha_per_target=per_target, n_jobs=1)
    result = permutation_test(model, X, Y, cv=3, n_permutations=20, random_state=0)
    # the observed order and the products of the null; a shared alpha is chosen, then used
    n_products = 1 + 20 / 2 if per_target else 2 * (1 + 20)
    assert len(loaded) == n_products * (1 if one_pass else 3)
    # an outer fold and the three inside the others; these cut the outer folds at 14, 27, 34 and 47
    assert set(loaded) == ({7} if one_pass else {4})
    assert result.description["route"].startswith("primal")


def test_when_one_pass_pays():
    X, n = np.zeros((4000, 20)), 4000
    blocks, shuffled = KFold(4), KFold(4, shuffle=True, random_state=0)
    runs = np.repeat(np.arange(8), n // 8)
    for cv, groups, limit, pays in [
        (blocks, None, 2**30, True),
        (LeaveOneGroupOut(), runs, 2**30, True),
        # hundreds of pieces
        (shuffled, None, 2**30, False),
        # factors that do not stay in memory
        (blocks, None, 8 * 20 * 20**2 - 1, False),
    ]:
        inner = SimpleNamespace(kind="folds", cv=cv)
        splits = nested_splits(inner, make_folds(cv, n, groups), groups, n)
        _, parts = refine([split.group for split in splits], n)
        assert one_pass_pays(splits, parts, X.shape, limit) == pays


@pytest.mark.parametrize("missing", [False, True])
@pytest.mark.parametrize("scheme", ["free", "sign"])
@pytest.mark.parametrize("fit_intercept", [True, False])
def test_shared_alpha_by_trace(missing, scheme, fit_intercept, monkeypatch):
    X, Y = problem(n=30, p=60, t=8)
    if missing:
        Y[3, 1] = np.nan
    options = {
        "model": {
            "alpha_per_target": False,
            "scoring": "neg_mean_squared_error",
            "fit_intercept": fit_intercept,
        },
        "scheme": scheme,
        "missing": "skip",
    }
    by_trace = run(X, Y, **options)
    monkeypatch.setattr(nullplan, "_LARGEST_TRACE", 0)
    by_scores = run(X, Y, **options)
    assert by_trace.description["route"] == by_scores.description["route"] + "-trace"
    np.testing.assert_allclose(by_trace.null, by_scores.null, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("n_jobs", [1, 2])
def test_null_max_is_the_maximum_of_the_kept_null(n_jobs):
    X, Y = problem(t=40)
    result = run(X, Y, n_jobs=n_jobs)
    np.testing.assert_array_equal(result.null_max.astype(np.float32), result.null.max(axis=1))
    counts = (result.null >= result.scores - 1e-5 * (1 + np.abs(result.scores))).sum(axis=0)
    # a kept score is rounded to float32, which may move it over the border
    np.testing.assert_allclose(result.pvalues, (1 + counts) / 21, atol=1.01 / 21)
    assert np.mean(result.pvalues == (1 + counts) / 21) > 0.9


@pytest.mark.parametrize("null", ["refit", "heldout"])
def test_two_sided_is_of_the_magnitude(null):
    X, Y = problem(t=6)
    Y[:, 1] -= Y[:, 0]
    model = {"scoring": "correlation"}
    options = {"null": null, "n_permutations": 39, "model": model}
    one, two = (run(X, Y, two_sided=sides, **options) for sides in (False, True))
    # scores keep their sign, the test does not
    np.testing.assert_array_equal(one.scores, two.scores)
    np.testing.assert_array_equal(one.null, two.null)
    assert (two.scores < 0).any()
    np.testing.assert_array_equal(two.null_max.astype(np.float32), np.abs(two.null).max(axis=1))
    observed, null = np.abs(two.scores), np.abs(two.null)
    assert_between(two.pvalues, exceedance_bounds(observed, null), 39)
    largest = null.max(axis=1)[:, np.newaxis]
    assert_between(two.pvalues_fwer, exceedance_bounds(observed, largest), 39)
    assert "two-sided" in two.summary()


# Missing targets ---------------------------------------------------------------------------


@pytest.mark.parametrize("null", ["refit", "heldout"])
@pytest.mark.parametrize("per_target", [True, False])
@pytest.mark.parametrize("p", [5, 40])
def test_missing_targets_are_skipped(null, per_target, p):
    X, Y = problem(p=p, t=9)
    holes = Y.copy()
    holes[[3, 20], [2, 5]] = np.nan, np.inf
    model = {"alpha_per_target": per_target, "scoring": "neg_mean_squared_error"}
    kept = np.setdiff1d(np.arange(9), [2, 5])
    result = run(X, holes, null=null, model=model, missing="skip")
    without = run(X, Y[:, kept], null=null, model=model)
    for name in ("scores", "pvalues", "pvalues_fdr", "pvalues_fwer", "null_mean", "null_sd"):
        found = getattr(result, name)
        assert np.isnan(found[[2, 5]]).all(), name
        np.testing.assert_allclose(found[kept], getattr(without, name), rtol=1e-6, atol=1e-6)
    assert np.isnan(result.null[:, [2, 5]]).all()
    np.testing.assert_allclose(result.null[:, kept], without.null, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(result.null_max, without.null_max, rtol=1e-6, atol=1e-6)
    assert "9, 2 missing" in result.summary()


@pytest.mark.parametrize("value", [np.nan, -np.inf])
def test_missing_targets_are_refused_by_default(value):
    X, Y = problem()
    Y[7, 1] = value
    with pytest.raises(InputError, match=r"Y.*row 7.*column 1"):
        run(X, Y)


def test_missing_features_are_refused():
    X, Y = problem()
    X[7, 1] = np.nan
    with pytest.raises(InputError, match=r"X.*row 7.*column 1"):
        run(X, Y, missing="skip")


# Enumeration, stopping, tails --------------------------------------------------------------


@pytest.mark.parametrize(
    ("scheme", "groups", "count"),
    [("whole", np.repeat(np.arange(4), 6), 23), ("circular", None, 23)],
)
def test_enumeration_is_exact_and_says_so(scheme, groups, count):
    X, Y = problem()
    options = {"scheme": scheme, "groups": groups, "cv": 2}
    result = run(X, Y, n_permutations=1000, **options)
    assert result.n_permutations == count == len(result.null)
    assert f"All {count}" in result.summary()
    assert "1000 were asked for" in result.summary()
    # nothing left to chance: another seed gives the same
    other = run(X, Y, n_permutations=1000, random_state=1, **options)
    np.testing.assert_array_equal(result.pvalues, other.pvalues)


@pytest.mark.parametrize("null", ["refit", "heldout"])
@pytest.mark.parametrize("n_jobs", [1, 2])
def test_besag_clifford_counts_the_first_permutations(null, n_jobs):
    X, Y = problem(n=30, t=12)
    Y[3, 4] = np.nan
    options = {"n_permutations": 150, "null": null, "missing": "skip", "random_state": 1}
    full = run(X, Y, **options)
    result = run(X, Y, stop="besag-clifford", keep_null=False, n_jobs=n_jobs, **options)
    np.testing.assert_allclose(result.scores, full.scores, rtol=1e-6)
    hits = full.null >= full.scores - 1e-5 * (1 + np.abs(full.scores))
    counts = np.where(np.isnan(full.scores), np.nan, 0.0)
    drawn = np.zeros(12, dtype=int)
    besag_clifford_update(counts, drawn, hits)
    np.testing.assert_array_equal(result.n_drawn, drawn)
    expected = besag_clifford_pvalues(counts, np.maximum(drawn, 1), counts >= 10)
    np.testing.assert_array_equal(result.pvalues, expected)
    assert (drawn < 150).sum() > 6 and result.pvalues[0] == 1 / 151
    assert result.pvalues_fwer is None and result.null_max is None and result.null is None
    assert "FWER" not in result.summary()


@pytest.mark.parametrize("options", [{"tail": "gpd"}, {"keep_null": True}])
def test_besag_clifford_leaves_no_null(options):
    X, Y = problem()
    with pytest.raises(InputError, match="besag-clifford"):
        run(X, Y, stop="besag-clifford", **{"keep_null": False, **options})


def test_fitted_tail():
    X, Y = problem(n=60, t=6)
    Y[:, 1:4] += 0.4 * X[:, :3]
    options = {"n_permutations": 400, "null": "heldout", "model": {"scoring": "correlation"}}
    plain, result = run(X, Y, **options), run(X, Y, tail="gpd", **options)
    np.testing.assert_array_equal(result.null, plain.null)
    counts = np.rint(plain.pvalues * 401 - 1)
    expected, fitted = gpd_pvalues(result.scores, result.null.T, counts, 400)
    np.testing.assert_array_equal(result.fitted_tail, fitted)
    np.testing.assert_allclose(result.pvalues, expected, rtol=1e-6)
    # some fitted, some left to the counts
    assert 0 < fitted.sum() < 6


def test_no_tail_is_fitted_to_few_permutations():
    X, Y = problem()
    plain, result = run(X, Y), run(X, Y, tail="gpd")
    assert not result.fitted_tail.any()
    np.testing.assert_array_equal(result.pvalues, plain.pvalues)
    np.testing.assert_array_equal(result.pvalues_fwer, plain.pvalues_fwer)


# What cannot be used -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"null": "refits"}, "null='refits'.*'heldout'"),
        ({"scheme": "frei"}, "scheme='frei'.*'free'"),
        ({"tail": "pareto"}, "tail='pareto'.*'gpd'"),
        ({"stop": "early"}, "stop='early'.*'besag-clifford'"),
        ({"missing": "drop"}, "missing='drop'.*'skip'"),
        ({"scheme": "within"}, "groups=None.*within"),
        ({"scheme": "whole"}, "groups=None.*whole"),
        ({"groups": np.zeros(3)}, "groups has shape"),
        ({"scheme": "circular", "min_shift": 13}, "min_shift=13"),
        ({"scheme": np.zeros((2, N), int)}, r"scheme\[0\] is not a permutation"),
        ({"scheme": np.zeros((2, 3), int)}, r"scheme has shape \(2, 3\)"),
        ({"n_permutations": 0}, "n_permutations=0"),
        ({"random_state": None}, "random_state=None"),
        ({"n_jobs": 0}, "n_jobs=0"),
        ({"cv": 25}, "cv=25"),
        (
            {"cv": ShuffleSplit(3, test_size=0.5, random_state=0), "null": "heldout"},
            "do not overlap",
        ),
        ({"scheme": np.arange(N)[np.newaxis, ::-1], "null": "heldout"}, "between held-out sets"),
        ({"cv": 8, "null": "heldout", "n_permutations": 20}, "in a held-out set"),
        ({"model": {"cv": PAIRS}}, "list of index pairs"),
        ({"model": {"solver": "dual-loo"}}, "solver='dual-loo'"),
        ({"model": {"cv": 16}}, "test samples in every fold"),
        ({"model": {"memory_limit": 1000}}, "memory_limit"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_input_errors_name_the_argument(options, message):
    X, Y = problem()
    with pytest.raises(RidgemmError, match=message) as caught:
        run(X, Y, **options)
    assert isinstance(caught.value, ValueError)


def test_rows_must_agree():
    X, Y = problem()
    with pytest.raises(InputError, match="X has 24 rows and Y has 23"):
        run(X, Y[:-1])
