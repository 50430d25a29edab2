"""The journal of a run: parts that finished tasks publish, and what the run was asked for.

A part is one ``.npy`` file, renamed into place when it is whole: a killed run loses the tasks
that were under way and nothing else. What is done is what is there; there is no log to replay.
"""

import json
import os
import shutil
import tempfile
import uuid
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from ridgemm.errors import InputError, StorageError
from ridgemm.store import check_folder, open_array

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
        self._sweep()
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
            asked, chosen = dict(begun["asked"]), dict(begun["chosen"])
        except (OSError, ValueError, KeyError, TypeError) as error:
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

    def scratch(self) -> tempfile.TemporaryDirectory[str]:
        """A folder for what this process alone needs; the next run removes a dead one's."""
        return tempfile.TemporaryDirectory(prefix=f"scratch-{os.getpid()}-", dir=self.folder)

    def _sweep(self) -> None:
        """Remove what killed processes left: scratch folders and half-written files."""
        left = [*self.folder.glob("scratch-*"), *self.folder.glob("result.partial-*")]
        for path in [*left, *self.parts.glob("partial-*")]:
            pid = path.name.split("-")[1]
            if pid.isdigit() and psutil.pid_exists(int(pid)) and int(pid) != os.getpid():
                continue
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)

    def forget(self, kind: str) -> None:
        """Remove the parts of a kind."""
        for path in self.parts.glob(f"{kind}_*.npy"):
            path.unlink()

    def publish(self, kind: str, tile: int, start: int, stop: int, part: np.ndarray) -> None:
        """Write a part: permutations `start` to `stop` of the tile that begins at `tile`."""
        path = self.parts / f"{kind}_{tile}_{start}_{stop}.npy"
        partial = self.parts / f"partial-{os.getpid()}-{uuid.uuid4().hex}"
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
        """Ranges of permutations that are there and whole, in order, by tile."""
        ranges: dict[int, list[tuple[int, int]]] = {}
        for path in self.parts.glob(f"{kind}_*.npy"):
            try:
                open_array(path)
            except (ValueError, EOFError, OSError) as error:
                message = f"{str(path)!r} is damaged ({error}); it is computed again"
                warnings.warn(message, RuntimeWarning, stacklevel=2)
                path.unlink()
                continue
            tile, start, stop = map(int, path.stem.split("_")[1:])
            ranges.setdefault(tile, []).append((start, stop))
        return {tile: sorted(found) for tile, found in ranges.items()}

    def read(self, kind: str, tile: int) -> Iterator[tuple[int, int, np.ndarray]]:
        """Parts of a tile in order, as ``(start, stop, part)``."""
        for start, stop in self.done(kind).get(tile, []):
            path = self.parts / f"{kind}_{tile}_{start}_{stop}.npy"
            yield start, stop, np.load(path, allow_pickle=False)


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
