"""What fit, predict and score refuse, and what the messages say."""

import re

import numpy as np
import pytest
from scipy import sparse
from sklearn.exceptions import NotFittedError

from ridgemm import RidgeCV
from ridgemm.errors import InputError, MemoryLimitError, RidgemmError, StorageError


def fit(X, Y):
    return RidgeCV().fit(X, Y)


@pytest.fixture
def problem():
    rng = np.random.default_rng(0)
    return rng.standard_normal((20, 4)), rng.standard_normal((20, 3))


def refuses(error, words, function, *args, **kwargs):
    """Call, and check the error and that its message has every one of `words`."""
    with pytest.raises(RidgemmError) as caught:
        function(*args, **kwargs)
    assert isinstance(caught.value, error)
    for word in words:
        assert str(word) in str(caught.value)
    return str(caught.value)


# -- data -----------------------------------------------------------------------------------


def test_errors_are_the_builtin_ones_too():
    assert issubclass(InputError, ValueError) and issubclass(MemoryLimitError, ValueError)
    assert issubclass(StorageError, OSError)


def test_shapes_that_disagree(problem):
    X, Y = problem
    refuses(InputError, ["X", "20", "Y", "19"], RidgeCV().fit, X, Y[:19])


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e300])
@pytest.mark.parametrize("name", ["X", "Y"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_unusable_values(problem, name, value, order):
    data = dict(zip("XY", problem, strict=True))
    # the first by rows is not the first by columns
    data[name][7, 1] = data[name][5, 2] = data[name][12, 0] = value
    data[name] = np.asarray(data[name], order=order)
    words = [f"{name} has 3 value", "row 5, column 2", value]
    refuses(InputError, words, fit, **data)


def test_unusable_value_far_from_the_first_block(problem):
    X, _ = problem
    Y = np.zeros((600, 2500), dtype=np.float32)
    Y[400, 2400] = Y[599, 0] = np.nan
    words = ["Y has 2 value", "row 400, column 2400"]
    refuses(InputError, words, RidgeCV().fit, np.resize(X, (600, 4)), Y)


@pytest.mark.parametrize("shape", [(0, 4), (20, 0)])
@pytest.mark.parametrize("name", ["X", "Y"])
def test_empty(problem, name, shape):
    data = {**dict(zip("XY", problem, strict=True)), name: np.empty(shape)}
    refuses(InputError, [f"{name} is empty", shape], fit, **data)


@pytest.mark.parametrize("name", ["X", "Y"])
def test_shape_of_no_matrix(problem, name):
    class Damaged:
        shape, dtype = (-20, 4), np.dtype(np.float64)

        def __getitem__(self, key):
            raise AssertionError("read before its shape was looked at")

    data = {**dict(zip("XY", problem, strict=True)), name: Damaged()}
    refuses(InputError, [f"{name} has shape (-20, 4)", "damaged"], fit, **data)


@pytest.mark.parametrize(
    ("name", "shape"), [("X", (20,)), ("X", (20, 2, 2)), ("X", ()), ("Y", (20, 2, 2)), ("Y", ())]
)
def test_not_a_matrix(problem, name, shape):
    data = {**dict(zip("XY", problem, strict=True)), name: np.ones(shape)}
    refuses(InputError, [f"{name} must be 2-D", shape], fit, **data)


@pytest.mark.parametrize("dtype", [complex, "U3", "S3", "M8[s]"])
@pytest.mark.parametrize("name", ["X", "Y"])
def test_dtype_is_not_a_real_number(problem, name, dtype):
    wrong = np.zeros((20, 2), dtype=dtype)
    data = {**dict(zip("XY", problem, strict=True)), name: wrong}
    refuses(InputError, [f"{name} has dtype {wrong.dtype}"], fit, **data)


@pytest.mark.parametrize("name", ["X", "Y"])
@pytest.mark.parametrize(("value", "error"), [("x", ValueError), ({}, TypeError)])
def test_objects_that_are_no_numbers(problem, name, value, error):
    wrong = np.ones((20, 2), dtype=object)
    wrong[3, 1] = value
    data = {**dict(zip("XY", problem, strict=True)), name: wrong}
    with pytest.raises(error):
        fit(**data)
    refuses(InputError, [f"{name} has dtype object", "number"], fit, **data)


@pytest.mark.parametrize("name", ["X", "Y"])
def test_sparse(problem, name):
    data = {**dict(zip("XY", problem, strict=True)), name: sparse.eye(20, format="csr")}
    refuses(InputError, [f"{name} is sparse", f"{name}.toarray()"], fit, **data)


# -- files ----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["missing", "folder", "damaged", "cut", "pickle", "text"])
@pytest.mark.parametrize("name", ["X", "Y"])
def test_paths(problem, name, kind, tmp_path):
    path = tmp_path / ("data.txt" if kind == "text" else "data.npy")
    if kind == "folder":
        path.mkdir()
    elif kind == "pickle":
        np.save(path, np.array([[{}]], dtype=object), allow_pickle=True)
    elif kind != "missing":
        np.save(path if kind != "text" else tmp_path / "other", np.ones((20, 4)))
    if kind == "damaged":
        path.write_bytes(b"\x00" * 16 + path.read_bytes()[16:])
    if kind == "cut":
        path.write_bytes(path.read_bytes()[:-8])
    data = {**dict(zip("XY", problem, strict=True)), name: path}
    refuses(InputError, [f"{name}={str(path)!r}", ".npy"], fit, **data)


@pytest.mark.parametrize("inside", [False, True])
def test_cache_folder_that_cannot_be_written(problem, inside, tmp_path):
    file = tmp_path / "file"
    file.write_text("")
    cache = file / "cache" if inside else file
    refuses(StorageError, ["cache_dir", repr(str(cache))], RidgeCV(cache_dir=cache).fit, *problem)


# -- parameters -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("alphas", "words"),
    [
        ([1.0, 0.0], ["0.0"]),
        ([-2.0], ["-2.0"]),
        ([1.0, np.nan], ["nan"]),
        ([np.inf], ["inf"]),
        ([], ["(0,)"]),
        ([[1.0], [2.0]], ["(2, 1)"]),
        ("many", ["'many'"]),
        (["1", "x"], ["'x'"]),
        (None, ["nan"]),
    ],
)
def test_alphas(problem, alphas, words):
    refuses(InputError, ["alphas", *words], RidgeCV(alphas).fit, *problem)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (dict(scoring="explained"), ["scoring", "'explained'"]),
        (dict(scoring=None), ["scoring", "None"]),
        (dict(cv="kfold"), ["cv", "'kfold'"]),
        (dict(cv=1.5), ["cv", "1.5"]),
        (dict(cv=None), ["cv", "None"]),
        (dict(cv=1), ["cv", "1 folds", "20 samples"]),
        (dict(cv=21), ["cv", "21 folds", "20 samples"]),
        (dict(cv=[]), ["cv", "no fold"]),
        (dict(cv=20, scoring="r2"), ["scoring", "'r2'", "2 test samples", "has 1"]),
        (dict(cv="loo", standardize=True), ["standardize", "'loo'"]),
        (dict(cv="gcv", scoring="correlation"), ["scoring", "'correlation'", "'gcv'"]),
        (dict(solver="cholesky"), ["solver", "'cholesky'"]),
        (dict(solver=None), ["solver", "None"]),
        (dict(solver="primal-loo"), ["solver", "'primal-loo'"]),
        (dict(solver="dual-trace"), ["solver", "'dual-trace'"]),
        (dict(solver="dual-products", cv="gcv"), ["solver", "'dual-products'"]),
        (dict(memory_limit="lots"), ["memory_limit", "'lots'"]),
        (dict(memory_limit="2 parsecs"), ["memory_limit", "'2 parsecs'"]),
        (dict(memory_limit=-1), ["memory_limit", "-1"]),
        (dict(memory_limit=0), ["memory_limit", "0"]),
        (dict(memory_limit=True), ["memory_limit", "True"]),
        (dict(memory_limit=float("nan")), ["memory_limit", "nan"]),
        (dict(memory_limit=[1]), ["memory_limit", "[1]"]),
        (dict(n_jobs=0), ["n_jobs", "0"]),
        (dict(n_jobs=1.5), ["n_jobs", "1.5"]),
        (dict(n_jobs="all"), ["n_jobs", "'all'"]),
    ],
    ids=lambda value: str(value) if isinstance(value, dict) else "",
)
def test_parameters(problem, options, words):
    refuses(InputError, words, RidgeCV(**options).fit, *problem)


@pytest.mark.parametrize(
    ("pair", "words"),
    [
        (([0, 1, 1], [2, 3]), ["twice"]),
        (([0, 1], [2, 2]), ["twice"]),
        (([0, 1], [2, 20]), ["2 to 20", "20 samples"]),
        (([-1, 1], [2, 3]), ["-1 to 1"]),
        (([], [2, 3]), ["(0,)"]),
        (([0, 1], []), ["(0,)"]),
        (([0.0, 1.0], [2, 3]), ["float64"]),
        (([0, 1], [2, 3], [4, 5]), ["fold 1"]),
        (3, ["fold 1"]),
    ],
)
def test_fold_pairs(problem, pair, words):
    cv = [(np.arange(10), np.arange(10, 20)), pair]
    refuses(InputError, ["cv", "fold 1", *words], RidgeCV(cv=cv).fit, *problem)


def test_groups(problem):
    refuses(InputError, ["groups", "(19,)", "20 samples"], RidgeCV().fit, *problem, np.ones(19))
    words = ["cv", "5 folds", "4 groups"]
    refuses(InputError, words, RidgeCV(cv=5).fit, *problem, np.arange(20) % 4)


# -- memory ---------------------------------------------------------------------------------


def at_least(message):
    """Bytes that a `MemoryLimitError` asks for."""
    return int(re.search(r"at least (\d+) bytes", message)[1])


@pytest.mark.parametrize("n_jobs", [1, 2])
@pytest.mark.parametrize(
    "solver", ["primal-statistics", "primal-products", "svd-products", "dual-products"]
)
def test_memory_limit_that_the_message_names_is_enough(problem, solver, n_jobs):
    model = RidgeCV(solver=solver, memory_limit="1MB", n_jobs=n_jobs)
    words = ["memory_limit=1.0 MB", solver, "20 samples x 4 features"]
    smallest = at_least(refuses(MemoryLimitError, words, model.fit, *problem))
    refuses(MemoryLimitError, [], model.set_params(memory_limit=smallest - 1).fit, *problem)
    model.set_params(memory_limit=smallest).fit(*problem)
    assert model.plan_.peak_bytes <= smallest


@pytest.mark.parametrize("options", [dict(solver=s) for s in ("auto", "primal", "svd", "dual")])
def test_smallest_memory_limit_of_a_larger_problem(options):
    X, Y = np.random.default_rng(0).standard_normal((2, 150, 400)).astype(np.float32)
    model = RidgeCV(memory_limit=1000, cv=3, **options)
    smallest = at_least(refuses(MemoryLimitError, [], model.fit, X[:, :90], Y))
    tight = model.set_params(memory_limit=smallest).fit(X[:, :90], Y)
    roomy = RidgeCV(cv=3, solver=tight.route_).fit(X[:, :90], Y)
    np.testing.assert_allclose(tight.cv_scores_, roomy.cv_scores_, atol=1e-4)


# -- predict and score ----------------------------------------------------------------------


def test_predict_refuses(problem):
    X, Y = problem
    model = RidgeCV().fit(X, Y)
    refuses(InputError, ["X has 3 features", "4"], model.predict, X[:, :3])
    for out in (np.empty((20, 2), np.float32), np.empty((20, 3), int), [[0.0] * 3] * 20):
        refuses(InputError, ["out", "(20, 3)", "float32"], model.predict, X, out=out)
    read_only = np.empty((20, 3), np.float32)
    read_only.flags.writeable = False
    refuses(InputError, ["out", "writable"], model.predict, X, out=read_only)
    refuses(InputError, ["X has 1 value", "row 2, column 3"], model.predict, with_nan(X))
    model.set_params(memory_limit=100)
    refuses(MemoryLimitError, ["20 samples x 3 targets", "out="], model.predict, X)


def with_nan(X):
    X = X.copy()
    X[2, 3] = np.nan
    return X


def test_score_refuses(problem):
    X, Y = problem
    model = RidgeCV().fit(X, Y)
    refuses(InputError, ["X has 3 features", "4"], model.score, X[:, :3], Y)
    refuses(InputError, ["Y has shape (20, 2)", "(20, 3)"], model.score, X, Y[:, :2])
    refuses(InputError, ["Y has shape (19, 3)", "(20, 3)"], model.score, X, Y[:19])
    refuses(InputError, ["out", "(3,)", "(2,)"], model.score, X, Y, out=np.empty(2))


@pytest.mark.parametrize("name", ["coef_", "intercept_", "dual_coef_"])
def test_not_fitted(problem, name, tmp_path):
    for use in (lambda m: getattr(m, name), lambda m: m.predict(problem[0])):
        with pytest.raises((NotFittedError, AttributeError)):
            use(RidgeCV())
    with pytest.raises(NotFittedError):
        RidgeCV().save(tmp_path / "model")
