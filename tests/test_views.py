"""A view is what NumPy would make of its parts, in every tile and on every route."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

import ridgemm
from ridgemm import InputError, RidgeCV, permutation_test
from ridgemm.sources import as_source
from ridgemm.store import fingerprint
from ridgemm.threads import Team
from ridgemm.transport import pack, unpack
from tests import strategies
from tests.test_fit import ROUTES
from tests.test_sources import Foreign, slices


def naive_delayed(X, delays, runs):
    out = np.zeros((len(X), len(delays) * X.shape[1]), X.dtype)
    for i, (d, delay) in itertools.product(range(len(X)), enumerate(delays)):
        mine = [k for k in range(len(X)) if runs[k] == runs[i]]
        k = mine.index(i) - delay
        if 0 <= k < len(mine):
            out[i, d * X.shape[1] : (d + 1) * X.shape[1]] = X[mine[k]]
    return out


def naive_zscored(X, runs):
    X, out = X.astype(np.float64), np.zeros(X.shape, np.float32)
    for run in set(runs):
        mine = [i for i in range(len(X)) if runs[i] == run]
        for j in range(X.shape[1]):
            column = X[mine, j]
            if column.min() < column.max():
                out[mine, j] = (column - column.mean()) / column.std()
    return out


@st.composite
def labels(draw, n):
    """Runs: one after another, or all mixed up."""
    runs = draw(st.lists(st.integers(0, 3), min_size=n, max_size=n))
    return np.array(sorted(runs) if draw(st.booleans()) else runs)


@st.composite
def stored(draw, n, p):
    """A source of some kind, and its values."""
    dtype, layout = draw(st.sampled_from(strategies.DTYPES)), draw(st.sampled_from("CF"))
    rng = np.random.default_rng(draw(strategies.seeds()))
    X = np.asarray(rng.standard_normal((n, p)) * 10 + 20, order=layout).astype(dtype)
    kind = draw(st.sampled_from(("array", "foreign", "chunked")))
    source = X if kind == "array" else Foreign(X)
    if kind == "chunked":
        source.chunks = draw(st.integers(1, n)), draw(st.integers(1, p))
    return source, X


@st.composite
def views(draw):
    """Views of views, and what they are to be."""
    n, p = draw(st.integers(1, 40)), draw(st.integers(1, 6))
    view, X = draw(stored(n, p))
    for kind in draw(st.lists(st.sampled_from(("delayed", "zscored", "hstack", "vstack")))):
        if X.size > 5000:
            break
        if kind == "delayed":
            delays = draw(st.lists(st.integers(-3, 4), min_size=1, max_size=3))
            runs = draw(labels(len(X)))
            view, X = ridgemm.delayed(view, delays, runs), naive_delayed(X, delays, runs)
        elif kind == "zscored":
            runs = draw(labels(len(X)))
            view, X = ridgemm.zscored(view, runs), naive_zscored(X, runs)
        else:
            first = draw(st.booleans())
            shape = (len(X), 2) if kind == "hstack" else (5, X.shape[1])
            other, values = draw(stored(*shape))
            parts, arrays = [view, other], [X, values]
            if first:
                parts, arrays = parts[::-1], arrays[::-1]
            view, X = getattr(ridgemm, kind)(parts), getattr(np, kind)(arrays)
    return view, X


def values(view):
    return np.asarray(view.array if isinstance(view, Foreign) else view)


@given(views())
def test_views_are_what_numpy_makes(case):
    view, expected = case
    assert view.shape == expected.shape and view.dtype == expected.dtype
    # a z-score of values nearly equal magnifies the rounding of what they were made of
    assert_allclose(values(view), expected, rtol=1e-3, atol=1e-3)


@given(views(), st.data(), st.sampled_from((np.float32, np.float64)), st.booleans())
def test_any_tile_is_that_of_the_array(case, data, dtype, shifted):
    view, _ = case
    n, p = view.shape
    rows = data.draw(slices(n) | st.sets(st.integers(0, n - 1), min_size=1).map(sorted))
    rows = rows if isinstance(rows, slice) else np.array(rows)
    columns = data.draw(slices(p))
    shift = shifted * np.linspace(-20, 30, p).astype(np.float32)[columns]
    size = len(np.arange(n)[rows]), columns.stop - columns.start
    comp, ref = np.full(size, np.nan, dtype), np.full(size, np.nan, dtype)
    as_source(view, "X").read(rows, columns, shift, comp)
    as_source(values(view), "X").read(rows, columns, shift, ref)
    assert_array_equal(comp, ref)


INDICES = (slice(None), slice(2, 9), slice(None, None, -2), np.array([7, 1, 1]), 3, -1, slice(0, 0))


@pytest.mark.parametrize("rows", INDICES)
def test_a_view_is_indexed_as_an_array(rows):
    X = np.arange(48.0).reshape(12, 4)
    view = ridgemm.delayed(X, (1, 2), np.arange(12) // 5)
    array = np.asarray(view)
    assert_array_equal(view[rows], array[rows])
    for columns in (slice(1, 7), slice(None, None, 3), 2, slice(3, 3)):
        assert_array_equal(view[rows, columns], array[rows, columns])
    mask = np.arange(12) % 3 == 0
    assert_array_equal(view[mask], array[mask])
    assert len(view) == 12 and view.ndim == 2


def make_view(X, runs, kind):
    n = len(X)
    if kind == "delayed":
        return ridgemm.delayed(X, (1, 2, 4), runs)
    if kind == "zscored":
        return ridgemm.zscored(X, runs)
    half = ridgemm.vstack([X[: n // 2].astype(np.float16), X[n // 2 :].astype(np.float16)])
    return ridgemm.hstack([ridgemm.delayed(ridgemm.zscored(half, runs), (0, 1), runs), X + 50])


@pytest.mark.parametrize("options", ROUTES, ids=lambda options: str([*options.values()]))
@pytest.mark.parametrize("kind", ["delayed", "zscored", "all"])
def test_a_fit_on_a_view_is_that_on_the_array(options, kind):
    rng = np.random.default_rng(0)
    n = 90
    X, runs = rng.standard_normal((n, 8)).astype(np.float32), np.arange(n) // 30
    view = make_view(X, runs, kind)
    array = np.asarray(view)
    Y = array @ rng.standard_normal((array.shape[1], 7)) + rng.standard_normal((n, 7))
    models = [RidgeCV((1, 10, 100), **options).fit(A, Y, groups=runs) for A in (view, array)]
    for name in ("cv_scores_", "alpha_", "best_score_", "coef_", "intercept_", "x_offset_"):
        comp, ref = (getattr(model, name) for model in models)
        assert_array_equal(comp, ref)
    assert models[0].route_ == models[1].route_ == options["solver"]
    assert_array_equal(models[0].predict(view), models[1].predict(array))
    assert_array_equal(models[0].score(view, Y), models[1].score(array, Y))


@pytest.mark.parametrize("null", ["refit", "heldout"])
@pytest.mark.parametrize("solver", ["primal-statistics", "dual-products"])
def test_a_null_on_a_view_is_that_on_the_array(solver, null, tmp_path):
    rng = np.random.default_rng(0)
    X, runs = rng.standard_normal((60, 4)), np.arange(60) // 20
    view = ridgemm.delayed(X, groups=runs)
    Y = np.asarray(view) @ rng.standard_normal((16, 3)) + rng.standard_normal((60, 3))
    model = RidgeCV((1, 10), cv=2, solver=solver)
    results = [
        permutation_test(
            model, A, Y, cv=3, groups=runs, n_permutations=9, null=null, out=tmp_path / name
        )
        for A, name in ((view, "view"), (np.asarray(view), "array"))
    ]
    for name in ("scores", "null_max", "pvalues_fwer"):
        assert_array_equal(*(getattr(result, name) for result in results))


def test_targets_may_be_a_view():
    X, Y = np.random.default_rng(0).standard_normal((2, 60, 5))
    runs = np.arange(60) // 20
    view = ridgemm.zscored(ridgemm.vstack([Y[:25], Y[25:]]), runs)
    comp, ref = (RidgeCV(cv=3).fit(X, A) for A in (view, np.asarray(view)))
    assert_array_equal(comp.cv_scores_, ref.cv_scores_)


def test_two_workers_read_a_view_of_files(tmp_path):
    rng = np.random.default_rng(0)
    X, runs = rng.standard_normal((80, 6)).astype(np.float16), np.arange(80) // 20
    for i, part in enumerate(np.split(X, 2)):
        np.save(tmp_path / f"{i}.npy", part)
    view = ridgemm.vstack([tmp_path / "0.npy", tmp_path / "1.npy"])
    view = ridgemm.delayed(ridgemm.zscored(view, runs), groups=runs)
    Y = np.asarray(view) @ rng.standard_normal((24, 40)) + rng.standard_normal((80, 40))
    options = dict(cv=4, solver="primal-products")
    comp = RidgeCV(n_jobs=2, **options).fit(view, Y, groups=runs)
    ref = RidgeCV(**options).fit(np.asarray(view), Y, groups=runs)
    assert_array_equal(comp.cv_scores_, ref.cv_scores_)
    assert_array_equal(comp.coef_, ref.coef_)


def test_a_view_travels_as_places_in_files(tmp_path):
    np.save(tmp_path / "X.npy", np.random.default_rng(0).standard_normal((300, 2000)))
    view = ridgemm.delayed(tmp_path / "X.npy", (1, 2), np.arange(300) // 100)
    message = pack(view, tmp_path)
    # its runs travel in a file of their own
    beside = [file.stat().st_size for file in tmp_path.iterdir() if file.name != "X.npy"]
    assert len(message) + sum(beside) < 20_000
    assert_array_equal(np.asarray(unpack(message)), np.asarray(view))


def test_fingerprints_follow_parts_and_parameters(tmp_path):
    X = np.random.default_rng(0).standard_normal((30, 4))
    np.save(tmp_path / "X.npy", X)
    runs, others = np.arange(30) // 10, np.arange(30) // 15

    def make(path):
        opened = np.load(path, mmap_mode="r")
        return [
            ridgemm.delayed(opened, (1, 2), runs),
            ridgemm.delayed(opened, (2, 1), runs),
            ridgemm.delayed(opened, (1, 2), others),
            ridgemm.zscored(opened, runs),
            ridgemm.zscored(opened, others),
            ridgemm.hstack([opened, opened]),
            ridgemm.vstack([opened, opened]),
            ridgemm.vstack([opened[:10], opened[10:]]),
            ridgemm.vstack([opened[:20], opened[20:]]),
            ridgemm.hstack([opened.astype(np.float32), opened]),
            ridgemm.delayed(ridgemm.delayed(opened, (1, 2), runs), (1, 2), runs),
        ]

    with Team(2) as team:
        first, again = (
            [fingerprint(as_source(view, "X"), team) for view in make(tmp_path / "X.npy")]
            for _ in range(2)
        )
        assert first == again and len(set(first)) == len(first)
        view = make(tmp_path / "X.npy")[0]
        file = np.load(tmp_path / "X.npy", mmap_mode="r+")
        file[-1, -1] += 1e-9
        file.flush()
        assert fingerprint(as_source(view, "X"), team) != first[0]


def test_factors_of_a_view_are_found_again(tmp_path):
    X, Y = np.random.default_rng(0).standard_normal((2, 60, 5))
    for expected in (True, False):
        view = ridgemm.delayed(X, groups=np.arange(60) // 20)
        model = RidgeCV(cv=3, cache_dir=tmp_path).fit(view, Y)
        assert bool(model.factors_computed_) is expected


def test_zscores_keep_the_digits_of_float64():
    rng = np.random.default_rng(0)
    X = rng.standard_normal((50, 3)) + 1e9
    X[:, 1] = 1e9 + 0.1
    assert_allclose(ridgemm.zscored(X)[:, :], naive_zscored(X, np.zeros(50)), atol=1e-6)
    assert not ridgemm.zscored(X)[:, 1].any()
    X[0, 0] = 1e14
    assert_allclose(ridgemm.zscored(X)[:, :], naive_zscored(X, np.zeros(50)), atol=1e-6)


def test_what_is_missing_is_found_behind_a_view():
    X = np.random.default_rng(0).standard_normal((30, 4))
    Y = X[:, :2].copy()
    X[7, 2] = np.nan
    with pytest.raises(InputError, match=r"X has 1 value.* the first at row 8, column 2"):
        RidgeCV().fit(ridgemm.delayed(X, (1,)), Y)
    with pytest.raises(InputError, match=r"X has 10 value.* the first at row 0, column 2"):
        RidgeCV().fit(ridgemm.zscored(X, np.arange(30) // 10), Y)
    X[7, 2] = 1e60
    with pytest.raises(InputError, match="X has 1 value"):
        RidgeCV().fit(ridgemm.delayed(X, (1,)), Y)


REFUSED = [
    (lambda X: ridgemm.delayed(X, (0.5,)), r"delays=\(0.5,\) must be whole numbers"),
    (lambda X: ridgemm.delayed(X, ()), "must be whole numbers"),
    (lambda X: ridgemm.delayed(X, [[1, 2]]), "must be whole numbers"),
    (lambda X: ridgemm.delayed(X, groups=[0, 1]), r"groups has shape \(2,\), but there are 10"),
    (lambda X: ridgemm.delayed(X[0]), r"X must be 2-D \(n_samples, n_features\)"),
    (lambda X: ridgemm.zscored("absent.npy"), "X='absent.npy' does not exist"),
    (lambda X: ridgemm.hstack([X, X[:5]]), r"sources\[1\] has 5 rows, but sources\[0\] has 10"),
    (lambda X: ridgemm.vstack([X, X[:, :1]]), r"sources\[1\] has 1 columns, but sources\[0\]"),
    (lambda X: ridgemm.vstack([]), r"sources=\[\] must be a list"),
    (lambda X: ridgemm.vstack("X.npy"), "must be a list of arrays or paths"),
    (lambda X: ridgemm.hstack([X, "absent.npy"]), r"sources\[1\]='absent.npy' does not exist"),
]


@pytest.mark.parametrize(("call", "message"), REFUSED)
def test_refused(call, message):
    with pytest.raises(InputError, match=message):
        call(np.ones((10, 3)))
