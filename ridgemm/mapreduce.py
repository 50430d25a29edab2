"""Ordered map over tasks, in this process or in workers. Knows nothing of ridge.

A task is an index into what a picklable function holds: places in files (`ridgemm.transport`)
and small arrays. It writes into its own slice of a shared memmap and returns nothing. The engine
below is joblib's: processes of this machine or, in a ``joblib.parallel_config``, Dask or Ray.
"""

import contextlib
import logging
import platform
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import joblib
from joblib.parallel import get_active_backend

from ridgemm.backends import libraries
from ridgemm.clusters import connect, engine_of
from ridgemm.errors import InputError, StorageError, WorkerError
from ridgemm.private import private_folder
from ridgemm.threads import Team
from ridgemm.transport import pack, unpack
from ridgemm.workspace import Workspace

log = logging.getLogger("ridgemm")

_ATTEMPTS = 3
# of this machine; they wait for the tasks of the next call
_n_waiting = 0
# by name: joblib's pool need not be imported; Dask and Ray try again by themselves
_KILLED = "BrokenProcessPool"
_LOCAL = ("LokyBackend", "MultiprocessingBackend", "ThreadingBackend", "SequentialBackend")


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
    """Number of workers that `n_jobs` means; negative counts from the number of cores, or means
    all of a cluster that ``joblib.parallel_config`` has chosen.

    Examples
    --------
    >>> count_workers(2)
    2
    """
    if isinstance(n_jobs, bool) or not isinstance(n_jobs, int) or n_jobs == 0:
        raise InputError(f"n_jobs={n_jobs!r} must be an int other than 0; -1 means all cores.")
    if n_jobs > 0:
        return n_jobs
    if active_cluster():
        connect(get_active_backend()[0])
        # one slot too: what one worker is asked for, this process would do itself
        return max(2, joblib.effective_n_jobs(n_jobs))
    return max(1, joblib.cpu_count() + 1 + n_jobs)


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
        Picklable if there is more than one worker; its arrays travel by `ridgemm.transport`.
    tasks : sequence
    n_workers : int
        1 runs in this process, on all cores by threads.
    scratch : Path
        For arrays that are not in a file yet; workers have to see it.
    progress : callable, optional
        Called here with every task that is done.
    """
    if n_workers == 1:
        with Crew(threads_per_worker(1)) as crew:
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
            _run_batches(function, batches, n_workers, scratch, progress)
            return
        except Exception as error:
            if not _was_killed(error):
                raise
            # tasks write their own slices and nothing else: to do one again harms nothing
            if attempt + 1 == _ATTEMPTS:
                raise WorkerError(
                    f"worker processes were killed {_ATTEMPTS} times, by the system for lack of "
                    f"memory as a rule; {len(batches)} of {n_batches} batches are left. Lower "
                    "n_jobs or memory_limit and make the same call again: what was finished is "
                    "kept in out and cache_dir."
                ) from error
            log.warning("a worker was killed; %d batches are done again", len(batches))


def _was_killed(error: Exception) -> bool:
    return any(kind.__name__ == _KILLED for kind in type(error).__mro__)


def _run_batches(
    function: Callable[[Crew, Any], None],
    batches: dict[int, Sequence[Any]],
    n_workers: int,
    scratch: Path,
    progress: Callable[[Any], None] | None,
) -> None:
    """Run batches in workers and take those that are done out of `batches`."""
    with private_folder(scratch, "job") as folder, contextlib.ExitStack() as stack:
        message = pack(function, folder)
        backend = get_active_backend()[0]
        if (engine := engine_of(backend)) is not None:
            done = engine(backend, _can_open, _run_batch, message, batches, n_workers)
            # at once after an error: its workers use the folder
            stack.enter_context(contextlib.closing(done))
        else:
            done = _joblib_done(message, batches, n_workers)
        for i in done:
            batch = batches.pop(i)
            if progress is not None:
                for task in batch:
                    progress(task)


def _joblib_done(
    message: bytes, batches: dict[int, Sequence[Any]], n_workers: int
) -> Iterable[int]:
    global _n_waiting
    cluster = active_cluster()
    if not cluster:
        _n_waiting = n_workers
    # one thread for each slot of a cluster, however many cores its nodes have
    n_threads = 1 if cluster else threads_per_worker(n_workers)
    # other people's backends may return everything at the end
    streams = get_active_backend()[0].supports_return_generator or not cluster
    return joblib.Parallel(
        n_jobs=n_workers,
        backend=None if cluster else "loky",
        batch_size=1,
        max_nbytes=None,
        return_as="generator_unordered" if streams else "list",
    )(joblib.delayed(_run_batch)(message, i, batch, n_threads) for i, batch in [*batches.items()])


def waiting_workers() -> int:
    """Workers on this machine that an earlier call has left waiting, at most.

    Examples
    --------
    >>> waiting_workers() >= 0
    True
    """
    return _n_waiting


def active_cluster() -> str | None:
    """Name of the engine that ``joblib.parallel_config`` has chosen, if it is not of this machine.

    Examples
    --------
    >>> active_cluster() is None
    True
    """
    name = type(get_active_backend()[0]).__name__
    return None if name in _LOCAL else name


def _can_open(message: bytes) -> None:
    _open_job(message)


def _run_batch(message: bytes, number: int, tasks: Sequence[Any], n_threads: int) -> int:
    function = _open_job(message)
    with Crew(n_threads) as crew:
        for task in tasks:
            function(crew, task)
    return number


def _open_job(message: bytes) -> Callable[[Crew, Any], None]:
    # for good: a neighbour in this process must not find BLAS on many threads, or other bits
    libraries().limit(limits=1, user_api="blas")
    try:
        return unpack(message)
    except FileNotFoundError as error:
        raise StorageError(
            f"worker {platform.node()!r} cannot see {error.filename!r}: workers on other machines "
            "need a file system that all share; put X, Y, cache_dir and out there (without "
            "cache_dir, temporary files go to TMPDIR)."
        ) from error
