"""Squares of predictions of all alphas from pairs of eigenvalues, judged by float64 forms."""

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from ridgemm import RidgeCV, factors, quadratic
from ridgemm.lapack import Matrices
from ridgemm.workspace import Workspace
from tests import naive, strategies

# largest error of a square beside the sums of squares of targets and predictions, which R2 divides
# by, and beside the square itself, as for a correlation; of random walks and of other designs
WALKS, OTHERS = (5e-5, 2e-4), (3e-6, 2e-6)


def noise(rng, n, p):
    return rng.standard_normal((n, p))


def walk(rng, n, p):
    """Random walks: six decades of eigenvalues, and test rows far from the training rows."""
    return np.cumsum(rng.standard_normal((n, p)), axis=0)


def smooth(rng, n, p):
    X, kernel = rng.standard_normal((n, p)), np.exp(-np.arange(12) / 4)
    return np.apply_along_axis(lambda column: np.convolve(column, kernel)[:n], 0, X)


def decaying(rng, n, p):
    turn = np.linalg.qr(rng.standard_normal((p, p)))[0]
    return rng.standard_normal((n, p)) @ (np.logspace(0, -5, p)[:, None] * turn)


def indicators(rng, n, p):
    """Equal counts: clusters of equal eigenvalues, and one that only the intercept sees."""
    return np.eye(p)[rng.permutation(np.arange(n) % p)]


def doubled(rng, n, p):
    X = rng.standard_normal((n, -(-p // 2)))
    return np.hstack([X, X + 1e-3 * rng.standard_normal(X.shape)])[:, :p]


def whitened(rng, n, p):
    """Eigenvalues that differ by a few percent: most pairs are close."""
    return np.linalg.qr(rng.standard_normal((n, p)))[0]


DESIGNS = (noise, walk, smooth, decaying, indicators, doubled, whitened)


class Fold:
    """Training and test rows of a design, factored in float64."""

    def __init__(self, design, n, p, n_test, seed, scale=1.0):
        rng = np.random.default_rng(seed)
        X = scale * design(rng, n + n_test, p)
        Y = np.hstack([rng.standard_normal((len(X), 3)), X @ rng.standard_normal((p, 2)) / scale])
        Y = np.hstack([Y, np.cumsum(rng.standard_normal((len(X), 2)), axis=0)])
        train, test = X[:n] - X[:n].mean(axis=0), X[n:] - X[n:].mean(axis=0)
        w, V = np.linalg.eigh(train.T @ train)
        kept = w > 1e-13 * p * w[-1]
        self.w, self.V = w[kept], np.ascontiguousarray(V[:, kept].T)
        self.gram = test.T @ test
        P = test @ self.V.T
        self.M = P.T @ P
        y = (Y[:n] - Y[:n].mean(axis=0)) / np.maximum(Y[:n].std(axis=0), 1e-9)
        self.Z = (self.V @ (train.T @ y)).astype(np.float32)
        self.variation = n_test * np.ones(Y.shape[1])
        # below this, no primal route is taken
        self.alphas = np.logspace(-6, 4, 11) * self.w.max(initial=0)

    def pairs(self, folder, matrices=None):
        matrices = Matrices() if matrices is None else matrices
        quadratic.write_pairs(folder, self.w, self.V, self.gram, matrices)
        apart, close = (np.load(folder / f"{name}.npy", mmap_mode="r") for name in FILES)
        return quadratic.Pairs.opened(self.w, apart, close)

    def squares(self, pairs):
        sums = np.zeros((len(self.alphas), self.Z.shape[1]))
        quadratic.add_squares(pairs, self.Z, self.alphas, Workspace(), sums)
        return sums

    def errors(self, pairs):
        exact = naive.quadratic_forms(self.w, self.M, self.Z, self.alphas)
        error = np.abs(self.squares(pairs) - exact)
        return np.max(error / (self.variation + exact)), np.max(error / exact)


FILES = ("apart", "close")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("pairs")


@given(
    design=st.sampled_from(DESIGNS),
    p=st.integers(1, 90),
    more=st.integers(1, 200),
    n_test=st.integers(33, 80),
    seed=strategies.seeds(),
)
def test_all_alphas_from_one_product(folder, design, p, more, n_test, seed):
    fold = Fold(design, p + more, p, n_test, seed)
    assume(len(fold.w))
    error, _ = fold.errors(fold.pairs(folder))
    assert error <= (WALKS if design is walk else OTHERS)[0]


@pytest.mark.parametrize("design", DESIGNS)
def test_error_of_a_large_fold(folder, design):
    fold = Fold(design, 1300, 400, 500, seed=1)
    bounds = WALKS if design is walk else OTHERS
    assert np.all(np.array(fold.errors(fold.pairs(folder))) <= bounds)


def test_levels_are_needed(folder, monkeypatch):
    monkeypatch.setattr(quadratic, "_LEVEL", 1e30)
    fold = Fold(walk, 1300, 400, 500, seed=1)
    assert fold.errors(fold.pairs(folder))[1] > 5 * WALKS[1]


@pytest.mark.parametrize("close", [1e-7, 0.3], ids=["no close pairs", "far pairs, too"])
def test_close_pairs_are_needed(folder, monkeypatch, close):
    fold = Fold(noise, 1300, 400, 500, seed=1)
    if close < 0.02:
        # the identity holds for any eigenvalues: here, twins that differ by 1e-5
        fold.w[1::2] = (1 + 1e-5) * fold.w[::2]
    assert fold.errors(fold.pairs(folder))[1] <= OTHERS[1]
    monkeypatch.setattr(quadratic, "_CLOSE", close)
    assert fold.errors(fold.pairs(folder))[1] > 5 * OTHERS[1]


@pytest.mark.parametrize("scale", [1e-20, 1e15])
def test_features_of_any_size(folder, scale):
    # eigenvalues outside the range of float32, and their products beyond that of float64
    fold = Fold(noise, 200, 70, 60, seed=0, scale=scale)
    assert fold.errors(fold.pairs(folder))[0] <= OTHERS[0]


@pytest.mark.parametrize("design", DESIGNS)
def test_chunks_of_rows(folder, monkeypatch, design):
    fold = Fold(design, 300, 120, 100, seed=2)
    pairs = fold.pairs(folder)
    whole = fold.squares(pairs)
    monkeypatch.setattr(quadratic, "PAIR_ROWS", 32)
    assert_allclose(fold.squares(pairs), whole, rtol=1e-4 if design is walk else 1e-5)


def test_matrices_in_files(folder, tmp_path):
    fold = Fold(smooth, 300, 150, 100, seed=3)
    one = fold.pairs(folder)
    other = fold.pairs(tmp_path, Matrices(tmp_path))
    assert sorted(path.stem for path in tmp_path.iterdir()) == sorted(FILES)
    assert_array_equal(one.apart, other.apart)
    for (_, _, here), (_, _, there) in zip(one.close, other.close, strict=True):
        assert_array_equal(here, there)


@pytest.mark.parametrize("design", DESIGNS)
def test_every_pair_is_in_one_place(folder, design):
    fold = Fold(design, 300, 70, 60, seed=4)
    pairs, k = fold.pairs(folder), len(fold.w)
    unit = fold.w[-1]
    close = np.zeros((k, k))
    for rows, columns, panel in pairs.close:
        close[rows, columns] = panel[::2]
    assert not np.any((pairs.apart != 0) & (close != 0))
    assert_array_equal(pairs.apart, -pairs.apart.T)
    made = pairs.apart * (fold.w - fold.w[:, None]) + unit * close
    assert_allclose(made, fold.M, rtol=1e-5, atol=1e-7 * np.abs(fold.M).max())
    largest = np.maximum(fold.w, fold.w[:, None])
    distance = np.abs(fold.w - fold.w[:, None]) / largest
    assert np.all(distance[pairs.apart != 0] > 0.019) and np.all(distance[close != 0] < 0.021)


def test_levels_cover_all_eigenvalues():
    w = np.concatenate([[0.0, 1e-14], np.logspace(-8, 0, 50)])
    levels = quadratic._levels(w)
    assert [level.start for level in levels[:-1]] == [level.stop for level in levels[1:]]
    assert levels[0].stop == len(w) and levels[-1].start == 0
    assert all(w[s.stop - 1] <= 16 * w[s.start] for s in levels[:-1])
    assert quadratic._levels(np.zeros(1)) == [slice(0, 1)]


# Whole fits --------------------------------------------------------------------------------


def fits(monkeypatch, X, Y, weights, **options):
    """Mean scores of all alphas where a fold keeps its test rows, and where it keeps pairs."""
    made = []
    for few in (True, False):
        monkeypatch.setattr(factors, "has_few_rows", lambda *_, few=few: few)
        model = RidgeCV(strategies.ALPHAS, solver="primal-statistics", **options)
        made.append(model.fit(X, Y, sample_weight=weights).cv_scores_)
    return made


@given(
    design=st.sampled_from(DESIGNS),
    p=st.integers(1, 40),
    n=st.integers(100, 160),
    scoring=strategies.scorings(),
    fit_intercept=st.booleans(),
    standardize=st.booleans(),
    weighted=st.booleans(),
    seed=strategies.seeds(),
)
def test_pairs_score_as_rows_do(design, p, n, scoring, fit_intercept, standardize, weighted, seed):
    rng = np.random.default_rng(seed)
    X, Y = design(rng, n, p), rng.standard_normal((n, 4))
    Y[:, 1:] += X @ rng.standard_normal((p, 3)) / np.sqrt(1 + np.square(X).sum(axis=1).mean())
    weights = rng.random(n) + 0.1 if weighted else None
    options = dict(cv=3, scoring=scoring, fit_intercept=fit_intercept, standardize=standardize)
    with pytest.MonkeyPatch.context() as monkeypatch:
        rows, pairs = fits(monkeypatch, X, Y, weights, **options)
    assert_allclose(pairs, rows, rtol=0, atol=1e-4 * (1 + np.abs(rows).max()))
