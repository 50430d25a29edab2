"""HDF5 and zarr: the same fit as from arrays, whoever reads, and errors that name the file."""

import shutil

import numpy as np
import pytest
from numpy.testing import assert_array_equal

import ridgemm
from ridgemm import InputError, RidgeCV
from ridgemm.files import open_source
from ridgemm.sources import as_source, rough_eigenvalues, scan
from ridgemm.store import fingerprint
from ridgemm.threads import Team
from ridgemm.transport import pack, unpack

h5py, zarr = pytest.importorskip("h5py"), pytest.importorskip("zarr")


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)
    X = rng.standard_normal((120, 20)).astype(np.float16)
    Y = X @ rng.standard_normal((20, 30)) + rng.standard_normal((120, 30))
    return X, Y.astype(np.float32)


@pytest.fixture(scope="module")
def folder(data, tmp_path_factory):
    """X and Y in every kind of file, whole and as two runs."""
    X, Y = data
    folder = tmp_path_factory.mktemp("containers")
    np.save(folder / "X.npy", X)
    with h5py.File(folder / "both.h5", "w") as file:
        file.create_dataset("in/X", data=X, chunks=(50, 7), compression="gzip")
        file["Y"], file["runs"] = Y, np.arange(120) // 40
    with h5py.File(folder / "one.hdf5", "w") as file:
        file["only"], file["runs"] = X, np.arange(120)
    zarr.create_array(folder / "X.zarr", data=X, chunks=(32, 20))
    group = zarr.open_group(folder / "both.zarr", mode="w")
    group.create_array("in/X", data=X, chunks=(16, 5), shards=(64, 10))
    group.create_array("Y", data=Y, chunks=(120, 7))
    for i, part in enumerate(np.split(X, [70])):
        np.save(folder / f"run{i}.npy", part)
    return folder


PLACES = (
    "X.npy",
    "both.h5:in/X",
    "both.h5:/in/X",
    "one.hdf5",
    "one.hdf5:only",
    "X.zarr",
    "X.zarr/",
    "both.zarr:in/X",
)


@pytest.mark.parametrize("place", PLACES)
def test_a_path_is_a_source(place, folder, data):
    source = as_source(f"{folder}/{place}", "X")
    assert source.shape == (120, 20) and source.dtype == np.float16
    assert_array_equal(source.data[10:90, 3:11], data[0][10:90, 3:11])


@pytest.mark.parametrize("n_jobs", [1, 2])
@pytest.mark.parametrize(("x", "y"), [("both.h5:in/X", "both.zarr:Y"), ("X.zarr", "both.h5:Y")])
def test_a_fit_is_that_on_arrays(x, y, n_jobs, folder, data):
    ref = RidgeCV(cv=3, solver="primal-products").fit(*data)
    model = RidgeCV(cv=3, solver="primal-products", n_jobs=n_jobs)
    comp = model.fit(f"{folder}/{x}", f"{folder}/{y}")
    for name in ("cv_scores_", "coef_"):
        assert_array_equal(getattr(comp, name), getattr(ref, name))


def test_open_datasets_go_to_workers(folder, data):
    ref = RidgeCV(cv=3).fit(*data)
    with h5py.File(folder / "both.h5") as file:
        model = RidgeCV(cv=3, n_jobs=2).fit(file["in/X"], file["Y"])
    assert_array_equal(model.cv_scores_, ref.cv_scores_)
    group = zarr.open_group(folder / "both.zarr", mode="r")
    model = RidgeCV(cv=3, n_jobs=2).fit(group["in/X"], group["Y"])
    assert_array_equal(model.cv_scores_, ref.cv_scores_)


def test_a_dual_model_outlives_the_file_handle(folder, data):
    with h5py.File(folder / "both.h5") as file:
        model = RidgeCV(cv=3, solver="dual-products").fit(file["in/X"], data[1])
    ref = RidgeCV(cv=3, solver="dual-products").fit(*data)
    assert_array_equal(model.coef_, ref.coef_)
    assert_array_equal(model.predict(data[0]), ref.predict(data[0]))


@pytest.mark.parametrize("place", ["both.h5:in/X", "both.zarr:in/X"])
def test_it_travels_as_a_path(place, folder, data, tmp_path):
    copy = tmp_path / place.split(":")[0]
    original = folder / copy.name
    (shutil.copytree if original.is_dir() else shutil.copy)(original, copy)
    view = ridgemm.delayed(f"{tmp_path}/{place}", (1, 2))
    message = pack(view, tmp_path)
    assert len(message) < 10_000
    assert_array_equal(np.asarray(unpack(message)), np.asarray(view))
    # a worker that does not see it says so; zarr alone would read zeros
    copy.rename(tmp_path / "elsewhere")
    with pytest.raises(FileNotFoundError) as caught:
        unpack(message)
    assert caught.value.filename == str(copy)


def test_a_file_that_is_open_for_writing_stays_in_this_process(folder, data):
    with h5py.File(folder / "both.h5", "r+") as file:
        RidgeCV(cv=3).fit(file["in/X"], file["Y"])
        with pytest.raises(InputError, match=r"open for writing.*mode 'r', or use n_jobs=1"):
            RidgeCV(cv=3, n_jobs=2).fit(file["in/X"], file["Y"])


class Counted:
    """A chunked array that counts how often each chunk is read."""

    def __init__(self, array, chunks):
        self.array, self.chunks = array, chunks
        self.shape, self.dtype = array.shape, array.dtype
        self.reads = np.zeros([-(-s // c) for s, c in zip(array.shape, chunks, strict=True)], int)

    def __getitem__(self, where):
        spans = [w.indices(s) for w, s in zip(where, self.shape, strict=True)]
        touched = (
            slice(a // c, -(-b // c)) for (a, b, _), c in zip(spans, self.chunks, strict=True)
        )
        self.reads[tuple(touched)] += 1
        return self.array[where]


@pytest.mark.parametrize("chunks", [(100, 30), (7, 5000), (1000, 3), (600, 4000)])
def test_chunks_are_read_once(chunks):
    X = np.random.default_rng(0).standard_normal((1000, 5000)).astype(np.float32)
    counted = Counted(X, chunks)
    source, array = as_source(counted, "X"), as_source(X, "X")
    with Team(1) as team:
        found, expected = scan(source, team), scan(array, team)
        np.testing.assert_allclose(found.mean, expected.mean, atol=1e-12)
        assert (counted.reads == 1).all()
        name = fingerprint(source, team)
        assert (counted.reads == 2).all()
        X[-1, -1] += 1
        assert fingerprint(source, team) != name
    counted.reads[...] = 0
    ratios = np.divide(rough_eigenvalues(source, False), rough_eigenvalues(array, False))
    assert ((ratios > 1 / 3) & (ratios < 3)).all() and counted.reads.max() == 1


def test_a_view_of_delays_reads_chunks_once():
    X = np.random.default_rng(0).standard_normal((1000, 20))
    counted = Counted(X, (100, 20))
    out = np.empty((200, 80), np.float32)
    view = ridgemm.delayed(counted)
    view.read(slice(204, 404), slice(0, 80), np.zeros(80, np.float32), out)
    assert_array_equal(out, ridgemm.delayed(X)[204:404].astype(np.float32))
    assert counted.reads[:, 0].tolist() == [0, 0, 1, 1, 1, 0, 0, 0, 0, 0]


def test_several_paths_are_rows_of_one(folder, data):
    for spec in (
        f"{folder}/run0.npy,{folder}/run1.npy",
        f"{folder}/run0.npy, {folder}/run1.npy",
        [folder / "run0.npy", f"{folder}/run1.npy"],
    ):
        assert_array_equal(open_source(spec, "X")[:, :], data[0])
    assert_array_equal(open_source(f"{folder}/X.npy", "X"), data[0])
    twice = open_source([f"{folder}/both.h5:in/X", f"{folder}/X.zarr"], "X")
    assert_array_equal(twice[:, :], np.vstack([data[0], data[0]]))


def test_a_comma_may_be_in_a_name(folder, data, tmp_path):
    shutil.copy(folder / "X.npy", tmp_path / "a,b.npy")
    assert_array_equal(open_source(str(tmp_path / "a,b.npy"), "X"), data[0])


REFUSED = (
    ("both.h5", r"has 2 2-D arrays; give the name of one.*It has: Y, in/X, runs"),
    ("both.h5:absent", r"has no array 'absent'.*It has: Y, in/X, runs"),
    ("both.h5:in", "has no array 'in'"),
    ("both.h5:runs", "must be 2-D"),
    ("X.zarr:absent", r"has no array 'absent'.*It has: none"),
    ("both.zarr:absent", r"has no array 'absent'.*It has: Y, in/X"),
    ("both.zarr", "has 2 2-D arrays"),
    ("absent.h5:X", r"absent.h5' does not exist"),
    ("absent.zarr", r"absent.zarr' does not exist"),
    ("text.h5:X", "cannot be opened by h5py"),
    ("text.zarr", "cannot be opened by zarr"),
    ("text.csv", r"is not a .npy, .h5:dataset, .zarr, .zarr:array or .bed file"),
)


@pytest.mark.parametrize(("place", "message"), REFUSED)
def test_refused(place, message, folder, data):
    for name in ("text.h5", "text.zarr", "text.csv"):
        (folder / name).write_text("no array")
    with pytest.raises(InputError, match=message):
        RidgeCV().fit(f"{folder}/{place}", data[1])


@pytest.mark.parametrize("spec", [None, 3, [], {}])
def test_what_is_no_path_is_refused(spec):
    with pytest.raises(InputError, match="is not a path"):
        open_source(spec, "X")


@pytest.mark.parametrize(("package", "place"), [("h5py", "both.h5:Y"), ("zarr", "X.zarr")])
def test_an_absent_library_is_named(package, place, folder, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, package, None)
    with pytest.raises(InputError, match=rf"needs {package}.*ridgemm\[containers\]"):
        open_source(f"{folder}/{place}", "X")
