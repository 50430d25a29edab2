"""Faults on purpose: everything that a call does to its files is counted, and may go wrong.

An event is a file opened for writing, a folder made, a file renamed, synchronised or given its
blocks, under the folder that is watched. At any of them an act may raise what a bad disk does,
kill the process or take the folder away.
"""

import contextlib
import json
import os
import shutil
import signal
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from unittest import mock

import numpy as np

from ridgemm import RidgeCV, nullplan, permutation_test

_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
Act = Callable[[int, str], None]


# Events ------------------------------------------------------------------------------------


class Watch:
    """Events under a folder, in order; `act` is called with the number and name of each."""

    def __init__(self, folder: Path, act: Act | None, reading: bool):
        self.folder, self.act, self.reading = os.path.abspath(folder), act, reading
        self.names: list[str] = []
        self._lock, self._acting = threading.RLock(), False

    def see(self, name: str, path: object) -> None:
        if isinstance(path, (int, bytes)):
            return
        path = os.path.abspath(path)
        if path != self.folder and not path.startswith(self.folder + os.sep):
            return
        with self._lock:
            # what an act does is no event
            if self._acting:
                return
            self.names.append(name)
            if self.act is None:
                return
            self._acting = True
            try:
                self.act(len(self.names) - 1, name)
            finally:
                self._acting = False


_watch: Watch | None = None
_hooked = False


def _audit(event: str, arguments: tuple) -> None:
    if _watch is None:
        return
    if event == "open":
        path, _, flags = arguments
        if flags & _WRITING or _watch.reading:
            _watch.see("open", path)
    elif event == "os.mkdir":
        _watch.see("mkdir", arguments[0])
    elif event in ("os.rename", "os.link"):
        _watch.see("rename", arguments[1])


def _path_of(descriptor: int) -> str:
    try:
        return os.readlink(f"/proc/self/fd/{descriptor}")
    except OSError:
        # no /proc: a run synchronises nothing but its own files
        return _watch.folder


@contextlib.contextmanager
def watching(folder: Path, act: Act | None = None, reading: bool = False) -> Iterator[Watch]:
    """Watch a folder while the block runs; files opened to be read count too if `reading`."""
    global _watch, _hooked
    if not _hooked:
        # a hook stays as long as the process
        sys.addaudithook(_audit)
        _hooked = True
    watch = Watch(folder, act, reading)

    def fsync(descriptor: int) -> None:
        # it does nothing: the disk is not what is tested, and waiting for it is slow
        watch.see("fsync", _path_of(descriptor))

    allocate = getattr(os, "posix_fallocate", None)

    def fallocate(descriptor: int, *place: int) -> None:
        watch.see("fallocate", _path_of(descriptor))
        allocate(descriptor, *place)

    with contextlib.ExitStack() as patches:
        patches.enter_context(mock.patch.object(os, "fsync", fsync))
        if allocate is not None:
            patches.enter_context(mock.patch.object(os, "posix_fallocate", fallocate))
        _watch = watch
        try:
            yield watch
        finally:
            _watch = None


def failing(number: int, code: int, lasting: bool = False) -> Act:
    """Raise the error `code` at event `number` or, where it lasts, from then on."""

    def act(i: int, _: str) -> None:
        if i == number or (lasting and i > number):
            raise OSError(code, os.strerror(code))

    return act


def signalling(number: int, signum: int) -> Act:
    """Send this process a signal at event `number`."""

    def act(i: int, _: str) -> None:
        if i == number:
            os.kill(os.getpid(), signum)

    return act


def removing(number: int, folder: Path) -> Act:
    """Remove `folder` and all in it at event `number`."""

    def act(i: int, _: str) -> None:
        if i == number:
            shutil.rmtree(folder)

    return act


# Calls, and the bits that they give --------------------------------------------------------


def problem(n: int = 24, p: int = 4, t: int = 6) -> tuple[np.ndarray, np.ndarray]:
    """X (n, p) and Y (n, t); the first target has a clear effect."""
    rng = np.random.default_rng(0)
    X, Y = rng.standard_normal((n, p)), rng.standard_normal((n, t))
    Y[:, 0] += 2 * X[:, 0]
    return X, Y


FITTED = ("coef_", "intercept_", "alpha_", "best_score_", "cv_scores_")
TESTED = ("scores", "pvalues", "pvalues_fwer", "null_max", "null_mean", "null_sd", "null")


def bits(found: object, names: tuple[str, ...]) -> dict[str, bytes]:
    """The bytes of the attributes that there are."""
    values = {name: getattr(found, name) for name in names}
    return {name: np.asarray(v).tobytes() for name, v in values.items() if v is not None}


def fit(cache: Path | None, data=None, **options) -> dict[str, bytes]:
    """Bits of a small fit with its factors in `cache`."""
    X, Y = problem() if data is None else data
    model = RidgeCV((1.0, 30.0), cache_dir=cache, **{"cv": 2, **options}).fit(X, Y)
    return bits(model, FITTED)


def permute(
    out: Path, data=None, *, model: dict | None = None, strip: int = 16, **options
) -> dict[str, bytes]:
    """Bits of a small permutation test in the run folder `out`, in many tasks."""
    X, Y = problem() if data is None else data
    options = {"cv": 2, "n_permutations": 6, **options}
    ridge = RidgeCV((1.0, 30.0), **{"cv": 2, **(model or {})})
    small = {"_TASK_FLOPS": 1.0, "STRIP": strip, "_AT_ONCE": 4}
    with mock.patch.multiple(nullplan, **small):
        return bits(permutation_test(ridge, X, Y, out=out, **options), TESTED)


def _fit(**options) -> Callable[[Path], dict[str, bytes]]:
    return lambda folder: fit(folder, **options)


def _permute(**options) -> Callable[[Path], dict[str, bytes]]:
    return lambda folder: permute(folder, **options)


SHARED = {"alpha_per_target": False}
TRACE = {**SHARED, "solver": "dual", "scoring": "neg_mean_squared_error"}
FITS = {
    "primal-statistics": _fit(solver="primal-statistics"),
    "primal-products": _fit(solver="primal-products"),
    "svd": _fit(solver="svd-products"),
    "dual": _fit(solver="dual-products"),
}
TESTS = {
    "kept null": _permute(keep_null=True),
    "heldout": _permute(null="heldout"),
    "shared": _permute(model=SHARED),
    "trace": _permute(model=TRACE),
}
# arrays larger than a manifest and than a buffer of the C library
LARGE = {
    "large fit": _fit(data=problem(n=700, p=60, t=600), solver="primal-statistics"),
    "large null": _permute(data=problem(t=600), n_permutations=2, strip=128),
}
CALLS = FITS | TESTS | LARGE


# Targets that stop or kill the worker that reads them --------------------------------------


class Targets:
    """Values that do something when a process other than the first one reads them."""

    def __init__(self, values: np.ndarray):
        self.values, self.shape, self.dtype = values, values.shape, values.dtype
        self.owner = os.getpid()

    def __getitem__(self, where):
        if os.getpid() != self.owner:
            self.happen()
        return self.values[where]

    def happen(self) -> None:
        raise NotImplementedError


class Deadly(Targets):
    """Kill the worker: the first that can make a file `flag`, or everyone without one."""

    def __init__(self, values: np.ndarray, flag: Path | None = None):
        super().__init__(values)
        self.flag = flag

    def happen(self) -> None:
        if self.flag is not None:
            try:
                os.close(os.open(self.flag, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
            except FileExistsError:
                return
        os.kill(os.getpid(), signal.SIGKILL)


class Gate(Targets):
    """Tell that a worker is here by a file `reached`, and stay, once `after` has a file."""

    def __init__(self, values: np.ndarray, reached: Path, after: tuple[Path, str]):
        super().__init__(values)
        self.reached, self.after = reached, after

    def happen(self) -> None:
        folder, pattern = self.after
        if any(folder.glob(pattern)):
            self.reached.touch()
            time.sleep(3600)


# Processes ---------------------------------------------------------------------------------


def serve() -> None:
    """Fork children, which have imported and compiled everything, as lines of stdin ask for.

    A line is JSON: ``call``, ``folder``, ``number`` and ``signum`` of a signal to itself, and
    ``copies`` that start at once. The answer is a line with their exit codes and bits.
    """
    with tempfile.TemporaryDirectory() as folder:
        for i, call in enumerate(CALLS.values()):
            call(Path(folder) / str(i))
    print("ready", flush=True)
    for line in sys.stdin:
        print(json.dumps(_fork(**json.loads(line))), flush=True)


def _fork(call: str, folder: str, number: int, signum: int, copies: int) -> list:
    started, start = os.pipe()
    children = []
    for _ in range(copies):
        answer, reply = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.close(start)
            os.close(answer)
            # until the last end of the pipe for writing is closed: all begin together
            os.read(started, 1)
            _child(call, Path(folder), signalling(number, signum), reply)
        os.close(reply)
        children.append((pid, answer))
    os.close(start)
    os.close(started)
    found = []
    for pid, answer in children:
        with open(answer) as file:
            text = file.read()
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        found.append([code, json.loads(text) if text else None])
    return found


def _child(call: str, folder: Path, act: Act, reply: int) -> None:
    code = 1
    try:
        with watching(folder, act):
            found = CALLS[call](folder)
        os.write(reply, json.dumps({name: raw.hex() for name, raw in found.items()}).encode())
        code = 0
    except KeyboardInterrupt:
        code = 130
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)
