"""The journal of a run: parts that finished tasks publish, and what the run was asked for.

A part is one ``.npy`` file, renamed into place when it is whole: a killed run loses the tasks
that were under way and nothing else. What is done is what is there; there is no log to replay.
"""

import json
import os
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ridgemm.errors import InputError, StorageError
from ridgemm.store import check_folder

REQUEST = "request.json"


class Journal:
    """Parts of one run under a folder.

    Parameters
    ----------
    folder : Path
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self.parts = folder / "parts"

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
        path = self.folder / REQUEST
        if not path.exists():
            if any(self.parts.iterdir()):
                raise StorageError(
                    f"out={str(self.folder)!r} has parts but no {REQUEST}; give another folder."
                )
            _write(path, json.dumps(request, indent=1).encode())
            return dict(request["chosen"])
        try:
            begun = json.loads(path.read_text())
            asked, chosen = begun["asked"], begun["chosen"]
        except (OSError, ValueError, KeyError) as error:
            raise StorageError(f"{str(path)!r} cannot be read ({error})") from error
        now = json.loads(json.dumps(request["asked"]))
        different = [
            f"{name} was {asked.get(name)!r} and is {now.get(name)!r}"
            for name in sorted({*asked, *now})
            if asked.get(name) != now.get(name)
        ]
        if different:
            raise InputError(
                f"out={str(self.folder)!r} holds a run that differs: {'; '.join(different)}. "
                "Give another folder, or the same parameters and data."
            )
        return chosen

    def publish(self, kind: str, tile: int, start: int, stop: int, part: np.ndarray) -> None:
        """Write a part: permutations `start` to `stop` of the tile that begins at `tile`."""
        path = self.parts / f"{kind}_{tile}_{start}_{stop}.npy"
        partial = self.parts / f"{uuid.uuid4().hex}.partial"
        try:
            with open(partial, "wb") as file:
                np.save(file, part)
                file.flush()
                os.fsync(file.fileno())
            os.replace(partial, path)
        except OSError as error:
            partial.unlink(missing_ok=True)
            raise StorageError(
                f"out={str(self.folder)!r} cannot be written ({error.strerror or error}); mend "
                "that and make the same call again: what was finished is kept."
            ) from error

    def done(self, kind: str) -> dict[int, list[tuple[int, int]]]:
        """Ranges of permutations that are there, in order, by tile."""
        ranges: dict[int, list[tuple[int, int]]] = {}
        for path in self.parts.glob(f"{kind}_*.npy"):
            tile, start, stop = map(int, path.stem.split("_")[1:])
            ranges.setdefault(tile, []).append((start, stop))
        return {tile: sorted(found) for tile, found in ranges.items()}

    def read(self, kind: str, tile: int) -> Iterator[tuple[int, int, np.ndarray]]:
        """Parts of a tile in order, as ``(start, stop, part)``."""
        for start, stop in self.done(kind).get(tile, []):
            path = self.parts / f"{kind}_{tile}_{start}_{stop}.npy"
            try:
                yield start, stop, np.load(path, allow_pickle=False)
            except (ValueError, EOFError, OSError) as error:
                raise StorageError(
                    f"{str(path)!r} cannot be read ({error}); delete it and make the same call "
                    "again."
                ) from error


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
    partial = path.with_suffix(f".{uuid.uuid4().hex}")
    partial.write_bytes(content)
    os.replace(partial, path)
