"""Fits that must agree with each other, and data on which a fit easily breaks."""

import warnings

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.base import clone
from sklearn.model_selection import KFold

import ridgemm.engine
import ridgemm.factors
import ridgemm.fitplan
import ridgemm.grams
import ridgemm.linear
import ridgemm.mapreduce
import ridgemm.prediction
from ridgemm import RidgeCV, load
from ridgemm.errors import StorageError
from tests import naive

FITTED = ["alpha_", "best_score_", "cv_scores_", "coef_", "intercept_", "x_offset_", "y_offset_"]
ROUTES = [
    dict(solver="primal-statistics", cv=3),
    dict(solver="primal-products", cv=3),
    dict(solver="svd-products", cv=3),
    dict(solver="dual-products", cv=3),
    dict(solver="primal-statistics", cv=3, alpha_per_target=False),
    dict(solver="dual-trace", cv=3, alpha_per_target=False),
    dict(solver="dual-products", cv=3, alpha_per_target=False),
    dict(solver="primal-loo", cv="loo"),
    dict(solver="svd-loo", cv="loo"),
    dict(solver="dual-loo", cv="loo"),
    dict(solver="dual-trace", cv="loo", alpha_per_target=False),
    dict(solver="primal-gcv", cv="gcv"),
    dict(solver="svd-gcv", cv="gcv"),
    dict(solver="dual-gcv", cv="gcv"),
]
every_route = pytest.mark.parametrize(
    "options",
    ROUTES,
    ids=lambda o: f"{o['solver']}-{o['cv']}" + ("" if o.get("alpha_per_target", True) else "-1"),
)


def signal(n=50, p=6, t=21, seed=0):
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((n, p))
    Y = X @ rng.standard_normal((p, t)) + 2 * rng.standard_normal((n, t)) + 5
    return X, Y


def assert_finite(model):
    for name in FITTED:
        assert np.isfinite(getattr(model, name)).all(), name


def assert_equal_models(model, other):
    for name in FITTED:
        assert_array_equal(getattr(model, name), getattr(other, name), err_msg=name)


def assert_close_models(model, other, tolerance):
    for name in FITTED:
        ours, theirs = getattr(model, name), getattr(other, name)
        scale = tolerance * max(1.0, np.abs(theirs).max())
        assert_allclose(ours, theirs, rtol=0, atol=scale, err_msg=name)


def assert_right(model, X, Y):
    """Finite, and the coefficients of the oracle at the alphas of the model."""
    assert_finite(model)
    alpha = np.broadcast_to(model.alpha_, np.shape(Y)[1])
    coef, intercept = naive.ridge(X, Y, alpha, model.fit_intercept, model.standardize)
    assert_allclose(model.coef_, coef, atol=1e-4 * max(1e-9, np.abs(coef).max()))
    assert_allclose(model.intercept_, intercept, atol=1e-4 * max(1.0, np.abs(intercept).max()))


# -- data on which a fit easily breaks ------------------------------------------------------

DEGENERATE = {
    "one feature": lambda X, Y: (X[:, :1], Y),
    "one target": lambda X, Y: (X, Y[:, :1]),
    "one of each": lambda X, Y: (X[:, :1], Y[:, :1]),
    "zero X": lambda X, Y: (0 * X, Y),
    "zero Y": lambda X, Y: (X, 0 * Y),
    "constant X": lambda X, Y: (0 * X + 1234.5, Y),
    "constant feature": lambda X, Y: (np.where(np.arange(6) == 2, 1e4, X), Y),
    "twice the same": lambda X, Y: (np.hstack([X, X]), Y),
    "rank one": lambda X, Y: (np.outer(X[:, 0], X[0]), Y),
    "equal rows": lambda X, Y: (np.repeat(X[:10], 5, axis=0), Y),
    "wide": lambda X, Y: (np.random.default_rng(1).standard_normal((50, 400)), Y),
    "square": lambda X, Y: (np.random.default_rng(1).standard_normal((50, 50)), Y),
    "float16": lambda X, Y: (X.astype(np.float16), Y.astype(np.float16)),
    "int8": lambda X, Y: ((20 * X).astype(np.int8), (5 * Y).astype(np.int8)),
    "uint16": lambda X, Y: ((5 + X).astype(np.uint16), (50 + Y).astype(np.uint16)),
    "bool": lambda X, Y: (X > 0, Y > 5),
    "big endian": lambda X, Y: (X.astype(">f4"), Y.astype(">f8")),
}


@pytest.mark.parametrize("standardize", [False, True])
@pytest.mark.parametrize("case", DEGENERATE)
def test_degenerate_data(case, standardize):
    X, Y = DEGENERATE[case](*signal())
    for options in ROUTES:
        if options["cv"] == "loo" and standardize:
            continue
        tall_only = not options["solver"].startswith("dual") and options["cv"] in ("loo", "gcv")
        if tall_only and X.shape[1] > 40:
            continue
        model = RidgeCV([0.1, 10.0], standardize=standardize, **options)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert_right(model.fit(X, Y), np.asarray(X, float), np.asarray(Y, float))


@every_route
def test_constant_targets(options):
    X, Y = signal()
    Y[:, 3], Y[:, 7], Y[:, 20] = 0.0, 1234.567, -1e-20
    model = RidgeCV([0.1, 10.0], **options).fit(X, Y)
    assert model.n_constant_targets_ == 3
    assert_right(model, X, Y)
    assert np.abs(model.coef_[[3, 7, 20]]).max() < 1e-11
    assert_allclose(model.intercept_[[3, 7, 20]], [0, 1234.567, 0], rtol=1e-6, atol=1e-12)
    if model.alpha_per_target:
        # all alphas are as good: the first one is chosen
        assert (model.cv_scores_[:, [3, 7, 20]] == 0).all()
        assert (model.best_score_[[3, 7, 20]] == 0).all()
        assert (model.alpha_[[3, 7, 20]] == 0.1).all()
    assert (model.score(X, Y)[[3, 7, 20]] == 0).all()


def test_no_constant_targets():
    assert RidgeCV().fit(*signal()).n_constant_targets_ == 0


@pytest.mark.parametrize("p", [1, 5])
def test_two_samples(p):
    X, Y = signal(n=2, p=p)
    for cv in ("loo", 2):
        model = RidgeCV([1.0, 2.0], cv=cv, scoring="neg_mean_squared_error").fit(X, Y)
        assert_right(model, X, Y)
        scores = naive.cv_scores(X, Y, model.alphas, cv, "neg_mean_squared_error")
        assert_allclose(model.cv_scores_, scores, rtol=1e-4)


def test_one_alpha_given_as_a_number():
    X, Y = signal()
    model = RidgeCV(3.0).fit(X, Y)
    assert (model.alpha_ == 3.0).all() and model.cv_scores_.shape == (1, 21)


def test_shared_alpha_is_a_number():
    X, Y = signal()
    model = RidgeCV([0.1, 1.0, 10.0], alpha_per_target=False, cv=3).fit(X, Y)
    scores = naive.cv_scores(X, Y, model.alphas, 3, "r2").mean(axis=1)
    assert isinstance(model.alpha_, float) and isinstance(model.best_score_, float)
    assert model.alpha_ == model.alphas[np.argmax(scores)]
    assert model.cv_scores_.shape == (3,)
    assert_allclose(model.cv_scores_, scores, atol=1e-5)


def test_nothing_is_written_into_the_data():
    X, Y = signal()
    X.flags.writeable = Y.flags.writeable = False
    for options in ROUTES:
        model = RidgeCV(**options).fit(X, Y)
        model.predict(X)
        model.score(X, Y)


# -- the same data from elsewhere -----------------------------------------------------------


class Sliced:
    """A foreign array: shape, dtype and 2-D slices, all checked to be of plain slices."""

    def __init__(self, array):
        self._array, self.shape, self.dtype = array, array.shape, array.dtype

    def __getitem__(self, where):
        assert isinstance(where, tuple) and len(where) == 2
        assert all(isinstance(part, slice) and part.step in (None, 1) for part in where)
        return self._array[where].copy()


def memmapped(array, folder, order="C"):
    path = folder / f"{len(list(folder.iterdir()))}.npy"
    np.save(path, np.asarray(array, order=order))
    return path


SOURCES = {
    "list": lambda A, _: A.tolist(),
    "column-major": lambda A, _: np.asfortranarray(A),
    "strided": lambda A, _: np.repeat(np.repeat(A, 2, axis=0), 3, axis=1)[::2, ::3],
    "reversed": lambda A, _: A[::-1, ::-1].copy()[::-1, ::-1],
    "float64": lambda A, _: A.astype(np.float64),
    "path": memmapped,
    "str": lambda A, folder: str(memmapped(A, folder)),
    "column-major path": lambda A, folder: memmapped(A, folder, "F"),
    "memmap": lambda A, folder: np.load(memmapped(A, folder), mmap_mode="r"),
    "slice of a memmap": lambda A, folder: np.load(
        memmapped(np.hstack([A, A]), folder), mmap_mode="r"
    )[:, : A.shape[1]],
    "foreign": lambda A, _: Sliced(A),
}


@pytest.mark.parametrize("source", SOURCES)
def test_sources_agree(source, tmp_path):
    X, Y = (A.astype(np.float32) for A in signal())
    # folds of rows that are no slice
    shuffled = KFold(3, shuffle=True, random_state=0)
    for options in ROUTES:
        options = {**options, "cv": shuffled if options["cv"] == 3 else options["cv"]}
        expected = RidgeCV(**options).fit(X, Y)
        read = SOURCES[source](X, tmp_path), SOURCES[source](Y, tmp_path)
        model = RidgeCV(**options).fit(*read)
        assert_close_models(model, expected, 1e-6)
        assert_allclose(model.predict(read[0]), expected.predict(X), rtol=1e-5, atol=1e-5)
        assert_allclose(model.score(*read), expected.score(X, Y), rtol=1e-5, atol=1e-5)


# -- jobs, threads and tiles ----------------------------------------------------------------


@every_route
def test_two_workers_give_the_same_bits(options, monkeypatch):
    # tiles that differ between one worker and two
    monkeypatch.setattr(ridgemm.fitplan, "STRIP", 7)
    X, Y = signal(t=40)
    one, two = (RidgeCV(n_jobs=n_jobs, **options).fit(X, Y) for n_jobs in (1, 2))
    assert_equal_models(two, one)


@every_route
def test_threads_give_the_same_bits(options, monkeypatch):
    # several strips, for there to be something to share out
    monkeypatch.setattr(ridgemm.fitplan, "STRIP", 7)
    monkeypatch.setattr(ridgemm.grams, "_PANEL", 5)
    X, Y = signal(n=700, t=40)
    models = []
    users = ("engine", "factors", "linear", "mapreduce", "prediction")
    for n_threads in (1, 2, 3):
        for module in (getattr(ridgemm, name) for name in users):
            monkeypatch.setattr(module, "threads_per_worker", lambda _, n=n_threads: n)
        models.append(RidgeCV(**options).fit(X, Y))
        assert models[-1].plan_.n_threads == n_threads
    for model in models[1:]:
        assert_equal_models(model, models[0])
        assert_array_equal(model.predict(X), models[0].predict(X))


@pytest.mark.parametrize("strip", [1, 3, 7, 16])
@every_route
def test_strips_do_not_matter(options, strip, monkeypatch):
    X, Y = signal()
    expected = RidgeCV(**options).fit(X, Y)
    monkeypatch.setattr(ridgemm.fitplan, "strip_width", lambda t: strip)
    monkeypatch.setattr(ridgemm.grams, "_PANEL", 5)
    monkeypatch.setattr(ridgemm.fitplan, "row_step", lambda p: 11)
    monkeypatch.setattr(ridgemm.fitplan, "block_size", lambda other: 5)
    model = RidgeCV(**options).fit(X, Y)
    assert model.plan_.strip == strip and model.plan_.row_step == 11
    assert_close_models(model, expected, 1e-5)


@every_route
def test_tiles_do_not_matter(options, monkeypatch):
    X, Y = signal(t=40)
    monkeypatch.setattr(ridgemm.fitplan, "STRIP", 4)
    expected = RidgeCV(**options).fit(X, Y)
    fit_tiles = ridgemm.fitplan._fit_tiles

    def small_tiles(*args):
        return ridgemm.fitplan.replace(fit_tiles(*args), tile=12)

    monkeypatch.setattr(ridgemm.fitplan, "_fit_tiles", small_tiles)
    model = RidgeCV(**options).fit(X, Y)
    assert expected.plan_.tile == 40 and model.plan_.tile == 12
    assert_equal_models(model, expected)


# -- predictions that are small or none ------------------------------------------------------


@pytest.mark.parametrize("fit_intercept", [False, True])
@pytest.mark.parametrize(
    "options",
    [dict(solver=solver, cv="loo") for solver in ("primal-loo", "svd-loo", "dual-loo")]
    + [dict(solver=solver, cv=3) for solver in ("primal-statistics", "primal-products", "dual")],
    ids=lambda o: o["solver"],
)
def test_correlation_of_predictions_that_alpha_makes_tiny(options, fit_intercept):
    X, Y = signal(n=40, p=9)
    alphas = np.logspace(-2, 8, 6)
    shared = dict(scoring="correlation", fit_intercept=fit_intercept)
    model = RidgeCV(alphas, **options, **shared).fit(X, Y)
    expected = naive.cv_scores(X, Y, alphas, options["cv"], **shared)
    assert_allclose(model.cv_scores_, expected, atol=1e-4)


@pytest.mark.filterwarnings("ignore:dual coefficients are float32")
@pytest.mark.parametrize("solver", ["primal-statistics", "primal-products", "svd", "dual"])
def test_features_that_are_constant_in_training_predict_nothing(solver):
    rng = np.random.default_rng(0)
    X = np.repeat(rng.standard_normal((2, 3)) * 1000, 20, axis=0) + 1 / 3
    X[20:] += rng.standard_normal((20, 3))
    Y = rng.standard_normal((40, 5))
    halves = [(np.arange(20), np.arange(20, 40))]
    model = RidgeCV([1e-3, 1.0], cv=halves, scoring="correlation", solver=solver).fit(X, Y)
    assert_array_equal(model.cv_scores_, 0)


def test_rounding_of_dual_coefficients_is_told_or_avoided():
    # a direction 1e10 times smaller than the largest, and an alpha that lets it predict
    rng = np.random.default_rng(0)
    sides = (np.linalg.qr(rng.standard_normal((n, 12)))[0] for n in (12, 30))
    X = np.einsum("ik,k,jk->ij", next(sides), np.logspace(5, 0, 12), next(sides))
    Y = rng.standard_normal((12, 3))
    options = {"cv": 3, "fit_intercept": False}
    exact = naive.predict(X, *naive.ridge(X, Y, np.full(3, 0.1), False, False))
    dual = RidgeCV([0.1], solver="dual", **options)
    with pytest.warns(RuntimeWarning, match="predictions of 3 target.*solver='svd'"):
        dual.fit(X, Y)
    assert np.abs(dual.predict(X) - exact).max() > 0.1
    model = RidgeCV([0.1], **options).fit(X, Y)
    assert model.route_ == "svd-products"
    assert_allclose(model.predict(X), exact, atol=1e-3)
    # alphas that no direction is small beside
    RidgeCV([1e6], solver="dual", **options).fit(X, Y)


@pytest.mark.parametrize("alpha", [1e200, 1e308])
@every_route
def test_alphas_that_leave_nothing_but_the_mean(options, alpha):
    X, Y = signal()
    model = RidgeCV([alpha], **options).fit(X, Y)
    assert_finite(model)
    assert_allclose(model.predict(X), np.broadcast_to(Y.mean(axis=0), Y.shape), atol=1e-5)


# -- what a model does ----------------------------------------------------------------------


@pytest.mark.parametrize("scoring", naive.SCORINGS)
@every_route
def test_predict_and_score(options, scoring, tmp_path):
    if options["solver"].endswith(("gcv", "trace")) and scoring == "correlation":
        pytest.skip("not defined")
    X, Y = signal()
    X_new, Y_new = signal(n=13, seed=1)
    model = RidgeCV(scoring=scoring, **options).fit(X, Y)
    predictions = X_new @ model.coef_.T + model.intercept_
    for dtype in (np.float32, np.float64):
        given = model.predict(X_new.astype(dtype))
        assert given.dtype == dtype
        assert_allclose(given, predictions, atol=1e-4)
        out = np.lib.format.open_memmap(tmp_path / "out.npy", "w+", dtype, (13, 21))
        assert model.predict(X_new.astype(dtype), out=out) is out
        assert_array_equal(out, given)
    assert model.predict((10 * X_new).astype(np.int8)).dtype == np.float32
    scores = model.score(X_new, Y_new)
    assert_allclose(scores, naive.score(Y_new, predictions, scoring), rtol=1e-4, atol=1e-5)
    kept = np.empty(21)
    assert model.score(X_new, Y_new, out=kept) is kept
    assert_array_equal(kept, scores)


@every_route
def test_coefficients_in_a_file(options, tmp_path, monkeypatch):
    X, Y = signal()
    expected = RidgeCV(**options).fit(X, Y)
    fit_tiles = ridgemm.fitplan._fit_tiles

    def in_file(*args):
        return ridgemm.fitplan.replace(fit_tiles(*args), coef_in_file=True)

    monkeypatch.setattr(ridgemm.fitplan, "_fit_tiles", in_file)
    model = RidgeCV(cache_dir=tmp_path, **options).fit(X, Y)
    assert isinstance(model._linear.coef, np.memmap)
    assert_equal_models(model, expected)
    assert_array_equal(model.predict(X), expected.predict(X))
    folders = list(tmp_path.glob("ridgemm~*"))
    assert len(folders) == 1
    # the file lives as long as the model
    del model
    assert not folders[0].exists()


def test_coefficients_in_a_file_are_read_only(tmp_path):
    X, Y = signal(n=30, p=5, t=9000)
    model = RidgeCV([1.0], solver="dual", cv=2, memory_limit=72 << 20, cache_dir=tmp_path)
    coef = model.fit(X, np.tile(Y, 20).astype(np.float32)).dual_coef_
    assert model.plan_.coef_in_file and isinstance(coef, np.memmap)
    assert not coef.flags.writeable


def test_coefficients_too_large_for_the_limit():
    X, Y = signal(n=30, p=500, t=40_000)
    limit = 64 << 20
    model = RidgeCV([1.0], solver="dual", cv=2, memory_limit=limit).fit(X, Y.astype(np.float32))
    assert 4 * model._linear.n_targets * 500 > limit // 4
    assert isinstance(model.coef_, np.memmap) and model.coef_ is model.coef_
    coef, _ = naive.ridge(X, Y[:, -3:], 1.0)
    assert_allclose(model.coef_[-3:], coef, atol=1e-4)


@pytest.mark.parametrize("standardize", [False, True])
def test_dual_coefficients(standardize):
    X, Y = signal(n=20, p=60)
    model = RidgeCV(solver="dual", cv=3, standardize=standardize).fit(X, Y)
    assert model.dual_coef_.shape == (21, 20)
    assert_right(model, X, Y)
    assert model.coef_.shape == (21, 60) and model.coef_ is model.coef_
    primal = RidgeCV(solver="primal", cv=3, standardize=standardize).fit(X, Y)
    with pytest.raises(AttributeError, match="primal-"):
        primal.dual_coef_  # noqa: B018


def test_refit_forgets_the_earlier_fit():
    X, Y = signal(n=20, p=60)
    model = RidgeCV(solver="dual", cv=3).fit(X, Y)
    assert model.coef_.shape == (21, 60)
    model.fit(X[:, :30], Y[:, :4])
    assert_right(model, X[:, :30], Y[:, :4])
    model.set_params(solver="primal").fit(X[:, :5], Y[:, :2])
    assert_right(model, X[:, :5], Y[:, :2])


def test_clone_and_parameters():
    model = RidgeCV([1.0, 2.0], cv="loo", scoring="correlation", n_jobs=2, memory_limit="1GB")
    copy = clone(model)
    assert copy is not model and copy.get_params() == model.get_params()
    assert set(model.get_params()) == {
        "alphas", "cv", "scoring", "alpha_per_target", "fit_intercept", "standardize", "solver",
        "precision", "memory_limit", "cache_dir", "n_jobs", "verbose",
    }  # fmt: skip
    assert not hasattr(clone(model.fit(*signal())), "alpha_")


def test_plan_prints_as_a_table():
    plan = RidgeCV(solver="dual", cv=3).fit(*signal()).plan_
    table = str(plan)
    assert "50 samples x 6 features x 21 targets" in table and "dual-products" in table


# -- save and load --------------------------------------------------------------------------


def assert_same_after_loading(model, folder, X, Y):
    model.save(folder)
    loaded = load(folder)
    for name in ("alpha_", "best_score_", "cv_scores_", "x_offset_", "y_offset_"):
        ours, theirs = getattr(loaded, name), getattr(model, name)
        assert_array_equal(ours, theirs)
        assert np.shape(ours) == np.shape(theirs)
    assert_allclose(loaded.coef_, model.coef_, rtol=1e-6, atol=1e-7)
    assert_allclose(loaded.intercept_, model.intercept_, rtol=1e-6)
    assert_allclose(loaded.predict(X), model.predict(X), rtol=1e-5, atol=1e-5)
    assert_allclose(loaded.score(X, Y), model.score(X, Y), rtol=1e-5, atol=1e-5)
    assert loaded.route_ == model.route_ and loaded.n_features_in_ == model.n_features_in_
    assert loaded.n_constant_targets_ == model.n_constant_targets_
    for file in folder.iterdir():
        assert file.suffix in (".npy", ".json")
        if file.suffix == ".npy":
            assert np.load(file, allow_pickle=False).dtype != object
    return loaded


@every_route
def test_save_and_load(options, tmp_path):
    X, Y = signal()
    model = RidgeCV([0.1, 10.0], scoring="r2", **options).fit(X, Y)
    loaded = assert_same_after_loading(model, tmp_path / "model", X, Y)
    # a dual model of an array in RAM is written by its primal coefficients
    assert loaded._linear.train is None and loaded._linear.coef.shape == (21, 6)
    loaded.save(tmp_path / "again")
    again = load(tmp_path / "again")
    assert_array_equal(again.coef_, loaded.coef_)
    assert str(again.plan_) == str(model.plan_) and again.took_ == model.took_


@pytest.mark.parametrize("standardize", [False, True])
@pytest.mark.parametrize("as_path", [False, True])
def test_save_and_load_dual_by_reference(as_path, standardize, tmp_path):
    X, Y = signal(n=20, p=60)
    path = memmapped(X, tmp_path)
    data = path if as_path else np.load(path, mmap_mode="r")
    model = RidgeCV(solver="dual", cv=3, standardize=standardize).fit(data, Y)
    loaded = assert_same_after_loading(model, tmp_path / "model", X, Y)
    assert_array_equal(loaded.dual_coef_, model.dual_coef_)
    # the training data are needed, and have to be what they were
    np.save(path, X[:, :-1])
    with pytest.raises(StorageError, match="20, 59"):
        load(tmp_path / "model")
    path.unlink()
    with pytest.raises(StorageError, match="gone"):
        load(tmp_path / "model")


@pytest.mark.parametrize("cut", [np.s_[10:], np.s_[::-1], np.s_[:, 1:]])
def test_part_of_a_file_is_not_taken_for_the_file(cut, tmp_path):
    X, Y = signal(n=30, p=60)
    view = np.load(memmapped(X, tmp_path), mmap_mode="r")[cut]
    model = RidgeCV(solver="dual", cv=3).fit(view, Y[: len(view)])
    assert_same_after_loading(model, tmp_path / "model", view, Y[: len(view)])


def test_save_refuses_an_existing_folder(tmp_path):
    model = RidgeCV().fit(*signal())
    (tmp_path / "model").mkdir()
    with pytest.raises(StorageError, match="exists already"):
        model.save(tmp_path / "model")
    assert list((tmp_path / "model").iterdir()) == []


def test_damaged_model_is_refused(tmp_path):
    RidgeCV().fit(*signal()).save(tmp_path / "model")
    coef = tmp_path / "model" / "coef.npy"
    coef.write_bytes(coef.read_bytes()[:-1] + b"\x55")
    with pytest.raises(StorageError, match="checksum"):
        load(tmp_path / "model")
    with pytest.raises(StorageError, match="nothing' does not exist"):
        load(tmp_path / "nothing")
