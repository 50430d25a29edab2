"""Square matrices factored in place: NumPy's results, and the same bits in RAM and in files."""

import tempfile

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from ridgemm import RidgeCV, fitplan, lapack, nullplan, permutation_test
from ridgemm.eigen import EPS, eigenbasis, nuisance_first
from ridgemm.factors import FactorMaker
from ridgemm.lapack import Matrices, eigh, svd, triangle_of
from ridgemm.nuisance import make_nuisance
from ridgemm.sources import as_source
from ridgemm.store import MANIFEST, Store
from tests import strategies

SCALES = (1e-12, 1e-3, 1.0, 1e6, 1e20)
# the folder of a module serves all examples of a test
many = settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("matrices")


@st.composite
def factors(draw, full_rank=False):
    """(n, rank) matrices of order 1 to 40, their columns of a spread and a scale of their own."""
    n = draw(st.integers(1, 40), label="order")
    rank = n if full_rank else draw(st.integers(0, n), label="rank")
    scale = draw(st.sampled_from(SCALES), label="scale")
    spread = draw(st.sampled_from((0, 1, 3)), label="orders of magnitude")
    rng = np.random.default_rng(draw(strategies.seeds(), label="seed"))
    return scale * rng.standard_normal((n, rank)) * np.logspace(0, -spread, max(rank, 1))[:rank]


def both_ways(folder, A, function):
    """Call ``function(copy of A, matrices)`` in RAM and in files; the bits must agree.

    Returns the result and the overwritten copy.
    """
    found = []
    for matrices in (Matrices(), Matrices(folder)):
        copy = matrices.empty(A.shape)
        copy[...] = A
        found.append((function(copy, matrices), copy))
        # the name of a scratch file is gone at once
        assert list(folder.iterdir()) == []
    (ref, in_ram), (comp, in_file) = found
    assert_array_equal(in_ram, in_file)
    pairs = zip(ref, comp, strict=True) if isinstance(ref, tuple) else [(ref, comp)]
    for ours, theirs in pairs:
        assert_array_equal(ours, theirs)
    return ref, in_ram


# LAPACK ------------------------------------------------------------------------------------


@many
@given(B=factors(), indefinite=st.booleans())
def test_eigh(folder, B, indefinite):
    signs = np.where(indefinite & (np.arange(B.shape[1]) % 2 == 1), -1.0, 1.0)
    A = (B * signs) @ B.T
    eigenvalues, vectors = both_ways(folder, A, eigh)
    n, size = len(A), np.linalg.norm(A, 2)
    assert np.all(np.diff(eigenvalues) >= 0)
    assert_allclose(eigenvalues, np.linalg.eigvalsh(A), rtol=0, atol=10 * n * EPS * size)
    assert_allclose(vectors @ vectors.T, np.eye(n), rtol=0, atol=20 * n * EPS)
    rebuilt = (vectors.T * eigenvalues) @ vectors
    assert_allclose(rebuilt, A, rtol=0, atol=20 * n * EPS * size)


@many
@given(B=factors())
def test_triangle_of(folder, B):
    A = np.zeros((len(B), len(B)))
    A[:, : B.shape[1]] = B
    A = A @ np.linalg.qr(np.random.default_rng(len(A)).standard_normal(A.shape))[0]
    _, R = both_ways(folder, A, lambda A, _: triangle_of(A))
    assert_array_equal(R, np.triu(R))
    size = np.linalg.norm(A, 2)
    assert_allclose(R.T @ R, A.T @ A, rtol=0, atol=20 * len(A) * EPS * size**2)


@pytest.mark.parametrize("n", [1, 2, 7, 40])
def test_triangle_of_is_that_of_numpy(n):
    A = np.random.default_rng(n).standard_normal((n, n))
    R = A.copy()
    triangle_of(R)
    assert_allclose(np.abs(R), np.abs(np.linalg.qr(A, "r")), rtol=0, atol=1e-12)


@many
@given(B=factors(), n_more=st.integers(0, 60))
def test_triangle_of_a_tall_matrix(folder, B, n_more):
    # as a tiled QR has it: what is left of the blocks before, and a block
    A = np.concatenate([B, B[np.arange(n_more) % len(B)] / 2])
    n = A.shape[1]
    if n == 0:
        return
    _, spoilt = both_ways(folder, A, lambda A, _: triangle_of(A))
    R = spoilt[:n]
    assert_array_equal(R, np.triu(R))
    size = np.linalg.norm(A, 2)
    assert_allclose(R.T @ R, A.T @ A, rtol=0, atol=20 * len(A) * EPS * size**2)


@many
@given(B=factors())
def test_svd(folder, B):
    A = np.ascontiguousarray(B.T)
    if not len(A):
        return
    (singular, V), _ = both_ways(folder, A, svd)
    size = np.linalg.norm(A, 2)
    assert V.shape == A.shape and np.all(np.diff(singular) <= 0)
    ref = np.linalg.svd(A, compute_uv=False)
    assert_allclose(singular, ref, rtol=0, atol=20 * len(B) * EPS * size)
    assert_allclose(V @ V.T, np.eye(len(V)), rtol=0, atol=20 * len(B) * EPS)
    # what is left of A outside of the vectors, and their lengths
    assert_allclose((A @ V.T) @ V, A, rtol=0, atol=20 * len(B) * EPS * size)
    lengths = np.linalg.norm(A @ V.T, axis=0)
    assert_allclose(lengths, singular, rtol=0, atol=20 * len(B) * EPS * size)


def test_svd_beyond_the_integers_of_lapack(monkeypatch):
    A = np.random.default_rng(0).standard_normal((5, 9))
    ref = svd(A.copy(), Matrices())
    monkeypatch.setattr(lapack, "LARGEST_RANK", 4)
    for ours, theirs in zip(svd(A, Matrices()), ref, strict=True):
        assert_allclose(np.abs(ours), np.abs(theirs), rtol=0, atol=1e-12)


@pytest.mark.parametrize(("n", "block"), [(30, 4), (30, 7), (30, 40), (8, 3), (9, 2), (3, 64)])
def test_r_of_a_tiled_qr(n, block, tmp_path):
    rng = np.random.default_rng(0)
    X = rng.standard_normal((40, 8)) + 1e3
    source, shift = as_source(X, "X"), X.mean(axis=0).astype(np.float32)
    nuisance, store = make_nuisance(len(X), True, True), Store(tmp_path, False)
    maker = FactorMaker(source, shift, store, "", nuisance, True, block, tmp_path)
    rows = np.sort(rng.permutation(40)[:n])
    effects, scale, _ = maker._row_moments(rows)
    R = maker._triangle(rows, effects, scale)
    assert R.shape == (min(n, 8), 8)
    exact = (X[rows] - X[rows].mean(axis=0)) / X[rows].std(axis=0)
    assert_allclose(R.T @ R, exact.T @ exact, rtol=0, atol=1e-8 * n)


def test_beyond_the_integers_of_lapack(monkeypatch):
    A = np.random.default_rng(0).standard_normal((9, 9))
    A += A.T
    ref, comp = A.copy(), A.copy()
    eigenvalues = eigh(ref, Matrices())
    monkeypatch.setattr(lapack, "LARGEST_ORDER", 8)
    assert_allclose(eigh(comp, Matrices()), eigenvalues, rtol=1e-12, atol=1e-12)
    assert_allclose(np.abs(comp), np.abs(ref), rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    "A",
    [
        np.eye(3)[:, :2],
        np.eye(3, dtype=np.float32),
        np.ones((3, 3)).T[::-1],
        np.eye(6)[::2, ::2],
        np.broadcast_to(1.0, (3, 3)),
        np.ones(3),
    ],
    ids=["rectangle", "float32", "reversed", "strided", "read-only", "vector"],
)
@pytest.mark.parametrize("function", [lambda A: eigh(A, Matrices()), triangle_of])
def test_what_lapack_cannot_overwrite(A, function):
    with pytest.raises((AssertionError, ValueError)):
        function(A)


def test_no_convergence_is_an_error():
    with pytest.raises(np.linalg.LinAlgError):
        eigh(np.full((5, 5), np.nan), Matrices())


@pytest.mark.parametrize("n", [129, 300])
def test_orders_that_lapack_cuts_into_blocks(folder, n):
    B = np.random.default_rng(n).standard_normal((n, n))
    A = B @ B.T + n * np.eye(n)
    eigenvalues, _ = both_ways(folder, A, eigh)
    assert_allclose(eigenvalues, np.linalg.eigvalsh(A), rtol=1e-12)
    _, R = both_ways(folder, B, lambda A, _: triangle_of(A))
    assert_allclose(R.T @ R, B.T @ B, rtol=0, atol=1e-10)


def test_files_keep_what_is_written(folder):
    A = Matrices(folder).empty((30, 20))
    assert type(A) is np.ndarray and A.flags.c_contiguous and A.dtype == np.float64
    assert list(folder.iterdir()) == []
    A[...] = np.arange(600.0).reshape(30, 20)
    B = Matrices(folder).empty((30, 20))
    B[...] = -1
    assert_array_equal(A, np.arange(600.0).reshape(30, 20))


# Eigenbases --------------------------------------------------------------------------------


@many
@given(B=factors())
def test_eigenbasis(folder, B):
    p, rank = B.shape
    n = 3 * p
    (eigenvalues, vectors), _ = both_ways(
        folder, B @ B.T, lambda G, matrices: eigenbasis(G, n, np.zeros(p), matrices)
    )
    assert len(eigenvalues) == len(vectors)
    if rank == 0:
        assert_array_equal(eigenvalues, [0.0])
        assert_array_equal(vectors, np.zeros((1, p)))
        return
    assert np.all(eigenvalues > 0)
    size = np.linalg.norm(B, 2) ** 2
    exact = np.linalg.eigvalsh(B @ B.T)[-len(eigenvalues) :]
    assert_allclose(eigenvalues, exact, rtol=0, atol=10 * p * EPS * size)
    # what is left out is rounding
    assert_allclose((vectors.T * eigenvalues) @ vectors, B @ B.T, rtol=0, atol=20 * p * EPS * size)


@many
@given(n=st.integers(2, 40), n_null=st.integers(1, 40), seed=strategies.seeds())
def test_constant_first(n, n_null, seed):
    n_null = min(n_null, n)
    rng = np.random.default_rng(seed)
    # rows that span the constant among others, in no order
    A = rng.standard_normal((n, n))
    A[:, 0] = 1
    U = np.ascontiguousarray(np.linalg.qr(A)[0].T)
    U[:n_null] = np.linalg.qr(rng.standard_normal((n_null, n_null)))[0] @ U[:n_null]
    before = U.copy()
    nuisance_first(U, n_null, np.full((1, n), 1 / np.sqrt(n)))
    assert_array_equal(U[0], np.full(n, 1 / np.sqrt(n)))
    assert_allclose(U @ U.T, np.eye(n), rtol=0, atol=1e-12)
    assert_array_equal(U[n_null:], before[n_null:])
    projector = before[:n_null].T @ before[:n_null]
    assert_allclose(U[:n_null].T @ U[:n_null], projector, rtol=0, atol=1e-12)


# Whole runs --------------------------------------------------------------------------------

FITTED = ("coef_", "intercept_", "alpha_", "best_score_", "cv_scores_", "x_offset_", "y_offset_")
ROUTES = [
    ("primal-statistics", dict(cv=3)),
    ("primal-products", dict(cv=3)),
    ("svd-products", dict(cv=3)),
    ("svd-loo", dict(cv="loo")),
    ("svd-gcv", dict(cv="gcv")),
    ("primal-loo", dict(cv="loo")),
    ("primal-gcv", dict(cv="gcv")),
    ("dual-products", dict(cv=3)),
    ("dual-trace", dict(cv=3, alpha_per_target=False)),
    ("dual-trace", dict(cv="loo", alpha_per_target=False)),
    ("dual-loo", dict(cv="loo")),
    ("dual-gcv", dict(cv="gcv")),
]
NULLS = [
    ("primal-statistics", {}, {}),
    ("primal-products", {}, {}),
    ("svd-products", {}, {}),
    ("dual-residuals", {}, {}),
    ("dual-operators", {}, {}),
    ("dual-products", {}, {}),
    ("dual-products", dict(cv="loo"), {}),
    ("dual-products", dict(cv="gcv"), {}),
    ("primal-products", {}, dict(null="heldout")),
    (
        "dual-products-trace",
        dict(alpha_per_target=False, scoring="neg_mean_squared_error"),
        {},
    ),
]


@pytest.fixture
def problem():
    rng = np.random.default_rng(0)
    X = rng.standard_normal((60, 12)) + 3
    return X, X @ rng.standard_normal((12, 20)) + rng.standard_normal((60, 20))


@pytest.fixture
def temporary(tmp_path, monkeypatch):
    """Where temporary folders go."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


@pytest.fixture
def in_files(monkeypatch):
    """A call that puts square matrices into files from then on; it returns what was made there."""

    def switch():
        made, create = [], lapack.create_array

        def note(path, shape, dtype):
            made.append(shape)
            return create(path, shape, dtype)

        monkeypatch.setattr(lapack, "create_array", note)
        for module in (fitplan, nullplan):
            monkeypatch.setattr(module, "needs_files", lambda *_: True)
        return made

    return switch


def entries(cache):
    """Bytes of all files of a cache, which holds entries and nothing else."""
    assert all((entry / MANIFEST).exists() for entry in cache.iterdir())
    return {
        str(file.relative_to(cache)): file.read_bytes()
        for file in cache.rglob("*")
        if file.is_file()
    }


@pytest.mark.parametrize("standardize", [False, True])
@pytest.mark.parametrize(("route", "options"), ROUTES, ids=[route for route, _ in ROUTES])
def test_a_fit_in_files_has_the_bits_of_one_in_ram(
    problem, route, options, standardize, temporary, in_files, tmp_path
):
    if standardize and options["cv"] == "loo":
        pytest.skip("every left-out sample has its own scale")
    options = dict(options, solver=route, standardize=standardize)
    ref = RidgeCV(cache_dir=tmp_path / "ram", **options).fit(*problem)
    assert not ref.plan_.factors_in_files and "in RAM" in str(ref.plan_)
    made = in_files()
    comp = RidgeCV(cache_dir=tmp_path / "files", **options).fit(*problem)
    assert comp.route_ == ref.route_ == route
    assert comp.plan_.factors_in_files and "in scratch files" in str(comp.plan_)
    side = 60 if route.startswith("dual") else 12
    # every fold, and at least the fit of all samples, has a matrix and its workspace there
    assert len(made) >= 2 * comp.factors_computed_
    assert max(np.prod(shape) for shape in made) >= 2 * side**2
    if route.endswith("trace"):
        # Y Y.T of the targets, in both precisions
        assert made.count((60, 60)) >= 2
    for name in FITTED:
        assert_array_equal(getattr(ref, name), getattr(comp, name), err_msg=name)
    assert entries(tmp_path / "ram") == entries(tmp_path / "files")
    # and without a cache
    again = RidgeCV(**options).fit(*problem)
    assert_array_equal(again.coef_, ref.coef_)
    assert list(temporary.iterdir()) == []


@pytest.mark.parametrize(
    ("route", "model", "options"), NULLS, ids=["-".join([r, *m, *o]) for r, m, o in NULLS]
)
def test_a_permutation_test_in_files_has_the_bits_of_one_in_ram(
    problem, route, model, options, temporary, in_files, tmp_path
):
    solver = route.removesuffix("-trace")
    options = dict(options, cv=3, n_permutations=19)

    def run(name):
        estimator = RidgeCV(
            (1.0, 30.0), **{"cv": 2, **model}, solver=solver, cache_dir=tmp_path / f"{name} cache"
        )
        return permutation_test(estimator, *problem, out=tmp_path / name, **options)

    ref = run("ram")
    assert ref.description["route"] == route
    made = in_files()
    comp = run("files")
    assert made and comp.description["route"] == route
    for name in ("scores", "pvalues", "pvalues_fwer", "null_max", "null_mean", "null_sd"):
        assert_array_equal(getattr(ref, name), getattr(comp, name), err_msg=name)
    assert entries(tmp_path / "ram cache") == entries(tmp_path / "files cache")
    names = [{path.name for path in (tmp_path / name).iterdir()} for name in ("ram", "files")]
    assert names[0] == names[1] and not any("~" in name for name in names[0])
    assert list(temporary.iterdir()) == []
