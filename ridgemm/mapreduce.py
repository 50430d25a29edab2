"""Ordered map over tasks, in this process or in workers. Knows nothing of ridge.

A task is an index into what a picklable function holds: paths (memmaps travel as paths) and
small arrays. It writes into its own slice of a shared memmap and returns nothing.
The sole importer of joblib.
"""

import contextlib
import logging
from collections.abc import Callable, Sequence
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

import joblib

from ridgemm.backends import libraries
from ridgemm.errors import InputError, WorkerError
from ridgemm.threads import Team
from ridgemm.workspace import Workspace

log = logging.getLogger("ridgemm")

_ATTEMPTS = 3


class Crew:
    """The threads of one process and their workspaces.

    Attributes
    ----------
    team : Team
    shared : Workspace
        Of the calling thread; what all slots read.
    slots : list of Workspace
        One for each thread of the team.
    """

    def __init__(self, n_threads: int):
        self.team = Team(n_threads)
        self.shared = Workspace()
        self.slots = [Workspace() for _ in range(n_threads)]

    def __enter__(self) -> "Crew":
        self._limits = libraries().limit(limits=1, user_api="blas")
        return self

    def __exit__(self, *exc: object) -> None:
        self._limits.restore_original_limits()
        self.team.__exit__(*exc)


def one_blas_thread(wanted: bool) -> contextlib.AbstractContextManager[object]:
    """BLAS on one thread for a while: small matrices are slower on many."""
    if not wanted:
        return contextlib.nullcontext()
    return libraries().limit(limits=1, user_api="blas")


def count_workers(n_jobs: Any) -> int:
    """Number of workers that `n_jobs` means; negative counts from the number of cores.

    Examples
    --------
    >>> count_workers(2)
    2
    """
    if isinstance(n_jobs, bool) or not isinstance(n_jobs, int) or n_jobs == 0:
        raise InputError(f"n_jobs={n_jobs!r} must be an int other than 0; -1 means all cores.")
    return n_jobs if n_jobs > 0 else max(1, joblib.cpu_count() + 1 + n_jobs)


def threads_per_worker(n_workers: int) -> int:
    """Threads that each of `n_workers` may use, so that all cores are used once."""
    return max(1, joblib.cpu_count() // n_workers)


def map_tasks(
    function: Callable[[Crew, Any], None],
    tasks: Sequence[Any],
    n_workers: int,
    scratch: Path,
    progress: Callable[[Any], None] | None = None,
) -> None:
    """Call ``function(crew, task)`` for every task.

    Parameters
    ----------
    function : callable
        Picklable if there is more than one worker.
    tasks : sequence
    n_workers : int
        1 runs in this process, on all cores by threads.
    scratch : Path
        Where joblib puts arrays that are not in a file yet.
    progress : callable, optional
        Called here with every task that is done.
    """
    n_threads = threads_per_worker(n_workers)
    if n_workers == 1:
        with Crew(n_threads) as crew:
            for task in tasks:
                function(crew, task)
                if progress is not None:
                    progress(task)
        return
    # a few batches for each worker: workspaces last for a batch, a slow core gets fewer; with
    # progress to show, tasks are long and each is a batch of its own
    n_batches = len(tasks) if progress is not None else min(len(tasks), 4 * n_workers)
    batches = {i: tasks[i::n_batches] for i in range(n_batches)}
    for attempt in range(_ATTEMPTS):
        try:
            _run_batches(function, batches, n_workers, n_threads, scratch, progress)
            return
        except BrokenProcessPool as error:
            # tasks write their own slices and nothing else: to do one again harms nothing
            if attempt + 1 == _ATTEMPTS:
                raise WorkerError(
                    f"worker processes were killed {_ATTEMPTS} times, by the system for lack of "
                    f"memory as a rule; {len(batches)} of {n_batches} batches are left. Lower "
                    "n_jobs or memory_limit and make the same call again: what was finished is "
                    "kept in out and cache_dir."
                ) from error
            log.warning("a worker was killed; %d batches are done again", len(batches))


def _run_batches(
    function: Callable[[Crew, Any], None],
    batches: dict[int, Sequence[Any]],
    n_workers: int,
    n_threads: int,
    scratch: Path,
    progress: Callable[[Any], None] | None,
) -> None:
    """Run batches in workers and take those that are done out of `batches`."""
    done = joblib.Parallel(
        n_jobs=n_workers,
        batch_size=1,
        temp_folder=str(scratch),
        return_as="generator_unordered",
    )(joblib.delayed(_run_batch)(function, i, batch, n_threads) for i, batch in [*batches.items()])
    for i in done:
        batch = batches.pop(i)
        if progress is not None:
            for task in batch:
                progress(task)


def _run_batch(
    function: Callable[[Crew, Any], None], number: int, tasks: Sequence[Any], n_threads: int
) -> int:
    with Crew(n_threads) as crew:
        for task in tasks:
            function(crew, task)
    return number
