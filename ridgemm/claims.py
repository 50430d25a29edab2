"""Who computes what, where several processes share one run folder: claims on pieces of work.

Two kinds of file lie in the folder ``claims`` of a run. A lease stands for a process at work; a
thread of it writes a new number into it every few seconds. A claim stands for a piece and names
the lease of its holder. It counts for as long as that lease lives: a holder that ends takes its
lease away, one that is killed leaves a lease that nobody renews. Clocks of hosts are never
compared: an observer looks whether the content of a lease changes, by a clock of its own.

A claim is made with ``O_EXCL`` and never changed or renamed. A lapsed one is taken over by the
claim of the next generation, ``piece.1`` after ``piece.0``: whoever makes that file has it, nobody
else can. Claims only save work: a piece that two processes compute is published twice, with the
same bits.
"""

import contextlib
import os
import random
import re
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from ridgemm.private import is_abandoned, is_private, private_name, remove, sweep
from ridgemm.store import storage_error

CLAIMS = "claims"
LEASE = 60.0  # seconds without a renewal until the holder is taken for lost
BEAT = 10.0  # seconds between renewals
_CLAIM = re.compile(r"([a-z]+(?:-\d+-\d+)?(?:_\d+_-?\d+_\d+)?)\.(\d+)")
_POLL = (0.02, 2.0)  # shortest and longest wait for others
_ATTEMPTS = 10


class Claims:
    """The claims of this process in a run folder; a context in which its lease is renewed.

    Parameters
    ----------
    run : Path
        The run folder.
    beat : float, optional
        Seconds between renewals.

    Notes
    -----
    Pickled into a worker it takes pieces in the name of the process it comes from, which renews
    the lease.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as run, Claims(Path(run)) as a, Claims(Path(run)) as b:
    ...     claim = a.free(["null_0_0_100"], a.survey())["null_0_0_100"]
    ...     a.take(claim), b.take(claim), b.free(["null_0_0_100"], b.survey())
    (True, False, {})
    """

    def __init__(self, run: Path, beat: float | None = None):
        self.run, self.folder = run, run / CLAIMS
        self.lease = private_name("lease")
        self._beat = BEAT if beat is None else beat
        self._seen: dict[str, tuple[str, float]] = {}
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._keep, name="ridgemm-lease", daemon=True)
        self._waits = 0
        self._scratch: list[Path] = []

    def __reduce__(self) -> tuple[Any, ...]:
        # neither the thread nor what this process has seen of others is a worker's
        return _of_lease, (self.run, self.lease)

    # -- the lease -------------------------------------------------------------------------------

    def __enter__(self) -> "Claims":
        try:
            self._enter()
            self._thread.start()
        except BaseException as error:
            self._leave()
            if isinstance(error, OSError):
                raise storage_error(self.run, error) from error
            raise
        return self

    def __exit__(self, *exc: object) -> None:
        self._ended.set()
        self._thread.join()
        self._leave()

    def _enter(self) -> None:
        for attempt in range(_ATTEMPTS):
            try:
                self.folder.mkdir(exist_ok=True)
                sweep(self.folder)
                return self._renew(0)
            except FileNotFoundError:
                # whoever leaves last takes the folder away
                if attempt + 1 == _ATTEMPTS:
                    raise

    def _leave(self) -> None:
        remove(self.folder / self.lease)
        # first gone, then a look: of two that leave at once, one at least sees no other
        with contextlib.suppress(OSError):
            if not self._others():
                for path in self.folder.iterdir():
                    if is_claim(path.name):
                        remove(path)
                self.folder.rmdir()

    def _keep(self) -> None:
        number = 0
        while not self._ended.wait(self._beat):
            number += 1
            # a renewal that fails looks like one that is late: others may take over, and do no harm
            with contextlib.suppress(OSError):
                self._renew(number)
                for path in self._scratch:
                    os.utime(path)

    def keep(self, scratch: Path) -> None:
        """Renew the date of a scratch folder too: hosts that see no process go by it."""
        self._scratch.append(scratch)

    def _renew(self, number: int) -> None:
        with open(self.folder / self.lease, "w") as file:
            file.write(f"{number}\n")
            file.flush()
            # a network file system shows it to others from here on
            os.fsync(file.fileno())

    # -- claims ----------------------------------------------------------------------------------

    def survey(self) -> dict[str, int]:
        """The latest generation of every piece that is claimed."""
        newest: dict[str, int] = {}
        for name in self._names():
            if found := _CLAIM.fullmatch(name):
                newest[found[1]] = max(newest.get(found[1], -1), int(found[2]))
        return newest

    def free(self, pieces: Iterable[str], newest: Mapping[str, int]) -> dict[str, str]:
        """Pieces that no other living process holds, and the claim to take for each.

        Parameters
        ----------
        pieces : iterable of str
        newest : dict
            What `survey` has found.
        """
        found = {}
        for piece in pieces:
            generation = newest.get(piece, -1)
            claim = f"{piece}.{generation}"
            if generation < 0 or not self._is_held(claim):
                found[piece] = f"{piece}.{generation + 1}"
            elif self._holder(claim) == self.lease:
                # a task that is to be done again
                found[piece] = claim
        return found

    def take(self, claim: str) -> bool:
        """Make a claim; False if somebody else has made it."""
        path = self.folder / claim
        try:
            with open(path, "x") as file:
                file.write(self.lease)
        except FileExistsError:
            # a task that is done again after its worker was killed
            return self._holder(claim) == self.lease
        except FileNotFoundError as error:
            # stopped for so long that the others took it for lost, and took the folder away
            if not self.run.is_dir() or self.folder.is_dir():
                raise storage_error(self.run, error) from error
            self._enter()
            return self.take(claim)
        except OSError as error:
            remove(path)
            raise storage_error(self.run, error) from error
        return True

    @contextlib.contextmanager
    def first(self, piece: str) -> Iterator[bool]:
        """Enter at once as the first, or after the first has left.

        Yields
        ------
        bool
            Whether this process is the first. The claim of one that fails in the block ends with
            its lease, and another is the first then.
        """
        while True:
            claim = self.free([piece], self.survey()).get(piece)
            if claim is not None and self.take(claim):
                yield True
                # lapsed ones before its own: nobody sees one of them as the newest
                for path in sorted(self.folder.glob(f"{piece}.*"), key=_generation):
                    remove(path)
                return
            while (held := self.survey().get(piece)) is not None:
                if not self._is_held(f"{piece}.{held}"):
                    break
                self.wait()
            else:
                self.progressed()
                _look_again(self.run)
                yield False
                return

    def spread(self, pieces: list[str], most: int) -> list[str]:
        """All pieces for a lone process; else some, from a place on where no other begins."""
        if not pieces or not self._others():
            return pieces
        place = random.randrange(len(pieces))
        return (pieces[place:] + pieces[:place])[:most]

    def wait(self, *folders: Path) -> None:
        """Give others time, the longer the more often it was in vain; then look into `folders`."""
        shortest, longest = _POLL
        time.sleep(min(longest, shortest * 1.5**self._waits))
        self._waits += 1
        for folder in (self.folder, *folders):
            _look_again(folder)

    def progressed(self) -> None:
        """What was waited for has come: the next wait is a short one."""
        self._waits = 0

    # -- what others do --------------------------------------------------------------------------

    def _names(self) -> list[str]:
        try:
            return os.listdir(self.folder)
        except FileNotFoundError:
            return []
        except OSError as error:
            raise storage_error(self.run, error) from error

    def _others(self) -> list[str]:
        leases = [name for name in self._names() if is_lease(name) and name != self.lease]
        return [lease for lease in leases if self._lives(lease)]

    def _holder(self, claim: str) -> str:
        """The lease that a claim names; empty in the moment between its making and its writing."""
        holder = _content(self.folder / claim) or ""
        return holder if is_lease(holder) else ""

    def _is_held(self, claim: str) -> bool:
        holder = self._holder(claim)
        if holder == self.lease:
            return True
        # without a name, for as long as a holder that died has
        return self._lives(holder) if holder else self._changes(claim, "")

    def _lives(self, lease: str) -> bool:
        """Whether a lease is renewed; one that is not is taken away."""
        path = self.folder / lease
        if is_abandoned(path):
            remove(path)
            return False
        content = _content(path)
        if content is not None and self._changes(lease, content):
            return True
        remove(path)
        return False

    def _changes(self, name: str, content: str) -> bool:
        """Whether a file has changed within the time of a lease, by this process's clock."""
        now = time.monotonic()
        before, since = self._seen.get(name, (None, now))
        if before != content:
            self._seen[name] = content, now
            return True
        return now - since < LEASE


def _of_lease(run: Path, lease: str) -> Claims:
    claims = Claims(run)
    claims.lease = lease
    return claims


def _content(path: Path) -> str | None:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return None


def _look_again(folder: Path) -> None:
    """Change a folder: a network file system then lists what others have changed in it, too."""
    path = folder / private_name("look")
    with contextlib.suppress(OSError):
        path.touch()
    remove(path)


def _generation(path: Path) -> int:
    return int(path.name.rpartition(".")[2])


def is_claim(name: str) -> bool:
    """Whether `Claims.take` made a name."""
    return _CLAIM.fullmatch(name) is not None


def is_lease(name: str) -> bool:
    """Whether `Claims` made the name of a lease."""
    return name.startswith("lease~") and is_private(name) and "/" not in name


def left_behind(run: Path) -> list[Path]:
    """Leases of dead processes, and claims of holders that are gone, in a run folder."""
    folder = run / CLAIMS
    if not folder.is_dir() or folder.is_symlink():
        return []
    paths = sorted(folder.iterdir())
    dead = [path for path in paths if is_lease(path.name) and is_abandoned(path)]
    alive = {path.name for path in paths if is_lease(path.name)} - {path.name for path in dead}
    claims = [path for path in paths if is_claim(path.name)]
    return dead + [path for path in claims if _content(path) not in alive]
