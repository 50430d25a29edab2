"""The journal of a run: parts that finished tasks publish, and what the run was asked for.

A part is one ``.npy`` file, named after its checksum too and renamed into place when it is whole:
a killed run loses the tasks that were under way and nothing else. What is done is what is there
and sound; there is no log to replay.
"""

import contextlib
import hashlib
import io
import json
import os
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ridgemm.errors import InputError, StorageError
from ridgemm.private import private_folder, private_name, remove, sweep
from ridgemm.store import check_folder, key, replaced

REQUEST = "request.json"
PARTS = "parts"
PLAN = "plan.json"
TOOK = "took.json"
_PART = re.compile(r"[a-z]+(-\d+-\d+)?_\d+_-?\d+_\d+(_[0-9a-f]{16})?\.npy")


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
        sweep(self.folder)
        sweep(self.parts)
        if not (self.folder / REQUEST).exists() and any(self.parts.iterdir()):
            raise StorageError(
                f"out={str(self.folder)!r} has parts but no {REQUEST}; give another folder."
            )
        return hold_request(self.folder, request)

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

    def forget(self, kind: str) -> None:
        """Remove the parts of a kind."""
        for path in self.parts.glob(f"{kind}_*.npy"):
            remove(path)

    def publish(self, kind: str, tile: int, start: int, stop: int, part: np.ndarray) -> None:
        """Write a part: permutations `start` to `stop` of the tile that begins at `tile`."""
        buffer = io.BytesIO()
        np.save(buffer, part)
        content = buffer.getbuffer()
        path = self.parts / f"{kind}_{tile}_{start}_{stop}_{_digest(content)}.npy"
        partial = self.parts / private_name("part")
        try:
            with open(partial, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.replace(partial, path)
        except OSError as error:
            remove(partial)
            raise StorageError(
                f"out={str(self.folder)!r} cannot be written ({error.strerror or error}); mend "
                "that and make the same call again: what was finished is kept."
            ) from error

    def done(self, kind: str) -> dict[int, list[tuple[int, int]]]:
        """Ranges of permutations that are there and whole, in order, by tile."""
        return {
            tile: [(start, stop) for start, stop, _ in found]
            for tile, found in self._sound_parts(kind).items()
        }

    def read(self, kind: str, tiles: Sequence[int]) -> Iterator[tuple[int, int, int, np.ndarray]]:
        """Parts of tiles in order, as ``(tile, start, stop, part)``: one look at the folder."""
        sound = self._sound_parts(kind)
        for tile in tiles:
            for start, stop, path in sound.get(tile, []):
                try:
                    part = np.load(path, allow_pickle=False)
                except (OSError, ValueError, EOFError) as error:
                    raise StorageError(
                        f"{str(path)!r} cannot be read ({error}); make the same call again."
                    ) from error
                yield tile, start, stop, part

    def _sound_parts(self, kind: str) -> dict[int, list[tuple[int, int, Path]]]:
        """Parts by tile, in order; a damaged one is removed."""
        ranges: dict[int, list[tuple[int, int, Path]]] = {}
        for path in filter(is_part, self.parts.glob(f"{kind}_*.npy")):
            if path.name not in self._checked:
                if (problem := part_problem(path)) is not None:
                    message = f"{str(path)!r} is damaged ({problem}); it is computed again"
                    warnings.warn(message, RuntimeWarning, stacklevel=3)
                    remove(path)
                    continue
                self._checked.add(path.name)
            first, start, stop = map(int, path.stem.split("_")[1:4])
            ranges.setdefault(first, []).append((start, stop, path))
        return {first: self._distinct(sorted(found)) for first, found in ranges.items()}

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
        _write(path, json.dumps({**content, "checksum": key(content)}, indent=1).encode())
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
        f"{name} was {asked.get(name)!r} and is {now.get(name)!r}"
        for name in sorted({*asked, *now})
        if asked.get(name) != now.get(name)
    ]
    if different:
        raise InputError(
            f"out={str(folder)!r} holds a run that differs: {'; '.join(different)}. "
            "Give another folder, or the same parameters and data."
        )
    return chosen


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
        content = path.read_bytes()
    except OSError as error:
        return str(error)
    return None if path.stem.endswith("_" + _digest(content)) else "its checksum is wrong"


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


def _write(path: Path, content: bytes) -> None:
    with replaced(path) as partial:
        partial.write_bytes(content)
