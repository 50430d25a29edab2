"""The journal: parts, ranges, and the request of a run."""

import errno
import itertools
import os

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ridgemm.errors import InputError, StorageError
from ridgemm.journal import Journal, missing_ranges

REQUEST = {"asked": {"alphas": [1.0, 2.0], "seed": 0}, "chosen": {"tile": 64}}


@pytest.fixture
def journal(tmp_path):
    journal = Journal(tmp_path)
    journal.open(REQUEST)
    return journal


@given(
    cuts=st.sets(st.integers(0, 60)),
    kept=st.lists(st.booleans(), min_size=61, max_size=61),
    first=st.integers(-1, 30),
    length=st.integers(0, 40),
    batch=st.integers(1, 20),
)
def test_missing_ranges_cover_what_is_not_done(cuts, kept, first, length, batch):
    cuts = sorted(cuts)
    pairs = itertools.pairwise(cuts)
    done = [pair for pair, keep in zip(pairs, kept, strict=False) if keep]
    last = first + length
    found = missing_ranges(done, first, last, batch)
    wanted = set(range(first, last)) - {i for start, stop in done for i in range(start, stop)}
    covered = [i for start, stop in found for i in range(start, stop)]
    assert covered == sorted(wanted)
    for start, stop in found:
        # never across a multiple of the batch
        assert start < stop and start // batch == (stop - 1) // batch


def test_parts_come_back_in_order(journal):
    for start in (20, 0, 100, 10):
        journal.publish("null", 64, start, start + 10, np.full(3, start))
    journal.publish("null", 0, 0, 10, np.zeros(3))
    journal.publish("nulls", 64, 0, 5, np.zeros(3))
    assert journal.done("null") == {64: [(0, 10), (10, 20), (20, 30), (100, 110)], 0: [(0, 10)]}
    assert [(a, b, part[0]) for _, a, b, part in journal.read("null", [64])] == [
        (0, 10, 0),
        (10, 20, 10),
        (20, 30, 20),
        (100, 110, 100),
    ]
    assert list(journal.read("null", [128])) == []


def test_the_observed_order_has_a_negative_number(journal):
    journal.publish("observed", 0, -1, 0, np.ones(2))
    assert journal.done("observed") == {0: [(-1, 0)]}


def test_a_part_may_be_published_twice(journal):
    for value in (1.0, 2.0):
        journal.publish("null", 0, 0, 10, np.full(2, value))
    ((*_, part),) = journal.read("null", [0])
    assert part.tolist() == [2.0, 2.0]


def test_what_is_under_way_is_not_done(journal, monkeypatch):
    def interrupt(source, target):
        raise KeyboardInterrupt

    monkeypatch.setattr("ridgemm.journal.os.replace", interrupt)
    with pytest.raises(KeyboardInterrupt):
        journal.publish("null", 0, 0, 10, np.ones(2))
    assert journal.done("null") == {}


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_full_disk_leaves_nothing_behind(call, journal, monkeypatch):
    journal.publish("null", 0, 0, 10, np.ones(2))
    before = [path.name for path in journal.parts.iterdir()]

    def fail(*arguments):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(f"ridgemm.journal.os.{call}", fail)
    with pytest.raises(StorageError, match=os.strerror(errno.ENOSPC)) as caught:
        journal.publish("null", 0, 10, 20, np.ones(2))
    assert "what was finished is kept" in str(caught.value)
    assert [path.name for path in journal.parts.iterdir()] == before


@pytest.mark.parametrize("left", [0, 3, 100, 130])
def test_a_torn_part_is_dropped_with_a_warning(left, journal):
    journal.publish("null", 0, 0, 10, np.ones(2))
    (path,) = journal.parts.iterdir()
    path.write_bytes(path.read_bytes()[:left])
    with pytest.warns(RuntimeWarning, match=path.name):
        assert journal.done("null") == {}
    assert not path.exists()


def test_no_pickle_is_read(journal):
    path = journal.parts / "null_0_0_10.npy"
    np.save(path, np.array([{}], dtype=object), allow_pickle=True)
    with pytest.warns(RuntimeWarning, match=r"null_0_0_10\.npy"):
        assert list(journal.read("null", [0])) == []


def test_the_first_choice_is_kept(journal):
    later = {**REQUEST, "chosen": {"tile": 128}}
    assert journal.open(later) == {"tile": 64}
    assert Journal(journal.folder).open(later) == {"tile": 64}


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"alphas": [1.0, 3.0], "seed": 0}, r"alphas was \[1.0, 2.0\] and is \[1.0, 3.0\]"),
        ({"alphas": [1.0, 2.0]}, "seed was 0 and is None"),
        ({"alphas": [1.0, 2.0], "seed": 0, "null": "refit"}, "null was None and is 'refit'"),
    ],
)
def test_another_run_is_refused_by_name(asked, message, journal):
    with pytest.raises(InputError, match=message):
        journal.open({**REQUEST, "asked": asked})


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"asked": {}}'])
def test_an_unreadable_request_is_a_storage_error(content, journal):
    (journal.folder / "request.json").write_text(content)
    with pytest.raises(StorageError, match=r"request\.json"):
        journal.open(REQUEST)
