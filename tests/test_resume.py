"""A run that was killed, or is asked for more, ends in the same bits as one that was not."""

import errno
import os
import random
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from ridgemm import InputError, RidgeCV, StorageError, nullplan, permutation_test
from ridgemm.journal import Journal

FILES = ("null.npy", "null_max.npy", "pvalues.npy", "pvalues_fwer.npy", "scores.npy")

# tasks so small that a run has tens of parts
PROGRAM = """
import sys
import numpy as np
from ridgemm import RidgeCV, nullplan, permutation_test

nullplan._TASK_FLOPS = 1.0
nullplan._AT_ONCE = 4
out, null, per_target = sys.argv[1], sys.argv[2], sys.argv[3] == "True"
rng = np.random.default_rng(0)
X, Y = rng.standard_normal((60, 8)), rng.standard_normal((60, 600))
model = RidgeCV((1.0, 30.0), cv=2, alpha_per_target=per_target)
print("begin", flush=True)
permutation_test(
    model, X, Y, cv=2, n_permutations=60, null=null, keep_null=True, out=out, n_jobs=1
)
"""


def start(out, null, per_target):
    """The program, up to where its run begins."""
    command = [sys.executable, "-c", PROGRAM, str(out), null, str(per_target)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE)
    assert process.stdout.readline() == b"begin\n"
    return process


def finish(process):
    assert process.wait(timeout=300) == 0
    process.stdout.close()


def kill_after(process, seconds):
    time.sleep(seconds)
    process.send_signal(signal.SIGKILL)
    process.wait(timeout=300)
    process.stdout.close()


def kill_within(out, null, per_target, seconds):
    """Kill a run before its end: a machine that has got faster needs an earlier moment."""
    while True:
        kill_after(start(out, null, per_target), seconds)
        if not (out / "manifest.json").exists():
            return
        shutil.rmtree(out)
        seconds /= 2


def check_killed(tmp_path, n_moments, null, per_target):
    """Kill runs at random moments of their duration; each is completed to the same bits."""
    finish(start(tmp_path / "warm-up", null, per_target))
    process = start(tmp_path / "whole", null, per_target)
    begin = time.perf_counter()
    finish(process)
    duration = time.perf_counter() - begin
    assert len(list((tmp_path / "whole" / "parts").glob("null_*"))) >= 4
    moments = random.Random(n_moments)
    for i in range(n_moments):
        out = tmp_path / f"killed-{i}"
        kill_within(out, null, per_target, moments.uniform(0, 0.7 * duration))
        # and once more in the middle of the second attempt
        kill_after(start(out, null, per_target), moments.uniform(0, 0.3 * duration))
        finish(start(out, null, per_target))
        for name in FILES:
            whole = (tmp_path / "whole" / name).read_bytes()
            assert (out / name).read_bytes() == whole, (i, name)


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no SIGKILL on this system")
@pytest.mark.parametrize(
    ("null", "per_target", "n_moments"),
    [
        ("refit", True, 1),
        pytest.param("refit", True, 15, marks=pytest.mark.slow),
        pytest.param("heldout", False, 15, marks=pytest.mark.slow),
    ],
)
def test_killed_run_continues_to_the_same_bits(tmp_path, n_moments, null, per_target):
    check_killed(tmp_path, n_moments, null, per_target)


# In this process ---------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def _small_tasks(monkeypatch):
    monkeypatch.setattr(nullplan, "_TASK_FLOPS", 1.0)
    monkeypatch.setattr(nullplan, "STRIP", 16)
    monkeypatch.setattr(nullplan, "_AT_ONCE", 4)


def data(t=6):
    rng = np.random.default_rng(0)
    X, Y = rng.standard_normal((24, 4)), rng.standard_normal((24, t))
    Y[:, 0] += 2 * X[:, 0]
    return X, Y


def run(out, *, X=None, Y=None, model=None, **options):
    ours = data()
    options = {"cv": 3, "n_permutations": 20, **options}
    model = RidgeCV(**{"alphas": (1.0, 30.0), "cv": 2, **(model or {})})
    return permutation_test(
        model, ours[0] if X is None else X, ours[1] if Y is None else Y, out=out, **options
    )


def parts(out):
    """Modification times of all parts."""
    return {path.name: path.stat().st_mtime_ns for path in (out / "parts").iterdir()}


OPTIONS = [
    {},
    {"keep_null": True},
    {"null": "heldout"},
    {"model": {"alpha_per_target": False}},
    {"model": {"alpha_per_target": False, "solver": "dual", "scoring": "neg_mean_squared_error"}},
    {"stop": "besag-clifford"},
]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_the_same_call_computes_nothing_anew(options, tmp_path):
    first = run(tmp_path, **options)
    before = parts(tmp_path)
    second = run(tmp_path, **options)
    assert parts(tmp_path) == before
    np.testing.assert_array_equal(first.pvalues, second.pvalues)
    np.testing.assert_array_equal(first.scores, second.scores)


def test_null_file_that_says_it_has_fewer_rows(tmp_path):
    options = {"keep_null": True, "n_permutations": 19}
    whole = run(tmp_path, **options)
    content = (tmp_path / "null.npy").read_bytes()
    assert content.count(b"(19,") == 1
    (tmp_path / "null.npy").write_bytes(content.replace(b"(19,", b"( 9,"))
    with pytest.warns(RuntimeWarning, match=r"null.npy' is damaged"):
        again = run(tmp_path, **options)
    np.testing.assert_array_equal(again.null, whole.null)


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("fewer", [30, 37])
def test_more_permutations_later(options, fewer, tmp_path):
    big = run(tmp_path / "big", n_permutations=90, **options)
    run(tmp_path / "grown", n_permutations=fewer, **options)
    before = parts(tmp_path / "grown")
    grown = run(tmp_path / "grown", n_permutations=90, **options)
    after = parts(tmp_path / "grown")
    assert before.items() <= after.items()
    assert len(after) > len(before)
    np.testing.assert_array_equal(grown.scores, big.scores)
    np.testing.assert_array_equal(grown.pvalues, big.pvalues)
    if options.get("stop"):
        np.testing.assert_array_equal(grown.n_drawn, big.n_drawn)
        return
    np.testing.assert_array_equal(grown.null_max, big.null_max)
    np.testing.assert_array_equal(grown.pvalues_fwer, big.pvalues_fwer)
    np.testing.assert_allclose(grown.null_sd, big.null_sd, rtol=1e-12)
    if options.get("keep_null"):
        np.testing.assert_array_equal(grown.null, big.null)


def test_fewer_permutations_later_are_refused(tmp_path):
    run(tmp_path, n_permutations=40)
    with pytest.raises(InputError, match="n_permutations=20 is fewer than the 40"):
        run(tmp_path, n_permutations=20)


@pytest.mark.parametrize("n_jobs", [1, 2])
def test_other_workers_continue(n_jobs, tmp_path):
    whole = run(tmp_path / "whole", n_jobs=n_jobs)
    run(tmp_path / "cut", n_jobs=n_jobs)
    removed = sorted((tmp_path / "cut" / "parts").glob("null_*"))[1:]
    for path in removed:
        path.unlink()
    again = run(tmp_path / "cut", n_jobs=3 - n_jobs)
    np.testing.assert_array_equal(again.null_max, whole.null_max)
    np.testing.assert_array_equal(again.null_sd, whole.null_sd)


# the second half of the given permutations differs
GIVEN = np.array([np.random.default_rng(i).permutation(24) for i in range(20)])
OTHER = np.concatenate([GIVEN[:10], GIVEN[:9:-1]])
PAIRS = [(np.arange(12, 24), np.arange(12)), (np.arange(12), np.arange(12, 24))]
# neither level of folds depends on the groups
SIGNS = {"scheme": "sign", "cv": PAIRS, "model": {"cv": "gcv"}}


@pytest.mark.parametrize(
    ("first", "then", "message"),
    [
        ({}, {"model": {"alphas": (1.0, 31.0)}}, r"alphas was \[1.0, 30.0\] and is \[1.0, 31.0\]"),
        ({}, {"model": {"scoring": "correlation"}}, "scoring was 'r2'"),
        ({}, {"model": {"cv": 3}}, "inner folds changed"),
        ({}, {"model": {"standardize": True}}, "standardize was False and is True"),
        ({}, {"model": {"alpha_per_target": False}}, "alpha_per_target"),
        ({}, {"Y": data()[1] + 1e-3}, "Y changed"),
        ({}, {"X": data()[0] + 1e-3}, "X changed"),
        ({}, {"random_state": 1}, "random_state was 0 and is 1"),
        ({}, {"scheme": "sign"}, "scheme was 'free' and is 'sign'"),
        ({}, {"null": "heldout"}, "null was 'refit'"),
        ({}, {"two_sided": True}, "two_sided"),
        ({}, {"keep_null": True}, "keep_null was False and is True"),
        ({}, {"tail": "gpd"}, "keep_null was False and is True"),
        ({}, {"cv": 4}, "outer folds"),
        ({"scheme": GIVEN}, {"scheme": OTHER}, "permutations"),
        (
            {**SIGNS, "groups": np.arange(24) // 2},
            {**SIGNS, "groups": np.arange(24) // 3},
            "permutations",
        ),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_another_run_is_refused_by_name(first, then, message, tmp_path):
    run(tmp_path, **first)
    with pytest.raises(InputError, match=message) as caught:
        run(tmp_path, **then)
    assert str(tmp_path) in str(caught.value)


def test_a_torn_part_is_computed_again(tmp_path):
    whole = run(tmp_path)
    torn = sorted((tmp_path / "parts").glob("null_*"))[-1]
    torn.write_bytes(torn.read_bytes()[:-20])
    with pytest.warns(RuntimeWarning, match=torn.name):
        again = run(tmp_path)
    np.testing.assert_array_equal(again.null_max, whole.null_max)


def test_a_torn_prediction_is_computed_again(tmp_path):
    options = {"null": "heldout"}
    whole = run(tmp_path / "whole", **options)
    out = tmp_path / "torn"
    run(out, **options)
    for path in (out / "parts").glob("null_*"):
        path.unlink()
    (prediction,) = (out / "parts").glob("prediction_*")
    prediction.write_bytes(prediction.read_bytes()[:128])
    with pytest.warns(RuntimeWarning, match=rf"{prediction.name}.*computed again"):
        again = run(out, **options)
    assert prediction.exists()
    np.testing.assert_array_equal(again.pvalues, whole.pvalues)


SCRATCH = """
import os
from pathlib import Path
from ridgemm.private import private_name
Path({!r}, private_name("scratch")).mkdir()
"""


def test_a_killed_run_leaves_no_scratch_after_the_next(tmp_path):
    with subprocess.Popen([sys.executable, "-c", SCRATCH.format(str(tmp_path))]) as process:
        process.wait()
    assert list(tmp_path.glob("scratch~*"))
    run(tmp_path)
    assert not list(tmp_path.glob("scratch~*"))


@pytest.mark.parametrize("n_published", [0, 1, 3])
def test_full_disk_is_a_clear_error_and_keeps_what_was_finished(n_published, tmp_path, monkeypatch):
    whole = run(tmp_path / "whole")
    out, replace, count = tmp_path / "out", os.replace, iter(range(10**6))

    def full(source, target):
        if os.path.dirname(target).endswith("parts") and next(count) >= n_published:
            raise OSError(errno.ENOSPC, "No space left on device")
        replace(source, target)

    monkeypatch.setattr("ridgemm.journal.os.replace", full)
    with pytest.raises(StorageError, match="No space left on device"):
        run(out)
    monkeypatch.setattr("ridgemm.journal.os.replace", replace)
    assert len(parts(out)) == n_published
    before = parts(out)
    again = run(out)
    assert before.items() <= parts(out).items()
    np.testing.assert_array_equal(again.null_max, whole.null_max)
    np.testing.assert_array_equal(again.pvalues, whole.pvalues)


def test_a_folder_of_something_else_is_refused(tmp_path):
    Journal(tmp_path).parts.mkdir()
    (tmp_path / "parts" / "null_0_0_5.npy").touch()
    with pytest.raises(StorageError, match=r"no request\.json"):
        run(tmp_path)
    (tmp_path / "request.json").write_text("{")
    with pytest.raises(StorageError, match="cannot be read"):
        run(tmp_path)
