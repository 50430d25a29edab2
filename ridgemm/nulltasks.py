"""The map tasks of a permutation test: a tile of targets and a range of permutations.

Permutation -1 is the observed order, scored by the same code, so that a permutation that
changes nothing gives the same bits and counts as a tie. A task publishes one part.

Outer folds are the outer loop: all permutations of a task pass through the factors of one fold
before the next fold's are touched, so that a worker reads each of them once for a task, however
little of them its memory or its file system holds. Where all folds share one pass over the samples
(`ridgemm.nested.one_pass_pays`), or a fit to all of them (`ridgemm.downdates`), permutations are
the outer loop.
"""

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import product
from pathlib import Path

import numpy as np

from ridgemm.crossvalidation import SCORERS, only
from ridgemm.errors import StorageError
from ridgemm.journal import Journal
from ridgemm.kernels import count_null, first_best, heldout_moments, shrink_targets
from ridgemm.mapreduce import Crew
from ridgemm.nested import NestedFold, WholeFit
from ridgemm.null import tail_statistic
from ridgemm.projections import Data, Order, TargetTile
from ridgemm.schemes import PermutationScheme
from ridgemm.scores import Moments, score
from ridgemm.store import open_array
from ridgemm.tails import besag_clifford_update
from ridgemm.tiles import spans, width

OBSERVED = -1
# kinds of parts: every score of the null, held-out predictions
KEPT = "kept"
PREDICTION = "prediction"


@dataclass(frozen=True)
class NullJob:
    """All that a task needs beside its tile and range.

    Attributes
    ----------
    data : Data
    strip : int
        Columns that one thread works on.
    at_once : int
        Permutations in one product.
    folds : tuple of NestedFold
    products : bool
        Cross-products with X are made (primal routes).
    shared_atoms : tuple of int arrays
        Pieces of the atoms of all folds, where one pass serves them all; otherwise empty.
    whole : WholeFit, optional
        The fit to all samples, where all folds are scored by its residuals.
    scoring : str
    alphas : (n_alphas,) float64
    schemes : tuple of (PermutationScheme, rows)
        Disjoint rows and how they are permuted among themselves.
    two_sided : bool
    journal : Journal
    missing : (n_targets,) bool
        Targets with NaN, which stay NaN.
    observed, threshold : (n_targets,) float64, optional
        Observed scores, and what a null has to reach to count against a target.
    choices : (1 + n_permutations, n_outer) int array, optional
        The shared alpha of every permutation and outer fold; None chooses per target.
    keep : bool
        Publish every score.
    predictions : dict of Path by first target of a tile, optional
        Parts with the held-out predictions, for ``null="heldout"``: the test rows of all outer
        folds below each other, (n_tests, tile) float32.
    hits : int
        Exceedances at which a target stops, for ``stop="besag-clifford"``.
    counts, drawn : (n_targets,) arrays, optional
        Exceedances and permutations of each target in the rounds before.
    """

    data: Data
    strip: int
    at_once: int
    folds: tuple[NestedFold, ...]
    products: bool
    shared_atoms: tuple[np.ndarray, ...]
    scoring: str
    alphas: np.ndarray
    schemes: tuple[tuple[PermutationScheme, np.ndarray], ...]
    two_sided: bool
    journal: Journal
    missing: np.ndarray
    observed: np.ndarray | None = None
    threshold: np.ndarray | None = None
    choices: np.ndarray | None = None
    keep: bool = False
    predictions: Mapping[int, Path] | None = None
    hits: int = 0
    counts: np.ndarray | None = None
    drawn: np.ndarray | None = None
    whole: WholeFit | None = None


Task = tuple[slice, int, int]


def order(job: NullJob, i: int) -> Order:
    """Permutation `i` of all rows; -1 is the observed order."""
    n = job.data.Y.shape[0]
    rows, signs = np.arange(n), None
    if i == OBSERVED:
        return Order(rows)
    for scheme, members in job.schemes:
        moved, flips = scheme.draw(i)
        rows[members] = members[moved]
        if flips is not None:
            signs = np.ones(n, np.float32) if signs is None else signs
            signs[members] = flips
    return Order(rows, signs)


@dataclass(frozen=True)
class Block:
    """The permutations of one product.

    Attributes
    ----------
    numbers : list of int
    orders : list of Order
    inside : slice
        Which of them were asked for.
    here : slice
        Their places counted from the first of the task.
    """

    numbers: list[int]
    orders: list[Order]
    inside: slice
    here: slice


def blocks(job: NullJob, start: int, stop: int) -> Iterator[Block]:
    """Permutations of every product between `start` and `stop`.

    A product always has the same width, whatever range a task or a resumed run was cut to:
    blocks lie at multiples of ``at_once`` and are filled up with the observed order.
    """
    for first in range(start // job.at_once * job.at_once, stop, job.at_once):
        low, high = max(first, start), min(first + job.at_once, stop)
        numbers = [i if low <= i < high else OBSERVED for i in range(first, first + job.at_once)]
        inside, here = slice(low - first, high - first), slice(low - start, high - start)
        yield Block(numbers, [order(job, i) for i in numbers], inside, here)


def _observed_block(job: NullJob, size: int) -> Block:
    numbers = [OBSERVED] * size
    return Block(numbers, [order(job, OBSERVED)] * size, slice(0, 1), slice(0, 1))


def observed_task(job: NullJob, crew: Crew, task: Task) -> None:
    """Publish the observed scores of a tile."""
    columns, _, _ = task
    tile = TargetTile(job.data, columns, crew, resident=True)
    scores = _refit_scores(job, tile, crew, [_observed_block(job, job.at_once)])[0, 0]
    job.journal.publish("observed", columns.start, OBSERVED, 0, scores)


def null_task(job: NullJob, crew: Crew, task: Task) -> None:
    """Publish exceedances, moments and maxima of a tile over a range of permutations.

    The part is (4, max(n_targets, n_permutations)) float64: counts, sums and sums of squares
    by target, and the maximum by permutation. Scores that are kept are published before it.
    """
    columns, start, stop = task
    tile = TargetTile(job.data, columns, crew, resident=True)
    t, m = width(columns), stop - start
    part = np.zeros((4, max(t, m)))
    part[3] = -np.inf
    threshold = np.ascontiguousarray(job.threshold[columns])
    pieces = list(blocks(job, start, stop))
    scores_of_pieces = _scores_of(job, columns)(job, tile, crew, pieces)
    # a file of its own: what several hosts write into one, through a network, gets lost
    file = job.journal.large(KEPT, columns.start, start, stop, (m, t)) if job.keep else None
    with file or contextlib.nullcontext() as kept:
        for block, scores in zip(pieces, scores_of_pieces, strict=True):
            here, scores = block.here, scores[block.inside]
            if kept is not None:
                kept[here] = scores
            statistics = tail_statistic(scores, job.two_sided)
            for i, statistic in zip(range(here.start, here.stop), statistics, strict=True):
                largest = part[3, i : i + 1]
                count_null(statistic, threshold, part[0], part[1], part[2], largest)
    job.journal.publish("null", columns.start, start, stop, part)


def stop_task(job: NullJob, crew: Crew, task: Task) -> None:
    """Publish (exceedances, permutations) of a tile, its finished targets left out."""
    columns, start, stop = task
    counts, drawn = job.counts[columns].copy(), job.drawn[columns].copy()
    running = np.flatnonzero(counts < job.hits)
    tile = TargetTile(job.data, columns, crew, resident=True)
    threshold = job.threshold[columns]
    scores_of = _scores_of(job, columns)
    if job.predictions is None:
        tile.keep(running)
    # one at a time: what it stops needs none of the next
    for block in blocks(job, start, stop):
        if not len(running):
            break
        (scores,) = scores_of(job, tile, crew, [block])
        scores = scores[block.inside]
        if scores.shape[1] > len(running):
            scores = scores[:, running]
        hits = tail_statistic(scores, job.two_sided) >= threshold[running]
        some_counts, some_drawn = counts[running], drawn[running]
        besag_clifford_update(some_counts, some_drawn, hits, job.hits)
        counts[running], drawn[running] = some_counts, some_drawn
    kind = f"stop-{start}-{stop}"
    job.journal.publish(kind, columns.start, start, stop, np.stack([counts, drawn]))


def choice_task(job: NullJob, crew: Crew, task: Task) -> None:
    """Publish sums over a tile's targets of the inner scores: (n_permutations, n_outer, r)."""
    columns, start, stop = task
    tile = TargetTile(job.data, columns, crew, resident=True)
    part = np.zeros((stop - start, len(job.folds), len(job.alphas)))
    pieces = list(blocks(job, start, stop))
    for k, b, loaded, strips in _visits(job, tile, pieces):
        fold, block = job.folds[k], pieces[b]
        inner = crew.shared.array("inner", (len(job.alphas), tile.size), np.float64)

        def choose(slot: int, strip: slice, fold=fold, inner=inner, tile=loaded) -> None:
            inner[:, strip] = _inner_scores(job, tile, fold, strip, crew, slot)

        crew.team.run(choose, strips)
        by_order = inner.reshape(len(job.alphas), len(block.numbers), -1)
        sums = by_order[:, block.inside][:, :, ~job.missing[columns]].sum(axis=2)
        part[block.here, k] = sums.T
    job.journal.publish("choice", columns.start, start, stop, part)


def prediction_task(job: NullJob, crew: Crew, task: Task) -> None:
    """Publish the held-out predictions of a tile, then its observed scores."""
    columns, _, _ = task
    tile = TargetTile(job.data, columns, crew, resident=True)
    strips = spans(tile.size, job.strip)
    shape = (sum(len(fold.outer.view.test) for fold in job.folds), tile.size)
    with job.journal.large(PREDICTION, columns.start, OBSERVED, 0, shape) as written:
        predictions = _by_fold(job, written)
        _predict(job, tile, strips, crew, predictions)
        ((scores,),) = _heldout_scores(job, tile, crew, [_observed_block(job, 1)], predictions)
    job.journal.publish("observed", columns.start, OBSERVED, 0, scores)


def _predict(
    job: NullJob,
    tile: TargetTile,
    strips: list[slice],
    crew: Crew,
    predictions: Sequence[np.ndarray],
) -> None:
    """Write the predictions of the test rows of every outer fold."""
    for k, fold in enumerate(job.folds):
        tile.load_atoms(fold.atoms, strips, job.products)

        def predict(slot: int, strip: slice, k: int = k, fold: NestedFold = fold) -> None:
            workspace, view = crew.slots[slot], fold.outer.view
            alpha = job.alphas[_chosen(job, tile, k, fold, strip, crew, slot)]
            Z = tile.project_all(view, strip, workspace)
            shrink_targets(Z, view.factors.eigenvalues, alpha, Z)
            prediction = workspace.array("F", (len(view.test), width(strip)))
            tile.multiply(view.factors.heldout, Z, prediction, workspace)
            predictions[k][:, strip] = prediction

        crew.team.run(predict, strips)


def _by_fold(job: NullJob, predictions: np.ndarray) -> list[np.ndarray]:
    """The rows of every outer fold."""
    stops = np.cumsum([len(fold.outer.view.test) for fold in job.folds])
    return np.split(predictions, stops[:-1])


def _scores_of(job: NullJob, columns: slice) -> Callable[..., np.ndarray]:
    """The function of a tile that scores permutations."""
    if job.predictions is None:
        return _refit_scores
    path = job.predictions[columns.start]
    try:
        predictions = _by_fold(job, open_array(path))
    except (OSError, ValueError, EOFError) as error:
        raise StorageError(
            f"{str(path)!r} cannot be read ({error}); make the same call again."
        ) from error
    return partial(_heldout_scores, predictions=predictions)


def _visits(
    job: NullJob, tile: TargetTile, pieces: Sequence[Block]
) -> Iterator[tuple[int, int, TargetTile, list[slice]]]:
    """Every fold and block once: their numbers, the tile with their sums, and its strips."""
    if not job.shared_atoms:
        for (k, fold), (b, block) in product(enumerate(job.folds), enumerate(pieces)):
            yield k, b, tile, _load(job, tile, fold.atoms, block)
        return
    for b, block in enumerate(pieces):
        strips = _load(job, tile, job.shared_atoms, block)
        for k, fold in enumerate(job.folds):
            yield k, b, tile.joined(fold.parts), strips


def _load(job: NullJob, tile: TargetTile, atoms: Sequence[np.ndarray], block: Block) -> list[slice]:
    """Make the columns of a tile those of a block, with the sums of some atoms; its strips."""
    tile.permute(block.orders)
    strips = spans(tile.size, job.strip)
    tile.load_atoms(atoms, strips, job.products)
    if job.whole is not None:
        tile.load_residuals(job.whole.view, job.whole.operators, strips)
    return strips


def _refit_scores(
    job: NullJob, tile: TargetTile, crew: Crew, pieces: Sequence[Block]
) -> np.ndarray:
    """Mean outer score of the whole nested procedure, (n_blocks, at_once, n_targets) float64."""
    scores = crew.shared.zeros("scores", (len(pieces), job.at_once, tile.n_targets))
    totals = scores.reshape(len(pieces), -1)
    for k, b, loaded, strips in _visits(job, tile, pieces):
        fold, total, first = job.folds[k], totals[b], pieces[b].numbers[0]

        def add(
            slot: int, strip: slice, k=k, fold=fold, total=total, first=first, tile=loaded
        ) -> None:
            workspace, scorer = crew.slots[slot], SCORERS[fold.outer_method]
            if job.choices is not None:
                # one permutation at a time: its alpha is that of the whole strip
                candidate = only(fold.outer, job.choices[first - OBSERVED, k])
                total[strip] += scorer(tile, candidate, strip, job.scoring, workspace)[0]
                return
            index = _chosen(job, tile, k, fold, strip, crew, slot)
            found = scorer(tile, fold.outer, strip, job.scoring, workspace)
            total[strip] += found[index, np.arange(len(index))]

        crew.team.run(add, strips)
    scores /= len(job.folds)
    scores[..., job.missing[tile.targets]] = np.nan
    return scores


def _chosen(
    job: NullJob,
    tile: TargetTile,
    k: int,
    fold: NestedFold,
    strip: slice,
    crew: Crew,
    slot: int,
) -> np.ndarray:
    """Number of the alpha of each target in outer fold `k`, of the observed or a permutation."""
    if job.choices is not None:
        return np.full(width(strip), job.choices[0, k])
    scores = _inner_scores(job, tile, fold, strip, crew, slot)
    index, best = np.empty(width(strip), np.int64), np.empty(width(strip))
    first_best(scores, index, best)
    return index


def _inner_scores(
    job: NullJob, tile: TargetTile, fold: NestedFold, strip: slice, crew: Crew, slot: int
) -> np.ndarray:
    scorer = SCORERS[fold.inner_method]
    scores = np.zeros((len(job.alphas), width(strip)))
    for candidates in fold.inner:
        scores += scorer(tile, candidates, strip, job.scoring, crew.slots[slot])
    return scores / len(fold.inner)


def _heldout_scores(
    job: NullJob,
    tile: TargetTile,
    crew: Crew,
    pieces: Sequence[Block],
    predictions: Sequence[np.ndarray],
) -> np.ndarray:
    """Scores of permuted held-out rows against the predictions, as `_refit_scores`."""
    tile.permute([])
    orders = [moved for block in pieces for moved in block.orders]
    total = np.zeros((len(orders), tile.size))
    strips = spans(tile.size, 64)  # a strip of Y and of the prediction stay in cache
    for k, fold in enumerate(job.folds):
        tile.load_atoms(fold.atoms, spans(tile.size, job.strip), False)

        def add(slot: int, strip: slice, k: int = k, fold: NestedFold = fold) -> None:
            view = fold.outer.view
            mean, constant = tile.train_mean(view, strip), tile.is_constant(view, strip)
            prediction = predictions[k][:, strip]
            n, y_total, y_square = tile.centered_moments(view, view.in_test, strip)
            squares = np.einsum("ij,ij->j", prediction, prediction, dtype=np.float64)
            totals = prediction.sum(axis=0, dtype=np.float64)
            nuisance = job.data.nuisance
            if nuisance.n_confounds:
                # rows of the residuals move, what the training effects leave of N does not
                fitted = nuisance.N[view.test] @ tile.train_effects(view, strip)
            for i, moved in enumerate(orders):
                sums = np.zeros((2, width(strip)))
                rows = moved.rows[view.test]
                signs = np.ones(n, np.float32) if moved.signs is None else moved.signs[view.test]
                if nuisance.n_confounds:
                    y = tile.Y[rows, strip] * signs[:, None] - fitted
                    sums[:] = y.sum(axis=0), np.einsum("ij,ij->j", y, prediction)
                    square = np.einsum("ij,ij->j", y, y)
                else:
                    heldout_moments(tile.Y[:, strip], prediction, rows, signs, mean, sums)
                    # flips change the sum, and with it the squares about the training mean
                    square = y_square - 2 * mean * (sums[0] - y_total)
                moments = Moments(n, sums[0], square, totals, squares, sums[1])
                scores = score(job.scoring, moments)
                if job.scoring == "correlation":
                    scores[constant] = 0
                total[i, strip] += scores

        crew.team.run(add, strips)
    total /= len(job.folds)
    total[:, job.missing[tile.targets]] = np.nan
    return total.reshape(len(pieces), -1, tile.size)
