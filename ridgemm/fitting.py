"""The map task of a fit: one tile of targets, from its rows to its coefficients.

A task reads sources and factors, and writes its own columns of `Outputs`; the reduce over
targets that a shared alpha needs lies between `fit_tile` and `finish_tile`.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ridgemm import blas
from ridgemm.crossvalidation import SCORERS, Candidates
from ridgemm.factors import Factors
from ridgemm.kernels import first_best, shrink_targets
from ridgemm.mapreduce import Crew
from ridgemm.products import multiply
from ridgemm.projections import Data, FoldView, TargetTile
from ridgemm.store import create_array
from ridgemm.tiles import TileGrid, spans, width
from ridgemm.workspace import Workspace

_ROWS = 256


@dataclass(frozen=True)
class CandidateGroup:
    """Folds that share their atoms, and the candidates on each."""

    atoms: tuple[np.ndarray, ...]
    candidates: tuple[Candidates, ...]


@dataclass(frozen=True)
class Outputs:
    """What tasks write, each in its own targets.

    Attributes
    ----------
    scores : (n_alphas, n_targets) float32
        Mean over folds; empty where the trace identity chose alpha.
    index : (n_targets,) int64
        Chosen alpha of each target.
    best : (n_targets,) float64
        Its score.
    coef : (n_targets, n_features) or (n_targets, n_samples) float32
        Coefficients, or dual ones; between the two tasks of a shared alpha it holds Z.
    offset : (n_targets,) float64
        Prediction at the offset of X, of the shifted targets.
    constant : (n_targets,) bool
        Targets without variation.
    """

    scores: np.ndarray
    index: np.ndarray
    best: np.ndarray
    coef: np.ndarray
    offset: np.ndarray
    constant: np.ndarray


@dataclass(frozen=True)
class FitJob:
    """All that a task needs beside its tile.

    Attributes
    ----------
    data : Data
    grid : TileGrid
    groups : tuple of CandidateGroup
        The last one's atoms cover all samples.
    full : FoldView
        All samples, in atoms of the last group.
    method : {"statistics", "products", "loo", "gcv", "trace", "fixed"}
    products : bool
        Cross-products with X are made (primal routes).
    scoring : str
    alphas : (n_alphas,) float64
    per_target : bool
        Choose alpha within the task.
    known : (n_targets,) float64, float or None
        The alpha of each target or of all, where it is known before.
    drift : (n_features,) or (n_train,) float32, optional
        What the float32 offset of X adds to a prediction, per coefficient; per value of a training
        target where coefficients are made on demand.
    outputs : Outputs
    root : (n_samples,) float64, optional
        Of a dual fit with sample weights: what makes the dual coefficients of scaled rows those of
        the rows themselves.
    smoother : (n_train, n_train) float32, optional
        Of a dual fit by one alpha that is known before: see `make_smoother`.
    on_demand : bool
        It makes them when they are wanted: none are written.
    """

    data: Data
    grid: TileGrid
    groups: tuple[CandidateGroup, ...]
    full: FoldView
    method: str
    products: bool
    scoring: str
    alphas: np.ndarray
    per_target: bool
    known: np.ndarray | float | None
    drift: np.ndarray | None
    outputs: Outputs
    root: np.ndarray | None = None
    smoother: np.ndarray | None = None
    on_demand: bool = False


def make_smoother(factors: Factors, alpha: float, path: Path, crew: Crew) -> np.ndarray:
    r"""Dual coefficients of all targets by one product with y instead of two.

    .. math:: A = U\,\mathrm{diag}\Big(\frac{1}{w + \alpha}\Big) U^T

    Parameters
    ----------
    factors : Factors
        Dual ones, of all samples.
    alpha : float
    path : Path
        Of the file, (n_train, n_train) float32.
    crew : Crew

    Returns
    -------
    memmap
    """
    U, w = factors.basis, factors.eigenvalues
    # what X cannot predict makes large dual coefficients, and rounding errors in all else
    inverse = np.where(w > 0, 1 / (w + alpha), 0).astype(np.float32)
    out = create_array(path, (len(U), len(U)), np.float32)

    def fill(slot: int, rows: slice) -> None:
        scaled = crew.slots[slot].array("scaled", (width(rows), len(w)))
        np.multiply(U[rows], inverse, out=scaled)
        blas.gemm(scaled, U[: rows.stop].T, out[rows, : rows.stop])

    # the longest rows first, so that no thread is left with them
    crew.team.run(fill, spans(len(U), _ROWS)[::-1])
    blas.symmetrise(out)
    return out


def fit_tile(job: FitJob, crew: Crew, columns: slice) -> None:
    """Score all alphas on a tile; choose and refit, or leave Z for `finish_tile`."""
    strips = job.grid.strips(columns)
    resident = job.method in ("products", "loo") or not job.products
    tile = TargetTile(job.data, columns, crew, resident)
    scores = crew.shared.zeros("scores", (len(job.alphas), tile.size))
    n_folds = sum(len(group.candidates) for group in job.groups)
    for group in job.groups:
        tile.load_atoms(group.atoms, strips, job.products)

        def add_scores(slot: int, strip: slice, group: CandidateGroup = group) -> None:
            for candidates in group.candidates:
                scores[:, strip] += SCORERS[job.method](
                    tile, candidates, strip, job.scoring, crew.slots[slot]
                )

        crew.team.run(add_scores, strips)
    if n_folds:
        scores /= n_folds
        job.outputs.scores[:, columns] = scores
    crew.team.run(
        lambda slot, strip: _close_strip(job, tile, scores, strip, crew.slots[slot]), strips
    )


def _close_strip(
    job: FitJob, tile: TargetTile, scores: np.ndarray, strip: slice, workspace: Workspace
) -> None:
    outputs, view = job.outputs, job.full
    target = slice(tile.columns.start + strip.start, tile.columns.start + strip.stop)
    outputs.constant[target] = tile.is_constant(view, strip)
    outputs.offset[target] = tile.train_mean(view, strip)
    if job.smoother is not None:
        _close_smoothed(job, tile, strip, target, workspace)
        return
    Z = tile.project_all(view, strip, workspace)
    if job.known is not None:
        alpha = np.broadcast_to(job.known, job.grid.n_targets)[target]
    elif job.per_target:
        first_best(scores[:, strip], outputs.index[target], outputs.best[target])
        alpha = job.alphas[outputs.index[target]]
    else:
        outputs.coef[target, : len(Z)] = Z.T
        return
    _write_coefficients(job, target, Z, alpha, workspace)


def _close_smoothed(
    job: FitJob, tile: TargetTile, strip: slice, target: slice, workspace: Workspace
) -> None:
    """Dual coefficients by the smoother; on demand, what they add to the offset is all."""
    if job.on_demand and job.drift is None:
        return
    train, effects = job.full.train, tile.train_effects(job.full, strip)
    y = tile.gather(train, effects, strip, workspace, "train")
    if job.on_demand:
        job.outputs.offset[target] += job.drift @ y
        return
    multiply(y.T, job.smoother, job.outputs.coef[target], job.data.precision, workspace)
    _finish_coefficients(job, target)


def finish_tile(job: FitJob, alpha: float, crew: Crew, columns: slice) -> None:
    """Coefficients of a tile whose Z `fit_tile` left, once the shared alpha is known."""

    def finish(slot: int, strip: slice) -> None:
        workspace = crew.slots[slot]
        target = slice(columns.start + strip.start, columns.start + strip.stop)
        Z = workspace.array("Z", (len(job.full.factors.eigenvalues), width(strip)))
        Z[...] = job.outputs.coef[target, : len(Z)].T
        _write_coefficients(job, target, Z, np.full(width(strip), alpha), workspace)

    crew.team.run(finish, job.grid.strips(columns))


def _write_coefficients(
    job: FitJob, target: slice, Z: np.ndarray, alpha: np.ndarray, workspace: Workspace
) -> None:
    factors = job.full.factors
    D = workspace.array("D", Z.shape)
    shrink_targets(Z, factors.eigenvalues, alpha, D)
    # what X cannot predict makes large dual coefficients, and rounding errors in all else
    D[factors.eigenvalues == 0] = 0
    multiply(D.T, factors.basis.T, job.outputs.coef[target], job.data.precision, workspace)
    _finish_coefficients(job, target)


def _finish_coefficients(job: FitJob, target: slice) -> None:
    coef = job.outputs.coef[target]
    if job.drift is not None:
        job.outputs.offset[target] += coef @ job.drift
    if job.root is not None:
        coef *= job.root.astype(np.float32)
