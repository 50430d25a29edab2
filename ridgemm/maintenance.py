"""Checking and clearing of what ridgemm left on disk: caches, run folders, saved models."""

import contextlib
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ridgemm.claims import CLAIMS, left_behind
from ridgemm.errors import InputError
from ridgemm.fitplan import format_bytes, parse_memory
from ridgemm.journal import PARTS, REQUEST, is_part, part_problem
from ridgemm.private import is_abandoned, is_private, remove
from ridgemm.store import MANIFEST, read_manifest, wrong_files

# a cache may lie in a folder with other things in it: only names of our making are touched
_ENTRY = re.compile(r"(primal-quadratic|primal-products|svd|dual|gram|operator)-[0-9a-f]{32}")


@dataclass(frozen=True)
class Verification:
    """What `verify` found.

    Attributes
    ----------
    folder : Path
    n_sound : int
        Files that are as they were written.
    problems : tuple of str
        What is damaged, and what to do about it.
    unfinished : tuple of Path
        What processes that are gone left half-written; harmless.
    """

    folder: Path
    n_sound: int
    problems: tuple[str, ...]
    unfinished: tuple[Path, ...]

    @property
    def sound(self) -> bool:
        """Whether nothing is damaged."""
        return not self.problems

    def __str__(self) -> str:
        state = "sound" if self.sound else f"{len(self.problems)} damaged"
        lines = [f"{self.folder}: {self.n_sound} files as they were written, {state}"]
        lines += [f"damaged: {problem}" for problem in self.problems]
        lines += [
            f"unfinished, of a process that is gone: {path} (ridgemm clean removes it)"
            for path in self.unfinished
        ]
        return "\n".join(lines)


@dataclass(frozen=True)
class Cleaning:
    """What `clean` removed.

    Attributes
    ----------
    folder : Path
    removed : tuple of Path
    freed, kept : int
        Bytes.
    """

    folder: Path
    removed: tuple[Path, ...]
    freed: int
    kept: int

    def __str__(self) -> str:
        freed, kept = format_bytes(self.freed), format_bytes(self.kept)
        lines = [f"{self.folder}: {freed} freed, {kept} kept"]
        return "\n".join(lines + [f"removed: {path}" for path in self.removed])


def verify(folder: str | Path) -> Verification:
    """Check every checksum of a cache, a run or a saved model. Changes nothing.

    Parameters
    ----------
    folder : path
        A cache (``cache_dir``), a run (``out``) or what a model was saved to.

    Returns
    -------
    Verification
        Prints as a table.

    Raises
    ------
    InputError
        There is nothing of ridgemm's in it.

    Examples
    --------
    >>> import tempfile
    >>> import numpy as np
    >>> from ridgemm import RidgeCV
    >>> X, Y = np.eye(4), np.arange(8.0).reshape(4, 2)
    >>> with tempfile.TemporaryDirectory() as cache:
    ...     model = RidgeCV(cv=2, cache_dir=cache).fit(X, Y)
    ...     verify(cache).sound
    True
    """
    folder = Path(folder)
    _require(folder)
    n_sound, problems = 0, []
    for path in _manifest_folders(folder):
        found, wrong = _check_manifest(path)
        n_sound, problems = n_sound + found, problems + wrong
    if (problem := _request_problem(folder)) is not None:
        problems.append(f"{folder / REQUEST}: {problem}; give another folder")
    for path in _parts(folder):
        problem = part_problem(path)
        n_sound += problem is None
        if problem is not None:
            problems.append(f"{path}: {problem}; the same call of permutation_test mends it")
    unfinished = sorted(_abandoned(folder))
    return Verification(folder, n_sound, tuple(problems), tuple(unfinished))


def clean(folder: str | Path, size: int | str | None = None) -> Cleaning:
    """Remove what is of no use from a cache or a run folder.

    What dead processes left unfinished, damaged entries and damaged parts go, and files that no
    manifest names. Results and finished parts of runs stay.

    Parameters
    ----------
    folder : path
        A cache (``cache_dir``) or a run (``out``).
    size : int or str, optional
        Bytes, or a text such as "10GB", that a cache may keep; the entries that were of use the
        longest time ago go first.

    Returns
    -------
    Cleaning
        Prints as a table.

    Raises
    ------
    InputError
        There is nothing of ridgemm's in it.

    Examples
    --------
    >>> import tempfile
    >>> import numpy as np
    >>> from ridgemm import RidgeCV
    >>> X, Y = np.eye(4), np.arange(8.0).reshape(4, 2)
    >>> with tempfile.TemporaryDirectory() as cache:
    ...     model = RidgeCV(cv=2, cache_dir=cache).fit(X, Y)
    ...     clean(cache).removed, clean(cache, size="1KB").kept
    ((), 0)
    """
    folder = Path(folder)
    limit = None if size is None else parse_memory(size, "size")
    _require(folder)
    removed: dict[Path, int] = {}

    def drop(path: Path) -> None:
        removed[path] = _bytes(path)
        remove(path)

    for path in _abandoned(folder):
        drop(path)
    if (claims := folder / CLAIMS).is_dir() and _is_run(folder):
        with contextlib.suppress(OSError):
            # empty, or of processes that are at work
            claims.rmdir()
    for path in [path for path in _parts(folder) if part_problem(path)]:
        drop(path)
    entries = [path for path in folder.iterdir() if _ENTRY.fullmatch(path.name)]
    for path in entries:
        if wrong_files(path, verify=True):
            drop(path)
            continue
        if path.is_symlink():
            # what lies elsewhere is not ours
            continue
        named = {MANIFEST, *read_manifest(path)["files"]}
        for file in path.iterdir():
            if file.name not in named:
                drop(file)
    kept = sorted(
        (path for path in entries if path.exists()), key=lambda p: (p / MANIFEST).stat().st_mtime
    )
    sizes = {path: _bytes(path) for path in kept}
    total = sum(sizes.values())
    for path in kept:
        if limit is None or total <= limit:
            break
        total -= sizes[path]
        drop(path)
    return Cleaning(folder, tuple(sorted(removed)), sum(removed.values()), _bytes(folder))


def _require(folder: Path) -> None:
    if not folder.is_dir():
        raise InputError(f"{str(folder)!r} is not a folder; check the path.")
    known = (folder / REQUEST).exists() or (folder / MANIFEST).exists()
    if not known and not any(_ENTRY.fullmatch(p.name) or is_private(p.name) for p in _in(folder)):
        raise InputError(
            f"{str(folder)!r} holds no cache, run or model of ridgemm; give the folder that was "
            "cache_dir, out or the one saved to."
        )


def _in(folder: Path) -> Iterator[Path]:
    return iter(sorted(folder.iterdir()))


def _manifest_folders(folder: Path) -> list[Path]:
    entries = [path for path in _in(folder) if _ENTRY.fullmatch(path.name)]
    return [folder, *entries] if (folder / MANIFEST).exists() else entries


def _check_manifest(folder: Path) -> tuple[int, list[str]]:
    wrong = wrong_files(folder, verify=True)
    remedy = "it is built again when it is wanted"
    if not _ENTRY.fullmatch(folder.name):
        remedy = "make it again"
    if wrong.get(MANIFEST):
        return 0, [f"{folder}: {wrong[MANIFEST]}; {remedy}"]
    manifest = read_manifest(folder)
    n_files = len({**manifest["files"], **manifest.get("large", {})})
    problems = [f"{folder / name}: {problem}; {remedy}" for name, problem in wrong.items()]
    return n_files - len(problems), problems


def _parts(folder: Path) -> list[Path]:
    if not _is_run(folder):
        return []
    return sorted(filter(is_part, (folder / PARTS).glob("*.npy")))


def _request_problem(folder: Path) -> str | None:
    path = folder / REQUEST
    try:
        begun = json.loads(path.read_text())
        dict(begun["asked"]), dict(begun["chosen"])
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        return f"it cannot be read ({error})"
    return None


def _is_run(folder: Path) -> bool:
    # a cache may lie beside folders that happen to have the names of those in a run
    return (folder / REQUEST).exists()


def _abandoned(folder: Path) -> list[Path]:
    """What processes that are gone left: half-written files, scratch folders, claims."""
    found, claims = [*folder.iterdir()], []
    if _is_run(folder):
        claims = left_behind(folder)
        for inside in (folder / PARTS, folder / CLAIMS):
            found += inside.iterdir() if inside.is_dir() else ()
    private = [path for path in found if is_private(path.name) and is_abandoned(path)]
    return list(dict.fromkeys([*private, *claims]))


def _bytes(path: Path) -> int:
    if not path.is_dir():
        return path.stat().st_size
    return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
