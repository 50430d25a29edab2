"""Genotypes read from a .bed are those that were written, and give the same fits."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from ridgemm import InputError, RidgeCV, open_bed, permutation_test
from ridgemm.sources import as_source
from ridgemm.store import fingerprint
from ridgemm.threads import Team
from ridgemm.transport import pack, unpack

to_bed = pytest.importorskip("bed_reader").to_bed


def simulate(n, m, seed=0):
    """Copies of an allele, NaN where missing; one marker without variation, one unknown."""
    rng = np.random.default_rng(seed)
    genotypes = rng.binomial(2, rng.uniform(0.05, 0.95, m), (n, m)).astype(np.float64)
    genotypes[rng.random((n, m)) < 0.02] = np.nan
    genotypes[:, 3], genotypes[:, 5] = 2, np.nan
    return genotypes


def dosages(genotypes, standardize=False):
    """The documented values in float64, marker by marker."""
    X = np.zeros(genotypes.shape)
    for j, column in enumerate(genotypes.T):
        known = column[~np.isnan(column)]
        frequency = known.mean() / 2 if len(known) else 0
        X[:, j] = np.where(np.isnan(column), 2 * frequency, column)
        if standardize:
            scale = np.sqrt(2 * frequency * (1 - frequency))
            X[:, j] = (X[:, j] - 2 * frequency) / scale if scale else 0
    return X


@pytest.fixture(scope="module")
def genotypes():
    # more markers than one call of bed-reader takes
    return simulate(60, 2100)


@pytest.fixture(scope="module")
def path(genotypes, tmp_path_factory):
    path = tmp_path_factory.mktemp("genetics") / "mice.bed"
    to_bed(path, genotypes)
    return path


@pytest.mark.parametrize("standardize", [False, True])
def test_values(standardize, genotypes, path):
    source = open_bed(path, standardize)
    expected = dosages(genotypes, standardize)
    assert_allclose(source[:, :], expected, rtol=1e-6, atol=1e-6)
    assert source.shape == genotypes.shape and source.dtype == np.float32
    assert_array_equal(source.missing, np.isnan(genotypes).sum(axis=0))
    rows = np.array([1, 2, 40])
    assert_array_equal(source[rows, 1000:1100], source[:, :][rows, 1000:1100])
    assert_array_equal(source[7:9, 5], source[:, :][7:9, 5])
    assert len(source.iid) == 60 and len(source.sid) == 2100


@pytest.mark.parametrize("standardize", [False, True])
@pytest.mark.parametrize("options", [{}, {"n_jobs": 2}, {"solver": "svd-products", "cv": 2}])
def test_a_fit_is_that_on_the_array(options, standardize, genotypes, path):
    source = open_bed(path, standardize)
    array = source[:, :]
    rng = np.random.default_rng(1)
    Y = array @ rng.standard_normal((2100, 6)) + 20 * rng.standard_normal((60, 6))
    alphas = (100, 1000, 10000)
    comp, ref = (RidgeCV(alphas, **options).fit(X, Y) for X in (source, array))
    for name in ("cv_scores_", "alpha_", "coef_"):
        assert_array_equal(getattr(comp, name), getattr(ref, name))
    assert_array_equal(comp.predict(source), ref.predict(array))


def test_a_path_is_enough(genotypes, path):
    Y = np.random.default_rng(0).standard_normal((60, 3))
    comp = RidgeCV((100, 1000)).fit(str(path), Y)
    ref = RidgeCV((100, 1000)).fit(dosages(genotypes).astype(np.float32), Y)
    assert_array_equal(comp.cv_scores_, ref.cv_scores_)


def test_two_workers_make_the_same_null(path, tmp_path):
    Y = np.random.default_rng(0).standard_normal((60, 8))
    results = [
        permutation_test(
            RidgeCV((100, 1000), n_jobs=n_jobs),
            path,
            Y,
            n_permutations=9,
            out=tmp_path / str(n_jobs),
        )
        for n_jobs in (1, 2)
    ]
    assert_array_equal(*(result.null_max for result in results))


def test_fingerprints_follow_the_file(path, tmp_path):
    genotypes = simulate(60, 200)
    prints = []
    with Team(1) as team:
        for standardize, changed in ((False, 0), (True, 0), (False, 1), (False, 0)):
            other = genotypes.copy()
            other[0, 0] = (np.nan_to_num(other[0, 0]) + changed) % 3
            to_bed(tmp_path / "g.bed", other)
            prints.append(
                fingerprint(as_source(open_bed(tmp_path / "g.bed", standardize), "X"), team)
            )
    assert prints[0] == prints[3] and len(set(prints)) == 3


def test_it_travels_as_a_path(path, tmp_path):
    source = open_bed(path)
    message = pack(source, tmp_path)
    assert len(message) < 4 * 4 * 2100 + 8 * 2 * 2100 + 3000
    assert_array_equal(unpack(message)[:5], source[:5])


@pytest.mark.parametrize("suffix", [".bed", ".bim", ".fam"])
def test_a_missing_file_is_named(suffix, tmp_path):
    to_bed(tmp_path / "g.bed", simulate(10, 20))
    (tmp_path / f"g{suffix}").unlink()
    with pytest.raises(InputError, match=rf"g\{suffix}' does not exist"):
        open_bed(tmp_path / "g.bed")


def test_a_damaged_file_is_refused(tmp_path):
    to_bed(tmp_path / "g.bed", simulate(10, 20))
    (tmp_path / "g.bed").write_bytes(b"no genotypes")
    with pytest.raises(InputError, match=r"cannot be read as a PLINK .bed file"):
        open_bed(tmp_path / "g.bed")


def test_an_absent_library_is_named(path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "bed_reader", None)
    with pytest.raises(InputError, match=r"needs bed-reader.*ridgemm\[genetics\]"):
        open_bed(path)


def test_gough_as_bed(shared_data, tmp_path):
    """12 thousand markers of 1,212 mice, written as .bed and read back: the same fit."""
    genotypes = np.load(shared_data / "gough" / "genotypes.npy").astype(np.float64)
    phenotypes = np.load(shared_data / "gough" / "phenotypes.npy")
    genotypes[genotypes < 0] = np.nan
    complete = ~np.isnan(phenotypes).any(axis=1)
    to_bed(tmp_path / "gough.bed", genotypes[complete])
    X = np.where(np.isnan(genotypes), 0, genotypes)[complete]
    unknown = np.isnan(genotypes[complete])
    means = X.sum(axis=0) / np.maximum((~unknown).sum(axis=0), 1)
    X = np.where(unknown, means, X).astype(np.float32)
    model = RidgeCV(np.logspace(2, 6, 5), cv=5)
    comp = model.fit(tmp_path / "gough.bed", phenotypes[complete])
    scores, alpha, route = comp.cv_scores_, comp.alpha_, comp.route_
    ref = RidgeCV(np.logspace(2, 6, 5), cv=5).fit(X, phenotypes[complete])
    assert route == ref.route_ == "dual-products"
    # there is something to predict
    assert ref.best_score_.max() > 0.05
    assert_allclose(scores, ref.cv_scores_, atol=1e-5)
    assert_array_equal(alpha, ref.alpha_)
