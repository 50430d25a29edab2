"""Factors on disk: found again, built again when damaged, shared by processes, never left half."""

import json
import subprocess
import sys

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import ridgemm.engine
from ridgemm import RidgeCV, load
from ridgemm.errors import InputError, StorageError
from ridgemm.store import MANIFEST, Store, publish, read_entry, write_manifest

SOLVERS = ["primal-statistics", "primal-products", "svd-products", "dual-products"]
FITTED = ["coef_", "intercept_", "alpha_", "best_score_", "cv_scores_"]


@pytest.fixture
def problem():
    rng = np.random.default_rng(0)
    return rng.standard_normal((40, 6)), rng.standard_normal((40, 9))


def assert_same_model(model, other):
    for name in FITTED:
        assert_array_equal(getattr(model, name), getattr(other, name))


def entries(cache):
    return sorted(path for path in cache.iterdir() if (path / MANIFEST).exists())


def assert_only_entries(cache):
    """Nothing but published entries: no scratch folder, no half-written entry."""
    assert sorted(cache.iterdir()) == entries(cache)


@pytest.mark.parametrize("standardize", [False, True])
@pytest.mark.parametrize("solver", SOLVERS)
def test_second_fit_computes_no_factors(problem, solver, standardize, tmp_path):
    X, Y = problem
    options = dict(solver=solver, cv=3, standardize=standardize)
    model = RidgeCV(cache_dir=tmp_path, **options)
    assert model.fit(X, Y).factors_computed_ > 0
    assert_only_entries(tmp_path)
    again = model.fit(X, Y[::-1, :5] + 3)
    assert again.factors_computed_ == 0
    assert_same_model(again, RidgeCV(**options).fit(X, Y[::-1, :5] + 3))
    # alphas and scoring are no part of a factor
    again = RidgeCV([0.5], scoring="correlation", cache_dir=tmp_path, **options).fit(X, Y)
    assert again.factors_computed_ == 0
    assert_only_entries(tmp_path)


@pytest.mark.parametrize("solver", SOLVERS)
def test_what_changes_a_factor(problem, solver, tmp_path):
    X, Y = problem
    options = dict(solver=solver, cv=3)
    n_factors = RidgeCV(cache_dir=tmp_path, **options).fit(X, Y).factors_computed_
    changed = X.copy()
    changed[17, 3] = np.nextafter(X[17, 3], 2)
    for data in (changed, X.astype(np.float32)):
        model = RidgeCV(cache_dir=tmp_path, **options).fit(data, Y)
        assert model.factors_computed_ == n_factors
        assert_same_model(model, RidgeCV(**options).fit(data, Y))
    for other in (dict(cv=4), dict(standardize=True), dict(fit_intercept=False)):
        model = RidgeCV(cache_dir=tmp_path, **{**options, **other}).fit(X, Y)
        assert model.factors_computed_ > 0
        # those of all samples are found, and were summed up over other folds
        ref = RidgeCV(**{**options, **other}).fit(X, Y)
        for name in FITTED:
            assert_allclose(getattr(model, name), getattr(ref, name), rtol=1e-5, atol=1e-6)


def test_value_changed_in_the_file(problem, tmp_path):
    X, Y = problem
    path, cache = tmp_path / "X.npy", tmp_path / "cache"
    np.save(path, X)
    model = RidgeCV(cache_dir=cache)
    assert model.fit(path, Y).factors_computed_ > 0
    assert model.fit(path, Y).factors_computed_ == 0
    np.lib.format.open_memmap(path, mode="r+")[39, 5] += 1
    assert model.fit(path, Y).factors_computed_ > 0
    assert_same_model(model, RidgeCV().fit(np.load(path), Y))


def truncate(file):
    file.write_bytes(file.read_bytes()[:-4])


def empty(file):
    file.write_bytes(b"")


def flip(file):
    content = bytearray(file.read_bytes())
    content[-3] ^= 16
    file.write_bytes(bytes(content))


def remove(file):
    file.unlink()


def garble_manifest(file):
    (file.parent / MANIFEST).write_text('{"files": ')


@pytest.mark.parametrize("damage", [truncate, empty, flip, remove, garble_manifest])
@pytest.mark.parametrize("solver", SOLVERS)
def test_damaged_entry_is_built_again(problem, solver, damage, tmp_path):
    model = RidgeCV(solver=solver, cv=3, cache_dir=tmp_path)
    n_factors = model.fit(*problem).factors_computed_
    good = RidgeCV(solver=solver, cv=3).fit(*problem)
    for entry in entries(tmp_path):
        damage(sorted(entry.glob("*.npy"))[0])
    with pytest.warns(RuntimeWarning, match="built again"):
        model.fit(*problem)
    assert model.factors_computed_ == n_factors
    assert_same_model(model, good)
    assert model.fit(*problem).factors_computed_ == 0
    assert_only_entries(tmp_path)


def test_checksum_of_a_large_file_too(tmp_path):
    # past the size below which entries are copied, and in its middle
    entry = tmp_path / "entry"
    entry.mkdir()
    np.save(entry / "a.npy", np.zeros(100_000))
    write_manifest(entry, {})
    assert isinstance(read_entry(entry)["a"], np.memmap)
    with open(entry / "a.npy", "r+b") as file:
        file.seek(400_000)
        file.write(b"\x01")
    with pytest.raises(StorageError, match="checksum"):
        read_entry(entry)


PROCESS = """
import sys
import numpy as np
from ridgemm import RidgeCV
X, Y, cache, out = sys.argv[1:]
model = RidgeCV(cv=3, cache_dir=cache)
sys.stdin.readline()
np.save(out, model.fit(X, Y).coef_)
"""


def test_two_processes_one_cache(problem, tmp_path):
    cache = tmp_path / "cache"
    X, Y = tmp_path / "X.npy", tmp_path / "Y.npy"
    np.save(X, problem[0])
    np.save(Y, problem[1])
    outs = [tmp_path / f"coef{i}.npy" for i in range(2)]
    processes = [
        subprocess.Popen(
            [sys.executable, "-W", "error::RuntimeWarning", "-c", PROCESS, X, Y, cache, out],
            stdin=subprocess.PIPE,
        )
        for out in outs
    ]
    for process in processes:
        # both have imported and wait
        process.stdin.write(b"\n")
        process.stdin.flush()
    assert [process.wait(timeout=120) for process in processes] == [0, 0]
    for process in processes:
        process.stdin.close()
    alone = RidgeCV(cv=3).fit(X, Y)
    for out in outs:
        assert_array_equal(np.load(out), alone.coef_)
    assert_only_entries(cache)
    assert RidgeCV(cv=3, cache_dir=cache).fit(X, Y).factors_computed_ == 0


def test_first_to_publish_wins(tmp_path):
    def build(folder):
        np.save(folder / "a.npy", np.array([1.0]))
        # meanwhile, another process
        rival = tmp_path / "rival"
        rival.mkdir()
        np.save(rival / "a.npy", np.array([2.0]))
        write_manifest(rival, {})
        publish(rival, tmp_path / "entry")

    arrays = Store(tmp_path, durable=True).fetch("entry", build)
    assert_array_equal(arrays["a"], [2.0])
    assert_only_entries(tmp_path)


def test_nothing_is_left_of_a_failed_build(tmp_path):
    def build(folder):
        np.save(folder / "a.npy", np.ones(3))
        raise KeyboardInterrupt

    store = Store(tmp_path, durable=True)
    with pytest.raises(KeyboardInterrupt):
        store.fetch("entry", build)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("n_jobs", [1, 2])
def test_nothing_is_left_of_a_failed_fit(problem, n_jobs, tmp_path):
    X, Y = problem
    Y[3, 4] = np.nan
    with pytest.raises(InputError):
        RidgeCV(cache_dir=tmp_path, n_jobs=n_jobs).fit(X, Y)
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_left_of_an_interrupted_fit(problem, tmp_path, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(ridgemm.engine, "map_tasks", interrupt)
    with pytest.raises(KeyboardInterrupt):
        RidgeCV(cache_dir=tmp_path).fit(*problem)
    # the factors are whole and worth keeping
    assert entries(tmp_path)
    assert_only_entries(tmp_path)


def test_no_pickle_in_the_cache(problem, tmp_path):
    RidgeCV(cache_dir=tmp_path).fit(*problem)
    for entry in entries(tmp_path):
        for file in entry.iterdir():
            assert file.suffix == ".npy" or file.name == MANIFEST
            if file.suffix == ".npy":
                assert np.load(file, allow_pickle=False).dtype.kind in "fi"


@pytest.mark.parametrize("name", ["../secret.npy", "/secret.npy", "a/b.npy", "secret.txt"])
def test_manifest_that_names_a_file_elsewhere(problem, name, tmp_path):
    folder = tmp_path / "model"
    RidgeCV().fit(*problem).save(folder)
    np.save(tmp_path / "secret.npy", np.ones(3))
    manifest = json.loads((folder / MANIFEST).read_text())
    manifest["files"][name] = "0" * 32
    (folder / MANIFEST).write_text(json.dumps(manifest))
    with pytest.raises(StorageError, match="outside itself"):
        load(folder)
