"""The journal of a run: parts that finished tasks publish, and what the run was asked for.

A part is one ``.npy`` file, named after its checksum too and renamed into place when it is whole:
a killed run loses the tasks that were under way and nothing else. What is done is what is there
and sound; there is no log to replay.
"""

import contextlib
import errno
import hashlib
import io
import json
import math
import os
import re
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ridgemm.errors import InputError, StorageError
from ridgemm.private import private_folder, private_name, remove, sweep
from ridgemm.store import check_folder, create_array, key, replaced, storage_error

REQUEST = "request.json"
PARTS = "parts"
PLAN = "plan.json"
TOOK = "took.json"
_PART = re.compile(r"[a-z]+(-\d+-\d+)?_\d+_-?\d+_\d+(_[0-9a-f]{16})?\.npy")
# of data, folds and permutations (`ridgemm.store.key`): says nothing to a reader
_FINGERPRINT = re.compile("[0-9a-f]{32}")


class Journal:
    """Parts of one run under a folder.

    Parameters
    ----------
    folder : Path
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self.parts = folder / PARTS
        self._checked: set[str] = set()

    def open(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Begin the run that `request` describes, or continue it.

        Parameters
        ----------
        request : dict
            ``asked`` must equal what the folder was begun with; ``chosen`` (tile sizes) is
            kept from the first call.

        Returns
        -------
        dict
            The ``chosen`` of the first call.

        Raises
        ------
        InputError
            The folder holds another run; says what differs.
        StorageError
            The folder cannot be written or read.
        """
        check_folder(self.parts, "out")
        self.sweep()
        path = self.folder / REQUEST
        # another process may begin it just now
        if not path.exists() and any(self.parts.iterdir()) and not path.exists():
            raise StorageError(
                f"out={str(self.folder)!r} has parts but no {REQUEST}; give another folder."
            )
        return hold_request(self.folder, request)

    def sweep(self) -> None:
        """Remove what dead processes left unfinished."""
        sweep(self.folder)
        sweep(self.parts)

    def scratch(self) -> contextlib.AbstractContextManager[Path]:
        """A folder for what this process alone needs; the next run removes a dead one's."""
        return private_folder(self.folder, "scratch")

    def keep_plan(self, plan: Mapping[str, Any]) -> None:
        """Keep what was expected, beside what it will really have taken."""
        _write(self.folder / PLAN, json.dumps(plan, indent=1).encode())

    def took(self, laps: Mapping[str, float]) -> dict[str, float]:
        """Seconds of every stage, those of earlier calls included; noted in the folder."""
        path = self.folder / TOOK
        try:
            before = {name: float(value) for name, value in json.loads(path.read_text()).items()}
        except (OSError, ValueError, TypeError, AttributeError, OverflowError, RecursionError):
            before = {}
        total = {name: before.get(name, 0.0) + seconds for name, seconds in laps.items()}
        _write(path, json.dumps(total, indent=1).encode())
        return total

    def forget(self, kind: str, last: float = math.inf) -> None:
        """Remove the parts of a kind, of permutations before `last`."""
        for path in self._parts(kind):
            if _span(path)[2] <= last:
                remove(path)

    def forget_alone(self, kind: str, other: str, held: Callable[[], int]) -> None:
        """Remove parts of a kind without the same part of an `other` kind, which comes first.

        Parameters
        ----------
        kind, other : str
        held : callable
            Number of permutations, from 0, whose other parts have been taken into one file.
        """
        # one look for both kinds, and the file after it: parts go once they are in the file
        paths = self._parts()
        there = {_span(path) for path in paths if path.name.startswith(f"{other}_")}
        alone = [path for path in paths if path.name.startswith(f"{kind}_")]
        alone = [path for path in alone if _span(path) not in there]
        if alone:
            last = held()
            for path in alone:
                if _span(path)[2] > last:
                    remove(path)

    @contextlib.contextmanager
    def large(
        self, kind: str, tile: int, start: int, stop: int, shape: tuple[int, ...]
    ) -> Iterator[np.memmap]:
        """A float32 part written through a file, not through memory; published at the end."""
        partial = self.parts / private_name("part")
        try:
            array = create_array(partial, shape, np.float32)
            yield array
            try:
                array.flush()
                os.replace(partial, self._path(kind, tile, start, stop, _digest_of(partial)))
            except OSError as error:
                raise self._error(error) from error
        finally:
            remove(partial)

    def _path(self, kind: str, tile: int, start: int, stop: int, digest: str) -> Path:
        return self.parts / f"{kind}_{tile}_{start}_{stop}_{digest}.npy"

    def _error(self, error: OSError) -> StorageError:
        if isinstance(error, StorageError):
            return error
        return StorageError(
            f"out={str(self.folder)!r} cannot be written ({error.strerror or error}); mend "
            "that and make the same call again: what was finished is kept."
        )

    def publish(self, kind: str, tile: int, start: int, stop: int, part: np.ndarray) -> None:
        """Write a part: permutations `start` to `stop` of the tile that begins at `tile`."""
        buffer = io.BytesIO()
        np.save(buffer, part)
        content = buffer.getbuffer()
        path = self._path(kind, tile, start, stop, _digest(content))
        partial = self.parts / private_name("part")
        try:
            with open(partial, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.replace(partial, path)
        except OSError as error:
            remove(partial)
            raise self._error(error) from error

    def identity(self, but: str) -> str:
        """A text that changes with every part, but those of one kind; damaged ones are removed."""
        names = []
        for path in self._parts():
            if not path.name.startswith(f"{but}_") and self._is_sound(path):
                names.append(path.name)
        return key(sorted(names))

    def done(self, kind: str) -> dict[int, list[tuple[int, int]]]:
        """Ranges of permutations that are there and whole, in order, by tile."""
        return {
            tile: [(start, stop) for start, stop, _ in found]
            for tile, found in self.paths(kind).items()
        }

    def read(self, kind: str, tiles: Sequence[int]) -> Iterator[tuple[int, int, int, np.ndarray]]:
        """Parts of tiles in order, as ``(tile, start, stop, part)``: one look at the folder."""
        sound = self.paths(kind)
        for tile in tiles:
            for start, stop, path in sound.get(tile, []):
                try:
                    part = np.load(path, allow_pickle=False)
                except (OSError, ValueError, EOFError) as error:
                    raise StorageError(
                        f"{str(path)!r} cannot be read ({error}); make the same call again."
                    ) from error
                yield tile, start, stop, part

    def paths(self, kind: str) -> dict[int, list[tuple[int, int, Path]]]:
        """Files of sound parts by tile, in order, as ``(start, stop, path)``."""
        ranges: dict[int, list[tuple[int, int, Path]]] = {}
        for path in self._parts(kind):
            if self._is_sound(path):
                first, start, stop = _span(path)
                ranges.setdefault(first, []).append((start, stop, path))
        return {first: self._distinct(sorted(found)) for first, found in ranges.items()}

    def _parts(self, kind: str | None = None) -> list[Path]:
        """Parts of a kind, or all of them, sound or not."""
        try:
            names = os.listdir(self.parts)
        except OSError as error:
            raise storage_error(self.folder, error) from error
        paths = [self.parts / name for name in names if kind is None or name.startswith(f"{kind}_")]
        return [path for path in paths if is_part(path)]

    def _is_sound(self, path: Path) -> bool:
        """Whether a part is as it was written; a damaged one is removed."""
        if path.name in self._checked:
            return True
        problem = part_problem(path)
        if problem is not None:
            if not path.exists():
                # another process has removed it
                return False
            message = f"{str(path)!r} is damaged ({problem}); it is computed again"
            warnings.warn(message, RuntimeWarning, stacklevel=4)
            remove(path)
            return False
        self._checked.add(path.name)
        return True

    @staticmethod
    def _distinct(found: list[tuple[int, int, Path]]) -> list[tuple[int, int, Path]]:
        """Of several parts of one range (another version may have left one), the newest."""
        newest: dict[tuple[int, int], Path] = {}
        for start, stop, path in found:
            other = newest.setdefault((start, stop), path)
            if other != path and _written(path) > _written(other):
                newest[start, stop] = path
        return [(*span, path) for span, path in sorted(newest.items())]

    def __reduce__(self) -> tuple[Any, ...]:
        # tasks publish; what this process has checked is not theirs
        return Journal, (self.folder,)


def hold_request(folder: Path, request: Mapping[str, Any]) -> dict[str, Any]:
    """Write what a run folder is for or, if it says so already, compare; see `Journal.open`."""
    path = folder / REQUEST
    if not path.exists():
        # tuples and numpy numbers as JSON has them
        content = json.loads(json.dumps(request))
        text = json.dumps({**content, "checksum": key(content)}, indent=1)
        if _write_first(path, text.encode()):
            return dict(request["chosen"])
    try:
        begun = json.loads(path.read_text())
        if begun.pop("checksum", None) != key(begun):
            raise ValueError("its checksum is wrong")
        asked, chosen = dict(begun["asked"]), dict(begun["chosen"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise StorageError(f"{str(path)!r} cannot be read ({error})") from error
    now = json.loads(json.dumps(request["asked"]))
    kinds = [run.get("command", "permutation test") for run in (asked, now)]
    if kinds[0] != kinds[1]:
        raise InputError(
            f"out={str(folder)!r} holds a {kinds[0]}, not a {kinds[1]}; give another folder."
        )
    different = [
        _difference(name, asked.get(name), now.get(name))
        for name in sorted({*asked, *now})
        if asked.get(name) != now.get(name)
    ]
    if different:
        raise InputError(
            f"out={str(folder)!r} holds a run that differs: {'; '.join(different)}. "
            "Give another folder, or the same parameters and data."
        )
    return chosen


def _difference(name: str, before: Any, now: Any) -> str:
    if all(isinstance(value, str) and _FINGERPRINT.fullmatch(value) for value in (before, now)):
        return f"{name} changed"
    return f"{name} was {before!r} and is {now!r}"


def _written(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return 0


def is_part(path: Path) -> bool:
    """Whether `Journal.publish` made a name."""
    return _PART.fullmatch(path.name) is not None


def part_problem(path: Path) -> str | None:
    """What is wrong with a part, whose name ends in a checksum of its content."""
    try:
        digest = _digest_of(path)
    except OSError as error:
        return str(error)
    return None if path.stem.endswith("_" + digest) else "its checksum is wrong"


def _span(path: Path) -> tuple[int, int, int]:
    """First target, first and last permutation of a part."""
    tile, start, stop = map(int, path.stem.split("_")[1:4])
    return tile, start, stop


def _digest_of(path: Path) -> str:
    digest = hashlib.blake2b(digest_size=8)
    with open(path, "rb") as file:
        while chunk := file.read(1 << 22):
            digest.update(chunk)
    return digest.hexdigest()


def _digest(content: bytes | memoryview) -> str:
    return hashlib.blake2b(content, digest_size=8).hexdigest()


def missing_ranges(
    done: list[tuple[int, int]], first: int, last: int, batch: int
) -> list[tuple[int, int]]:
    """Ranges within ``[first, last)`` that are not in `done`, cut at multiples of `batch`.

    Examples
    --------
    >>> missing_ranges([(0, 10)], 0, 25, 10)
    [(10, 20), (20, 25)]
    """
    gaps, at = [], first
    for start, stop in [*done, (last, last)]:
        while at < min(start, last):
            end = min(start, last, (at // batch + 1) * batch)
            gaps.append((at, end))
            at = end
        at = max(at, stop)
    return gaps


def whole(pieces: Sequence[tuple[int, int]], first: int, last: int) -> bool:
    """Whether ranges, in order, cover ``[first, last)`` once.

    Examples
    --------
    >>> whole([(0, 10), (10, 15)], 0, 15), whole([(0, 10), (5, 15)], 0, 15)
    (True, False)
    """
    at = first
    for start, stop in pieces:
        if start != at:
            return False
        at = stop
    return at == last


def _write_first(path: Path, content: bytes) -> bool:
    """Write a file that is not there; False if another process has been quicker."""
    partial = path.with_name(private_name(path.name))
    try:
        partial.write_bytes(content)
        # whole at once, as by a rename, but never over another's
        os.link(partial, path)
    except FileExistsError:
        return False
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS):
            raise storage_error(path.parent, error) from error
        # a file system without links: of two that begin at once, the second wins
        if path.exists():
            return False
        os.replace(partial, path)
    finally:
        remove(partial)
    return True


def _write(path: Path, content: bytes) -> None:
    with replaced(path) as partial:
        partial.write_bytes(content)
