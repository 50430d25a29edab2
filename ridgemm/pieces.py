"""The tasks of a permutation test, kind by kind, shared with all processes in its run folder."""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ridgemm.claims import Claims
from ridgemm.errors import InputError
from ridgemm.journal import Journal, missing_ranges
from ridgemm.mapreduce import Crew, map_tasks
from ridgemm.progress import progress
from ridgemm.tiles import TileGrid, width

log = logging.getLogger("ridgemm")

ROUND = 32  # tasks of a worker between two looks at what others do

Task = tuple[slice, int, int]


def _nothing() -> int:
    # before the observed order, which ends at 0
    return -1


@dataclass(frozen=True)
class Pieces:
    """Runs tasks whose parts are not in the journal yet, until all are.

    Attributes
    ----------
    journal : Journal
    claims : Claims
    grid : TileGrid
        Its tiles are the targets of tasks.
    batch : int
        Permutations of a task.
    n_workers : int
    scratch : Path
        For what workers have to see.
    progress : bool, optional
        Show a bar; by default on a terminal.
    """

    journal: Journal
    claims: Claims
    grid: TileGrid
    batch: int
    n_workers: int
    scratch: Path
    progress: bool | None

    def run(
        self,
        function: Callable[[Crew, Task], None],
        kind: str,
        first: int,
        last: int,
        label: str,
        *,
        beside: str | None = None,
        held: Callable[[], int] = _nothing,
    ) -> None:
        """Do what nobody has done and nobody does, and wait for what others do.

        Parameters
        ----------
        function : callable
            Called with a crew and a task; publishes a part of `kind`.
        kind : str
        first, last : int
            Permutations.
        label : str
            Of the progress bar.
        beside : str, optional
            A kind of part without which one of `kind` is of no use.
        held : callable, optional
            Permutations, from 0, that need none of them.
        """
        total, before = last - first, None
        with progress(self.progress, label, total) as bar:

            def advance(item: tuple[Task, str]) -> None:
                columns, start, stop = item[0]
                # shares of permutations: their sum may exceed the whole by a rounding error
                share = (stop - start) * width(columns) / self.grid.n_targets
                bar.update(min(share, total - bar.n))

            while True:
                # in this order: what is done in between is neither missing nor free
                newest = self.claims.survey()
                if beside is not None:
                    self.journal.forget_alone(kind, beside, held)
                tasks = self._missing(kind, first, last)
                left = sum((stop - start) * width(c) for c, start, stop in tasks.values())
                share = total - left / self.grid.n_targets
                if before is None and share > bar.n:
                    log.info("%s: %.0f of %.0f are there", label, share, total)
                bar.update(share - bar.n)
                if not tasks:
                    return
                if list(tasks) == before:
                    self.claims.wait(self.journal.parts)
                    before = None
                    continue
                self.claims.progressed()
                before = list(tasks)
                free = self.claims.free(tasks, newest)
                names = self.claims.spread(list(free), ROUND * self.n_workers)
                items = [(tasks[name], free[name]) for name in names]
                if items:
                    claimed = _Claimed(function, self.claims)
                    map_tasks(claimed, items, self.n_workers, self.scratch, advance)

    def _missing(self, kind: str, first: int, last: int) -> dict[str, Task]:
        """Tasks that are not done, by the names of their pieces."""
        done = self.journal.done(kind)
        most = max((stop for ranges in done.values() for _, stop in ranges), default=last)
        if most > last:
            raise InputError(
                f"n_permutations={last} is fewer than the {most} that "
                f"out={str(self.journal.folder)!r} holds; ask for at least {most}."
            )
        tasks = [
            (columns, start, stop)
            for columns in self.grid.tiles()
            for start, stop in missing_ranges(done.get(columns.start, []), first, last, self.batch)
        ]
        # batch by batch over all tiles: what is finished first is of use first
        tasks.sort(key=lambda task: (task[1], task[0].start))
        return {f"{kind}_{task[0].start}_{task[1]}_{task[2]}": task for task in tasks}


@dataclass(frozen=True)
class _Claimed:
    """A task that is done by the one process that claims it."""

    function: Callable[[Crew, Task], None]
    claims: Claims

    def __call__(self, crew: Crew, item: tuple[Task, str]) -> None:
        task, claim = item
        if self.claims.take(claim):
            self.function(crew, task)
