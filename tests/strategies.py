"""Hypothesis strategies for problems, cross-validation and scorings.

A problem is a seed and a few options; NumPy makes the arrays from them. So examples shrink
to fewer rows and plainer options, not to arrays of zeros.
"""

from typing import NamedTuple

import numpy as np
from hypothesis import strategies as st
from sklearn.model_selection import KFold, ShuffleSplit

DTYPES = ("float64", "float32", "float16", "int16", "int8", "uint8")
LAYOUTS = ("C", "F", "strided")
ALPHAS = np.logspace(-1, 4, 11)


class Problem(NamedTuple):
    """Read-only X (n_samples, n_features), Y (n_samples, n_targets), and alphas, unsorted."""

    X: np.ndarray
    Y: np.ndarray
    alphas: np.ndarray


def seeds():
    """Seeds for NumPy."""
    return st.integers(0, 2**32 - 1)


def scorings():
    """Names of the scorings."""
    return st.sampled_from(("r2", "correlation", "neg_mean_squared_error"))


def _raised_mean(dtype):
    return 60 if dtype in ("int8", "uint8") else 1000


def _hold_constant(rng, A):
    """Make one column of A or more constant: zero, or its first value; an only one, at times."""
    columns = rng.random(A.shape[1]) < 0.3
    if len(columns) > 1:
        columns[rng.integers(len(columns))] = True
    A[:, columns] = A[0, columns] * rng.integers(0, 2, columns.sum())


def _store(A, dtype, layout):
    """A as a read-only array: rounded and clipped where `dtype` is an integer."""
    if np.issubdtype(dtype, np.integer):
        A = np.rint(A).clip(np.iinfo(dtype).min, np.iinfo(dtype).max)
    if layout == "strided":
        stored = np.zeros((2 * A.shape[0], 3 * A.shape[1]), dtype)[::2, 1::3]
    else:
        stored = np.empty(A.shape, dtype, order=layout)
    stored[...] = A
    stored.flags.writeable = False
    return stored


@st.composite
def problems(draw, raised=True):
    """Small problems of every shape, dtype and memory layout, with signal in most targets.

    Parameters
    ----------
    raised : bool
        Whether some have features or targets of mean 1000 (60 in 8-bit integers) and sd 1.
        Without an intercept such a mean swamps the signal in any precision.

    Returns
    -------
    Problem
    """
    n = draw(st.integers(6, 12) | st.integers(6, 40), label="n_samples")
    sizes = st.integers(1, 4) | st.integers(5, 29) | st.integers(30, 50) | st.just(n)
    p = draw(sizes, label="n_features")
    t = draw(st.integers(1, 12), label="n_targets")
    x_dtype, y_dtype = (draw(st.sampled_from(DTYPES), label=f"{A} dtype") for A in "XY")
    x_layout, y_layout = (draw(st.sampled_from(LAYOUTS), label=f"{A} layout") for A in "XY")
    x_raised, y_raised = (raised and draw(st.booleans(), label=f"{A} raised") for A in "XY")
    duplicated = draw(st.booleans(), label="duplicated features")
    x_constant, y_constant = (draw(st.booleans(), label=f"{A} constants") for A in "XY")
    alphas = draw(st.lists(st.sampled_from(ALPHAS), min_size=1, max_size=6, unique=True))
    rng = np.random.default_rng(draw(seeds(), label="seed"))

    X = rng.standard_normal((n, p)) + x_raised * _raised_mean(x_dtype)
    if duplicated:
        X[:, p // 2 :] = X[:, : p - p // 2]
    if x_constant:
        _hold_constant(rng, X)
    X = _store(X, x_dtype, x_layout)

    # Noise from a tenth to ten times the signal, so that targets want different alphas.
    signal = (X - X.mean(axis=0, dtype=np.float64)) @ rng.standard_normal((p, t)) / np.sqrt(p)
    noise = 10 ** rng.uniform(-1, 1, t)
    Y = (signal + noise * rng.standard_normal((n, t))) / np.sqrt(1 + noise**2)
    if np.issubdtype(y_dtype, np.integer):
        Y *= 10
    Y += y_raised * _raised_mean(y_dtype)
    if y_constant:
        _hold_constant(rng, Y)
    return Problem(X, _store(Y, y_dtype, y_layout), np.array(alphas))


@st.composite
def index_pairs(draw, n_samples):
    """(train, test) pairs of unequal sizes, in any order; train may leave some rows out."""
    n_folds = draw(st.integers(2, 4), label="n_folds")
    n_unused = draw(st.integers(0, 2), label="rows in neither train nor test")
    rng = np.random.default_rng(draw(seeds(), label="seed"))
    rows = rng.permutation(n_samples)
    # The first and the last test keep two rows each, so that every train has two.
    cuts = np.sort(rng.choice(np.arange(2, n_samples - 1), n_folds - 1, replace=False))
    pairs = []
    for test in np.split(rows, cuts):
        train = rng.permutation(np.setdiff1d(rows, test))
        pairs.append((train[min(n_unused, len(train) - 2) :], test))
    return pairs


def cvs(n_samples, scoring="r2"):
    """Everything `cv` may be; "gcv" only where `scoring` is defined for it."""
    n_splits = st.integers(2, min(5, n_samples))
    shuffled = st.builds(KFold, n_splits, shuffle=st.just(True), random_state=seeds())
    random = st.builds(
        ShuffleSplit,
        st.integers(1, 4),
        test_size=st.sampled_from((0.2, 0.35, 0.5)),
        random_state=seeds(),
    )
    names = ("loo",) if scoring == "correlation" else ("loo", "gcv")
    return st.one_of(n_splits, shuffled, index_pairs(n_samples), random, st.sampled_from(names))
