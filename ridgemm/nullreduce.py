"""What the tasks of a null left in the journal, reduced to counts, moments and maxima.

Parts are added up in their order, tile after tile, so that neither the number of workers nor an
interruption changes a bit.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from ridgemm.errors import StorageError
from ridgemm.journal import Journal, missing_ranges, whole
from ridgemm.nulltasks import KEPT, NullJob, null_task, stop_task
from ridgemm.pieces import Pieces
from ridgemm.private import private_name, remove
from ridgemm.results import NULL, Null
from ridgemm.store import check_space, create_array, open_array, storage_error
from ridgemm.tiles import TileGrid, width

_STOP_HITS = 10


def parts(
    job: NullJob, kind: str, tiles: Sequence[slice], first: int, last: int
) -> Iterator[tuple[slice, int, int, np.ndarray]]:
    """All parts of a kind: targets, first and last permutation, values.

    Raises
    ------
    StorageError
        Those from permutation `first` to `last` are not all there.
    """
    columns = {tile.start: tile for tile in tiles}
    done = job.journal.done(kind)
    if not all(whole(done.get(tile, []), first, last) for tile in columns):
        raise StorageError(
            f"parts of {str(job.journal.folder)!r} are gone or damaged; make the same call again."
        )
    for first, start, stop, part in job.journal.read(kind, list(columns)):
        yield columns[first], start, stop, part


def run_null(job: NullJob, n_permutations: int, pieces: Pieces) -> None:
    """All tasks of the null."""
    folder = job.journal.folder
    kept = {"beside": KEPT, "held": lambda: n_rows(folder / NULL) or 0} if job.keep else {}
    pieces.run(partial(null_task, job), "null", 0, n_permutations, "null", **kept)


def counted_null(job: NullJob, grid: TileGrid, n_permutations: int) -> Null:
    """Exceedances, moments and maxima of the whole null."""
    counts, sums, squares = np.zeros((3, grid.n_targets))
    largest = np.full(n_permutations, -np.inf)
    for columns, start, stop, part in parts(job, "null", grid.tiles(), 0, n_permutations):
        size = width(columns)
        counts[columns] += part[0, :size]
        sums[columns] += part[1, :size]
        squares[columns] += part[2, :size]
        here = largest[start:stop]
        np.maximum(here, part[3, : stop - start], out=here)
    counts[job.missing] = np.nan
    mean = sums / n_permutations
    sd = np.sqrt(np.maximum(squares / n_permutations - mean**2, 0))
    scores = _null_file(job.journal, grid, n_permutations) if job.keep else None
    return Null(job.observed, counts, mean, sd, largest, scores)


def stopped_null(job: NullJob, n_permutations: int, pieces: Pieces) -> Null:
    """Sequential counts: rounds of permutations, each of the targets still running."""
    grid, batch = pieces.grid, pieces.batch
    counts, drawn = np.zeros(grid.n_targets), np.zeros(grid.n_targets, np.int64)
    counts[job.missing] = np.nan
    for start, stop in missing_ranges([], 0, n_permutations, batch):
        kind = f"stop-{start}-{stop}"
        round_job = replace(job, hits=_STOP_HITS, counts=counts, drawn=drawn)
        pieces.run(partial(stop_task, round_job), kind, start, stop, f"null from {start}")
        counts, drawn = counts.copy(), drawn.copy()
        for columns, _, _, part in parts(job, kind, grid.tiles(), start, stop):
            counts[columns], drawn[columns] = part
        if not (counts < _STOP_HITS).any():
            break
    return Null(job.observed, counts, None, None, None, None, drawn, counts >= _STOP_HITS)


def n_rows(path: Path) -> int | None:
    """Rows of an array in a file; None if it cannot be read."""
    try:
        return len(open_array(path))
    except (OSError, ValueError, EOFError):
        return None


def _null_file(journal: Journal, grid: TileGrid, n_permutations: int) -> np.ndarray:
    """All null scores in one file, (n_permutations, n_targets).

    It is made under a private name from the file that is there, of fewer permutations, and the
    parts that are kept; they may go when it has its name.
    """
    folder, path = journal.folder, journal.folder / NULL
    held = n_rows(path) or 0
    shape = (n_permutations, grid.n_targets)
    partial_path = folder / private_name(NULL)
    try:
        if held < n_permutations:
            check_space(folder, 4 * shape[0] * shape[1], "the null")
            new = create_array(partial_path, shape, np.float32)
            if held:
                new[:held] = open_array(path)
            _fill(new, journal, grid, held)
            new.flush()
            partial_path.replace(path)
        return open_array(path)[:n_permutations]
    except (OSError, ValueError, EOFError) as error:
        if (n_rows(path) or 0) >= n_permutations:
            # another process, which took this one for lost, has made the file and taken the parts
            return open_array(path)[:n_permutations]
        raise storage_error(folder, error) from error
    finally:
        remove(partial_path)


def _fill(new: np.ndarray, journal: Journal, grid: TileGrid, held: int) -> None:
    found = journal.paths(KEPT)
    for columns in grid.tiles():
        pieces = [piece for piece in found.get(columns.start, []) if piece[1] > held]
        if not whole([(start, stop) for start, stop, _ in pieces], held, len(new)):
            raise StorageError(
                f"parts of {str(journal.folder)!r} are gone or damaged; make the same call again."
            )
        for start, stop, path in pieces:
            new[start:stop, columns] = open_array(path)
