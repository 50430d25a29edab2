"""Shrinkage of many alphas by few members: near enough everywhere, and few."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ridgemm import RidgeCV, crossvalidation
from ridgemm.shrinkage import (
    MOST_MEMBERS,
    most_members,
    parted_basis,
    shrinkage_basis,
    square_weights,
    table_basis,
    whole,
)
from tests import strategies

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


# Parts ---------------------------------------------------------------------------------------


@given(
    st.integers(0, 300),
    st.integers(1, 30),
    st.floats(0, 12),
    st.floats(0, 12),
    st.integers(0, 5),
    st.sampled_from([0, 20, 1000]),
)
def test_parts(k, n_alphas, spread, decades, n_null, price):
    w = np.concatenate([np.zeros(min(n_null, k)), np.logspace(-spread, 0, k)[n_null:]])
    alphas = np.logspace(-decades, 2, n_alphas)
    weight = np.where(w > 0, np.maximum(w, 1e-6), 0)
    table = 1 / (w + alphas[:, None])
    basis, mix, parts = parted_basis(table, weight, lambda q: price * q)
    # the error of a part is relative to the largest entry of any
    scale = np.abs(weight * table).max(axis=1, keepdims=True, initial=np.finfo(float).tiny)
    error = weight * (mix.astype(np.float64) @ basis - table) / scale
    assert np.abs(error).max(initial=0) <= 1e-6 + FLOAT32 * n_alphas**0.5 * 2
    # parts follow each other, and so do their members, which are nothing elsewhere
    edges = [edge for part, _ in parts for edge in (part.start, part.stop)]
    assert edges[0] == 0 and edges[-1] == k and edges[1:-1:2] == edges[2::2]
    numbers = [edge for _, members in parts for edge in (members.start, members.stop)]
    assert numbers[0] == 0 and numbers[-1] == len(basis) and numbers[1:-1:2] == numbers[2::2]
    for directions, members in parts:
        elsewhere = np.ones(k, bool)
        elsewhere[directions] = False
        assert not basis[members][:, elsewhere].any()
    assert len(basis) <= most_members(n_alphas)


@pytest.mark.parametrize("ratio", [1.25, 4, 16])
def test_parts_spare_products(ratio):
    edge = ratio**-0.5
    w = np.linspace((1 - edge) ** 2, (1 + edge) ** 2, 2000)
    table = 1 / (w + np.logspace(-4, 2, 11)[:, None])
    _, _, parts = parted_basis(table, w, lambda q: 10 * q * (q + 1))
    made = sum((part.stop - part.start) * (some.stop - some.start) for part, some in parts)
    assert made < 0.8 * len(w) * len(table_basis(table, w)[0])
    # where they cost too much there are none
    _, _, parts = parted_basis(table, w, lambda q: 1e6 * q)
    assert len(parts) == 1


ROUTES = [
    ("primal-products", 3),
    ("primal-statistics", 12),
    ("svd-products", 3),
    ("dual-products", 3),
    ("primal-loo", "loo"),
    ("svd-loo", "loo"),
    ("dual-loo", "loo"),
]


@pytest.mark.parametrize(("solver", "cv"), ROUTES)
@pytest.mark.parametrize("scoring", ["r2", "correlation"])
@pytest.mark.parametrize("pair", [0.1, 1e3], ids=["products of members", "alphas"])
def test_parts_score_as_the_whole_does(monkeypatch, solver, cv, scoring, pair):
    # few directions: parts would not pay
    monkeypatch.setattr(crossvalidation, "_PAIR", pair)
    mixes = pair > 1 or cv == "loo"
    monkeypatch.setattr(crossvalidation, "_MIXED", 0.01 if mixes else 1e3)
    rng = np.random.default_rng(0)
    X = rng.standard_normal((300, 120)) * np.logspace(0, -1.5, 120)
    Y = X @ rng.standard_normal((120, 7)) + 3 * rng.standard_normal((300, 7))
    seen = []

    def parted(*args):
        made = parted_basis(*args)
        seen.append(len(made[2]))
        return made

    def undivided(table, weight, extra):
        basis, mix = table_basis(table, weight)
        return basis, mix, whole(basis)

    scores = []
    for function in (parted, undivided):
        monkeypatch.setattr(crossvalidation, "parted_basis", function)
        model = RidgeCV(strategies.ALPHAS, cv=cv, solver=solver, scoring=scoring)
        scores.append(model.fit(X, Y).cv_scores_)
    assert max(seen) > 1
    np.testing.assert_allclose(*scores, rtol=0, atol=5e-6)
