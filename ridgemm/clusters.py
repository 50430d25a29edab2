"""Dask and Ray: batches of tasks on the workers of a cluster, past joblib.

Joblib waits for ever for a task that Dask has given up, and shows nothing of what Ray has done
before all of it is. So batches are handed to the engine that ``joblib.parallel_config`` has
chosen. First every worker (of Ray, every node) opens the files of the job; if one cannot, no batch
starts. Neither library is imported unless it is in use.
"""

import itertools
import queue
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from ridgemm.errors import WorkerError

Batches = Mapping[int, Sequence[Any]]
Run = Callable[[bytes, int, Sequence[Any], int], int]
# of Ray, by name: not every version has them all
_LOST = frozenset({"WorkerCrashedError", "NodeDiedError", "OutOfMemoryError", "OwnerDiedError"})
_REMEDY = (
    "Workers are killed for lack of memory as a rule: give them more, or lower n_jobs or "
    "memory_limit, and make the same call again: what was finished is kept in out and cache_dir."
)


def engine_of(
    backend: Any,
) -> Callable[[Any, Callable[[bytes], None], Run, bytes, Batches, int], Iterator[int]] | None:
    """The function below that serves a backend of joblib, if there is one."""
    if hasattr(backend, "client"):
        return on_dask
    return on_ray if type(backend).__name__ == "RayBackend" else None


def connect(backend: Any) -> None:
    """Make sure that an engine can be asked for its slots."""
    if engine_of(backend) is on_ray:
        import ray

        # as Ray does by itself when the first task comes: RAY_ADDRESS, or this machine
        if not ray.is_initialized():
            ray.init()


def on_dask(
    backend: Any,
    probe: Callable[[bytes], None],
    run: Run,
    message: bytes,
    batches: Batches,
    n_workers: int,
) -> Iterator[int]:
    """Numbers of batches as Dask finishes them.

    Parameters
    ----------
    backend : joblib backend
    probe : callable
        Called with the message by every worker before any of them starts.
    run : callable
        Called with the message, the number of a batch, the batch and a number of threads.
    message : bytes
    batches : dict
    n_workers : int
        Batches at one time, if the cluster has more slots.

    Yields
    ------
    int
    """
    client, finished, futures = backend.client, queue.SimpleQueue(), []
    client.run(probe, message)
    ahead = iter([*batches.items()])

    def submit(n: int) -> None:
        for i, batch in itertools.islice(ahead, n):
            # not pure: the same message again is another try, not a result that is known
            future = client.submit(run, message, i, batch, 1, pure=False, **backend.submit_kwargs)
            futures.append(future)
            future.add_done_callback(finished.put)

    try:
        # all of them, unless that would occupy more slots than asked for
        n_slots = sum(client.ncores().values())
        submit(n_workers if n_workers < n_slots else len(batches))
        for _ in range(len(batches)):
            try:
                number = finished.get().result()
            except Exception as error:
                if type(error).__name__ != "KilledWorker":
                    raise
                # on several workers already
                raise WorkerError(f"Dask gave up a task: {error} {_REMEDY}") from error
            submit(1)
            yield number
    finally:
        # after an error or an interrupt: what has not begun need not
        client.cancel(futures)


def on_ray(
    backend: Any,
    probe: Callable[[bytes], None],
    run: Run,
    message: bytes,
    batches: Batches,
    n_workers: int,
) -> Iterator[int]:
    """Numbers of batches as Ray finishes them; as `on_dask`, but every node is asked."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    def result(task: Any) -> Any:
        try:
            return ray.get(task)
        except ray.exceptions.RayTaskError as error:
            raise error.cause from None
        except ray.exceptions.RayError as error:
            if type(error).__name__ not in _LOST:
                raise
            # several times already
            raise WorkerError(f"Ray gave up a task: {error} {_REMEDY}") from error

    shared, options = ray.put(message), backend.ray_remote_args or {}
    nodes = [node for node in ray.nodes() if node["Alive"] and node["Resources"].get("CPU")]
    probing = ray.remote(num_cpus=0)(probe)
    for task in [
        probing.options(
            scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
        ).remote(shared)
        for node in nodes
    ]:
        result(task)
    running = ray.remote(num_cpus=1)(run).options(**options)
    ahead = iter([*batches.items()])
    n_slots = sum(int(node["Resources"]["CPU"]) for node in nodes)
    tasks: list[Any] = []

    def submit(n: int) -> None:
        tasks.extend(running.remote(shared, i, batch, 1) for i, batch in itertools.islice(ahead, n))

    try:
        # what waits is looked through whenever one ends: no more than keeps all slots busy
        submit(n_workers if n_workers < n_slots else 2 * n_workers)
        while tasks:
            (task,), _ = ray.wait(tasks)
            tasks.remove(task)
            number = result(task)
            submit(1)
            yield number
    finally:
        for task in tasks:
            ray.cancel(task)
