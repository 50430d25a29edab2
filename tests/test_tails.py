"""Fitted tails and sequential stopping, against known distributions and naive loops."""

import numpy as np
import pytest
from scipy import stats

from ridgemm.errors import InputError
from ridgemm.null import pvalues
from ridgemm.tails import (
    _anderson_darling,
    _fit_pareto,
    _log_survival,
    besag_clifford_pvalues,
    besag_clifford_update,
    fit_tails,
    gpd_pvalues,
)


def pareto_sample(rng, shape, scale, size):
    return stats.genpareto.rvs(shape, scale=scale, size=size, random_state=rng)


def max_of_normals(rng, size, n_targets=100):
    """Maximum of `n_targets` normals, by inversion of its distribution."""
    return stats.norm.isf(-np.expm1(np.log(rng.random(size)) / n_targets))


def max_of_normals_isf(p, n_targets=100):
    return stats.norm.isf(-np.expm1(np.log1p(-p) / n_targets))


# The pieces of the fit ---------------------------------------------------------------------


@pytest.mark.parametrize("shape", [-0.4, -0.1, 0.0, 1e-9, 0.2])
def test_log_survival_against_scipy(shape):
    excess = np.linspace(0, 4, 30)
    ref = stats.genpareto.logsf(excess, shape, scale=1.5)
    comp = _log_survival(excess, np.float64(shape), np.float64(1.5))
    np.testing.assert_allclose(comp, ref, rtol=1e-6, atol=1e-12)
    assert (comp[excess > 1.5 / max(-shape, 1e-300)] == -np.inf).all()


@pytest.mark.parametrize("shape", [-0.4, -0.2, 0.0, 0.3])
def test_fit_recovers_shape_and_scale(shape):
    rng = np.random.default_rng(0)
    excess = np.sort(pareto_sample(rng, shape, 2.0, (200, 250)), axis=1)
    shapes, scales = _fit_pareto(excess)
    assert abs(shapes.mean() - shape) < 0.02
    assert abs(scales.mean() - 2.0) < 0.06


def naive_zhang_stephens(x):
    """The formulas of the 2009 article (shape of the opposite sign), one number at a time."""
    n, x = len(x), np.sort(x)
    m = 20 + int(np.sqrt(n))
    thetas, likelihoods = [], []
    for j in range(1, m + 1):
        theta = 1 / x[-1] + (1 - np.sqrt(m / (j - 0.5))) / (3 * x[int(n / 4 + 0.5) - 1])
        k = -np.mean([np.log(1 - theta * value) for value in x])
        thetas.append(theta)
        likelihoods.append(n * (np.log(theta / k) + k - 1))
    weights = [1 / sum(np.exp(other - own) for other in likelihoods) for own in likelihoods]
    theta = sum(w * t for w, t in zip(weights, thetas, strict=True))
    k = -np.mean([np.log(1 - theta * value) for value in x])
    return -k, k / theta


@pytest.mark.parametrize("shape", [-0.4, 0.3])
def test_fit_against_naive_loop(shape):
    excess = np.sort(pareto_sample(np.random.default_rng(16), shape, 3.0, (3, 60)), axis=1)
    ref = np.transpose([naive_zhang_stephens(row) for row in excess])
    np.testing.assert_allclose(_fit_pareto(excess), ref, rtol=1e-9)


def test_anderson_darling_against_naive_loop():
    excess = np.sort(pareto_sample(np.random.default_rng(1), -0.2, 1.0, 30))
    cdf = stats.genpareto.cdf(excess, -0.2, scale=1.0)
    total = 0.0
    for i in range(30):
        total += (2 * i + 1) * (np.log(cdf[i]) + np.log(1 - cdf[29 - i]))
    comp = _anderson_darling(excess[np.newaxis], np.array([-0.2]), np.array([1.0]))
    np.testing.assert_allclose(comp, -30 - total / 30, rtol=1e-10)


@pytest.mark.parametrize("shape", [-0.4, -0.2, 0.0, 0.3])
def test_goodness_of_fit_rejects_5_percent_of_true_tails(shape):
    # The tail starts at 250 values; the 251st only places the threshold.
    rng = np.random.default_rng(2)
    tails = pareto_sample(rng, shape, 1.0, (2000, 251))
    fit = fit_tails(tails, 1000)
    shortened = fit.rate < 251 / 1001
    assert 0.03 < np.mean(shortened | np.isnan(fit.rate)) < 0.07


# Fitted tails ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sample", "quantile"),
    [
        (lambda rng, size: rng.standard_normal(size), stats.norm.isf),
        (max_of_normals, max_of_normals_isf),
    ],
    ids=["normal", "max of normals"],
)
def test_fitted_p_is_within_a_factor_2_at_1e_4(sample, quantile):
    m, true_p = 10_000, 1e-4
    null = sample(np.random.default_rng(3), (100, m))
    observed = np.full(100, quantile(true_p))
    exceedances = (null >= observed[:, np.newaxis]).sum(axis=1)
    p, fitted = gpd_pvalues(observed, null, exceedances, m)
    assert fitted.mean() > 0.9
    assert 0.75 < np.median(p / true_p) < 1.33
    within = np.mean((p > true_p / 2) & (p < true_p * 2))
    empirical = pvalues(exceedances, m)
    assert within > 0.55
    # The reason for fitting: the spread is smaller than that of counts around 1.
    assert np.std(p) < np.std(empirical)


def test_rejection_rate_of_fitted_p_values_under_the_null():
    m, n_targets = 1000, 4000
    rng = np.random.default_rng(4)
    null, observed = rng.standard_normal((n_targets, m)), rng.standard_normal(n_targets)
    exceedances = (null >= observed[:, np.newaxis]).sum(axis=1)
    p, fitted = gpd_pvalues(observed, null, exceedances, m)
    assert fitted.any()
    for level in (0.05, 0.01, 0.005):
        assert stats.binomtest((p <= level).sum(), n_targets, level).pvalue > 0.001


def test_the_largest_251_values_are_enough():
    m = 2000
    null = np.random.default_rng(5).standard_normal((20, m))
    observed = np.full(20, 4.0)
    exceedances = (null >= 4.0).sum(axis=1)
    largest = np.sort(null, axis=1)[:, -251:]
    ref, _ = gpd_pvalues(observed, null, exceedances, m)
    comp, _ = gpd_pvalues(observed, largest, exceedances, m)
    assert np.array_equal(ref, comp)


def test_one_null_for_all_targets_equals_one_null_each():
    m = 1000
    null_max = max_of_normals(np.random.default_rng(6), m)
    observed = np.linspace(2.0, 6.0, 30)
    exceedances = (null_max >= observed[:, np.newaxis]).sum(axis=1)
    comp, comp_fitted = gpd_pvalues(observed, null_max, exceedances, m)
    ref, ref_fitted = gpd_pvalues(observed, np.tile(null_max, (30, 1)), exceedances, m)
    np.testing.assert_allclose(comp, ref, rtol=1e-12)
    assert np.array_equal(comp_fitted, ref_fitted)
    assert (np.diff(comp[comp_fitted]) < 0).all()


def test_empirical_p_stays_where_it_is_good_enough():
    m = 1000
    null = np.random.default_rng(7).exponential(size=m)
    ordered = np.sort(null)[::-1]
    observed = ordered[[8, 9]]  # 9 and 10 exceedances
    p, fitted = gpd_pvalues(observed, null, [9, 10], m)
    assert fitted.tolist() == [True, False]
    assert p[1] == 11 / 1001
    np.testing.assert_allclose(p[0], 10 / 1001, rtol=0.5)


def test_beyond_a_bounded_tail_p_is_empirical():
    null = np.random.default_rng(8).random(1000)  # uniform: shape -1, the end is at 1
    p, fitted = gpd_pvalues([0.9995, 2.0], null, [0, 0], 1000)
    assert not fitted[1]
    assert p[1] == 1 / 1001


@pytest.mark.parametrize(
    "null",
    [
        np.repeat([0.0, 1.0], 500),  # a two-valued statistic
        np.zeros(1000),
        np.full(1000, -np.inf),
        np.append(np.random.default_rng(9).standard_normal(999), np.nan),
    ],
    ids=["two values", "constant", "unfilled", "NaN"],
)
def test_no_fit_leaves_the_empirical_p(null):
    p, fitted = gpd_pvalues([3.0], null, [0], 1000)
    assert not fitted.any()
    assert p.tolist() == [1 / 1001]


def test_too_few_permutations_or_values_are_not_fitted():
    null = np.random.default_rng(10).standard_normal(1000)
    assert np.isnan(fit_tails(null[np.newaxis, :199], 199).shape).all()
    assert not np.isnan(fit_tails(null[np.newaxis, :200], 200).shape).any()
    assert np.isnan(fit_tails(np.sort(null)[np.newaxis, -50:], 1000).shape).all()


def test_nan_target_stays_nan():
    null = np.random.default_rng(11).standard_normal((2, 1000))
    p, fitted = gpd_pvalues([np.nan, 3.5], null, [np.nan, 0], 1000)
    assert np.isnan(p[0])
    assert fitted.tolist() == [False, True]


def test_fits_do_not_depend_on_the_block():
    tails = np.random.default_rng(12).standard_normal((150, 400))
    whole = fit_tails(tails, 400)
    for j in (0, 63, 64, 149):
        alone = fit_tails(tails[[j]], 400)
        np.testing.assert_allclose(alone.shape[0], whole.shape[j], rtol=1e-12)


def test_gpd_input_errors():
    null = np.zeros((2, 100))
    with pytest.raises(InputError, match="n_targets"):
        gpd_pvalues([1.0, 2.0, 3.0], null, [0, 0, 0], 100)
    with pytest.raises(InputError, match="n_targets"):
        gpd_pvalues([1.0], null, [0, 0], 100)
    with pytest.raises(InputError, match="max_exceedances=51"):
        gpd_pvalues([1.0, 2.0], null, [0, 0], 100, max_exceedances=51)
    with pytest.raises(InputError, match="n_permutations=99"):
        fit_tails(null, 99)


# Besag-Clifford ----------------------------------------------------------------------------


class BesagClifford:
    """The rule applied to batches of a null, as the permutation test applies it."""

    def __init__(self, observed, h=10):
        self.observed, self.h = np.asarray(observed), h
        self.exceedances = np.where(np.isnan(self.observed), np.nan, 0.0)
        self.n_drawn = np.zeros(self.observed.shape, dtype=np.int64)

    @property
    def stopped(self):
        return ~(self.exceedances < self.h)

    @property
    def running(self):
        return np.flatnonzero(~self.stopped)

    def update(self, null, targets=slice(None)):
        exceedances, n_drawn = self.exceedances[targets], self.n_drawn[targets]
        hits = ~(np.asarray(null) < self.observed[targets])
        besag_clifford_update(exceedances, n_drawn, hits, self.h)
        self.exceedances[targets], self.n_drawn[targets] = exceedances, n_drawn

    def pvalues(self):
        return besag_clifford_pvalues(self.exceedances, self.n_drawn, self.stopped)


def naive_besag_clifford(observed, null, h):
    """One target: draw until `h` exceedances or the end."""
    count = 0
    for n_drawn, value in enumerate(null, start=1):
        count += value >= observed
        if count == h:
            return count, n_drawn, h / n_drawn
    return count, len(null), (1 + count) / (1 + len(null))


@pytest.mark.parametrize("n_batch", [1, 13, 200])
@pytest.mark.parametrize("h", [1, 4, 10])
def test_besag_clifford_against_naive_loop(h, n_batch):
    rng = np.random.default_rng(14)
    observed = np.append(rng.integers(-3, 6, size=40).astype(float), 5.0)
    null = np.round(2 * rng.standard_normal((200, 41)))  # ties
    rule = BesagClifford(observed, h=h)
    for start in range(0, 200, n_batch):
        running = rule.running
        rule.update(null[start : start + n_batch, running], running)
    for j in range(41):
        count, n_drawn, p = naive_besag_clifford(observed[j], null[:, j], h)
        assert (rule.exceedances[j], rule.n_drawn[j]) == (count, n_drawn)
        assert rule.pvalues()[j] == p
    assert rule.stopped.any()
    assert not rule.stopped.all()


def test_besag_clifford_last_permutation_may_stop():
    exceedances, n_drawn = np.zeros(1), np.zeros(1, dtype=int)
    besag_clifford_update(exceedances, n_drawn, [[True], [False], [True], [True]], h=2)
    assert (exceedances[0], n_drawn[0]) == (2, 3)
    assert besag_clifford_pvalues(exceedances, n_drawn, [True])[0] == 2 / 3


@pytest.mark.parametrize("h", [1, 10])
def test_besag_clifford_is_exact_at_attainable_levels(h):
    # Under the null each p = h / l and (1 + c) / (1 + m) is its own probability.
    rng = np.random.default_rng(15)
    n_targets, m = 20_000, 199
    observed, null = rng.random(n_targets), rng.random((m, n_targets))
    rule = BesagClifford(observed, h=h)
    rule.update(null)
    p = rule.pvalues()
    for level in (h / 200, h / 100, h / 50, h / 20):
        assert stats.binomtest((p <= level).sum(), n_targets, level).pvalue > 0.001
    for level in np.linspace(0.003, 0.97, 20):
        assert np.mean(p <= level) < level + 4 * np.sqrt(level / n_targets)
    assert rule.n_drawn.mean() < m


def test_besag_clifford_nan_target_is_never_run():
    rule = BesagClifford([np.nan, 0.0])
    rule.update([[1.0, -1.0], [1.0, -1.0]])
    assert rule.running.tolist() == [1]
    assert rule.n_drawn.tolist() == [0, 2]
    assert np.array_equal(rule.pvalues(), [np.nan, 1 / 3], equal_nan=True)


def test_besag_clifford_undefined_null_counts_as_exceedance():
    rule = BesagClifford([0.0], h=2)
    rule.update([[np.nan], [np.nan]])
    assert rule.stopped.all()


def test_besag_clifford_input_errors():
    with pytest.raises(InputError, match="n_drawn"):
        BesagClifford([1.0]).pvalues()
