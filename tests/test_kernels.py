"""Every kernel against plain float64 loops, and BLAS in place against NumPy."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from ridgemm import blas, kernels
from ridgemm.shrinkage import square_weights


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def frozen(A, dtype=np.float32):
    """A read-only copy, as a memmap of mode "r" is."""
    A = np.array(A, dtype=dtype)
    A.flags.writeable = False
    return A


# -- sums -----------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.int8, np.uint16, np.int64, np.float32, np.float64])
@pytest.mark.parametrize("n_rows", [1, 7, 19])
def test_column_moments(rng, dtype, n_rows):
    block = frozen(100 * rng.random((n_rows, 5)), dtype)
    sums, squares = np.ones(5), np.full(5, 2.0)
    kernels.column_moments(block, sums, squares)
    wide = block.astype(np.float64)
    assert_allclose(sums, 1 + wide.sum(axis=0), rtol=1e-14)
    assert_allclose(squares, 2 + (wide**2).sum(axis=0), rtol=1e-14)


def test_column_moments_do_not_round_to_float32():
    block = frozen(np.full((100_000, 2), [0.1, 12345.678]))
    sums, squares = np.zeros(2), np.zeros(2)
    kernels.column_moments(block, sums, squares)
    value = block[0].astype(np.float64)
    assert_allclose(sums, 1e5 * value, rtol=1e-9)
    assert_allclose(squares, 1e5 * value**2, rtol=1e-9)


def test_weighted_squares(rng):
    Z, weights = rng.standard_normal((4, 6)).astype(np.float32), rng.random((3, 4))
    out = np.ones((3, 6))
    kernels.weighted_squares(frozen(Z), frozen(weights, np.float64), out)
    assert_allclose(out, 1 + weights @ Z.astype(np.float64) ** 2, rtol=1e-13)


def test_count_null():
    null = frozen([0.5, 0.2, np.nan, 0.9], np.float64)
    threshold = frozen([0.5, 0.3, 0.0, 0.1], np.float64)
    counts, sums, squares = np.zeros(4, np.int64), np.zeros(4), np.zeros(4)
    largest = np.array([-np.inf])
    kernels.count_null(null, threshold, counts, sums, squares, largest)
    assert_array_equal(counts, [1, 0, 0, 1])
    assert_array_equal(sums, null)
    assert_allclose(squares, null**2, rtol=1e-15)
    assert largest[0] == 0.9


# -- gathers --------------------------------------------------------------------------------


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("dtype", [np.int8, np.float32, np.float64])
def test_gather_rows(rng, dtype, order):
    source = np.asarray(50 * rng.standard_normal((9, 4)), dtype=dtype, order=order)
    source.flags.writeable = False
    rows = frozen([0, 3, 8, 2, 7, 3], np.intp)
    offset = frozen(rng.standard_normal(4))
    out = np.empty((6, 4), np.float32)
    kernels.gather_rows(source, rows, offset, out)
    assert_allclose(out, source[rows] - offset.astype(np.float64), rtol=1e-6, atol=1e-5)


def test_gather_signed_rows(rng):
    source, offset = frozen(rng.standard_normal((9, 4))), frozen(rng.standard_normal(4))
    rows, signs = frozen([8, 0, 3, 5, 1], np.intp), frozen([-1, 1, -1, 1, -1])
    out = np.empty((5, 4), np.float32)
    kernels.gather_signed_rows(source, rows, signs, offset, out)
    expected = signs[:, None] * source[rows].astype(np.float64) - offset
    assert_allclose(out, expected, rtol=1e-6, atol=1e-6)


def test_round_columns(rng):
    source, offset = frozen(rng.standard_normal((9, 5))), frozen(rng.standard_normal(5))
    out, expected = np.empty((2, 9, 5), np.uint16)
    kernels.round_columns(source, offset, out)
    kernels.round_parts(source - offset, expected)
    assert_array_equal(out, expected)


@pytest.mark.parametrize("n_rows", [3, 4, 9])
def test_take_rounded_rows(rng, n_rows):
    rounded = np.empty((9, 5), np.uint16)
    kernels.round_parts(frozen(rng.standard_normal((9, 5))), rounded)
    rounded.flags.writeable = False
    rows, signs = frozen(rng.integers(0, 9, n_rows), np.intp), rng.choice([-1, 1], n_rows)
    flips = frozen(np.where(signs < 0, 0x8000, 0), np.uint16)
    out, (source, taken) = np.empty((n_rows, 5), np.uint16), np.empty((2, 9, 5), np.float32)
    kernels.take_rounded_rows(rounded, rows, flips, out)
    kernels.widen_parts(rounded, source)
    kernels.widen_parts(out, taken)
    assert_array_equal(taken[:n_rows], signs[:, None] * source[rows])


def test_gather_square(rng):
    source = frozen(rng.standard_normal((6, 7)))
    rows, columns = frozen([5, 0, 2], np.intp), frozen([6, 1], np.intp)
    row_signs, column_signs = frozen([1, -1, -1]), frozen([-1, 1])
    out = np.empty((3, 2), np.float32)
    kernels.gather_square(source, rows, columns, row_signs, column_signs, out)
    assert_array_equal(out, np.outer(row_signs, column_signs) * source[np.ix_(rows, columns)])


# -- scores ---------------------------------------------------------------------------------


@pytest.fixture(params=[(1, 3, 4), (6, 3, 4), (13, 4, 1), (16, 9, 5)], ids=str)
def blend(request, rng):
    """Basis predictions (q, rows, strip), the mix of the alphas, and what they make in float64."""
    n_rows, q, n_alphas = request.param
    F = frozen(rng.standard_normal((q, n_rows, 5)))
    mix = frozen(rng.standard_normal((n_alphas, q)))
    return F, mix, np.einsum("al,lij->aij", mix.astype(np.float64), F.astype(np.float64))


def test_product_moments(rng, blend):
    F, mix, predictions = blend
    Y = frozen(rng.standard_normal(F.shape[1:]))
    pairs, weights = square_weights(mix)
    sums, squares = np.zeros((len(F), 3, 5)), np.zeros((len(pairs), 5))
    kernels.product_moments(F, Y, frozen(pairs, np.int64), sums, squares)
    close = dict(rtol=1e-5, atol=1e-5)
    assert_allclose(mix @ sums[:, 0], predictions.sum(axis=1), **close)
    assert_allclose(mix @ sums[:, 2], (predictions * Y).sum(axis=1), **close)
    assert_allclose(weights @ squares, (predictions**2).sum(axis=1), **close)
    assert_array_equal(sums[:, 1], 0)
    kernels.product_moments(F, Y, pairs, sums, squares)
    assert_allclose(weights @ squares, 2 * (predictions**2).sum(axis=1), **close)


def test_square_moments(blend):
    F, mix, predictions = blend
    pairs, weights = square_weights(mix)
    squares = np.zeros((len(pairs), 5))
    kernels.square_moments(F, pairs, squares)
    assert_allclose(weights @ squares, (predictions**2).sum(axis=1), rtol=1e-5)


def test_pair_moments(rng):
    F, G = rng.standard_normal((2, 7, 3, 4)).astype(np.float32)
    pairs = np.array([[0, 0], [0, 2], [1, 2]])
    products = np.ones((3, 4))
    kernels.pair_moments(frozen(F), frozen(G), pairs, products)
    left, right = F.astype(np.float64), G.astype(np.float64)
    expected = [(left[:, i] * right[:, j] + left[:, j] * right[:, i]).sum(axis=0) for i, j in pairs]
    assert_allclose(products, 1 + np.array(expected), rtol=1e-12)


@pytest.fixture(params=[(1, 5), (3, 9), (8, 1), (21, 12)], ids=str)
def shrunk(request, rng):
    """Projections, what they meet, eigenvalues, alphas, lines of garbage, and 1 / (w + alpha)."""
    n_rows, size = request.param
    Z, C, B = (frozen(rng.standard_normal((n_rows, size))) for _ in range(3))
    w, alphas = frozen(rng.random(n_rows), np.float64), frozen([1e-3, 1.0, 1e3], np.float64)
    lines = np.full((9, max(size, 8)), np.nan)
    return Z, C, B, w, alphas, lines, 1 / (w + alphas[:, None])


def test_shrunk_moments(rng, shrunk):
    Z, C, _, w, alphas, lines, d = shrunk
    total = frozen(rng.standard_normal(len(w)), np.float64)
    sums = np.ones((3, 3, Z.shape[1]))
    kernels.shrunk_moments(Z, C, total, w, alphas, lines, sums)
    assert_allclose(sums[:, 0], 1 + (total * d) @ Z, rtol=1e-12, atol=1e-12)
    assert_allclose(sums[:, 2], 1 + d @ (Z.astype(np.float64) * C), rtol=1e-12, atol=1e-12)
    assert_array_equal(sums[:, 1], 1)


def test_apart_moments(shrunk):
    Z, C, _, w, alphas, lines, d = shrunk
    sums = np.ones((3, Z.shape[1]))
    kernels.apart_moments(Z, C, w, 2.0, alphas, lines, sums)
    weights = 2 * (d - 1 / (2.0 + alphas[:, None]))
    assert_allclose(sums, 1 + weights @ (Z.astype(np.float64) * C), rtol=1e-9, atol=1e-9)


def test_apart_moments_do_not_cancel():
    # 1 / (1 + 1e9) - 1 / (2 + 1e9), from numbers that differ in their tenth digit
    Z, w, sums = frozen(np.ones((1, 1))), frozen([1.0], np.float64), np.zeros((1, 1))
    alphas = frozen([1e9], np.float64)
    kernels.apart_moments(Z, Z, w, 2.0, alphas, np.empty((9, 8)), sums)
    assert_allclose(sums, 2 / ((1 + 1e9) * (2 + 1e9)), rtol=1e-14)


def test_close_moments(shrunk):
    Z, C, B, w, alphas, lines, d = shrunk
    sums = np.ones((3, Z.shape[1]))
    kernels.close_moments(Z, frozen(np.stack([C, B], axis=1)), w, 3.0, alphas, lines, sums)
    wide = Z.astype(np.float64)
    expected = 1 + 3 * (d**2 @ (wide * C) - (w * d**2) ** 2 @ (wide * B) / 2)
    assert_allclose(sums, expected, rtol=1e-10)


def test_left_out_moments(rng, blend):
    F, mix, predictions = blend
    keep = frozen([0.0, 1.0, 1.0, 0.5, 1.0][: len(mix)], np.float64)
    Y = frozen(rng.standard_normal(F.shape[1:]))
    leverage = frozen(1 + rng.random((len(mix), F.shape[1])), np.float64)
    sums, squares = np.ones((len(mix), 3, 5)), np.ones((len(mix), 5))
    lines = np.full((8, 5), np.nan, np.float32)
    kernels.loo_moments(F, mix, Y, keep, leverage, lines, sums)
    kernels.squared_errors(F, mix, Y, keep, leverage, lines, squares)
    errors = (keep[:, None, None] * Y.astype(np.float64) + predictions) * leverage[:, :, None]
    held_out = Y - errors
    expected = [values.sum(axis=1) for values in (held_out, held_out**2, held_out * Y)]
    assert_allclose(sums, 1 + np.stack(expected, axis=1), rtol=1e-5, atol=1e-5)
    assert_allclose(squares, 1 + (errors**2).sum(axis=1), rtol=1e-5, atol=1e-5)


def test_heldout_moments(rng):
    Y, prediction = frozen(rng.standard_normal((9, 4))), frozen(rng.standard_normal((3, 4)))
    rows, signs = frozen([8, 0, 3], np.intp), frozen([-1, 1, -1])
    offset = frozen(rng.standard_normal(4), np.float64)
    sums = np.ones((2, 4))
    kernels.heldout_moments(Y, prediction, rows, signs, offset, sums)
    target = signs[:, None] * Y[rows].astype(np.float64) - offset
    assert_allclose(sums, 1 + np.array([target.sum(0), (target * prediction).sum(0)]), rtol=1e-6)


def test_scores_add_up_in_float64():
    # 100 000 rows of a constant: a float32 sum would be off in its third digit
    n = 100_000
    F, Y = frozen(np.full((1, n, 1), 0.1)), frozen(np.full((n, 1), 1000.1))
    pairs, sums, squares = np.zeros((1, 2), np.int64), np.zeros((1, 3, 1)), np.zeros((1, 1))
    kernels.product_moments(F, Y, pairs, sums, squares)
    value, target = np.float64(F[0, 0, 0]), np.float64(Y[0, 0])
    close = dict(rtol=1e-9)
    assert_allclose(sums.ravel(), n * np.array([value, 0, value * target]), **close)
    assert_allclose(squares, n * value**2, **close)
    squares[...] = 0
    kernels.square_moments(F, pairs, squares)
    assert_allclose(squares, n * value**2, **close)


@pytest.mark.parametrize("size", [1e-30, 1e30])
def test_moments_leave_float32(rng, size):
    F, Y = (frozen(size * rng.random((2, 9, 5))) for _ in range(2))
    pairs, sums, squares = np.array([[0, 0], [0, 1], [1, 1]]), np.zeros((2, 3, 5)), np.zeros((3, 5))
    kernels.product_moments(F, Y[0], pairs, sums, squares)
    wide = F.astype(np.float64)
    products = (wide[pairs[:, 0]] * wide[pairs[:, 1]]).sum(axis=1)
    assert_allclose(squares, products, rtol=1e-12)
    assert_allclose(sums[:, 2], (wide * Y[0]).sum(axis=1), rtol=1e-12)
    squares[...] = 0
    kernels.square_moments(F, pairs, squares)
    assert_allclose(squares, products, rtol=1e-12)
    cross, lines = np.zeros((1, 3, 5)), np.empty((9, 8))
    none, one = frozen(np.zeros(9), np.float64), frozen(np.ones(1), np.float64)
    kernels.shrunk_moments(F[0], F[1], none, none, one, lines, cross)
    assert_allclose(cross[0, 2], products[1], rtol=1e-12)
    apart = np.zeros((1, 5))
    kernels.apart_moments(F[0], F[1], none, 1.0, one, lines, apart)
    assert_allclose(apart[0], products[1], rtol=1e-12)


# -- choice and shrinkage -------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_first_best(dtype):
    scores = frozen([[0.0, 1.0, -2.0], [0.0, 2.0, -1.0], [0.0, 2.0, -3.0]], dtype)
    index, best = np.full(3, 9), np.full(3, 9.0)
    kernels.first_best(scores, index, best)
    assert_array_equal(index, [0, 1, 1])
    assert_array_equal(best, [0.0, 2.0, -1.0])


def test_scale_rows(rng):
    Z, factor = frozen(rng.standard_normal((4, 3))), frozen(rng.random(4))
    out = np.empty((4, 3), np.float32)
    kernels.scale_rows(Z, factor, out)
    assert_allclose(out, Z * factor[:, None], rtol=1e-6)


def test_scale_members(rng):
    Z, basis = frozen(rng.standard_normal((4, 6))[:, ::2]), frozen(rng.random((2, 4)))
    out = np.empty((4, 2, 3), np.float32)
    kernels.scale_members(Z, basis, out)
    assert_allclose(out, Z[:, None] * basis.T[:, :, None], rtol=1e-6)


def test_shrink_targets(rng):
    Z, eigenvalues = frozen(rng.standard_normal((4, 3))), frozen([1e6, 1.0, 1e-3, 0], np.float64)
    alpha = frozen([1e-6, 1.0, 1e6], np.float64)
    out = np.empty((4, 3), np.float32)
    kernels.shrink_targets(Z, eigenvalues, alpha, out)
    assert_allclose(out, Z / np.add.outer(eigenvalues, alpha), rtol=1e-6)


def test_subtract_outer_cancels_in_float64(rng):
    column, row = frozen([1000.1, 1.0], np.float64), frozen([999.7, 1.0], np.float64)
    start = (np.outer(column, row) + 1).astype(np.float32)
    out = start.copy()
    kernels.subtract_outer(column, row, out)
    assert_array_equal(out, (start - np.outer(column, row)).astype(np.float32))


# -- BLAS -----------------------------------------------------------------------------------

DTYPES = [np.float32, np.float64]


def block(rng, shape, layout, dtype):
    """A read-only matrix: whole or inside a larger one, row- or column-major."""
    whole, order = layout.split("-")
    m, n = shape if order == "rows" else shape[::-1]
    pad = 0 if whole == "whole" else 3
    A = rng.standard_normal((m + pad, n + pad)).astype(dtype)[pad : m + pad, pad : n + pad]
    A.flags.writeable = False
    return A if order == "rows" else A.T


LAYOUTS = ["whole-rows", "whole-columns", "part-rows", "part-columns"]


def tolerance(dtype):
    return dict(rtol=1e-5, atol=1e-5) if dtype == np.float32 else dict(rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("layout_a", LAYOUTS)
@pytest.mark.parametrize("layout_b", LAYOUTS)
def test_gemm(rng, layout_a, layout_b, dtype):
    for m, k, n in [(4, 5, 6), (1, 5, 6), (4, 1, 6), (4, 5, 1), (1, 1, 1), (1, 5, 1)]:
        A, B = block(rng, (m, k), layout_a, dtype), block(rng, (k, n), layout_b, dtype)
        around = np.full((m + 2, n + 3), 7, dtype=dtype)
        out = around[1:-1, 1:-2]
        blas.gemm(A, B, out)
        assert_allclose(out, A @ B, **tolerance(dtype))
        blas.gemm(A, B, out, accumulate=True)
        assert_allclose(out, 2 * (A @ B), **tolerance(dtype))
        # nothing beside the block is written
        out[...] = 7
        assert (around == 7).all()


def test_gemm_of_nothing():
    out = np.ones((2, 3))
    blas.gemm(np.empty((2, 0)), np.empty((0, 3)), out, accumulate=True)
    assert (out == 1).all()
    blas.gemm(np.empty((2, 0)), np.empty((0, 3)), out)
    assert (out == 0).all()


def test_gemm_forgets_what_was_in_out():
    out = np.full((2, 2), np.nan)
    blas.gemm(np.eye(2), np.eye(2), out)
    assert_array_equal(out, np.eye(2))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_syrk(rng, layout, dtype):
    for m, n in [(7, 4), (3, 5), (1, 4), (7, 1)]:
        A = block(rng, (m, n), layout, dtype)
        out = np.full((n + 1, n + 2), 7, dtype=dtype)[:n, :n]
        blas.syrk(A, out)
        assert_allclose(np.tril(out), np.tril(A.T @ A), **tolerance(dtype))
        assert (out[np.triu_indices(n, 1)] == 7).all()
        blas.syrk(A, out, accumulate=True)
        blas.symmetrise(out)
        assert_allclose(out, 2 * (A.T @ A), **tolerance(dtype))


def test_symmetrise_by_blocks(rng):
    G = rng.standard_normal((1100, 1100)).astype(np.float32)
    lower = np.tril(G)
    blas.symmetrise(G)
    assert_array_equal(G, lower + np.tril(lower, -1).T)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("part", [False, True])
def test_trmm(rng, part, dtype):
    for k, n in [(5, 6), (1, 6), (5, 1)]:
        around = rng.standard_normal((k + 1, k + 2)).astype(dtype)
        # what lies below the diagonal is not read
        L = around[:k, 1 : k + 1] if part else around[:k, :k].copy()
        L[np.tril_indices(k, -1)] = np.nan
        L.flags.writeable = False
        B = rng.standard_normal((k + 1, n + 2)).astype(dtype)
        B = B[:k, 1 : n + 1] if part else B[:k, :n].copy()
        expected = np.triu(L) @ B
        blas.trmm(L, B)
        assert_allclose(B, expected, **tolerance(dtype))


@pytest.mark.parametrize("shapes", [((2, 3), (4, 2), (2, 2)), ((2, 3), (3, 2), (2, 3))])
def test_shapes_that_disagree_never_reach_blas(shapes):
    with pytest.raises(AssertionError):
        blas.gemm(*[np.zeros(shape) for shape in shapes])


def test_dtypes_that_disagree_never_reach_blas():
    with pytest.raises(AssertionError):
        blas.gemm(np.zeros((2, 2), np.float32), np.zeros((2, 2)), np.zeros((2, 2)))
    with pytest.raises(AssertionError):
        blas.gemm(np.zeros((4, 4))[::2, ::2], np.zeros((2, 2)), np.zeros((2, 2)))
