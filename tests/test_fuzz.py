"""Whatever arguments and files hold: a right answer, or a ridgemm error of one line.

The line names the argument or the path. No other exception, no warning and no silent NaN leaves a
call. What fuzzing found first stands as cases of its own at the end.
"""

import functools
import io
import json
import re
import shutil
import tempfile
import warnings
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy import sparse
from sklearn.model_selection import GroupKFold, KFold, ShuffleSplit, TimeSeriesSplit

from ridgemm import RidgeCV, RidgemmError, load, permutation_test, plan
from tests import naive, strategies
from tests.strategies import seeds

# CI tries each number of cases as it stands; ``-m slow`` ten times as many
TIMES = pytest.mark.parametrize(
    "times", [1, pytest.param(10, marks=pytest.mark.slow)], ids=["short", "long"]
)
LARGEST = 1e15
LIMIT = "400MB"


def fuzz(check, n_cases, **drawn):
    """Try ``check`` on `n_cases` cases."""
    options = settings(
        max_examples=n_cases,
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.large_base_example],
    )
    options(given(**drawn)(check))()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Where all cases of the module put their files, temporary ones included."""
    folder = tmp_path_factory.mktemp("fuzz")
    before, tempfile.tempdir = tempfile.tempdir, str(folder)
    yield folder
    tempfile.tempdir = before


@pytest.fixture(autouse=True)
def _quick_disk(monkeypatch):
    # no case pulls the plug: waiting for the disk would be most of the time
    monkeypatch.setattr("os.fsync", lambda descriptor: None)


def new_folder(folder):
    return Path(tempfile.mkdtemp(dir=folder))


def check_message(error, names):
    """The message is one line and has one of the names as a word."""
    message = str(error)
    assert message.strip() and len(message.splitlines()) == 1, repr(message)
    found = [name for name in names if re.search(rf"(?<!\w){re.escape(str(name))}(?!\w)", message)]
    assert found, f"names none of {sorted(map(str, names))}: {message}"


def outcome(names, function, *args, **kwargs):
    """What a call returns, or None if it was refused in words that name one of `names`."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        # said, and then no error of ours: `assert_right` asks for no more than it says
        warnings.filterwarnings("ignore", "dual coefficients are float32", RuntimeWarning)
        try:
            return function(*args, **kwargs)
        except RidgemmError as error:
            check_message(error, names)
            return None


# Odd values --------------------------------------------------------------------------------


class Odd(NamedTuple):
    """A value made anew for every case, and what it is called where a case is printed."""

    name: str
    make: Any

    def __repr__(self):
        return self.name


def odd(**makers):
    """A strategy of values that are made by functions."""
    return st.sampled_from([Odd(name, make) for name, make in makers.items()])


def value_of(argument):
    return argument.make() if isinstance(argument, Odd) else argument


class Foreign:
    """An object with shape, dtype and 2-D slicing, and nothing else."""

    def __init__(self, array, **attributes):
        self.array, self.shape, self.dtype = array, array.shape, array.dtype
        vars(self).update(attributes)

    def __getitem__(self, where):
        return self.array[where]


def _square(rows=8):
    return np.random.default_rng(0).standard_normal((rows, 8))


NO_MATRIX = odd(
    none=lambda: None,
    number=lambda: 3,
    text=lambda: "text",
    empty_text=lambda: "",
    missing=lambda: "missing.npy",
    nul=lambda: "a\0b.npy",
    newline=lambda: "a\nb.npy",
    long_path=lambda: "a" * 5000 + ".npy",
    folder_path=lambda: Path("."),
    raw=lambda: b"bytes",
    empty=lambda: [],
    ragged=lambda: [[1.0], [2.0, 3.0]],
    mixed=lambda: [[1.0, "a"], [2.0, None]],
    huge_integers=lambda: [[10**400, 1], [2, 3]],
    nested=lambda: [[[1.0]]],
    mapping=lambda: {"a": [1.0]},
    a_set=lambda: {1.0, 2.0},
    generator=lambda: (row for row in _square()),
    function=lambda: len,
    sparse=lambda: sparse.eye(8, format="csr"),
    masked=lambda: np.ma.masked_array(_square(), mask=_square() > 1),
    archive=lambda: np.lib.npyio.NpzFile(io.BytesIO(_zipped())),
    no_shape=lambda: Foreign(_square(), shape=None),
    shape_of_text=lambda: Foreign(_square(), shape=("a", "b")),
    shape_of_nan=lambda: Foreign(_square(), shape=(np.nan, 8)),
    negative_shape=lambda: Foreign(_square(), shape=(-8, 8)),
    unknown_dtype=lambda: Foreign(_square(), dtype="torch.float32"),
    dtype_of_another_library=lambda: Foreign(_square(), dtype=object()),
)
DTYPES = (*strategies.DTYPES, "bool", "int64", "uint64", "uint32", ">f4", ">f8", ">i2", "object")
NO_DTYPES = (
    "complex64",
    "complex128",
    "U3",
    "S3",
    "V4",
    "M8[s]",
    "m8[ns]",
    "longdouble",
    "f4,i4",
    "(2,)f4",
)
LAYOUTS = ("C", "F", "strided", "reversed", "unaligned", "one row", "one column", "list", "foreign")
SCALES = (*[1.0] * 9, 1e-3, 1e6, 1e-30, 1e-42, 1e-300, 1e12, 1e30, 1e38)
SPECIAL = (np.nan, np.inf, -np.inf, 1e300, -1e39, 1e30, 3.4e38, 5e-324, 0.0)


def _zipped():
    buffer = io.BytesIO()
    np.savez(buffer, a=_square())
    return buffer.getvalue()


def lay_out(A, layout):
    """The values of A, or of one row or column of it, in memory as `layout` says."""
    if layout == "F":
        return np.asfortranarray(A)
    if layout == "strided":
        return np.repeat(np.repeat(A, 2, axis=0), 3, axis=1)[::2, ::3]
    if layout == "reversed":
        return np.ascontiguousarray(A[::-1, ::-1])[::-1, ::-1]
    if layout == "unaligned":
        moved = np.zeros(A.nbytes + 1, np.uint8)[1:].view(A.dtype).reshape(A.shape)
        moved[...] = A
        return moved
    if layout == "one row":
        return np.broadcast_to(A[:1], A.shape)
    if layout == "one column":
        return np.broadcast_to(A[:, :1], A.shape)
    if layout == "list":
        return A.tolist()
    return Foreign(A) if layout == "foreign" else A


class Matrix(NamedTuple):
    """A source, the float64 values that it stands for, and whether they are of one magnitude."""

    data: Any
    values: np.ndarray | None
    even: bool

    def __repr__(self):
        dtype = getattr(self.data, "dtype", type(self.data).__name__)
        return f"Matrix({dtype}, {getattr(self.data, 'shape', '')}, {self.values!r})"

    @property
    def usable(self):
        """Whether a float32 engine can hold all values."""
        return self.values is not None and bool((np.abs(self.values) <= LARGEST).all())


@st.composite
def matrices(draw, n, columns=None):
    """Matrices of `n` rows, and perhaps of so many columns, as a rule; good and bad."""
    kind = draw(st.sampled_from(("good",) * 20 + ("shape", "dtype", "no matrix")), label="kind")
    if kind == "no matrix":
        return Matrix(value_of(draw(NO_MATRIX)), None, False)
    if kind == "shape":
        sizes = st.sampled_from((n, 0, 1, 2, 3, n + 1))
        shape = tuple(draw(st.lists(sizes, max_size=4)))
    else:
        some = st.integers(1, 5) | st.integers(6, 30)
        shape = (n, draw(some if columns is None else st.just(columns), label="columns"))
    dtype = draw(st.sampled_from(NO_DTYPES if kind == "dtype" else DTYPES), label="dtype")
    rng = np.random.default_rng(draw(seeds(), label="seed"))
    scale = draw(st.sampled_from(SCALES), label="scale")
    with np.errstate(all="ignore"):
        A = np.asarray(scale * rng.standard_normal(shape))
    even = draw(st.booleans(), label="of one magnitude") or A.ndim != 2 or not A.size
    if not even:
        for value in draw(st.lists(st.sampled_from(SPECIAL), max_size=3)):
            A[rng.integers(shape[0]), rng.integers(shape[1])] = value
        if draw(st.booleans(), label="constant columns"):
            A[:, rng.random(shape[1]) < 0.5] = draw(st.sampled_from((0.0, 1.0, -7.5)))
    A = _stored(A, dtype, rng)
    if A.ndim != 2 or not A.size or kind == "dtype":
        return Matrix(A, None, False)
    layout = draw(st.sampled_from(LAYOUTS), label="layout")
    if layout == "unaligned" and A.dtype == object:
        layout = "C"  # references are always aligned
    if layout in ("one row", "one column"):
        A = np.array(lay_out(A, layout))
    data = lay_out(A, layout)
    with np.errstate(all="ignore"):
        return Matrix(data, np.asarray(A, dtype=np.float64), even)


def _stored(A, dtype, rng):
    """A as `dtype`; integers of 64 bits fill their whole range."""
    dtype = np.dtype(dtype)
    if dtype.kind in "USVMm" or dtype.names or dtype.subdtype:
        return np.zeros(A.shape, dtype)
    with np.errstate(all="ignore"):
        if dtype.kind not in "iu":
            return A.astype(dtype)
        limits = np.iinfo(dtype)
        if dtype.itemsize == 8:
            return rng.integers(limits.min, limits.max, A.shape, dtype, endpoint=True)
        return np.rint(20 * np.nan_to_num(A)).clip(limits.min, limits.max).astype(dtype)


# Right answers -----------------------------------------------------------------------------


def assert_finite(model):
    for name in ("coef_", "intercept_", "alpha_", "best_score_", "cv_scores_"):
        assert np.all(np.isfinite(getattr(model, name))), f"{name} is not finite"
    assert np.all(np.isin(model.alpha_, np.asarray(model.alphas, dtype=np.float64)))


def assert_right(model, X, Y):
    """Coefficients and predictions are those of the reference at the alphas of the model."""
    alpha = np.broadcast_to(model.alpha_, Y.shape[1])
    flags = bool(model.fit_intercept), bool(model.standardize)
    coef, intercept = naive.ridge(X, Y, alpha, *flags)
    y = Y - Y.mean(axis=0) if flags[0] else Y
    # float32 has no digits below its smallest normal number
    size = 1e-4 * np.linalg.norm(y, axis=0) + 1e-6 * np.linalg.norm(Y, axis=0) + 1e-37
    x_size = max(np.abs(X).max(), 1e-37)
    scale = 1.0
    if flags[1]:
        sd = X.std(axis=0)
        scale = np.where(np.ptp(X, axis=0) == 0, 1.0, sd)
    if model.route_.startswith("dual"):
        # what the rounding of dual coefficients makes of predictions, see docs/numerics.rst
        x = (X - X.mean(axis=0) if any(flags) else X) / scale
        unit = max(np.abs(x).max(), 1e-37)
        w = np.linalg.svd(x / unit, compute_uv=False) ** 2
        w = w[w > 1e-13 * w.max()]
        ratio = 6e-8 * w.max() / (w.min() + alpha / unit**2) if len(w) else 0.0
        size = size * (1 + 1e4 * ratio)
    with np.errstate(over="ignore"):
        slack = (size / (2 * np.sqrt(alpha)))[:, None] / scale
    slack = slack + 1e-3 * np.abs(coef).max(axis=1, keepdims=True)
    assert np.all(np.abs(model.coef_ - coef) <= slack), "coef_ is wrong"
    exact = naive.predict(X, coef, intercept)
    # predictions of features of large mean are differences of large numbers
    slack = 10 * size + 1e-5 * np.abs(coef).max(axis=1) * x_size
    found = model.predict(X)
    assert np.all(np.abs(found - exact) <= slack), "predictions are wrong"


# Data of a fit -----------------------------------------------------------------------------


@st.composite
def data(draw):
    """X and Y; Y has another number of rows at times."""
    n = draw(st.integers(8, 24) | st.integers(0, 7), label="n_samples")
    X = draw(matrices(n), label="X")
    m = draw(st.sampled_from((n,) * 12 + (n + 1, 1)), label="rows of Y")
    return X, draw(matrices(m), label="Y")


@st.composite
def plain_parameters(draw):
    """Parameters that suit any problem of 8 rows."""
    return dict(
        alphas=(0.5, 20.0),
        cv=draw(st.sampled_from((2, 3, "loo", "gcv"))),
        scoring=draw(st.sampled_from(("r2", "neg_mean_squared_error"))),
        solver=draw(st.sampled_from(("auto", "auto", "primal", "svd", "dual"))),
        alpha_per_target=draw(st.booleans()),
        fit_intercept=draw(st.booleans()),
        memory_limit=LIMIT,
    )


@TIMES
def test_data(times, folder):
    def check(data, parameters):
        X, Y = data
        model = RidgeCV(**parameters)
        fitted = outcome(("X", "Y", "cv", "scoring", "solver"), model.fit, X.data, Y.data)
        if fitted is None:
            return
        if Y.values is None and np.ndim(Y.data) == 1:
            # one target without an axis for it
            Y = Y._replace(values=np.asarray(Y.data, np.float64)[:, None])
        assert X.usable and Y.usable, "unusable values were taken"
        assert len(X.values) == len(Y.values)
        assert_finite(model)
        if X.even and Y.even:
            assert_right(model, X.values, Y.values)

    fuzz(check, 500 * times, data=data(), parameters=plain_parameters())


@TIMES
def test_good_data_are_taken(times, folder):
    def check(problem, parameters):
        X, Y, _ = problem
        if len(X) < 8 or parameters["cv"] != 2 or parameters["solver"] in ("primal", "svd"):
            parameters = {**parameters, "cv": 2, "solver": "auto"}
        model = RidgeCV(**parameters).fit(X, Y)
        assert_finite(model)
        assert_right(model, np.asarray(X, float), np.asarray(Y, float))

    fuzz(
        check, 60 * times, problem=strategies.problems(raised=False), parameters=plain_parameters()
    )


@TIMES
@pytest.mark.parametrize("solver", ["primal", "dual"])
def test_predict_and_score(solver, times, folder):
    rng = np.random.default_rng(0)
    X, Y = rng.standard_normal((12, 5)), rng.standard_normal((12, 3))
    model = RidgeCV(cv=2, solver=solver, memory_limit=LIMIT).fit(X, Y)
    outs = odd(
        list=lambda: [[0.0] * 3] * 8,
        integers=lambda: np.zeros((8, 3), np.int32),
        scores=lambda: np.full(3, 7.0),
        whole_scores=lambda: np.full(3, 7, np.int64),
        short_scores=lambda: np.zeros(2),
        read_only=lambda: np.broadcast_to(np.float32(0), (8, 3)),
        read_only_scores=lambda: np.broadcast_to(0.0, 3),
        text=lambda: "out",
        good=lambda: np.full((8, 3), 7, np.float32),
        words=lambda: np.array(["a", "b", "c"]),
        a_tuple=lambda: (0.0, 0.0, 0.0),
    )

    def check(X, Y, out):
        where = value_of(out)
        found = outcome(("X", "out"), model.predict, X.data, out=where)
        if found is not None:
            assert X.usable and found.dtype in (np.float32, np.float64)
            assert np.isfinite(found).all()
            exact = naive.predict(X.values, model.coef_, model.intercept_)
            slack = 1e-5 * (1 + np.abs(X.values).sum(axis=1, keepdims=True))
            assert np.all(np.abs(found - exact) <= slack)
            assert where is None or found is where
        where = value_of(out)
        found = outcome(("X", "Y", "out"), model.score, X.data, Y.data, out=where)
        if found is not None:
            assert X.usable and Y.usable and np.isfinite(found).all()
            assert np.asarray(found).dtype.kind == "f"
            assert where is None or found is where
            # beside offsets of 1, float32 keeps no variation of less than 1e-7
            if X.even and Y.even and np.ptp(Y.values, axis=0).min() > 1e-4:
                exact = naive.predict(X.values, model.coef_, model.intercept_)
                ref = naive.score(Y.values, exact, "r2")
                assert np.all(np.abs(found - ref) <= 1e-3 * (1 + np.abs(ref)))

    fuzz(check, 75 * times, X=matrices(8, 5), Y=matrices(8, 3), out=st.none() | outs)


# Parameters of a fit -----------------------------------------------------------------------

N, P, T = 16, 4, 3


@functools.cache
def plain():
    """A plain problem with signal."""
    rng = np.random.default_rng(1)
    X = rng.standard_normal((N, P)) + 1
    return X, X @ rng.standard_normal((P, T)) + rng.standard_normal((N, T))


class _Indices(NamedTuple):
    """What fills a broken index pair."""

    train: Any
    test: Any


_ROWS = (
    st.lists(st.integers(-2, N + 1), max_size=N + 2)
    | st.lists(st.sampled_from((0.0, 1.5, np.nan, "a", None, True, 10**30)), max_size=4)
    | st.lists(st.booleans(), min_size=N, max_size=N)
    | st.sets(st.integers(0, N - 1), min_size=2, max_size=N - 2).map(sorted)
    | st.sampled_from((np.arange(4, dtype=np.uint64), np.zeros((2, 2), int), 3, "rows", None))
)
INDEX_PAIRS = st.lists(st.tuples(_ROWS, _ROWS) | st.tuples(_ROWS), max_size=3)

NAMES = (0, 1, "", "Auto", "text", ["r2"], (), np.nan, b"r2", len)
NAMES = (*map(st.just, NAMES), odd(arrays=lambda: np.array(["r2", "auto"])), st.none())
CVS = st.one_of(
    st.sampled_from((0, 1, -3, 2.5, N, N + 1, 10**6, 10**30, True, np.nan, "kfold", "", "5", ())),
    st.sampled_from((np.int8(2), np.int64(0), np.float64(3), "loo", "gcv", 2, 3, b"loo")),
    st.none(),
    INDEX_PAIRS,
    odd(
        a_class=lambda: KFold,
        too_many=lambda: KFold(N + 1),
        good=lambda: KFold(2),
        groups=lambda: GroupKFold(2),
        random=lambda: ShuffleSplit(2, test_size=0.5, random_state=0),
        time=lambda: TimeSeriesSplit(3),
        none_at_all=lambda: iter(()),
        generator=lambda: (pair for pair in KFold(2).split(np.zeros(N))),
        array=lambda: np.arange(N).reshape(1, 2, -1),
        arrays=lambda: np.arange(2 * N).reshape(2, 2, -1) % N,
        floats=lambda: np.zeros((2, 2, 4)),
        mapping=lambda: {"train": [0, 1], "test": [2, 3]},
        numbers=lambda: range(3),
        thing=object,
        text_pairs=lambda: ["ab", "cd"],
    ),
)
FOLDERS = odd(
    in_file=lambda: Path(__file__) / "cache",
    number=lambda: 3,
    true=lambda: True,
    nothing=lambda: [],
    nul=lambda: "a\0b",
    too_long=lambda: "a" * 5000,
    raw=lambda: b"cache",
    thing=object,
    nan=lambda: np.nan,
)
GROUPS = st.one_of(
    st.sampled_from((3, "text", b"raw", np.nan)),
    odd(
        empty=lambda: [],
        short=lambda: np.arange(N - 1),
        long=lambda: np.arange(N + 1),
        square=lambda: np.zeros((N, N)),
        ragged=lambda: [[1]] * (N - 1) + [[1, 2]],
        of_nan=lambda: np.full(N, np.nan),
        one_nan=lambda: np.r_[np.nan, np.arange(N - 1) // 4],
        of_none=lambda: [None] * N,
        mixed=lambda: [1, "a"] * (N // 2),
        mixed_objects=lambda: np.array([1, "a"] * (N // 2), dtype=object),
        words=lambda: ["a", "b", "c", "d"] * (N // 4),
        dates=lambda: np.arange(N).astype("M8[D]") - np.arange(N) % 4,
        no_date=lambda: np.full(N, "NaT", "M8[D]"),
        complex=lambda: np.arange(N) % 4 + 0j,
        pairs=lambda: np.zeros(N, "i4,i4"),
        one=lambda: np.zeros(N, int),
        each=lambda: np.arange(N),
        good=lambda: np.arange(N) // 4,
        infinite=lambda: np.r_[np.inf, -np.inf, np.arange(N - 2) // 4],
        huge=lambda: [10**30 * (i % 4) for i in range(N)],
        mapping=lambda: {"a": 1},
        generator=lambda: (i % 4 for i in range(N)),
        of_a_set=lambda: {1, 2},
    ),
)
FLAGS = st.sampled_from((None, 0, 1, "no", "", 2.5, np.True_, [], [0], np.nan))
N_JOBS = st.one_of(
    st.sampled_from((0, 2.5, 1.0, True, False, "2", "", -(10**20), 10**20, np.nan, [1])), st.none()
)
PARAMETERS = {
    "alphas": st.one_of(
        st.lists(st.sampled_from((0.0, -1.0, np.nan, np.inf, 1.0, 1e308, 5e-324)), max_size=3),
        st.sampled_from((None, "many", "1", ["a"], ["1", "2"], 3.0, True, b"1", 1j, [1j], [None])),
        odd(
            square=lambda: [[1.0], [2.0]],
            ragged=lambda: [[1.0], [2.0, 3.0]],
            words=lambda: np.full((9, 9), "x"),
            long_words=lambda: np.full(5000, "x"),
            complex_array=lambda: np.array([1 + 2j]),
            huge_integer=lambda: [10**400],
            large_integer=lambda: [10**30],
            a_set=lambda: {1.0},
            generator=lambda: (a for a in (1.0, 2.0)),
            scalar=lambda: np.array(2.0),
            dates=lambda: np.arange(1, 4).astype("M8[s]"),
            spans=lambda: np.arange(1, 4).astype("m8[s]"),
            half=lambda: np.array([6e-8, 6e4], np.float16),
            objects=lambda: np.array([1.0, 2], dtype=object),
            structured=lambda: np.ones(2, "f4,f4"),
            masked=lambda: np.ma.masked_array([1.0, 2.0], mask=[0, 1]),
            sparse=lambda: sparse.eye(2, format="csr"),
            wide=lambda: np.logspace(-300, 300, 13),
            mapping=lambda: {"a": 1},
            thing=object,
        ),
    ),
    "cv": CVS,
    "scoring": st.one_of(*NAMES),
    "solver": st.one_of(
        *NAMES,
        st.sampled_from(("primal-loo", "dual-trace", "svd-products", "primal-statistics", "dual")),
    ),
    "memory_limit": st.one_of(
        st.sampled_from((-1, 0, 0.5, 1, 2**70, 10**400, np.nan, np.inf, -np.inf, 1j, True, [1])),
        st.sampled_from(("0", "-1GB", "1 parsec", "", "1e9", "GB", "1KB", "49MB", "9" * 400)),
        st.sampled_from(
            (np.float32(4e8), np.int32(-5), b"1GB", "\uff11GB", "1\nGB", "0.4gb", ".4 GB")
        ),
        odd(array=lambda: np.array(4e8), arrays=lambda: np.array([4e8, 1]), thing=object),
    ),
    "n_jobs": N_JOBS,
    "cache_dir": FOLDERS,
    "verbose": st.sampled_from((None, "yes", -1, 0.5, np.nan, [], 0)),
    "alpha_per_target": FLAGS,
    "fit_intercept": FLAGS,
    "standardize": FLAGS,
    "groups": GROUPS,
}


@st.composite
def one_parameter(draw, parameters):
    """An argument and an odd value of it."""
    name = draw(st.sampled_from(sorted(parameters)), label="parameter")
    return name, draw(parameters[name], label=name)


def check_fit(arguments, names, folder):
    """Fit the plain problem with some arguments."""
    X, Y = plain()
    arguments = {name: value_of(argument) for name, argument in arguments.items()}
    groups = arguments.pop("groups", None)
    options = {"alphas": (0.5, 20.0), "cv": 2, "memory_limit": LIMIT, **arguments}
    model = RidgeCV(**options)
    if outcome(names, model.fit, X, Y, groups) is None:
        return
    assert_finite(model)
    assert_right(model, X, Y)


@TIMES
def test_one_parameter(times, folder):
    def check(parameter):
        name, argument = parameter
        check_fit({name: argument}, [name], folder)

    fuzz(check, 450 * times, parameter=one_parameter(PARAMETERS))


@TIMES
def test_several_parameters(times, folder):
    def check(parameters):
        check_fit(dict(parameters), dict(parameters), folder)

    several = st.lists(one_parameter(PARAMETERS), min_size=2, max_size=4, unique_by=lambda p: p[0])
    fuzz(check, 150 * times, parameters=several)


# Permutation tests and plans ---------------------------------------------------------------

NULLS = {
    "cv": CVS,
    "groups": GROUPS,
    "scheme": st.one_of(
        *NAMES,
        st.sampled_from(("free", "within", "whole", "circular", "sign")),
        odd(
            good=lambda: np.array([np.random.default_rng(i).permutation(N) for i in range(9)]),
            floats=lambda: np.tile(np.arange(float(N)), (3, 1)),
            small=lambda: np.tile(np.arange(N, dtype=np.uint8), (3, 1)),
            no_permutation=lambda: np.zeros((3, N), int),
            negative=lambda: np.tile(np.arange(N) - 1, (3, 1)),
            short=lambda: np.tile(np.arange(N - 1), (3, 1)),
            vector=lambda: np.arange(N),
            none_at_all=lambda: np.empty((0, N), int),
            ragged=lambda: [[0, 1], [1]],
            flags=lambda: np.ones((3, N), bool),
            huge=lambda: np.full((2, N), 2**63, np.uint64),
            objects=lambda: np.tile(np.arange(N), (3, 1)).astype(object),
            list_of_lists=lambda: [list(range(N))[::-1]] * 2,
            thing=object,
        ),
    ),
    "n_permutations": st.one_of(
        st.sampled_from((0, -1, 1, 2, 19.0, 1e3, "9", True, np.nan, np.int64(7), np.uint8(5), [9])),
        st.sampled_from((-(10**30), np.float32(9), 9j)),
        st.none(),
    ),
    "random_state": st.one_of(
        st.sampled_from((-1, 1.5, "a", 10**30, np.int64(3), np.nan, True, [1, 2], "", -(10**30))),
        st.none(),
        odd(generator=lambda: np.random.default_rng(0), seed=lambda: np.random.RandomState(0)),
    ),
    "null": st.one_of(*NAMES, st.just("heldout")),
    "two_sided": FLAGS,
    "missing": st.one_of(*NAMES, st.just("skip")),
    "min_shift": st.one_of(
        st.sampled_from((0, -1, 3, 9, 10**20, 1.5, np.nan, "a", np.int64(1), True, [1], 1j)),
        st.none(),
        odd(thing=object, array=lambda: np.arange(2)),
    ),
    "tail": st.one_of(*NAMES, st.just("gpd")),
    "stop": st.one_of(*NAMES, st.just("besag-clifford")),
    "keep_null": FLAGS,
    "n_jobs": N_JOBS.filter(lambda n_jobs: n_jobs is not None),
    "progress": st.sampled_from((None, False)),
    "out": FOLDERS,
}


def assert_valid(result):
    """p-values are shares of the permutations, and nothing is missing."""
    p, m = result.pvalues, result.n_permutations
    assert m >= 1 and np.all((p > 0) & (p <= 1))
    for name in ("scores", "pvalues_fdr", "pvalues_fwer", "null_max", "null_mean", "null_sd"):
        found = getattr(result, name)
        assert found is None or np.isfinite(found).all(), f"{name} is not finite"
    if result.fitted_tail is None:
        assert np.all(p >= 1 / (1 + m) - 1e-12)
    assert result.summary()


def check_null(arguments, names, folder):
    X, Y = plain()
    arguments = {name: value_of(argument) for name, argument in arguments.items()}
    options = {"cv": 2, "n_permutations": 19, "progress": False, **arguments}
    model = RidgeCV((0.5, 20.0), cv=2, memory_limit=LIMIT)
    result = outcome(names, permutation_test, model, X, Y, **options)
    if result is None:
        return
    assert_valid(result)
    if "cv" not in arguments:
        outer = naive.split(2, N, options.get("groups"))
        ref = naive.nested_scores(X, Y, model.alphas, outer, 2, "r2", groups=options.get("groups"))
        assert np.all(np.abs(result.scores - ref) <= 1e-3 * (1 + np.abs(ref)))


@TIMES
def test_one_argument_of_a_permutation_test(times, folder):
    def check(argument):
        name, value = argument
        check_null({name: value}, [name], folder)

    fuzz(check, 250 * times, argument=one_parameter(NULLS))


@TIMES
def test_several_arguments_of_a_permutation_test(times, folder):
    def check(arguments):
        check_null(dict(arguments), dict(arguments), folder)

    several = st.lists(one_parameter(NULLS), min_size=2, max_size=4, unique_by=lambda p: p[0])
    fuzz(check, 100 * times, arguments=several)


@TIMES
def test_data_of_a_permutation_test(times, folder):
    def check(data, missing, null):
        X, Y = data
        model = RidgeCV((0.5, 20.0), cv=2, memory_limit=LIMIT)
        options = dict(cv=2, n_permutations=9, missing=missing, null=null, progress=False)
        names = ("X", "Y", "cv", "scoring", "scheme")
        result = outcome(names, permutation_test, model, X.data, Y.data, **options)
        if result is None:
            return
        assert X.usable and Y.values is not None
        bad = ~(np.abs(Y.values) <= LARGEST).all(axis=0)
        assert missing == "skip" or not bad.any()
        for name in ("scores", "pvalues", "pvalues_fdr", "pvalues_fwer", "null_mean", "null_sd"):
            found = getattr(result, name)
            assert np.isfinite(found[~bad]).all(), f"{name} is not finite"
            assert name.startswith("null") or np.isnan(found[bad]).all()
        if not bad.all():
            assert np.isfinite(result.null_max).all()
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert result.summary()

    missing, null = st.sampled_from(("raise", "skip")), st.sampled_from(("refit", "heldout"))
    fuzz(check, 100 * times, data=data(), missing=missing, null=null)


PLANNED = {name: NULLS[name] for name in NULLS if name != "out"} | {
    "n_permutations": NULLS["n_permutations"] | st.sampled_from((10**18, 10**400)),
    "level": st.one_of(
        st.sampled_from((0, 1, -1, 0.5, 1e-300, 1 - 1e-16, np.nan, np.inf, "5%", [0.05], 1j, True)),
        st.none(),
    ),
}


def assert_sane(forecast):
    numbers = [*forecast.bytes.values(), *forecast.tiles.values(), forecast.seconds]
    assert all(0 <= number < np.inf for number in numbers)
    assert json.loads(json.dumps(forecast.as_dict(), allow_nan=False))["route"] == forecast.route
    assert str(forecast)


@TIMES
def test_plans_of_permutation_tests(times, folder):
    def check(argument):
        name, value = argument
        options = {"n_permutations": 19, "cv": 2, name: value_of(value)}
        model = RidgeCV((0.5, 20.0), cv=2, memory_limit=LIMIT)
        forecast = outcome([name], plan, model, *plain(), **options)
        if forecast is not None:
            assert_sane(forecast)

    fuzz(check, 150 * times, argument=one_parameter(PLANNED))


@TIMES
def test_plans_of_fits(times, folder):
    def check(parameter, data):
        name, value = parameter
        options = {"memory_limit": LIMIT, "cv": 2, name: value_of(value)}
        groups = options.pop("groups", None)
        X, Y = (matrix.data for matrix in data) if data is not None else plain()
        names = [name] if data is None else [name, "X", "Y", "cv", "scoring", "solver"]
        forecast = outcome(names, plan, RidgeCV(**options), X, Y, groups=groups)
        if forecast is not None:
            assert_sane(forecast)

    parameters = one_parameter(PARAMETERS)
    fuzz(check, 100 * times, parameter=parameters, data=st.none() | data())


# Files -------------------------------------------------------------------------------------


def npy(header, version=(1, 0), data=b"\0" * 512, magic=b"\x93NUMPY"):
    """Bytes of a ``.npy`` file with any header."""
    text = header.encode("latin1", "replace") if isinstance(header, str) else header
    length = len(text).to_bytes(2 if version[0] == 1 else 4, "little")
    return magic + bytes(version) + length + text + data


SHAPES = (
    "(16, 4)",
    "(10**9, 4)",
    "(4611686018427387904, 4)",
    "(1" + 40 * "0" + ", 2)",
    "(-16, 4)",
    "(16, -4)",
    "(0, 4)",
    "(True, 4)",
    "()",
    "16",
    "(16.0, 4)",
    "[16, 4]",
    "None",
    "('16', 4)",
    "(16, 4, 1)",
)
DESCRS = (
    "'<f8'",
    "'>f4'",
    "'|O'",
    "'O'",
    "'<c16'",
    "'|V8'",
    "'<M8[s]'",
    "'<U1'",
    "'|S0'",
    "'a8'",
    "'f'",
    "'float64'",
    "'nonsense'",
    "''",
    "None",
    "5",
    "[('a', '<f8')]",
    "[('a', '<f8'), ('a', '<f8')]",
    "[]",
    "['a']",
    "('<f8', (2,))",
    "()",
    "{'names': ['a'], 'formats': ['<f8']}",
    "'<f2'",
    "'<g16'",
    "b'<f8'",
    "'<f8,<f8'",
)
HEADERS = (
    "",
    "5",
    "[1]",
    "{}",
    "None",
    "'text'",
    "{'descr': '<f8'}",
    "{1: 2}",
    "{'descr': '<f8', 'fortran_order': False, 'shape': (16L, 4L)}",
    "{'descr': '<f8', 'fortran_order': False, 'shape': (16, 4), 'more': 1}",
    "{'descr': '<f8', 'fortran_order': 1, 'shape': (16, 4)}",
    "__import__('os')",
    "(" * 3000,
    "[" * 90 + "]" * 90,
    "-" * 9000 + "1",
    "{'descr': '\\d', 'fortran_order': False, 'shape': (16, 4)}",
    "{'descr': '<f8', 'fortran_order': False,\n'shape': (16, 4)",
    "  indented\n unindented",
    "'''",
    "\0",
    "0777",
    "1if 2else 3",
    "9" * 5000,
    "x" * 60000,
)


@st.composite
def npy_files(draw):
    """Bytes of ``.npy`` files, damaged in one way or another."""
    buffer = io.BytesIO()
    dtype = draw(st.sampled_from(("<f8", "<f4", "<i2")), label="dtype")
    A = np.asarray(plain()[0] * 10, order=draw(st.sampled_from("CF"))).astype(dtype)
    np.save(buffer, A)
    content = bytearray(buffer.getvalue())
    kind = draw(
        st.sampled_from(("cut", "flip", "magic", "version", "header", "fields", "object", "zip")),
        label="damage",
    )
    if kind == "cut":
        return bytes(content[: draw(st.integers(0, len(content)))])
    if kind == "flip":
        for place in draw(st.lists(st.integers(0, 130), min_size=1, max_size=3)):
            content[place] ^= draw(st.integers(1, 255))
        return bytes(content)
    if kind == "magic":
        return draw(st.binary(min_size=0, max_size=8) | st.just(b"\x80\x04")) + bytes(content[8:])
    if kind == "version":
        content[6:8] = draw(st.binary(min_size=2, max_size=2))
        return bytes(content)
    if kind == "object":
        buffer = io.BytesIO()
        np.save(buffer, np.array([[Trap()]], dtype=object), allow_pickle=True)
        return buffer.getvalue()
    if kind == "zip":
        return draw(st.sampled_from((_zipped(), _zipped()[:50], b"PK\x03\x04", b"PK\x05\x06")))
    version = draw(st.sampled_from(((1, 0), (2, 0), (3, 0))), label="version")
    if kind == "header":
        return npy(draw(st.sampled_from(HEADERS)), version)
    descr, shape = draw(st.sampled_from(DESCRS)), draw(st.sampled_from(SHAPES))
    order = draw(st.sampled_from(("False", "True", "None")))
    if draw(st.booleans(), label="only one field is odd"):
        descr, shape = draw(st.sampled_from(((descr, SHAPES[0]), (DESCRS[0], shape))))
    return npy(f"{{'descr': {descr}, 'fortran_order': {order}, 'shape': {shape}, }}", version)


class Trap:
    """What no load may ever run."""

    def __reduce__(self):
        return pytest.fail, ("a pickle was loaded",)


@TIMES
def test_damaged_npy_files(times, folder):
    path = new_folder(folder) / "data.npy"

    def check(content, name):
        path.write_bytes(content)
        X, Y = plain()
        data = (path, Y) if name == "X" else (X, path)
        model = RidgeCV((0.5, 20.0), cv=2, memory_limit=LIMIT)
        if outcome([name, str(path)], model.fit, *data) is None:
            return
        # read as NumPy does, every value of it usable
        values = np.load(path)
        assert values.shape[0] == N and values.dtype.kind in "biuf"
        assert values.ndim == 2 or (name == "Y" and values.ndim == 1)
        assert np.all(np.abs(values.astype(np.float64)) <= LARGEST)
        assert_finite(model)

    fuzz(check, 300 * times, content=npy_files(), name=st.sampled_from("XY"))


JSON = (None, True, 0, -1, 5, 1.5, float("nan"), 10**30, 10**400, "", "text", [], [1], {}, {"a": 1})


@st.composite
def damages(draw):
    """A function that damages JSON bytes: cuts them, flips some, or edits what they say."""
    kind = draw(st.sampled_from(("cut", "flip", "value", "value", "value", "key", "whole")))
    place = draw(st.integers(0, 10**6), label="place")
    value = draw(st.sampled_from(JSON), label="value")
    mask = draw(st.integers(1, 255), label="bits")

    def changed(content):
        if kind == "cut":
            return content[: place % len(content)]
        if kind == "flip":
            flipped = bytearray(content)
            flipped[place % len(content)] ^= mask
            return bytes(flipped)
        if kind == "whole":
            texts = ("null", "[]", "5", '"a"', "{}", "[" * 100_000, "\ufeff{}", "NaN", "")
            return texts[place % len(texts)].encode()
        tree = json.loads(content)
        spots = list(_spots(tree))
        holder, name = spots[place % len(spots)]
        if kind == "value":
            holder[name] = value
        else:
            del holder[name]
        return json.dumps(tree).encode()

    return Odd(f"{kind}, place {place}, value {str(value)[:20]}, bits {mask}", changed)


def _spots(tree):
    """Every (container, key) of a tree."""
    for name in list(tree) if isinstance(tree, dict) else range(len(tree)):
        yield tree, name
        if isinstance(tree[name], (dict, list)):
            yield from _spots(tree[name])


@pytest.fixture(scope="module")
def saved(folder):
    """Folders of a primal and a dual model and of a run, and what they predict or found."""
    base = new_folder(folder)
    X, Y = plain()
    np.save(base / "X.npy", X)
    models = {}
    for solver in ("primal", "dual"):
        model = RidgeCV((0.5, 20.0), cv=2, solver=solver, standardize=True, memory_limit=LIMIT)
        model.fit(base / "X.npy", Y).save(base / solver)
        models[solver] = model.predict(X)
    model = RidgeCV((0.5, 20.0), cv=2, memory_limit=LIMIT)
    options = dict(cv=2, n_permutations=19, keep_null=True, progress=False)
    result = permutation_test(model, X, Y, out=base / "run", **options)
    return base, models, (model, options, result)


@TIMES
@pytest.mark.parametrize("solver", ["primal", "dual"])
def test_damaged_models(solver, times, folder, saved):
    base, models, _ = saved
    copy = new_folder(folder) / "model"
    shutil.copytree(base / solver, copy)
    content = (copy / "manifest.json").read_bytes()
    X, _ = plain()

    def check(damage):
        (copy / "manifest.json").write_bytes(damage.make(content))
        names = [str(copy), "X"]
        model = outcome(names, load, copy)
        if model is None:
            return
        # parameters that it was fitted with are no part of a prediction
        found = outcome(["memory_limit"], model.predict, X)
        if found is not None:
            np.testing.assert_array_equal(found, models[solver])

    fuzz(check, 75 * times, damage=damages())


@TIMES
@pytest.mark.parametrize("solver", ["primal", "dual"])
def test_damaged_arrays_of_models(solver, times, folder, saved):
    base, *_ = saved
    names = sorted(path.name for path in (base / solver).glob("*.npy"))

    def check(name, place, bits):
        copy = new_folder(folder) / "model"
        shutil.copytree(base / solver, copy)
        content = bytearray((copy / name).read_bytes())
        if bits:
            content[place % len(content)] ^= bits
        else:
            content = content[: place % len(content)]
        (copy / name).write_bytes(content)
        assert outcome([str(copy / name)], load, copy) is None
        shutil.rmtree(copy)

    drawn = dict(name=st.sampled_from(names), place=st.integers(0, 10**6), bits=st.integers(0, 255))
    fuzz(check, 30 * times, **drawn)


@TIMES
def test_damaged_results(times, folder, saved):
    base, _, (_, _, result) = saved
    copy = new_folder(folder) / "run"
    shutil.copytree(base / "run", copy)
    content = (copy / "manifest.json").read_bytes()

    def check(damage):
        (copy / "manifest.json").write_bytes(damage.make(content))
        names = [str(copy)]
        found = outcome(names, load, copy)
        if found is not None:
            np.testing.assert_array_equal(found.pvalues, result.pvalues)
            np.testing.assert_array_equal(found.scores, result.scores)

    fuzz(check, 60 * times, damage=damages())


@TIMES
def test_damaged_requests(times, folder, saved):
    base, _, (model, options, result) = saved
    content = (base / "run" / "request.json").read_bytes()

    def check(damage, with_parts):
        copy = new_folder(folder) / "run"
        shutil.copytree(base / "run", copy)
        if not with_parts:
            for path in (copy / "parts").iterdir():
                path.unlink()
        (copy / "request.json").write_bytes(damage.make(content))
        names = ["out", str(copy)]
        found = outcome(names, permutation_test, model, *plain(), out=copy, **options)
        if found is not None:
            np.testing.assert_array_equal(found.pvalues, result.pvalues)
            np.testing.assert_array_equal(found.scores, result.scores)
        shutil.rmtree(copy)

    fuzz(check, 75 * times, damage=damages(), with_parts=st.booleans())


@TIMES
@pytest.mark.parametrize("null", ["refit", "heldout"])
def test_damaged_files_of_a_run(null, times, folder):
    base = new_folder(folder)
    model = RidgeCV((0.5, 20.0), cv=2, memory_limit=LIMIT)
    options = dict(cv=2, n_permutations=19, keep_null=True, null=null, progress=False)
    whole = permutation_test(model, *plain(), out=base / "run", **options)
    files = [path.relative_to(base / "run") for path in (base / "run").rglob("*.npy")]
    files = sorted(path for path in files if path.parent.name or path.name[:4] in ("null", "pred"))

    def check(name, place, bits, finished):
        copy = base / "copy"
        shutil.copytree(base / "run", copy)
        content = bytearray((copy / name).read_bytes())
        if bits:
            content[place % len(content)] ^= bits
        else:
            content = content[: place % len(content)]
        (copy / name).write_bytes(content)
        if not finished:
            # as a kill leaves it: the null is not all there
            for path in (copy / "parts").glob("null_*"):
                path.unlink()
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                # a damaged part is computed again, and the user told
                warnings.filterwarnings("ignore", ".* is damaged", RuntimeWarning)
                found = permutation_test(model, *plain(), out=copy, **options)
        except RidgemmError as error:
            check_message(error, ["out", str(copy), str(copy / name)])
        else:
            np.testing.assert_array_equal(found.scores, whole.scores)
            np.testing.assert_array_equal(found.pvalues, whole.pvalues)
            np.testing.assert_array_equal(found.null, whole.null)
        finally:
            shutil.rmtree(copy)

    drawn = dict(name=st.sampled_from(files), place=st.integers(0, 10**6), bits=st.integers(0, 255))
    fuzz(check, 30 * times, **drawn, finished=st.booleans())


FOLDER_NAMES = {
    "nul": "a\0b",
    "long": "a" * 5000,
    "number": 3,
    "none": None,
    "raw": b"raw",
    "in a file": Path(__file__) / "model",
    "file": Path(__file__),
    "existing": Path(__file__).parent,
}


@pytest.mark.parametrize("name", FOLDER_NAMES)
def test_folders_that_cannot_be_saved_to(name, folder):
    model = RidgeCV(cv=2, memory_limit=LIMIT).fit(*plain())
    assert outcome(["folder", str(FOLDER_NAMES[name])], model.save, FOLDER_NAMES[name]) is None


@pytest.mark.parametrize("name", FOLDER_NAMES)
def test_folders_that_cannot_be_loaded(name, folder):
    names = ["folder", str(FOLDER_NAMES[name]), repr(str(FOLDER_NAMES[name]))]
    assert outcome(names, load, FOLDER_NAMES[name]) is None


# Found by fuzzing --------------------------------------------------------------------------

FOUND_FITS = [
    dict(cache_dir=3),
    dict(cache_dir="a\0b"),
    dict(verbose=None),
    dict(cv=KFold),
    dict(cv=np.zeros((2, 2, 4))),
    dict(scoring=np.array(["r2", "auto"])),
    dict(solver=np.array(["r2", "auto"])),
    dict(alphas=[10**400]),
    dict(alphas=np.array([1 + 2j])),
    dict(alphas=np.full((9, 9), "x")),
    dict(groups=[[1]] * (N - 1) + [[1, 2]]),
    dict(groups=np.array([1, "a"] * (N // 2), dtype=object)),
    dict(groups=np.r_[np.inf, -np.inf, np.arange(N - 2) // 4]),
    dict(groups=np.arange(N) % 4 + 0j),
]
FOUND_NULLS = [
    dict(cv="loo"),
    dict(cv=KFold),
    dict(cv=N),
    dict(min_shift=np.int64(1)),
    dict(min_shift=None),
    dict(two_sided=np.True_),
    dict(keep_null=np.True_),
    dict(out=3),
    dict(out="a\0b"),
    dict(tail=np.array(["gpd", "gpd"])),
    dict(scheme=[[0, 1], [1]]),
    dict(n_jobs=10**20),
    dict(random_state=-1, null="heldout"),
    dict(random_state=1.5, null="heldout"),
    dict(random_state="a", null="heldout"),
]
FOUND_DATA = {
    "ragged": [[1.0], [2.0, 3.0]],
    "no shape": Foreign(_square(), shape=None),
    "unknown dtype": Foreign(_square(), dtype="torch.float32"),
    "long path": "a" * 5000 + ".npy",
    "large": np.random.default_rng(0).standard_normal((N, 3)).astype(np.float32) * 1e38,
    "largest integers": np.random.default_rng(0).integers(2**64, size=(N, 3), dtype=np.uint64),
}


@pytest.mark.parametrize("arguments", FOUND_FITS, ids=lambda arguments: next(iter(arguments)))
def test_found_in_fits(arguments, folder):
    check_fit(arguments, arguments, folder)


@pytest.mark.parametrize("arguments", FOUND_NULLS, ids=lambda arguments: next(iter(arguments)))
def test_found_in_permutation_tests(arguments, folder):
    check_null(arguments, arguments, folder)


def test_a_held_out_null_needs_a_seed(folder):
    # None would draw one that no second call could draw again
    X, Y = plain()
    options = dict(cv=2, n_permutations=9, null="heldout", random_state=None)
    model = RidgeCV((0.5, 20.0), cv=2, memory_limit=LIMIT)
    assert outcome(["random_state"], permutation_test, model, X, Y, **options) is None


@pytest.mark.parametrize("both", [False, True])
@pytest.mark.parametrize("name", FOUND_DATA)
def test_found_in_data(name, both, folder):
    X = FOUND_DATA[name]
    model = RidgeCV((0.5, 20.0), cv=2, memory_limit=LIMIT)
    if outcome(["X", "Y"], model.fit, X, X if both else plain()[1]) is not None:
        assert_finite(model)


def test_targets_below_normal_numbers(folder):
    X, Y = plain()
    model = RidgeCV((0.5, 20.0), cv=2, alpha_per_target=False, solver="dual-trace")
    if outcome(["Y"], model.set_params(memory_limit=LIMIT).fit, X, 1e-43 * Y) is not None:
        assert_finite(model)


def test_scores_are_not_cut_to_integers(folder):
    X, Y = plain()
    model = RidgeCV(cv=2, memory_limit=LIMIT).fit(X, Y)
    for out in (np.zeros(T, int), np.broadcast_to(0.0, T)):
        assert outcome(["out"], model.score, X, Y, out=out) is None


def test_a_saved_model_without_its_scale(folder, saved):
    # an entry that is gone from a manifest is damage too
    base, models, _ = saved
    copy = new_folder(folder) / "model"
    shutil.copytree(base / "dual", copy)
    manifest = json.loads((copy / "manifest.json").read_text())
    del manifest["files"]["scale.npy"]
    (copy / "manifest.json").write_text(json.dumps(manifest))
    model = outcome([str(copy)], load, copy)
    if model is not None:
        np.testing.assert_array_equal(model.predict(plain()[0]), models["dual"])
