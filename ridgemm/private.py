"""Unfinished files and scratch folders: named after the process that owns them.

What is complete has a plain name. Everything else ends in ``~host-pid-started-number``, so that
whoever finds it can tell whether its owner still lives; what a dead process left is removed.
"""

import contextlib
import functools
import hashlib
import os
import platform
import re
import shutil
import tempfile
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import psutil

from ridgemm.errors import StorageError

_SUFFIX = re.compile(r"~([0-9a-f]{8})-(\d+)-([ts]\d+)-[0-9a-f]{8}$")
# of a process on another machine nothing is known but when it last wrote
_FOREIGN_DAYS = 1


def private_name(prefix: str) -> str:
    """A name that nobody else uses and that tells its owner: this process.

    Examples
    --------
    >>> is_private(private_name("scratch"))
    True
    """
    pid, started = _this_process(os.getpid())
    return f"{prefix}~{_host()}-{pid}-{started}-{uuid.uuid4().hex[:8]}"


def is_private(name: str) -> bool:
    """Whether `private_name` made a name."""
    return _SUFFIX.search(name) is not None


def is_abandoned(path: Path) -> bool:
    """Whether the owner of an unfinished file or folder is gone."""
    found = _SUFFIX.search(path.name)
    if found is None:
        return False
    host, pid, started = found[1], int(found[2]), found[3]
    if host != _host():
        try:
            return time.time() - path.stat().st_mtime > _FOREIGN_DAYS * 86400
        except FileNotFoundError:
            return False
    try:
        return _started(pid) != started
    except psutil.NoSuchProcess:
        return True
    except psutil.AccessDenied:
        return False


def _started(pid: int) -> str:
    """When a process started: ticks since the machine did, where the kernel tells, or seconds.

    Seconds of the day would move with a clock that is set. Empty for one that is dead and whose
    parent has not asked yet how it ended.
    """
    try:
        after_name = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2]
        state, *rest = after_name.split()
        return "" if state in "ZX" else f"t{rest[18]}"
    except (OSError, IndexError):
        return f"s{int(psutil.Process(pid).create_time())}"


def sweep(folder: Path, pattern: str = "*~*") -> list[Path]:
    """Remove what dead processes left in a folder; returns what was there."""
    left = [path for path in folder.glob(pattern) if is_abandoned(path)]
    for path in left:
        remove(path)
    return left


def remove(path: Path) -> None:
    """Remove a file or a folder, whatever is left of it."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with contextlib.suppress(OSError):
            path.unlink()


@contextlib.contextmanager
def private_folder(parent: Path, prefix: str) -> Iterator[Path]:
    """A scratch folder for as long as the block runs."""
    folder = parent / private_name(prefix)
    try:
        folder.mkdir()
    except OSError as error:
        raise StorageError(
            f"no folder can be made in {str(parent)!r} ({error.strerror or error}); free some "
            "space, mend its permissions or choose another, and make the same call again."
        ) from error
    try:
        yield folder
    finally:
        remove(folder)


def temporary_folder(parent: str | Path | None) -> Path:
    """A new folder under `parent`, by default where temporary files go.

    The caller removes it; the next call on the same parent removes those of dead processes.

    Raises
    ------
    StorageError
        It cannot be made.
    """
    parent = Path(tempfile.gettempdir() if parent is None else parent)
    sweep(parent, "ridgemm~*")
    folder = parent / private_name("ridgemm")
    try:
        folder.mkdir(mode=0o700)
    except OSError as error:
        raise StorageError(
            f"no temporary folder can be made in {str(parent)!r} ({error.strerror or error}); set "
            "TMPDIR, or cache_dir, to a writable disk."
        ) from error
    return folder


@functools.cache
def _host() -> str:
    return hashlib.blake2b(platform.node().encode(), digest_size=4).hexdigest()


@functools.cache
def _this_process(pid: int) -> tuple[int, str]:
    # keyed by the number: a forked child is another process
    return pid, _started(pid)
