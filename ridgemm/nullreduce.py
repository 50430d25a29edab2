"""What the tasks of a null left in the journal, reduced to counts, moments and maxima.

Parts are added up in their order, tile after tile, so that neither the number of workers nor an
interruption changes a bit.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from ridgemm.journal import missing_ranges
from ridgemm.nulltasks import NullJob, null_task, stop_task
from ridgemm.private import private_name, remove
from ridgemm.results import NULL, Null
from ridgemm.store import check_space, create_array, storage_error
from ridgemm.tiles import TileGrid, width

_STOP_HITS = 10


def parts(
    job: NullJob, kind: str, tiles: Sequence[slice]
) -> Iterator[tuple[slice, int, int, np.ndarray]]:
    """All parts of a kind: targets, first and last permutation, values."""
    columns = {tile.start: tile for tile in tiles}
    for first, start, stop, part in job.journal.read(kind, list(columns)):
        yield columns[first], start, stop, part


def counted_null(
    job: NullJob, grid: TileGrid, n_permutations: int, run_tasks: Callable[..., None]
) -> Null:
    """Exceedances, moments and maxima of the whole null."""
    run_tasks(partial(null_task, job), "null", 0, n_permutations, "null")
    counts, sums, squares = np.zeros((3, grid.n_targets))
    largest = np.full(n_permutations, -np.inf)
    for columns, start, stop, part in parts(job, "null", grid.tiles()):
        size = width(columns)
        counts[columns] += part[0, :size]
        sums[columns] += part[1, :size]
        squares[columns] += part[2, :size]
        here = largest[start:stop]
        np.maximum(here, part[3, : stop - start], out=here)
    counts[job.missing] = np.nan
    mean = sums / n_permutations
    sd = np.sqrt(np.maximum(squares / n_permutations - mean**2, 0))
    if job.null is not None:
        job.null.flush()
    return Null(job.observed, counts, mean, sd, largest, job.null)


def stopped_null(
    job: NullJob,
    grid: TileGrid,
    n_permutations: int,
    batch: int,
    run_tasks: Callable[..., None],
) -> Null:
    """Sequential counts: rounds of permutations, each of the targets still running."""
    counts, drawn = np.zeros(grid.n_targets), np.zeros(grid.n_targets, np.int64)
    counts[job.missing] = np.nan
    for start, stop in missing_ranges([], 0, n_permutations, batch):
        kind = f"stop-{start}-{stop}"
        round_job = replace(job, hits=_STOP_HITS, counts=counts, drawn=drawn)
        run_tasks(partial(stop_task, round_job), kind, start, stop, f"null from {start}")
        counts, drawn = counts.copy(), drawn.copy()
        for columns, _, _, part in parts(job, kind, grid.tiles()):
            counts[columns], drawn[columns] = part
        if not (counts < _STOP_HITS).any():
            break
    return Null(job.observed, counts, None, None, None, None, drawn, counts >= _STOP_HITS)


def null_file(folder: Path, shape: tuple[int, int]) -> np.memmap:
    """All null scores on disk, (n_permutations, n_targets); a larger file takes over a smaller."""
    try:
        return _null_file(folder, folder / NULL, shape)
    except (OSError, ValueError, EOFError) as error:
        raise storage_error(folder, error) from error


def _null_file(folder: Path, path: Path, shape: tuple[int, int]) -> np.memmap:
    if path.exists():
        old = np.load(path, mmap_mode="r+", allow_pickle=False)
        if len(old) >= shape[0]:
            return old
    check_space(folder, 4 * shape[0] * shape[1], "the null")
    partial_path = folder / private_name(NULL)
    new = create_array(partial_path, shape, np.float32)
    if path.exists():
        for i in range(len(old)):
            new[i] = old[i]
    new.flush()
    try:
        partial_path.replace(path)
    except OSError:
        remove(partial_path)
        raise
    return np.load(path, mmap_mode="r+", allow_pickle=False)
