"""Shrinkage of many alphas by few members: near enough everywhere, and few."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ridgemm.shrinkage import MOST_MEMBERS, shrinkage_basis, square_weights, table_basis

FLOAT32 = 4 * np.finfo(np.float32).eps


@given(
    st.integers(1, 40),
    st.integers(1, 15),
    st.floats(0, 12),
    st.floats(0, 12),
    st.sampled_from([1e-3, 1e-6]),
)
def test_no_entry_is_off_by_more_than_the_tolerance(k, n_alphas, spread, decades, tolerance):
    w = np.logspace(-spread, 0, k)
    alphas = np.logspace(-decades, 2, n_alphas)
    weight = np.maximum(w, 1e-6)
    basis, mix = shrinkage_basis(w, alphas, weight, tolerance)
    table = weight / (w + alphas[:, None])
    table /= table.max(axis=1, keepdims=True)
    made = (
        weight
        * (mix.astype(np.float64) @ basis)
        / (weight / (w + alphas[:, None])).max(axis=1, keepdims=True)
    )
    # the members do not cancel, so that float32 is enough for them
    rounding = FLOAT32 * n_alphas**0.5 * 2
    assert np.abs(made - table).max() <= tolerance + rounding


@pytest.mark.parametrize(("n", "p", "fewest"), [(16000, 1000, 5), (32000, 500, 4)])
def test_even_errors_take_a_member_less(n, p, fewest):
    # eigenvalues of a Gram of noise, by the law of Marchenko and Pastur
    ratio = (p / n) ** 0.5
    w = n * np.linspace((1 - ratio) ** 2, (1 + ratio) ** 2, p)
    alphas = np.logspace(0, 5, 11)
    table = w / (w + alphas[:, None])
    table /= table.max(axis=1, keepdims=True)
    left, singular, right = np.linalg.svd(table, full_matrices=False)
    leading = (left[:, :fewest] * singular[:fewest]) @ right[:fewest]
    basis, _ = shrinkage_basis(w, alphas, w)
    assert len(basis) == fewest
    assert np.abs(leading - table).max() > 1e-6


@pytest.mark.parametrize("decades", [16, 32])
@pytest.mark.parametrize("power", [0, 1])
def test_the_widest_spectrum_has_no_more_members_than_plans_count(decades, power):
    w = np.logspace(-decades, 0, 1000)
    basis, _ = shrinkage_basis(w, np.logspace(-decades - 4, 4, 300), w**power)
    assert 40 < len(basis) <= MOST_MEMBERS


def test_a_table_of_no_low_rank_is_kept():
    table = np.random.default_rng(0).standard_normal((4, 30))
    basis, mix = table_basis(table, np.ones(30))
    assert np.array_equal(mix, np.eye(4))
    assert np.array_equal(basis, table.astype(np.float32))


@given(st.integers(1, 6), st.integers(1, 6), st.integers(0, 1000))
def test_square_weights(q, n_alphas, seed):
    rng = np.random.default_rng(seed)
    mix, f = rng.integers(-2, 3, (n_alphas, q)).astype(float), rng.integers(-2, 3, q)
    pairs, weights = square_weights(mix)
    assert np.array_equal(weights @ (f[pairs[:, 0]] * f[pairs[:, 1]]), (mix @ f) ** 2)
