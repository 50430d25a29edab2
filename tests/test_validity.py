"""Rejection rates of whole permutation tests on simulated data without effect."""

import numpy as np
import pytest
from scipy.stats import binom, norm

from ridgemm import RidgeCV, permutation_test

LEVEL, M = 0.05, 19  # 0.05 * (19 + 1) is an integer: the test can be exact


@pytest.fixture(autouse=True)
def _fast_disk(monkeypatch):
    # a thousand runs of a few milliseconds: durability would take most of the time
    monkeypatch.setattr("os.fsync", lambda descriptor: None)


def assert_binomial(rejections, level=LEVEL):
    """The rejections of every column, all of them together, lie within 99 % binomial intervals.

    Columns are tested side by side, each in its share of the 1 %; their mean has the standard
    error of independent data sets (rows), whatever the columns of a row share.
    """
    rejections = np.atleast_2d(np.asarray(rejections, dtype=float).T).T
    n, t = rejections.shape
    low, high = binom.ppf((0.005 / t, 1 - 0.005 / t), n, level)
    counts = rejections.sum(axis=0)
    assert (low <= counts).all() and (counts <= high).all()
    share = rejections.mean(axis=1)
    assert abs(share.mean() - level) <= norm.ppf(0.995) * share.std(ddof=1) / np.sqrt(n)


def null_data(seed, t=5, n=24, p=3):
    """X and independent targets without any effect; both new for every seed."""
    rng = np.random.default_rng([seed, 7])
    return rng.standard_normal((n, p)), rng.standard_normal((n, t))


def rejections(n_data_sets, **options):
    """Which targets, and whether any target by FWER, are found in each data set."""
    each, any_target = np.zeros((n_data_sets, 5), dtype=bool), np.zeros(n_data_sets, dtype=bool)
    model = RidgeCV((1.0, 30.0), cv=2)
    for seed in range(n_data_sets):
        X, Y = null_data(seed)
        result = permutation_test(model, X, Y, n_permutations=M, random_state=seed, **options)
        each[seed] = result.pvalues <= LEVEL
        any_target[seed] = result.pvalues_fwer.min() <= LEVEL
    return each, any_target


# "heldout" is exact for one outer fold; models of several share samples, which it ignores
SPLIT = [(np.arange(12), np.arange(12, 24))]


@pytest.mark.parametrize(
    ("null", "cv"), [("refit", 2), ("heldout", SPLIT)], ids=["refit", "heldout"]
)
@pytest.mark.parametrize("n_data_sets", [200, pytest.param(1000, marks=pytest.mark.slow)], ids=str)
def test_rejection_rates_without_effect(null, cv, n_data_sets):
    each, any_target = rejections(n_data_sets, null=null, cv=cv)
    assert_binomial(each)
    assert_binomial(any_target)


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [
        {"scheme": "sign"},
        {"scheme": "within", "groups": np.repeat([0, 1, 2, 3], 6)},
        {"scheme": "whole", "groups": np.repeat(np.arange(8), 3)},
    ],
    ids=lambda options: options["scheme"],
)
def test_rejection_rates_of_other_schemes(options):
    each, any_target = rejections(1000, cv=2, **options)
    assert_binomial(each)
    assert_binomial(any_target)


@pytest.mark.parametrize("null", ["refit", "heldout"])
def test_many_targets_without_effect(null):
    """Independent targets given X are as many data sets; the scores share nothing else."""
    found = []
    for seed in range(5):
        X, Y = null_data(seed, t=200)
        result = permutation_test(
            RidgeCV((1.0, 30.0), cv=2), X, Y, cv=2, n_permutations=M, null=null
        )
        found.append(result.pvalues <= LEVEL)
    # targets share X and the permutations, which spreads the count more than independence does
    assert 0.025 <= np.mean(found) <= 0.085


@pytest.mark.parametrize("null", ["refit", "heldout"])
def test_known_effect_is_found(null):
    found, also = [], []
    for seed in range(10):
        X, Y = null_data(seed, n=60)
        Y[:, 0] += 2 * X[:, 0]
        result = permutation_test(
            RidgeCV((1.0, 30.0), cv=2), X, Y, cv=3, n_permutations=99, null=null
        )
        assert result.pvalues[0] <= result.pvalues_fdr[0] <= 0.05
        found.append(result.pvalues_fwer[0] <= LEVEL)
        also.append((result.pvalues_fwer[1:] <= LEVEL).any())
    assert all(found)
    assert sum(also) <= 3
