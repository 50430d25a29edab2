"""Jobs travel without copies of the data; whatever view of a file an array is, it arrives."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ridgemm import StorageError
from ridgemm.transport import pack, unpack


class Job:
    """Of no importable module in a worker; cloudpickle takes it by value."""

    def __init__(self, array):
        self.array = array


@st.composite
def views(draw):
    """A shape, an order, and slices with steps of both signs."""
    shape = draw(st.tuples(st.integers(1, 6), st.integers(1, 6)))
    index = tuple(
        slice(None, None, draw(st.sampled_from([1, 2, -1, -3])))
        if draw(st.booleans())
        else slice(draw(st.integers(0, size)), None)
        for size in shape
    )
    return shape, draw(st.sampled_from("CF")), index, draw(st.booleans())


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(views(), st.sampled_from(["i1", ">f4", "f8"]))
def test_any_view_of_a_file_arrives_as_a_view_of_the_file(tmp_path, view, dtype):
    shape, order, index, transposed = view
    path = tmp_path / "array.npy"
    file = np.lib.format.open_memmap(path, "w+", dtype, shape, fortran_order=order == "F")
    file[...] = np.arange(file.size).reshape(shape)
    array = np.asarray(file)[index]
    array = array.T if transposed else array
    message = pack(Job(array), tmp_path)
    # the values are not in the message
    file += 1
    file.flush()
    arrived = unpack(message).array
    np.testing.assert_array_equal(arrived, array)
    assert arrived.dtype == array.dtype and arrived.shape == array.shape


def test_a_view_that_may_be_written_writes_the_file(tmp_path):
    file = np.lib.format.open_memmap(tmp_path / "array.npy", "w+", "f4", (4, 3))
    unpack(pack(file[1:, ::2], tmp_path))[...] = 7
    np.testing.assert_array_equal(np.load(tmp_path / "array.npy")[1:, ::2], 7)
    assert file[0].tolist() == [0, 0, 0]
    read_only = np.load(tmp_path / "array.npy", mmap_mode="r")
    assert not unpack(pack(read_only, tmp_path)).flags.writeable


def test_a_large_array_of_ram_is_written_once(tmp_path):
    large = np.arange(2**18, dtype=np.float64)
    message = pack([large, large, large[:2]], tmp_path)
    assert len(message) < 2000 and len(list(tmp_path.iterdir())) == 1
    first, second, small = unpack(message)
    np.testing.assert_array_equal(first, large)
    np.testing.assert_array_equal(second, large)
    assert small.tolist() == [0, 1] and not first.flags.writeable


def test_arrays_of_any_layout_travel_by_place(tmp_path):
    square = np.arange(2.0**18).reshape(512, 512)
    for array in (square.T, square[::2], square[:, 1:], square[::-1]):
        message = pack({"array": array, "again": array}, tmp_path)
        assert len(message) < 2000
        arrived = unpack(message)
        np.testing.assert_array_equal(arrived["array"], array)
        assert arrived["again"] is arrived["array"]


def test_a_file_that_cannot_be_written_is_named(tmp_path):
    with pytest.raises(StorageError, match="missing"):
        pack(np.arange(2**18), tmp_path / "missing")


def test_what_is_changed_in_a_private_copy_travels_by_value(tmp_path):
    np.save(tmp_path / "array.npy", np.zeros(3))
    private = np.load(tmp_path / "array.npy", mmap_mode="c")
    private[1] = 5
    assert unpack(pack(private, tmp_path)).tolist() == [0, 5, 0]


def test_functions_that_only_this_process_knows(tmp_path):
    assert unpack(pack(lambda x: x + 1, tmp_path))(1) == 2
    assert unpack(pack(Job(np.ones(2)), tmp_path)).array.tolist() == [1, 1]


def test_a_file_that_a_worker_cannot_see_is_named(tmp_path):
    file = np.lib.format.open_memmap(tmp_path / "array.npy", "w+", "f4", (4, 3))
    message = pack(file, tmp_path)
    Path(tmp_path / "array.npy").unlink()
    with pytest.raises(FileNotFoundError) as caught:
        unpack(message)
    assert caught.value.filename == str(tmp_path / "array.npy")
