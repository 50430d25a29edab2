"""Products of bfloat16 parts: their errors, and what they change in fits and nulls."""

import re
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from joblib.externals.loky import get_reusable_executor
from numpy.testing import assert_allclose, assert_array_equal

from ridgemm import InputError, Ridge, RidgeCV, backends, blas, nullrun, permutation_test, products
from ridgemm.kernels import round_parts, split_parts, widen_parts
from ridgemm.products import PRECISIONS, multiply, usable_precision, workspace_bytes
from ridgemm.projections import TargetTile
from ridgemm.workspace import Workspace

EPS = {"single": 2**-24, "mixed": 2**-16, "bf16": 2**-8}
# where the processor multiplies bfloat16 and a library is installed, the same tests run on them
EMULATED = backends.Backend("emulated", None, lambda name: None)
LIBRARIES = [EMULATED] + ([backends.bfloat16()] if backends.bfloat16() else [])


@pytest.fixture(params=LIBRARIES, ids=lambda library: library.name)
def matrix_units(request, monkeypatch):
    for module in (backends, blas, products):
        monkeypatch.setattr(module, "bfloat16", lambda: request.param)
    # oneDNN makes mixed products on vector units, too: right, not fast
    monkeypatch.setattr(products, "has_amx", lambda: True)
    blas._bfloat16_product.cache_clear()
    yield
    blas._bfloat16_product.cache_clear()


def widened(half):
    out = np.empty(half.shape, np.float32)
    widen_parts(half, out)
    return out


@given(st.integers(0, 2**32 - 1), st.floats(-30, 30))
def test_parts_are_the_nearest(seed, exponent):
    values = np.random.default_rng(seed).standard_normal((5, 7)) * 10**exponent
    values = values.astype(np.float32)
    high, low = np.empty((2, *values.shape), np.uint16)
    split_parts(values, high, low)
    assert (np.abs(widened(high) - values) <= 2**-8 * np.abs(values)).all()
    assert (np.abs(widened(high) + widened(low) - values) <= 2**-16 * np.abs(values)).all()
    alone = np.empty_like(high)
    round_parts(values, alone)
    assert_array_equal(alone, high)


def test_ties_are_rounded_to_even():
    # between 1 and the next bfloat16, 1 + 2^-7, and between that and the one after
    values = np.array([[1 + 2**-8, 1 + 3 * 2**-8, -1 - 2**-8]], np.float32)
    high = np.empty(values.shape, np.uint16)
    round_parts(values, high)
    assert_array_equal(widened(high), [[1, 1 + 2**-6, -1]])


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("accumulate", [False, True])
@pytest.mark.parametrize("turned", ["", "A", "B", "AB"])
def test_errors_of_products(precision, accumulate, turned, matrix_units, monkeypatch):
    # several blocks each way, the last ones shorter
    monkeypatch.setattr(products, "_SIDE", 32)
    monkeypatch.setattr(products, "_DEPTH", 48)
    rng = np.random.default_rng(0)
    A, B = (rng.standard_normal(s).astype(np.float32) for s in ((70, 100), (100, 33)))
    if "A" in turned:
        A = np.asfortranarray(A)
    if "B" in turned:
        B = np.asfortranarray(B)
    out = rng.standard_normal((70, 60)).astype(np.float32)
    before = out.copy()
    multiply(A, B, out[:, 3:36], precision, Workspace(), accumulate)
    ref = A.astype(np.float64) @ B + (before[:, 3:36] if accumulate else 0)
    # of a sum of k products, rounded at random
    scale = np.linalg.norm(A, axis=1)[:, None] * np.linalg.norm(B, axis=0)
    error = np.abs(out[:, 3:36] - ref) / scale
    assert error.max() < 2 * EPS[precision]
    assert_array_equal(np.delete(out, np.s_[3:36], axis=1), np.delete(before, np.s_[3:36], axis=1))
    if precision != "single":
        # neither better than it can be: these are other products
        assert error.max() > EPS[precision] / 50


def test_workspaces_are_as_planned(matrix_units):
    workspace = Workspace()
    A = np.ones((1500, 2500), np.float32)
    multiply(A, A[:1200].T, np.empty((1500, 1200), np.float32), "mixed", workspace)
    held = sum(buffer.nbytes for buffer in workspace._buffers.values())
    assert held == workspace_bytes("mixed")


def problem(n=120, p=15, t=40, seed=0):
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((n, p)) + 3
    Y = X @ rng.standard_normal((p, t)) / 3 + 2 * rng.standard_normal((n, t)) - 5
    return X.astype(np.float32), Y.astype(np.float32)


@pytest.mark.parametrize(
    ("solver", "cv"),
    [
        ("primal-statistics", 4),
        ("primal-products", 4),
        ("svd-products", 4),
        ("dual-products", 4),
        ("primal-loo", "loo"),
        ("dual-loo", "loo"),
        ("primal-gcv", "gcv"),
        ("dual-gcv", "gcv"),
    ],
)
@pytest.mark.parametrize("shape", [(120, 15), (60, 90)])
def test_mixed_fits_agree_with_single_ones(solver, cv, shape, matrix_units):
    if solver == "primal-statistics" and shape[1] > shape[0]:
        pytest.skip("more features than test rows")
    if shape[1] > shape[0] and not solver.startswith("dual") and cv in ("loo", "gcv"):
        pytest.skip("not defined")
    X, Y = problem(*shape)
    alphas = np.logspace(-1, 4, 8)
    ref = RidgeCV(alphas, cv=cv, solver=solver).fit(X, Y)
    comp = RidgeCV(alphas, cv=cv, solver=solver, precision="mixed").fit(X, Y)
    assert "mixed" in str(comp.plan_)
    assert_allclose(comp.cv_scores_, ref.cv_scores_, atol=1e-4)
    tied = np.abs(np.diff(np.sort(ref.cv_scores_, axis=0)[-2:], axis=0))[0] < 1e-4
    assert_array_equal(comp.alpha_[~tied], ref.alpha_[~tied])
    same = comp.alpha_ == ref.alpha_
    assert_allclose(comp.coef_[same], ref.coef_[same], atol=2e-4 * np.abs(ref.coef_).max())


def test_n_jobs_changes_no_bit_of_a_mixed_fit(matrix_units, monkeypatch):
    # workers of other tests have made their choice
    get_reusable_executor().shutdown()
    monkeypatch.setenv("RIDGEMM_EMULATE_BFLOAT16", str(int(backends.bfloat16() is EMULATED)))
    X, Y = problem(t=1500)
    ref, comp = (RidgeCV(cv=3, precision="mixed", n_jobs=n).fit(X, Y) for n in (1, 2))
    assert_array_equal(comp.cv_scores_, ref.cv_scores_)
    assert_array_equal(comp.coef_, ref.coef_)
    get_reusable_executor().shutdown()


@pytest.mark.parametrize("scheme", ["free", "sign"])
@pytest.mark.parametrize("shape", [(120, 15), (60, 90)])
def test_neither_n_jobs_nor_a_stop_changes_a_bit_of_a_null(
    shape, scheme, matrix_units, monkeypatch, tmp_path
):
    get_reusable_executor().shutdown()
    monkeypatch.setenv("RIDGEMM_EMULATE_BFLOAT16", str(int(backends.bfloat16() is EMULATED)))
    X, Y = problem(*shape, t=300)
    model = RidgeCV(np.logspace(0, 4, 5), cv=3)
    options = dict(cv=4, scheme=scheme, precision="bf16", keep_null=True)
    # the second call begins in the middle of a product, filled up with the observed order
    ref, comp = (
        permutation_test(model, X, Y, n_permutations=70, n_jobs=n, **options) for n in (1, 2)
    )
    assert_array_equal(comp.null, ref.null)
    for n in (23, 70):
        comp = permutation_test(model, X, Y, n_permutations=n, out=tmp_path / "null", **options)
    assert_array_equal(comp.null, ref.null)
    get_reusable_executor().shutdown()


@pytest.mark.parametrize("solver", ["primal-statistics", "primal-products", "dual"])
@pytest.mark.parametrize("shared", [False, True])
def test_nulls_in_bfloat16(solver, shared, matrix_units):
    X, Y = problem(t=60)
    Y[:, 30:] = np.random.default_rng(5).standard_normal((len(Y), 30))
    model = RidgeCV(np.logspace(0, 4, 5), cv=3, solver=solver, alpha_per_target=not shared)
    options = dict(cv=4, n_permutations=200, keep_null=True)
    ref = permutation_test(model, X, Y, **options)
    comp = permutation_test(model, X, Y, precision="bf16", **options)
    assert comp.description["precision"] == "bf16"
    # the observed map is not of bfloat16
    assert_array_equal(comp.scores, ref.scores)
    assert not np.array_equal(comp.null, ref.null)
    # an alpha chosen otherwise moves a null score by what two alphas differ
    assert np.quantile(np.abs(comp.null - ref.null), 0.98) < 0.01
    error = np.sqrt(ref.pvalues * (1 - ref.pvalues) / 200)
    assert (np.abs(comp.pvalues - ref.pvalues) <= np.maximum(error / 2, 1 / 200)).all()


def test_operands_that_are_bfloat16_already(matrix_units):
    rng = np.random.default_rng(0)
    A, B = rng.standard_normal((1100, 2100)), rng.standard_normal((2100, 30))
    A, B = A.astype(np.float32), B.astype(np.float32)
    rounded = [np.empty(M.shape, np.uint16) for M in (A, B)]
    for M, half in zip((A, B), rounded, strict=True):
        round_parts(M, half)
    ref, *comp = np.empty((4, 1100, 30), np.float32)
    multiply(A, B, ref, "bf16", Workspace())
    for left, right, out in zip(
        (rounded[0], A, rounded[0]), (B, *rounded[1:] * 2), comp, strict=True
    ):
        multiply(left, right, out, "bf16", Workspace())
        # of the same values; oneDNN sums them by the strides
        assert_allclose(out, ref, atol=2100 * 2**-23)


def scrambled(solver, cv, scheme, confounded=False, **options):
    X, Y = problem(t=20)
    # less than a standard deviation: it is not shifted away when the tile is read
    Y[:, ::2] += 6
    C = np.random.default_rng(1).standard_normal((len(X), 2)) if confounded else None
    model = RidgeCV(np.logspace(0, 4, 5), cv=cv, solver=solver)
    options = dict(cv=4, n_permutations=30, keep_null=True, confounds=C, **options)
    return permutation_test(model, X, Y, scheme=scheme, **options).null


ROUNDED = pytest.mark.parametrize(("solver", "cv"), [("dual-operators", 3), ("dual", "loo")])


@pytest.mark.parametrize("scheme", ["free", "sign"])
@pytest.mark.parametrize("confounded", [False, True])
@ROUNDED
def test_operators_are_rounded_once(solver, cv, confounded, scheme, matrix_units, monkeypatch):
    case = dict(solver=solver, cv=cv, confounded=confounded, scheme=scheme, precision="bf16")
    ref, seen = scrambled(**case), []
    monkeypatch.setattr(nullrun, "rounded_operators", lambda folds, _: seen.append(1) or folds)
    comp = scrambled(**case)
    assert seen
    if backends.bfloat16().name == "onednn":
        # which sums by the strides; another alpha is chosen where two are as good
        assert np.quantile(np.abs(comp - ref), 0.98) < 1e-5
    else:
        assert_array_equal(comp, ref)


@pytest.mark.parametrize("scheme", ["free", "sign"])
@ROUNDED
def test_targets_rounded_once_are_as_good_as_in_each_fold(
    solver, cv, scheme, matrix_units, monkeypatch
):
    case = dict(solver=solver, cv=cv, scheme=scheme)
    ref, comp = scrambled(**case), scrambled(**case, precision="bf16")
    monkeypatch.setattr(TargetTile, "operand", TargetTile.gather)
    by_fold = scrambled(**case, precision="bf16")
    assert not np.array_equal(comp, by_fold)
    # but for where another alpha is chosen
    error, error_by_fold = (np.quantile(np.abs(null - ref), 0.9) for null in (comp, by_fold))
    assert error < 1.25 * error_by_fold


AMX, VECTORS = "a processor with AMX;", "a processor with AMX or AVX512_BF16;"


@pytest.mark.parametrize(
    ("precision", "amx", "vectors", "remedy"),
    [
        ("mixed", False, False, AMX),
        ("mixed", False, True, AMX),
        ("mixed", True, True, "oneMKL, pip install 'ridgemm[mkl]'"),
        ("bf16", False, False, VECTORS),
        ("bf16", False, True, "oneDNN, pip install 'ridgemm[onednn]'"),
        ("bf16", True, True, "oneMKL, pip install 'ridgemm[mkl]'"),
    ],
)
def test_what_a_machine_lacks_is_said(precision, amx, vectors, remedy, monkeypatch):
    monkeypatch.setattr(products, "bfloat16", lambda: None)
    monkeypatch.setattr(products, "has_amx", lambda: amx)
    monkeypatch.setattr(products, "has_bfloat16", lambda: vectors)
    with pytest.warns(RuntimeWarning, match=f"'{precision}' needs {re.escape(remedy)}.*single"):
        assert usable_precision(precision, PRECISIONS) == "single"


def test_three_products_on_vector_units_are_not_made(monkeypatch):
    library = backends.Backend("onednn", "libdnnl.so.3", lambda name: None)
    monkeypatch.setattr(products, "bfloat16", lambda: library)
    monkeypatch.setattr(products, "has_amx", lambda: False)
    monkeypatch.setattr(products, "has_bfloat16", lambda: True)
    assert usable_precision("bf16", PRECISIONS) == "bf16"
    with pytest.warns(RuntimeWarning, match="'mixed' needs a processor with AMX"):
        assert usable_precision("mixed") == "single"


def test_a_fit_without_matrix_units_is_single(monkeypatch):
    monkeypatch.setattr(products, "bfloat16", lambda: None)
    X, Y = problem()
    ref = RidgeCV(cv=3).fit(X, Y)
    with pytest.warns(RuntimeWarning, match="'mixed' needs"):
        comp = RidgeCV(cv=3, precision="mixed").fit(X, Y)
    assert_array_equal(comp.cv_scores_, ref.cv_scores_)
    assert comp.plan_.problem.precision == "single"


@pytest.mark.parametrize("precision", ["double", "bf16", None, 16])
def test_unknown_precisions_of_a_fit(precision):
    X, Y = problem()
    for model in (RidgeCV, Ridge):
        with pytest.raises(InputError, match=r"precision=.*'single', 'mixed'"):
            model(precision=precision).fit(X, Y)


def test_refused_precisions_of_a_test(matrix_units):
    X, Y = problem()
    assert usable_precision("bf16", PRECISIONS) == "bf16"
    with pytest.raises(InputError, match=r"precision='half'.*'bf16'"):
        permutation_test(RidgeCV(), X, Y, precision="half")
    groups = np.repeat([0, 1, 2, 3], 30)
    with pytest.raises(InputError, match="ties"):
        permutation_test(RidgeCV(cv=2), X, Y, cv=2, groups=groups, scheme="whole", precision="bf16")


def test_the_emulation_is_there_to_ask_for():
    # chosen once for each process
    code = (
        "from ridgemm.backends import bfloat16; print(bfloat16().name)\n"
        "from ridgemm.products import usable_precision; print(usable_precision('mixed'))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={"RIDGEMM_EMULATE_BFLOAT16": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == ["emulated", "mixed"]
