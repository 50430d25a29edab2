"""Whatever goes wrong with files or processes: a clear error, and the same call then gives the
same bits.

Disks that fail at any write, kills and Ctrl-C at any moment, damaged caches, full disks, folders
that vanish, several processes in one cache, and workers that die.
"""

import contextlib
import errno
import functools
import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path
from typing import NamedTuple

import numpy as np
import psutil
import pytest

from ridgemm import RidgeCV, StorageError, WorkerError, load, verify
from ridgemm.journal import part_problem
from ridgemm.private import is_abandoned, is_private, private_name
from ridgemm.store import MANIFEST, wrong_files
from tests import faults
from tests.faults import CALLS, FITS, TESTS, failing, fit, permute, problem, removing, watching
from tests.marks import slow

ROOT = Path(__file__).resolve().parents[1]
CODES = (errno.ENOSPC, errno.EIO, errno.EACCES)
ENTRY = re.compile(r"-[0-9a-f]{32}$")

posix = pytest.mark.skipif(os.name != "posix", reason="signals and fork are POSIX")


@pytest.fixture
def tmp_path(tmp_path):
    """In memory where the system has a folder there: faults come from the test, not from a disk."""
    memory = Path("/dev/shm")
    if not os.access(memory, os.W_OK):
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(prefix="ridgemm-faults-", dir=memory) as folder:
        yield Path(folder)


class Undisturbed(NamedTuple):
    """What a call gives and leaves when nothing goes wrong."""

    bits: dict[str, bytes]
    events: tuple[str, ...]
    files: frozenset[str]
    sizes: frozenset[int]


@functools.cache
def undisturbed(name):
    with tempfile.TemporaryDirectory() as parent:
        folder = Path(parent) / "folder"
        with watching(folder) as watch:
            found = CALLS[name](folder)
        sizes = frozenset(path.stat().st_size for path in folder.rglob("*") if path.is_file())
        return Undisturbed(found, tuple(watch.names), files(folder), sizes)


def files(folder):
    return frozenset(str(path.relative_to(folder)) for path in folder.rglob("*"))


def state(folder):
    """All that a call finds in a folder; what it took and who left it decide nothing."""
    found = []
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder)).split("~")[0]
        content = path.read_bytes() if path.is_file() else b""
        if path.suffix == ".json":
            # seconds differ from run to run, and with them the checksums of those who tell them
            with contextlib.suppress(ValueError):
                seen = json.loads(content, parse_float=lambda _: 0.0)
                seen.pop("checksum", None)
                content = json.dumps(seen).encode()
        found.append((name, path.is_dir(), content))
    return hashlib.blake2b(repr(found).encode()).digest()


_resumed = set()


def check_resumed(name, folder):
    """The same call again gives the same bits; once for every state that a folder may be in."""
    case = name, state(folder)
    if case in _resumed:
        return
    ref = undisturbed(name)
    assert CALLS[name](folder) == ref.bits, "the same call afterwards gave other bits"
    assert files(folder) == ref.files
    _resumed.add(case)


def unfinished(folder):
    return [path for path in folder.rglob("*") if is_private(path.name)]


def assert_whole(folder):
    """What has a final name is all there.

    The null that a run keeps is whole where its manifest says so.
    """
    for path in folder.rglob("*"):
        if any(is_private(part) for part in path.relative_to(folder).parts):
            continue
        if ENTRY.search(path.name):
            assert wrong_files(path, verify=True) == {}, path
        elif path.parent.name == "parts":
            assert part_problem(path) is None, path
        elif path.suffix == ".json":
            json.loads(path.read_text())
        elif path.suffix == ".npy" and not path.name.startswith("null."):
            np.load(path)


def assert_names(error, path):
    assert str(path) in str(error), f"{path} is not named: {error}"


def every(cases, check):
    """Check all cases, and name every one that fails."""
    cases, wrong = list(cases), []
    assert cases
    for case in cases:
        try:
            check(*case)
        except (Exception, pytest.fail.Exception) as error:
            wrong.append(f"{case}: {type(error).__name__}: {str(error)[:300]}")
    if wrong:
        pytest.fail(f"{len(wrong)} of {len(cases)} cases:\n" + "\n".join(wrong), pytrace=False)


# -- a disk that fails ------------------------------------------------------------------------


def all_faults(events):
    """(event, error, lasting): every event fails, by itself or with all that follow."""
    return [
        (k, code, lasting)
        for lasting in (False, True)
        for code in CODES
        for k, event in enumerate(events)
        # permissions are looked at where a file is opened
        if code != errno.EACCES or event == "open"
    ]


def some_faults(events, step):
    """Every `step`-th of all faults."""
    return all_faults(events)[::step]


def check_fault(name, folder, around):
    """A call under `around` is right or a `StorageError`; the same call afterwards is right."""
    ref = undisturbed(name)
    try:
        with around:
            assert CALLS[name](folder) == ref.bits, "it completed, to other bits"
    except StorageError as error:
        assert_names(error, folder)
    if folder.exists():
        assert_whole(folder)
        assert unfinished(folder) == []
    check_resumed(name, folder)
    shutil.rmtree(folder, ignore_errors=True)


def check_faults(name, tmp_path, chosen):
    ref = undisturbed(name)

    def check(k, code, lasting):
        folder = tmp_path / f"{k}-{code}-{lasting}"
        check_fault(name, folder, watching(folder, failing(k, code, lasting)))

    events = [(k, errno.errorcode[code], lasting, ref.events[k]) for k, code, lasting in chosen]
    every(events, lambda k, code, lasting, _: check(k, getattr(errno, code), lasting))


def test_fit_on_a_disk_that_is_full_for_a_moment(tmp_path):
    events = undisturbed("primal-statistics").events
    assert len(events) > 50 and set(events) >= {"open", "mkdir", "rename", "fsync"}
    each_once = [(k, errno.ENOSPC, False) for k in range(len(events))]
    check_faults("primal-statistics", tmp_path, each_once)


@pytest.mark.parametrize(
    ("name", "step"), [("primal-statistics", 13), ("dual", 13), ("kept null", 79), ("heldout", 43)]
)
def test_disk_that_fails(name, step, tmp_path):
    check_faults(name, tmp_path, some_faults(undisturbed(name).events, step))


@pytest.mark.parametrize("name", ["kept null", "heldout"])
def test_folders_and_renames_that_fail(name, tmp_path):
    events = undisturbed(name).events
    rare = [k for k, event in enumerate(events) if event in ("mkdir", "rename")]
    # the parts, most of the renames, are made in the middle
    chosen = [*rare[:22], *rare[22:-8:8], *rare[-8:]]
    check_faults(name, tmp_path, [(k, errno.EIO, False) for k in chosen])


@pytest.mark.slow
@pytest.mark.parametrize("name", CALLS)
def test_every_fault_of_every_call(name, tmp_path):
    check_faults(name, tmp_path, all_faults(undisturbed(name).events))


@contextlib.contextmanager
def file_size_limit(n_bytes):
    """No file grows beyond `n_bytes`: writes end in the middle, as on a disk that is full."""
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def break_points(sizes):
    """File sizes at which some write ends: in a header, just after it, and in the values."""
    inside = {size - cut for size in sizes for cut in (1, 8)} | {size // 2 for size in sizes}
    return sorted(n for n in inside | {0, 64, 128, 129} if n >= 0)


@posix
@pytest.mark.parametrize(
    ("name", "least", "step"),
    [
        ("dual", 0, 3),
        ("large fit", 4096, 2),
        ("large null", 4096, 1),
        *(slow(name, 0, 1) for name in CALLS),
    ],
)
def test_writes_that_end_in_the_middle(name, least, step, tmp_path):
    def check(n_bytes):
        check_fault(name, tmp_path / str(n_bytes), file_size_limit(n_bytes))

    points = [(n,) for n in break_points(undisturbed(name).sizes) if n >= least]
    every(points[::step], check)


@pytest.fixture(scope="module")
def fitted():
    # some arrays are larger than the manifest and than a buffer of the C library
    return RidgeCV((1.0, 30.0), cv=2).fit(*problem(t=700))


def saved(folder, model):
    model.save(folder / "model")
    return faults.bits(load(folder / "model"), faults.FITTED)


def check_save(folder, model, around):
    good = faults.bits(model, faults.FITTED)
    folder.mkdir()
    try:
        with around:
            model.save(folder / "model")
    except StorageError as error:
        assert_names(error, folder)
    else:
        # an error here would be one that save has kept to itself
        assert faults.bits(load(folder / "model"), faults.FITTED) == good
    assert_whole(folder)
    assert unfinished(folder) == []
    # an error after the rename leaves a whole model
    if not (folder / "model").exists():
        model.save(folder / "model")
    assert faults.bits(load(folder / "model"), faults.FITTED) == good
    assert verify(folder / "model").sound


def test_save_on_a_disk_that_fails(fitted, tmp_path):
    with watching(tmp_path) as watch:
        saved(tmp_path / "whole", fitted)

    def check(k, code, lasting):
        folder = tmp_path / f"{k}-{code}-{lasting}"
        # the folder is made by the test, before its watch begins
        check_save(folder, fitted, watching(folder, failing(k, code, lasting)))

    every(all_faults(watch.names[1:]), check)


@posix
def test_save_with_writes_that_end_in_the_middle(fitted, tmp_path):
    saved(tmp_path / "whole", fitted)
    sizes = {path.stat().st_size for path in (tmp_path / "whole" / "model").iterdir()}

    def check(n_bytes):
        check_save(tmp_path / str(n_bytes), fitted, file_size_limit(n_bytes))

    every([(n,) for n in break_points(sizes)], check)


@pytest.mark.parametrize("name", ["primal-statistics", "dual", "kept null", "heldout"])
def test_folder_removed_during_the_run(name, tmp_path):
    ref = undisturbed(name)
    # whatever is opened counts: a folder may be gone before a file is read, too
    with watching(tmp_path / "whole", reading=True) as watch:
        CALLS[name](tmp_path / "whole")

    def check(k):
        folder = tmp_path / str(k)
        try:
            with watching(folder, removing(k, folder), reading=True):
                assert CALLS[name](folder) == ref.bits
        except StorageError as error:
            assert_names(error, folder)
        assert CALLS[name](folder) == ref.bits
        assert unfinished(folder) == []

    # before the first event there is nothing to remove
    last, step = len(watch.names), 11 if name in FITS else 30
    with warnings.catch_warnings():
        # what is gone is damaged
        warnings.simplefilter("ignore", RuntimeWarning)
        every([(k,) for k in range(2, last, step)], check)


@pytest.mark.parametrize(
    "call", [fit, permute, lambda folder: saved(folder, RidgeCV(cv=2).fit(*problem()))]
)
@pytest.mark.parametrize("parent", ["file", "/proc", "loop"])
def test_folders_that_cannot_be(call, parent, tmp_path):
    # permissions do not bind root, but below a regular file or in /proc nobody can make a folder
    if parent == "/proc" and not Path("/proc/self").exists():
        pytest.skip("no /proc on this system")
    (tmp_path / "file").touch()
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    folder = tmp_path / parent / "folder"
    with pytest.raises(StorageError, match=re.escape(str(folder))):
        call(folder)


# -- processes that die -----------------------------------------------------------------------


class Server:
    """Children that are forked from a process in which everything is imported and compiled."""

    def __init__(self):
        program = "from tests.faults import serve; serve()"
        self.process = subprocess.Popen(
            [sys.executable, "-W", "error::RuntimeWarning", "-c", program],
            cwd=ROOT,
            text=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert self.process.stdout.readline() == "ready\n"

    def run(self, call, folder, *, number=-1, signum=0, copies=1):
        """Exit code and bits of every copy."""
        request = dict(call=call, folder=str(folder), number=number, signum=signum, copies=copies)
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        answers = json.loads(self.process.stdout.readline())
        return [(code, found and unpack(found)) for code, found in answers]

    def close(self):
        self.process.stdin.close()
        assert self.process.wait(timeout=60) == 0
        self.process.stdout.close()


def unpack(found):
    return {name: bytes.fromhex(text) for name, text in found.items()}


@pytest.fixture(scope="module")
def server():
    if not hasattr(os, "fork"):
        pytest.skip("needs fork")
    server = Server()
    yield server
    server.close()


def check_signal(server, name, folder, k, signum, expected):
    """A signal at event `k`; the same call then gives the same bits and leaves nothing behind."""
    ((code, found),) = server.run(name, folder, number=k, signum=signum)
    assert code == expected and found is None, (code, found)
    if folder.exists():
        assert_whole(folder)
    check_resumed(name, folder)
    shutil.rmtree(folder, ignore_errors=True)


def check_signals(server, name, tmp_path, step, signum, expected):
    def check(k, _):
        check_signal(server, name, tmp_path / str(k), k, signum, expected)

    every([*enumerate(undisturbed(name).events)][::step], check)


STEPS = [
    ("primal-statistics", 4),
    ("dual", 4),
    ("kept null", 29),
    ("heldout", 29),
    *(slow(name, 1) for name in CALLS),
]


@pytest.mark.parametrize(("name", "step"), STEPS)
def test_killed_at_any_event(server, name, step, tmp_path):
    check_signals(server, name, tmp_path, step, signal.SIGKILL, -signal.SIGKILL)


@pytest.mark.parametrize(
    ("name", "step"), [(name, 3 * step) for name, step in STEPS[:4]] + STEPS[4:]
)
def test_interrupted_at_any_event(server, name, step, tmp_path):
    check_signals(server, name, tmp_path, step, signal.SIGINT, 130)


def test_killed_while_saving(fitted, tmp_path):
    # what an unfinished save of a process that is gone looks like
    left = tmp_path / of_a_dead_process(private_name("model"))
    left.mkdir()
    (left / "coef.npy").touch()
    fitted.save(tmp_path / "model")
    assert faults.bits(load(tmp_path / "model"), faults.FITTED) == faults.bits(
        fitted, faults.FITTED
    )
    assert not left.exists()


def of_a_dead_process(name):
    """A private name whose owner is gone: its number is another process's by now."""
    return re.sub(r"-\d+-\w+-", f"-{os.getpid()}-t1-", name)


def test_what_a_living_process_owns_stays_when_the_clock_is_set(monkeypatch, tmp_path):
    # psutil adds the time of boot, which the kernel derives from the clock at every reading
    own = tmp_path / private_name("scratch")
    own.mkdir()
    assert not is_abandoned(own)
    create_time = psutil.Process.create_time
    monkeypatch.setattr(psutil.Process, "create_time", lambda self: create_time(self) + 3600)
    assert not is_abandoned(own)


@pytest.mark.parametrize("copies", [2, 4])
@pytest.mark.parametrize("name", FITS)
def test_processes_that_share_a_cache(server, name, copies, tmp_path):
    ref = undisturbed(name)
    for i in range(3):
        cache = tmp_path / str(i)
        for code, found in server.run(name, cache, copies=copies):
            assert code == 0 and found == ref.bits
        assert files(cache) == ref.files
        assert_whole(cache)


@pytest.mark.parametrize("name", ["primal-statistics", "dual"])
def test_processes_that_share_a_damaged_cache(server, name, tmp_path):
    ref = undisturbed(name)
    FITS[name](tmp_path)
    for entry in tmp_path.iterdir():
        flip(next(entry.glob("*.npy")), -1)
    # each may find another's half-removed entry, and mends it
    for code, found in server.run(name, tmp_path, copies=4):
        assert code in (0, 1)
        assert code or found == ref.bits
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        assert FITS[name](tmp_path) == ref.bits
    assert FITS[name](tmp_path) == ref.bits
    assert files(tmp_path) == ref.files


# -- workers ----------------------------------------------------------------------------------

# targets and permutations for tens of tasks
WIDE = problem(n=40, p=6, t=200)
MANY = {"n_permutations": 24, "cv": 2}

WORKERS = """
import sys
from pathlib import Path
from tests.faults import Gate, fit, permute
from tests.test_faults import MANY, WIDE

kind, folder, reached, pattern = sys.argv[1], *map(Path, sys.argv[2:4]), sys.argv[4]
X, Y = WIDE
data = X, Gate(Y, reached, (folder, pattern))
if kind == "fit":
    fit(folder, data, n_jobs=2)
else:
    permute(folder, data, n_jobs=2, **MANY)
"""


def wait_for(path, process):
    """Until a file is there: a condition, not a time."""
    while not path.exists():
        assert process.poll() is None, "it ended before any worker came to the gate"
        time.sleep(0.01)


def run_again(kind, folder):
    if kind == "fit":
        return fit(folder, WIDE, n_jobs=1)
    return permute(folder, WIDE, n_jobs=1, **MANY)


@posix
@pytest.mark.parametrize(
    ("kind", "pattern", "whom"),
    [
        ("fit", "*", "process"),
        slow("fit", "*", "group"),
        slow("null", "request.json", "process"),
        slow("null", "request.json", "group"),
        ("null", "parts/null_*", "process"),
        slow("null", "parts/null_*", "group"),
    ],
)
def test_interrupt_of_a_run_with_workers(kind, pattern, whom, tmp_path):
    folder, reached = tmp_path / "folder", tmp_path / "reached"
    process = subprocess.Popen(
        [sys.executable, "-c", WORKERS, kind, folder, reached, pattern],
        cwd=ROOT,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    wait_for(reached, process)
    children = psutil.Process(process.pid).children(recursive=True)
    assert len(children) >= 2
    # a terminal sends it to all of a group, a notebook to one process
    (os.killpg if whom == "group" else os.kill)(process.pid, signal.SIGINT)
    _, text = process.communicate(timeout=300)
    assert process.returncode != 0 and b"KeyboardInterrupt" in text
    _, alive = psutil.wait_procs(children, timeout=300)
    assert alive == []
    assert not (folder / MANIFEST).exists()
    assert run_again(kind, folder) == run_again(kind, tmp_path / "whole")
    assert unfinished(folder) == []
    assert_whole(folder)


@posix
@pytest.mark.filterwarnings("ignore:A worker stopped while some jobs")
@pytest.mark.parametrize("kind", [slow("fit"), "null"])
def test_worker_killed_once(kind, tmp_path):
    X, Y = WIDE
    flag = tmp_path / "killed"
    data = X, faults.Deadly(Y, flag)
    if kind == "fit":
        found = fit(tmp_path / "folder", data, n_jobs=2)
    else:
        found = permute(tmp_path / "folder", data, n_jobs=2, **MANY)
    assert flag.exists()
    assert found == run_again(kind, tmp_path / "whole")
    run_again(kind, tmp_path / "folder")
    assert unfinished(tmp_path / "folder") == []


@posix
@pytest.mark.filterwarnings("ignore:A worker stopped while some jobs")
@pytest.mark.parametrize("kind", ["fit", slow("null")])
def test_workers_killed_always(kind, tmp_path):
    X, Y = WIDE
    call = fit if kind == "fit" else functools.partial(permute, **MANY)
    with pytest.raises(WorkerError, match="n_jobs"):
        call(tmp_path / "folder", (X, faults.Deadly(Y)), n_jobs=2)
    assert run_again(kind, tmp_path / "folder") == run_again(kind, tmp_path / "whole")
    assert unfinished(tmp_path / "folder") == []


# -- caches and runs damaged by hand ----------------------------------------------------------


def flip(path, place):
    """Another bit at one place of a file."""
    content = bytearray(path.read_bytes())
    content[place] ^= 4
    path.write_bytes(bytes(content))


def cut(path, share):
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])


def replace_by_folder(path):
    path.unlink()
    path.mkdir()


DAMAGES = {
    "empty": lambda path: cut(path, 0),
    "half": lambda path: cut(path, 0.5),
    "all but the end": lambda path: path.write_bytes(path.read_bytes()[:-1]),
    "first byte": lambda path: flip(path, 0),
    "middle byte": lambda path: flip(path, path.stat().st_size // 2),
    "last byte": lambda path: flip(path, -1),
    "missing": lambda path: path.unlink(),
    "folder": replace_by_folder,
}


def factors(name, cache):
    """Entries that a second fit needs: a Gram is for factors that are missing."""
    found = [path for path in cache.iterdir() if not path.name.startswith("gram-")]
    assert len(found) == 3, name
    return found


def check_mended(name, cache, damaged=True):
    """The call gives the right bits, with a warning where something was damaged."""
    ref = undisturbed(name)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert CALLS[name](cache) == ref.bits
    kinds = {warning.category for warning in caught}
    assert kinds == ({RuntimeWarning} if damaged else set())
    # and all is well again
    assert CALLS[name](cache) == ref.bits
    assert files(cache) == ref.files
    assert_whole(cache)


@pytest.mark.parametrize(
    ("name", "step"), [("primal-statistics", 7), ("dual", 7), *(slow(name, 1) for name in FITS)]
)
def test_any_file_of_a_cache_damaged(name, step, tmp_path):
    sound = tmp_path / "sound"
    FITS[name](sound)
    inside = [
        str(path.relative_to(sound))
        for folder in factors(name, sound)
        for path in sorted(folder.iterdir())
    ]

    def check(file, damage):
        cache = tmp_path / "cache"
        shutil.copytree(sound, cache)
        try:
            DAMAGES[damage](cache / file)
            check_mended(name, cache)
        finally:
            shutil.rmtree(cache)

    every([(file, damage) for file in inside for damage in DAMAGES][::step], check)


def test_any_file_of_a_gram_damaged(tmp_path):
    sound = tmp_path / "sound"
    FITS["dual"](sound)
    (gram,) = sound.glob("gram-*")

    def check(file, damage):
        cache = tmp_path / "cache"
        shutil.copytree(sound, cache)
        try:
            # a factor that is missing wants the Gram
            shutil.rmtree(next(cache.glob("dual-*")))
            DAMAGES[damage](cache / gram.name / file)
            check_mended("dual", cache)
        finally:
            shutil.rmtree(cache)

    every([(file.name, damage) for file in gram.iterdir() for damage in DAMAGES], check)


MANIFESTS = {
    "half": lambda text: text[: len(text) // 2],
    "empty": lambda text: "",
    "a list": lambda text: "[]",
    "a number": lambda text: "3",
    "null": lambda text: "null",
    "a text": lambda text: '"files"',
    "another version": lambda text: '{"version": 99, "entries": []}',
    "no files": lambda text: '{"files": {}}',
    "files a list": lambda text: '{"files": []}',
    "files null": lambda text: '{"files": null}',
    "files without checksums": lambda text: re.sub('"[0-9a-f]{32}"', "null", text),
    "not UTF-8": lambda text: None,
}


@pytest.mark.parametrize("kind", MANIFESTS)
@pytest.mark.parametrize("name", ["primal-statistics", "dual"])
def test_manifest_of_another_making(name, kind, tmp_path):
    FITS[name](tmp_path)
    for path in factors(name, tmp_path):
        path = path / MANIFEST
        text = MANIFESTS[kind](path.read_text())
        path.write_bytes(b"\xff\xfe" if text is None else text.encode())
    check_mended(name, tmp_path)


def test_any_bit_of_a_manifest_flipped(tmp_path):
    sound = tmp_path / "sound"
    FITS["primal-statistics"](sound)
    entry = sorted(sound.iterdir())[0].name
    n_bytes = (sound / entry / MANIFEST).stat().st_size

    def check(place):
        cache = tmp_path / str(place)
        shutil.copytree(sound, cache)
        flip(cache / entry / MANIFEST, place)
        check_mended("primal-statistics", cache)
        shutil.rmtree(cache)

    # white space for other white space is no damage: none of its bits differs by this one
    every([(place,) for place in range(0, n_bytes, 23)], check)


@pytest.mark.parametrize("kind", ["file", "empty folder", "link to nothing", "link to a folder"])
@pytest.mark.parametrize("name", ["primal-statistics", "dual"])
def test_something_else_in_the_place_of_an_entry(name, kind, tmp_path):
    cache, other = tmp_path / "cache", tmp_path / "other"
    FITS[name](cache)
    other.mkdir()
    (other / "precious").touch()
    for entry in factors(name, cache):
        shutil.rmtree(entry)
        if kind == "file":
            entry.write_text("not a folder")
        elif kind == "empty folder":
            entry.mkdir()
        else:
            entry.symlink_to(other if kind == "link to a folder" else tmp_path / "nothing")
    check_mended(name, cache)
    assert (other / "precious").exists()


@pytest.mark.parametrize("name", ["primal-statistics", "dual"])
def test_unfinished_folder_of_a_dead_process(name, tmp_path):
    FITS[name](tmp_path)
    names = [entry.name for entry in tmp_path.iterdir()]
    for left in map(of_a_dead_process, map(private_name, [*names, "ridgemm"])):
        (tmp_path / left).mkdir()
        (tmp_path / left / "basis.npy").write_bytes(b"half")
    mine = tmp_path / private_name("ridgemm")
    mine.mkdir()
    assert FITS[name](tmp_path) == undisturbed(name).bits
    assert unfinished(tmp_path) == [mine]


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("solver", ["primal-statistics", "dual-products"])
def test_X_changed_in_place_under_the_same_size_and_date(solver, order, tmp_path):
    X, Y = problem(n=40)
    path, cache = tmp_path / "X.npy", tmp_path / "cache"
    np.save(path, np.asarray(X, order=order))
    fit(cache, (path, Y), solver=solver)
    for place in [(0, 0), (20, 2), (39, 3)]:
        before = path.stat()
        file = np.lib.format.open_memmap(path, mode="r+")
        file[place] = np.nextafter(file[place], 10)
        file.flush()
        del file
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
        after = path.stat()
        assert (after.st_size, after.st_mtime_ns) == (before.st_size, before.st_mtime_ns)
        alone = fit(None, (np.load(path), Y), solver=solver)
        assert fit(cache, (path, Y), solver=solver) == alone


@pytest.mark.parametrize("name", ["kept null", "heldout", "shared"])
def test_any_part_of_a_run_damaged(name, tmp_path):
    sound = tmp_path / "sound"
    TESTS[name](sound)
    parts = sorted((sound / "parts").iterdir())

    def check(part, damage):
        out = tmp_path / "out"
        shutil.copytree(sound, out)
        try:
            DAMAGES[damage](out / "parts" / part)
            check_mended(name, out, damaged=damage != "missing")
        finally:
            shutil.rmtree(out)

    cases = [(part.name, damage) for part in parts for damage in DAMAGES if damage != "folder"]
    every(cases[::29], check)


@pytest.mark.parametrize("damage", ["empty", "half", "all but the end", "last byte", "missing"])
@pytest.mark.parametrize(
    ("name", "file"), [("kept null", "null.npy"), ("heldout", "parts/prediction_0_*")]
)
def test_working_file_of_a_run_damaged(name, file, damage, tmp_path):
    """The null and the predictions are as much a part of the results as the rest."""
    options = {"keep_null": True} if name == "kept null" else {"null": "heldout"}
    permute(tmp_path / "out", **options)
    (path,) = (tmp_path / "out").glob(file)
    DAMAGES[damage](path)
    # more permutations, so that predictions are wanted again
    more = {**options, "n_permutations": 20}
    whole = permute(tmp_path / "whole", **more)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        try:
            found = permute(tmp_path / "out", **more)
        except StorageError as error:
            # a refusal would do as well
            assert_names(error, path)
            return
    # moments of a null that grew may differ in their last bits
    for moment in ("null_mean", "null_sd"):
        mine, theirs = (np.frombuffer(one.pop(moment)) for one in (found, whole))
        np.testing.assert_allclose(mine, theirs, rtol=1e-12)
    assert found == whole


# -- a disk that is really full ---------------------------------------------------------------

FULL = """
import subprocess, sys
from pathlib import Path
from ridgemm import StorageError
from tests.faults import CALLS

disk, other, name, step = *map(Path, sys.argv[1:3]), sys.argv[3], int(sys.argv[4])
call = CALLS[name]
good = call(other)
subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(disk)], check=True)
n_refused = 0
for n_free in range(0, 120, step):
    folder, ballast = disk / f"folder-{n_free}", disk / "ballast"
    with open(ballast, "wb", buffering=0) as file:
        try:
            while file.write(bytes(4096)) == 4096:
                pass
        except OSError:
            pass
        file.truncate(max(0, file.tell() - 4096 * n_free))
    print("pages free:", n_free, flush=True)
    try:
        assert call(folder) == good
    except StorageError as error:
        n_refused += 1
        assert str(folder) in str(error), error
    ballast.unlink()
    assert call(folder) == good, "once there was space again"
    subprocess.run(["rm", "-r", str(folder)], check=True)
assert n_refused > 2
print("all well")
"""


@functools.cache
def namespace():
    """The command that runs another one where it may mount, if there is one."""
    if not (shutil.which("unshare") and shutil.which("mount")):
        return None
    for options in (["--mount"], ["--mount", "--map-root-user"]):
        command = ["unshare", *options]
        trial = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", tempfile.gettempdir()]
        if subprocess.run([*command, *trial], capture_output=True).returncode == 0:
            return command
    return None


def run_in_namespace(program, *arguments):
    if namespace() is None:
        pytest.skip("no file system can be mounted here")
    command = [*namespace(), sys.executable, "-c", program, *map(str, arguments)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600)
    # SIGBUS would show as a negative exit code
    assert done.returncode == 0, (done.returncode, done.stdout[-500:], done.stderr[-3000:])
    assert done.stdout.endswith("all well\n")


@pytest.mark.parametrize(
    ("name", "step"),
    [
        ("primal-statistics", 7),
        ("kept null", 17),
        *(slow(name, 1) for name in CALLS),
    ],
)
def test_full_disk(name, step, tmp_path):
    (tmp_path / "disk").mkdir()
    run_in_namespace(FULL, tmp_path / "disk", tmp_path / "other", name, step)


# predictions that do not all fit
PREDICTIONS = """
import subprocess, sys
from pathlib import Path
import numpy as np
from ridgemm import StorageError
from tests.faults import permute, problem

disk, other = map(Path, sys.argv[1:3])
subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(disk)], check=True)
X, _ = problem()
data = X, np.random.default_rng(0).standard_normal((24, 20_000))
options = dict(null="heldout", n_permutations=2, strip=512)
good = permute(other, data, **options)
out = disk / "out"
permute(out, data, **options)
for path in (out / "parts").iterdir():
    path.unlink()
with open(disk / "ballast", "wb", buffering=0) as file:
    try:
        while file.write(bytes(4096)) == 4096:
            pass
    except OSError:
        pass
    # room for the factors and for some tiles of them
    file.truncate(file.tell() - 1_300_000)
try:
    assert permute(out, data, **options) == good
except StorageError as error:
    assert str(out) in str(error)
(disk / "ballast").unlink()
assert permute(out, data, **options) == good
print("all well")
"""


def test_full_disk_and_large_predictions(tmp_path):
    (tmp_path / "disk").mkdir()
    run_in_namespace(PREDICTIONS, tmp_path / "disk", tmp_path / "other")
