"""Tiles of every source are what slicing a float64 copy gives."""

import mmap

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from ridgemm import RidgeCV, paging, sources
from ridgemm.sources import Reader, as_source, rough_eigenvalues, scan
from ridgemm.threads import Team
from ridgemm.workspace import Workspace
from tests import strategies

DTYPES = (*strategies.DTYPES, "bool", "int64", "uint32", ">f4", ">i2", "<f8")


class Foreign:
    """An object with shape, dtype and 2-D slicing, and nothing else."""

    def __init__(self, array):
        self.array, self.shape, self.dtype = array, array.shape, array.dtype

    def __getitem__(self, where):
        rows, columns = where
        assert isinstance(rows, slice) and isinstance(columns, slice)
        return self.array[rows, columns]


class Case:
    """Data as a source, a rectangle of it, and what to subtract."""

    def __init__(self, data, foreign, rows, columns, shift):
        self.exact = data.astype(np.float64)
        self.source = as_source(Foreign(data) if foreign else data, "X")
        self.rows, self.columns, self.shift = rows, columns, shift

    @property
    def expected(self):
        return self.exact[self.rows, self.columns] - self.shift[self.columns]


@st.composite
def slices(draw, size):
    start = draw(st.integers(0, size - 1))
    return slice(start, draw(st.integers(start + 1, size)))


@st.composite
def cases(draw):
    n, m = draw(st.integers(1, 300)), draw(st.integers(1, 40))
    dtype, layout = draw(st.sampled_from(DTYPES)), draw(st.sampled_from(strategies.LAYOUTS))
    rng = np.random.default_rng(draw(strategies.seeds()))
    data = np.abs(rng.standard_normal((n, m)) * 20).astype(dtype)
    if layout == "strided":
        data = np.repeat(np.repeat(data, 2, axis=0), 2, axis=1)[::2, ::-2]
    else:
        data = np.asarray(data, order=layout)
    rows = draw(slices(n) | st.sets(st.integers(0, n - 1), min_size=1).map(sorted).map(np.array))
    shift = draw(st.booleans()) * rng.standard_normal(m).astype(np.float32)
    return Case(data, draw(st.booleans()), rows, draw(slices(m)), shift)


@given(case=cases(), dtype=st.sampled_from((np.float32, np.float64)))
def test_read(case, dtype):
    out = np.full(case.expected.shape, np.nan, dtype)
    case.source.read(case.rows, case.columns, case.shift[case.columns], out)
    # rounded once
    assert_allclose(out, case.expected, rtol=np.finfo(dtype).eps, atol=1e-6)


@given(case=cases(), n_threads=st.integers(1, 3))
def test_reader(case, n_threads):
    with Team(n_threads) as team:
        reader = Reader(case.source, case.shift)
        tile = reader.tile(case.rows, case.columns, Workspace(), "tile", team)
    assert tile.dtype == np.float32 and tile.strides[-1] == 4
    assert_allclose(tile, case.expected, rtol=1e-7, atol=1e-6)


@given(case=cases(), n_threads=st.integers(1, 3))
def test_scan(case, n_threads):
    with Team(n_threads) as team:
        found = scan(case.source, team)
    assert_allclose(found.mean, case.exact.mean(axis=0), rtol=1e-6, atol=1e-6)
    assert_allclose(found.sd, case.exact.std(axis=0), rtol=1e-4, atol=1e-4)
    shifted = np.abs(found.mean) > found.sd
    assert_array_equal(found.shift(), np.where(shifted, found.mean, 0).astype(np.float32))


def test_float32_is_read_in_place():
    data = np.arange(12.0, dtype=np.float32).reshape(4, 3)
    nothing = np.zeros(3, np.float32)
    everything = slice(0, 4), slice(0, 3)
    assert np.shares_memory(Reader(as_source(data, "X"), nothing).in_place(*everything), data)
    for other in (data.astype(np.float64), np.asfortranarray(data), Foreign(data), data[::-1]):
        assert Reader(as_source(other, "X"), nothing).in_place(*everything) is None
    assert Reader(as_source(data, "X"), nothing + 1).in_place(*everything) is None


def test_mean_of_many_values():
    # a running float32 mean of 0.1 is 0.105 by now
    data = np.full((3_000_000, 2), 0.1, dtype=np.float32)
    with Team(1) as team:
        assert_allclose(scan(as_source(data, "X"), team).mean, np.float32(0.1), rtol=1e-9)


@pytest.mark.parametrize("standardize", [False, True])
@pytest.mark.parametrize("shape", [(50, 20), (1000, 30), (40, 5000)])
def test_rough_eigenvalues(shape, standardize):
    rng = np.random.default_rng(0)
    X = rng.standard_normal(shape) @ np.diag(rng.uniform(1, 3, shape[1])) + 100
    X[:, 0] = 7.0
    centered = X - X.mean(axis=0)
    if standardize:
        centered /= np.where(X.std(axis=0) > 0, X.std(axis=0), 1)
    exact = np.linalg.norm(centered, 2) ** 2, np.linalg.norm(centered) ** 2 / min(shape)
    found = rough_eigenvalues(as_source(X, "X"), standardize)
    assert all(a / 3 < b < 3 * a for a, b in zip(exact, found, strict=True))


def test_masked_arrays_are_refused():
    X, Y = np.random.default_rng(0).standard_normal((2, 20, 3))
    masked = np.ma.masked_array(X, mask=X > 1)
    with pytest.raises(ValueError, match="X is a masked array"):
        RidgeCV().fit(masked, Y)


def test_scan_reads_rows_once_from_first_to_last(monkeypatch):
    # all columns of a band of rows before the next: no RAM has to hold what will be read again
    values = np.random.default_rng(0).standard_normal((2000, 5000)).astype(np.float32)
    first_rows = []

    class Recorded(Foreign):
        def __getitem__(self, key):
            first_rows.append(key[0].start)
            return super().__getitem__(key)

    monkeypatch.setattr(sources, "_BAND", 500 * values[0].nbytes)
    with Team(1) as team:
        mean = scan(as_source(Recorded(values), "Y"), team).mean
    assert_allclose(mean, values.mean(axis=0, dtype=np.float64), atol=1e-9)
    # two pieces of a band, three blocks of columns, four bands
    bands = [start // 500 for start in first_rows]
    assert bands == sorted(bands) and len(bands) == 2 * 3 * 4


@pytest.mark.parametrize("dtype", [np.float32, np.int8, np.float64])
@pytest.mark.parametrize("cut", [np.s_[:, :], np.s_[7:, 3:], np.s_[::2], np.s_[:, ::2]])
def test_tiles_of_a_file_are_asked_for_ahead(dtype, cut, monkeypatch, tmp_path):
    values = np.random.default_rng(0).integers(-9, 9, (1500, 4000)).astype(dtype)
    np.save(tmp_path / "Y.npy", values)
    monkeypatch.setattr(paging, "_SMALLEST", 0)
    data = np.load(tmp_path / "Y.npy", mmap_mode="r")[cut]
    columns, nothing = slice(100, 1300), np.zeros(data.shape[1], np.float32)
    asked = []
    need = paging.Ahead.need
    monkeypatch.setattr(
        paging.Ahead, "need", lambda self, rows: (asked.extend(rows), need(self, rows))
    )
    reader = Reader(as_source(data, "Y"), nothing)
    for rows in (slice(0, len(data)), slice(5, 600), np.arange(3, len(data), 2)):
        asked.clear()
        with Team(2) as team:
            tile = reader.tile(rows, columns, Workspace(), "Y", team, stays=True)
        assert_array_equal(tile, values[cut][rows, columns])
        assert_array_equal(sorted(asked), np.arange(len(data))[rows])
        assert not np.shares_memory(tile, data)


def test_what_is_asked_for_is_what_is_read(monkeypatch, tmp_path):
    values = np.arange(50 * 30_000, dtype=np.float32).reshape(50, 30_000)
    np.save(tmp_path / "Y.npy", values)
    monkeypatch.setattr(paging, "_SMALLEST", 0)
    data = np.load(tmp_path / "Y.npy", mmap_mode="r")[3:]
    asked = []

    class Mapping:
        """The bytes that a mapping is asked for."""

        def __len__(self):
            return 1 << 30

        def madvise(self, option, *span):
            asked.append((option, *span))

    with paging.Ahead(data, slice(10_000, 20_000)) as ahead:
        ahead._mapping = Mapping()
        ahead.need([4])
    (_, start, size), *_ = [call for call in asked if len(call) == 3]
    whole = np.frombuffer(data._mmap, np.uint8)
    assert start % mmap.PAGESIZE == 0
    found = whole[start : start + size]
    wanted = values[7, 10_000:20_000].view(np.uint8)
    assert size < len(wanted) + mmap.PAGESIZE
    assert_array_equal(found[-len(wanted) :], wanted)
