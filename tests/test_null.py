"""Permutation schemes and p-values, against brute force on few rows."""

import itertools
import math
import pickle

import numpy as np
import pytest
from scipy import stats

from ridgemm.errors import InputError
from ridgemm.null import (
    count_exceedances,
    fdr_pvalues,
    fwer_pvalues,
    pvalues,
    tail_statistic,
)
from ridgemm.schemes import permutation_scheme

# Slow, obvious references ------------------------------------------------------------------


def members_of(groups):
    groups = np.asarray(groups)
    return [np.flatnonzero(groups == label) for label in np.unique(groups)]


def naive_within(groups):
    """Every order of all rows that leaves each row in its group."""
    return {
        rows
        for rows in itertools.permutations(range(len(groups)))
        if all(groups[row] == groups[place] for place, row in enumerate(rows))
    }


def naive_whole(groups):
    members = members_of(groups)
    found = set()
    for order in itertools.permutations(range(len(members))):
        if all(len(members[g]) == len(members[source]) for g, source in enumerate(order)):
            rows = np.empty(len(groups), dtype=int)
            for g, source in enumerate(order):
                rows[members[g]] = members[source]
            found.add(tuple(rows.tolist()))
    return found


def naive_circular(groups, min_shift):
    members = members_of(groups)
    choices = [[s for s in range(len(m)) if min(s, len(m) - s) >= min_shift] for m in members]
    found = {tuple(range(len(groups)))}
    for shifts in itertools.product(*choices):
        rows = np.empty(len(groups), dtype=int)
        for m, shift in zip(members, shifts, strict=True):
            rows[m] = np.roll(m, -shift)
        found.add(tuple(rows.tolist()))
    return found


def naive_sign(groups):
    labels, codes = np.unique(groups, return_inverse=True)
    return {
        tuple(np.array(signs)[codes].tolist())
        for signs in itertools.product((1, -1), repeat=len(labels))
    }


def drawn(scheme):
    """All draws as tuples: signs where there are signs, else rows."""
    draws = [scheme.draw(i) for i in range(scheme.n_permutations)]
    return [tuple((rows if signs is None else signs).tolist()) for rows, signs in draws]


def check_enumeration(scheme, expected, identity):
    found = drawn(scheme)
    assert scheme.exhaustive
    assert scheme.n_distinct == len(expected)
    assert scheme.n_permutations == len(found) == len(expected) - 1
    assert set(found) == expected - {identity}


# Enumeration -------------------------------------------------------------------------------


@pytest.mark.parametrize("n_samples", [2, 3, 5])
def test_free_enumerates_all_orders(n_samples):
    scheme = permutation_scheme("free", n_samples, 10_000)
    expected = set(itertools.permutations(range(n_samples)))
    check_enumeration(scheme, expected, tuple(range(n_samples)))


@pytest.mark.parametrize(
    "groups", [[0, 0, 0, 1, 1, 1], list("babaab"), [3, 1, 2, 1, 3, 3, 3], [0, 1, 2, 2]]
)
def test_within_enumerates_all_orders_inside_groups(groups):
    scheme = permutation_scheme("within", len(groups), 10_000, groups=groups)
    check_enumeration(scheme, naive_within(groups), tuple(range(len(groups))))


@pytest.mark.parametrize(
    "groups", [[0, 0, 1, 1, 2, 2], [2, 0, 1, 0, 2, 1], [0, 0, 1, 2, 2, 3, 4, 4, 4], list("ab")]
)
def test_whole_enumerates_exchanges_of_equal_groups(groups):
    scheme = permutation_scheme("whole", len(groups), 10_000, groups=groups)
    check_enumeration(scheme, naive_whole(groups), tuple(range(len(groups))))


@pytest.mark.parametrize("min_shift", [0, 1, 2])
@pytest.mark.parametrize("groups", [[0] * 7, [0, 0, 0, 0, 1, 1, 1, 1, 1], [1, 0, 1, 0, 0, 1, 1, 0]])
def test_circular_enumerates_all_allowed_shifts(groups, min_shift):
    scheme = permutation_scheme("circular", len(groups), 10_000, groups=groups, min_shift=min_shift)
    expected = naive_circular(groups, min_shift)
    check_enumeration(scheme, expected, tuple(range(len(groups))))


def test_circular_without_groups_shifts_the_whole_series():
    scheme = permutation_scheme("circular", 6, 100)
    assert set(drawn(scheme)) == {tuple(np.roll(range(6), -s).tolist()) for s in range(1, 6)}


@pytest.mark.parametrize("groups", [None, [0, 0, 0, 1, 1, 2], list("cabcab")])
def test_sign_enumerates_all_flips(groups):
    scheme = permutation_scheme("sign", 6, 10_000, groups=groups)
    expected = naive_sign(range(6) if groups is None else groups)
    check_enumeration(scheme, expected, (1,) * 6)
    assert all(np.array_equal(scheme.draw(i)[0], np.arange(6)) for i in range(3))


def test_enumeration_gives_the_exact_p_value():
    # An exact test: over all data orders, P(p <= a) <= a with equality at the attainable levels.
    scheme = permutation_scheme("free", 4, 1000)
    p = []
    for order in itertools.permutations([1.0, 10.0, 100.0, 1000.0]):
        y = np.array(order)
        null = [y[scheme.draw(i)[0]] @ np.arange(4) for i in range(scheme.n_permutations)]
        p.append(fwer_pvalues([y @ np.arange(4)], null)[0])
    assert np.array_equal(np.sort(p), np.arange(1, 25) / 24)


def test_exhaustive_only_when_no_more_exist():
    # 4! - 1 = 23 permutations other than the identity.
    assert permutation_scheme("free", 4, 23).exhaustive
    assert permutation_scheme("free", 4, 24).n_permutations == 23
    scheme = permutation_scheme("free", 4, 22)
    assert not scheme.exhaustive
    assert scheme.n_permutations == 22


# Random draws ------------------------------------------------------------------------------

GROUPS = np.array([2, 0, 1, 1, 0, 2, 0, 1, 2, 2, 1, 0] * 4)
ALL_SCHEMES = [
    ("free", None, {}),
    ("within", GROUPS, {}),
    ("whole", np.arange(48) % 24, {}),
    ("circular", None, {"min_shift": 5}),
    ("circular", GROUPS, {"min_shift": 2}),
    ("sign", None, {}),
    ("sign", np.arange(48) % 24, {}),
]


@pytest.mark.parametrize(("name", "groups", "options"), ALL_SCHEMES)
def test_draw_depends_on_seed_and_number_alone(name, groups, options):
    def make(n_permutations, seed=7):
        return permutation_scheme(
            name, 48, n_permutations, groups=groups, random_state=seed, **options
        )

    expected = drawn(make(20))
    longer = pickle.loads(pickle.dumps(make(35)))  # as another process would hold it
    for i in reversed(range(20)):
        rows, signs = longer.draw(i)
        assert tuple((rows if signs is None else signs).tolist()) == expected[i]
    assert drawn(make(20, seed=8)) != expected
    assert len(set(expected)) > 10


@pytest.mark.parametrize(("name", "groups", "options"), ALL_SCHEMES)
def test_random_draws_obey_the_scheme(name, groups, options):
    scheme = permutation_scheme(name, 48, 20, groups=groups, **options)
    assert not scheme.exhaustive
    for i in range(scheme.n_permutations):
        rows, signs = scheme.draw(i)
        assert rows.dtype == np.intp
        assert np.array_equal(np.sort(rows), np.arange(48))
        if name == "within":
            assert np.array_equal(groups[rows], groups)
        if name == "whole":
            for member in members_of(groups):
                source = members_of(groups)[groups[rows[member[0]]]]
                assert np.array_equal(rows[member], source)
        if name == "circular":
            for member in members_of(np.zeros(48) if groups is None else groups):
                shift = int(np.flatnonzero(rows[member[0]] == member)[0])
                assert options["min_shift"] <= shift <= len(member) - options["min_shift"]
                assert np.array_equal(rows[member], np.roll(member, -shift))
        if name == "sign":
            assert signs.dtype == np.int8
            assert set(np.unique(signs).tolist()) <= {-1, 1}
            if groups is not None:
                assert all(np.ptp(signs[member]) == 0 for member in members_of(groups))
        else:
            assert signs is None


@pytest.mark.parametrize(
    ("name", "n_samples", "groups", "options"),
    [
        ("free", 4, None, {}),
        ("within", 6, [0, 1, 0, 1, 0, 1], {}),
        ("whole", 8, [0, 1, 2, 3, 3, 2, 1, 0], {}),
        ("circular", 11, [0] * 6 + [1] * 5, {"min_shift": 1}),
        ("circular", 11, [0] * 6 + [1] * 5, {"min_shift": 0}),
        ("sign", 4, None, {}),
    ],
)
def test_random_draws_are_uniform(name, n_samples, groups, options):
    everything = permutation_scheme(name, n_samples, 10**6, groups=groups, **options)
    cells = set(drawn(everything))
    if options.get("min_shift") != 1:  # with min_shift 1 the identity is never drawn
        cells.add((1,) * n_samples if name == "sign" else tuple(range(n_samples)))
    counts = dict.fromkeys(cells, 0)
    n_permutations = everything.n_permutations - 1  # one more would be an enumeration
    for seed in range(math.ceil(60 * len(cells) / n_permutations)):
        scheme = permutation_scheme(
            name, n_samples, n_permutations, groups=groups, random_state=seed, **options
        )
        for draw in drawn(scheme):
            counts[draw] += 1  # a KeyError is a draw that the scheme forbids
    assert stats.chisquare(list(counts.values())).pvalue > 0.001


def test_many_rows_and_groups_are_cheap_and_countless():
    groups = np.arange(100_000) // 2
    scheme = permutation_scheme("within", 100_000, 10, groups=groups)
    assert scheme.n_distinct == math.inf
    rows, _ = scheme.draw(9)
    assert np.array_equal(groups[rows], groups)
    assert permutation_scheme("free", 20, 10).n_distinct == math.factorial(20)
    assert permutation_scheme("free", 21, 10).n_distinct == math.inf
    assert permutation_scheme("sign", 62, 10).n_distinct == 2**62
    assert permutation_scheme("sign", 63, 10).n_distinct == math.inf


# The user's own permutations ---------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["uint8", "int32", "int64"])
def test_given_permutations_are_used_in_order(dtype):
    given = np.array([[2, 1, 0], [0, 1, 2], [2, 1, 0], [1, 2, 0]], dtype=dtype)
    scheme = permutation_scheme(given, 3, 1000)
    assert (scheme.name, scheme.n_permutations, scheme.exhaustive) == ("given", 4, False)
    assert scheme.n_distinct == 3
    rows, signs = scheme.draw(3)
    assert rows.dtype == np.intp
    assert rows.tolist() == [1, 2, 0]
    assert signs is None
    assert permutation_scheme(given, 3, 2).n_permutations == 2


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([[0, 1, 1]], r"scheme\[0\] is not a permutation"),
        ([[0, 1, 2], [-1, 0, 1]], r"scheme\[1\] is not a permutation"),
        ([[1, 2, 3]], r"scheme\[0\] is not a permutation"),
        ([[0.0, 1.0, 2.0]], "float64"),
        ([[True, False, True]], "bool"),
        ([0, 1, 2], r"shape \(3,\)"),
        ([[0, 1]], r"shape \(1, 2\)"),
        (np.empty((0, 3), dtype=int), "no rows"),
    ],
)
def test_given_permutations_are_validated(given, message):
    with pytest.raises(InputError, match=message):
        permutation_scheme(given, 3, 10)


# Errors and words --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"scheme": "shuffle"}, "'shuffle' is unknown; use one of 'free'"),
        ({"scheme": "within"}, "groups=None"),
        ({"scheme": "whole"}, "groups=None"),
        ({"groups": [0, 1], "scheme": "within"}, r"shape \(2,\)"),
        ({"groups": [0, 1, np.nan, 1], "scheme": "within"}, "NaN"),
        ({"n_permutations": 0}, "n_permutations=0"),
        ({"n_permutations": 10.0}, "n_permutations=10.0"),
        ({"n_samples": 0}, "n_samples=0"),
        ({"random_state": None}, "random_state=None"),
        ({"random_state": -1}, "random_state=-1"),
        ({"random_state": True}, "random_state=True"),
        ({"scheme": "circular", "min_shift": 3}, "the series has 4 rows; use at most 2"),
        ({"scheme": "circular", "min_shift": -1}, "min_shift=-1"),
        (
            {"scheme": "circular", "min_shift": 2, "groups": list("aaab")},
            "group b has 1 rows; use at most 0",
        ),
        ({"scheme": "whole", "groups": [0, 0, 0, 1]}, "no two groups have the same size"),
        ({"scheme": "within", "groups": [0, 1, 2, 3]}, "every group has one row"),
        ({"n_samples": 1}, "nothing to permute"),
    ],
)
def test_input_errors_name_the_argument(arguments, message):
    defaults = {"scheme": "free", "n_samples": 4, "n_permutations": 10}
    with pytest.raises(InputError, match=message):
        permutation_scheme(**{**defaults, **arguments})


def test_draw_outside_the_sequence_is_an_index_error():
    scheme = permutation_scheme("free", 10, 5)
    for i in (-1, 5):
        with pytest.raises(IndexError, match=f"permutation {i} "):
            scheme.draw(i)


def test_describe_says_what_was_done():
    assert permutation_scheme("free", 4, 500).describe() == (
        "All 23 free permutations of 4 rows other than the identity, enumerated "
        "(500 were asked for)."
    )
    assert permutation_scheme("free", 40, 500, random_state=3).describe() == (
        "500 random free permutations of 40 rows (seed 3)."
    )
    for name, groups, options in ALL_SCHEMES:
        scheme = permutation_scheme(name, 48, 9, groups=groups, **options)
        assert ("groups" in scheme.describe()) == (groups is not None)
    given = permutation_scheme([[1, 0]], 2, 10)
    assert given.describe() == "The 1 permutations of 2 rows given by the user."
    repr(permutation_scheme("free", 70_000, 10))  # 70000! has too many digits to print


# p-values ----------------------------------------------------------------------------------


def test_pvalues_against_naive_loop():
    rng = np.random.default_rng(0)
    null = rng.integers(0, 5, size=(99, 7))  # many ties
    observed = rng.integers(0, 6, size=7)
    exceedances = (null >= observed).sum(axis=0)
    naive = []
    for j in range(7):
        count = 1
        for i in range(99):
            count += null[i, j] >= observed[j]
        naive.append(count / 100)
    assert np.array_equal(pvalues(exceedances, 99), naive)


def test_pvalues_keep_nan_and_reject_impossible_counts():
    assert np.array_equal(pvalues([np.nan, 0], 9), [np.nan, 0.1], equal_nan=True)
    assert pvalues(np.array([3], dtype=np.float32), 9).dtype == np.float64
    for exceedances in ([10], [-1]):
        with pytest.raises(InputError, match="n_permutations=9"):
            pvalues(exceedances, 9)
    with pytest.raises(InputError, match="n_permutations=0"):
        pvalues([0], 0)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_fwer_pvalues_against_naive_loop(dtype):
    rng = np.random.default_rng(1)
    null = rng.integers(0, 30, size=(50, 8)).astype(dtype) / 7  # ties that are exact
    scores = null[0].copy()
    scores[3] = np.nan
    null_max = null.max(axis=1)
    naive = [
        np.nan if np.isnan(score) else (1 + sum(x >= score for x in null_max)) / 51
        for score in scores
    ]
    assert np.array_equal(fwer_pvalues(scores, null_max), naive, equal_nan=True)


def test_undefined_null_statistics_count_as_exceedances():
    assert np.array_equal(count_exceedances([0.0, 5.0], [np.nan, 1.0, -1.0]), [2, 1])


@pytest.mark.parametrize("null", [[], [[1.0, 2.0]]])
def test_null_of_wrong_shape(null):
    with pytest.raises(InputError, match="null has shape"):
        fwer_pvalues([0.0], null)


def test_fdr_pvalues_by_hand():
    p = np.array([0.03, 0.005, np.nan, 0.02, 0.9])
    # Sorted: 0.005 * 4, then 0.02 * 2 and 0.03 * 4/3 are both 0.04, then 0.9.
    expected = [0.04, 0.02, np.nan, 0.04, 0.9]
    np.testing.assert_allclose(fdr_pvalues(p), expected, rtol=1e-15)
    assert p[1] == 0.005


def test_fdr_pvalues_decide_as_the_step_up_procedure():
    p = np.random.default_rng(2).random(200) ** 2
    for level in (0.01, 0.05, 0.2, 0.6):
        ordered = np.sort(p)
        below = np.flatnonzero(ordered <= level * np.arange(1, 201) / 200)
        limit = ordered[below[-1]] if below.size else -1.0
        assert np.array_equal(fdr_pvalues(p) <= level, p <= limit)


def test_fdr_pvalues_shapes_and_errors():
    assert np.isnan(fdr_pvalues([np.nan, np.nan])).all()
    p = np.random.default_rng(3).random((4, 5))
    assert np.array_equal(fdr_pvalues(p).ravel(), fdr_pvalues(p.ravel()))
    with pytest.raises(InputError, match="between 0 and 1"):
        fdr_pvalues([0.5, 1.5])


def test_tail_statistic():
    scores = np.array([-0.5, 0.2, np.nan])
    assert np.array_equal(tail_statistic(scores, two_sided=False), scores, equal_nan=True)
    assert np.array_equal(
        tail_statistic(scores, two_sided=True), [0.5, 0.2, np.nan], equal_nan=True
    )


# Validity ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["free", "within", "whole", "circular", "sign"])
def test_rejection_rate_without_effect(name):
    # Rows are independent and symmetric, so every scheme is valid; min_shift 0 is exact.
    rng = np.random.default_rng(11)
    n_samples, n_targets, n_permutations = 32, 2000, 99
    groups = np.arange(n_samples) // 4
    x = rng.standard_normal(n_samples)
    Y = rng.standard_normal((n_samples, n_targets))
    scheme = permutation_scheme(name, n_samples, n_permutations, groups=groups, min_shift=0)
    assert not scheme.exhaustive
    exceedances = np.zeros(n_targets)
    observed = x @ Y
    for i in range(n_permutations):
        rows, signs = scheme.draw(i)
        permuted = Y[rows] if signs is None else Y[rows] * signs[:, np.newaxis]
        exceedances += x @ permuted >= observed
    # The permutations are shared by the targets, which widens the binomial interval a
    # little; its 99.9 % limits are 0.034 and 0.066.
    rate = np.mean(pvalues(exceedances, n_permutations) <= 0.05)
    assert 0.034 <= rate <= 0.066
