"""One alpha for all targets, chosen anew in every permutation and outer fold."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import numpy as np

from ridgemm.factors import FactorMaker
from ridgemm.mapreduce import Crew
from ridgemm.nested import NestedSplit
from ridgemm.nullplan import TRACE_BATCH, NullPlan
from ridgemm.nullreduce import parts
from ridgemm.nulltasks import OBSERVED, NullJob, Task, choice_task, order
from ridgemm.nulltrace import error_matrices, shared_errors, target_gram
from ridgemm.pieces import Pieces
from ridgemm.store import check_space
from ridgemm.tiles import TileGrid


def shared_choices(
    job: NullJob,
    plan: NullPlan,
    splits: Sequence[NestedSplit],
    maker: FactorMaker,
    pieces: Pieces,
    last: int,
) -> np.ndarray:
    """Number of the alpha of the observed order and of `last` permutations.

    Returns
    -------
    (1 + last, n_outer) int array
    """
    if plan.trace:
        return _by_trace(job, splits, maker, pieces, last)
    pieces.run(partial(choice_task, job), "choice", OBSERVED, last, "alphas")
    total = np.zeros((1 + last, len(splits), len(job.alphas)))
    for _, start, stop, part in parts(job, "choice", pieces.grid.tiles(), OBSERVED, last):
        total[start - OBSERVED : stop - OBSERVED] += part
    return total.argmax(axis=2)


def _by_trace(
    job: NullJob, splits: Sequence[NestedSplit], maker: FactorMaker, pieces: Pieces, last: int
) -> np.ndarray:
    t = pieces.grid.n_targets
    # no task of a tile: all targets at once, a few permutations after the other
    rows = replace(pieces, grid=TileGrid(t, t, t), batch=TRACE_BATCH, n_workers=1)
    rows.run(_TraceTask(job, splits, maker, pieces), "trace", OBSERVED, last, "alphas")
    chosen = [part for *_, part in parts(job, "trace", rows.grid.tiles(), OBSERVED, last)]
    return np.concatenate(chosen)


class _TraceTask:
    """Publishes the alphas of a range of permutations; the first task makes the matrices."""

    def __init__(
        self, job: NullJob, splits: Sequence[NestedSplit], maker: FactorMaker, pieces: Pieces
    ):
        self.job, self.splits, self.maker, self.pieces = job, splits, maker, pieces
        self._matrices: tuple[np.ndarray, np.ndarray] | None = None

    def __call__(self, crew: Crew, task: Task) -> None:
        _, start, stop = task
        if self._matrices is None:
            self._matrices = self._make(crew)
        orders = [order(self.job, i) for i in range(start, stop)]
        errors = shared_errors(*self._matrices, orders, crew)
        n_outer, r = len(self.splits), len(self.job.alphas)
        chosen = errors.reshape(stop - start, n_outer, r).argmin(axis=2)
        self.job.journal.publish("trace", 0, start, stop, chosen)

    def _make(self, crew: Crew) -> tuple[np.ndarray, np.ndarray]:
        job, scratch, n = self.job, self.pieces.scratch, self.job.data.Y.shape[0]
        check_space(scratch, 4 * n**2 * len(job.alphas) * len(self.splits), "the trace identity")
        M = error_matrices(
            self.splits,
            self.maker,
            job.alphas,
            job.data.nuisance,
            scratch / "traces.npy",
            crew,
        )
        return M, target_gram(job.data, self.pieces.grid, crew, self.maker.matrices)
