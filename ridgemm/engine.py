"""A fit from sources to outputs: folds, plan, factors, map, reduce."""

import logging
import warnings
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ridgemm.clock import Clock
from ridgemm.crossvalidation import generalised, held_out, left_out, weigh_sums
from ridgemm.errors import InputError
from ridgemm.factors import FactorMaker, Factors, Request
from ridgemm.fitplan import Plan, make_plan, trace_grid
from ridgemm.fitting import CandidateGroup, FitJob, Outputs, finish_tile, fit_tile, make_smoother
from ridgemm.folds import Fold, FoldGroup, group_folds, make_folds
from ridgemm.grams import above_mean
from ridgemm.lapack import Matrices
from ridgemm.linear import OnDemand
from ridgemm.mapreduce import Crew, map_tasks, threads_per_worker
from ridgemm.nuisance import Nuisance, check_room, make_nuisance, residual
from ridgemm.progress import progress
from ridgemm.projections import Data, FoldView, make_views
from ridgemm.routes import Problem, allowed_routes
from ridgemm.sources import Reader, Source, rough_eigenvalues, scan
from ridgemm.store import Store, check_space, create_array, fingerprint, open_array
from ridgemm.tiles import TileGrid, width
from ridgemm.trace import shared_scores
from ridgemm.weights import Weights, weighted

log = logging.getLogger("ridgemm")

# predictions are off by 3 to 13 times as much, of a target's size
_ROUNDING = 2e-3


@dataclass(frozen=True)
class Settings:
    """Checked parameters of a fit.

    Attributes
    ----------
    alphas : (n_alphas,) float64
    cv : "loo", "gcv" or what `ridgemm.folds.make_folds` takes
    scoring, solver : str
    per_target, fit_intercept, standardize : bool
    memory_limit : int
        Bytes.
    n_workers : int
    alpha : (n_targets,) float64 or float, optional
        Given; then there are no candidates, and no `cv`.
    precision : {"single", "mixed", "bf16"}
        Of products with targets; "bf16" of permuted ones alone.
    """

    alphas: np.ndarray
    cv: Any
    scoring: str
    per_target: bool
    fit_intercept: bool
    standardize: bool
    solver: str
    memory_limit: int
    n_workers: int
    alpha: np.ndarray | float | None = None
    precision: str = "single"

    @property
    def centered(self) -> bool:
        """Whether training means are removed from X."""
        return self.fit_intercept or self.standardize

    def nuisance(
        self,
        n_samples: int,
        confounds: np.ndarray | None = None,
        weights: Weights | None = None,
    ) -> Nuisance:
        """What is removed from X and Y."""
        return make_nuisance(n_samples, self.centered, self.fit_intercept, confounds, weights)

    @property
    def kind(self) -> str:
        """ "loo", "gcv" or "folds"; "fixed" where alpha is given."""
        if self.alpha is not None:
            return "fixed"
        named = isinstance(self.cv, str) and self.cv in ("loo", "gcv")
        return self.cv if named else "folds"

    @property
    def smallest_alpha(self) -> float:
        """Of all that may be used."""
        return float(np.min(self.alphas if self.alpha is None else self.alpha))


@dataclass(frozen=True)
class Fitted:
    """What a fit leaves.

    Attributes
    ----------
    outputs : Outputs
    alpha : (n_targets,) float64, or float
    scores : (n_alphas, n_targets) or (n_alphas,); None where alpha was given
    best : (n_targets,) float64, or float; the same
    x_offset : (n_features,) float32
    y_offset : (n_targets,) float64
    scale : (n_features,) float64 or None
    X, Y : Source
        Samples that take part; with confounds, about their fit by them.
    factors_computed : int
    took : dict of str to float
        Seconds of every stage.
    on_demand : OnDemand, optional
        What makes dual coefficients where `outputs` has none.
    """

    outputs: Outputs
    alpha: np.ndarray | float
    scores: np.ndarray | None
    best: np.ndarray | float | None
    x_offset: np.ndarray
    y_offset: np.ndarray
    scale: np.ndarray | None
    X: Source
    Y: Source
    factors_computed: int
    took: dict[str, float]
    on_demand: OnDemand | None = None


def plan_fit(
    settings: Settings, X: Source, Y: Source, groups: Any, nuisance: Nuisance | None = None
) -> tuple[Plan, list[FoldGroup]]:
    """Check folds against the data and choose the route and the tiles. Reads a sample of X.

    With weights, X and Y are the samples that these keep, and groups are of the samples as given.
    """
    n = X.shape[0]
    check_rows(X, Y)
    if np.ndim(settings.alpha) and len(settings.alpha) != Y.shape[1]:
        raise InputError(
            f"alpha has {len(settings.alpha)} penalties and Y has {Y.shape[1]} targets; give one "
            "for each target, or a number."
        )
    nuisance = settings.nuisance(n) if nuisance is None else nuisance
    fold_groups = _fold_groups(settings, n, groups, nuisance.weights)
    folds = [fold for group in fold_groups for fold in group.folds]
    fewest = min((len(fold.train) for fold in folds), default=n)
    check_room(nuisance, fewest, [np.arange(n)] if settings.kind == "loo" else [])
    largest, _ = rough_eigenvalues(X, settings.standardize)
    problem = Problem(
        n=n,
        p=X.shape[1],
        t=Y.shape[1],
        n_alphas=len(settings.alphas),
        kind=settings.kind,
        folds=tuple((len(fold.train), len(fold.test)) for fold in folds),
        n_passes=max(1, len(fold_groups)),
        n_atoms=max((len(group.atoms) for group in fold_groups), default=1),
        shared=not settings.per_target,
        scoring=settings.scoring,
        standardize=settings.standardize,
        smallest_alpha=settings.smallest_alpha / (largest * (nuisance.total / n)),
        n_confounds=nuisance.n_confounds,
        weighted=nuisance.weights is not None,
        precision=settings.precision,
    )
    plan = make_plan(
        problem,
        allowed_routes(problem, settings.solver),
        settings.memory_limit,
        settings.n_workers,
        threads_per_worker(settings.n_workers),
    )
    return plan, fold_groups


def check_rows(X: Source, Y: Source) -> None:
    """Refuse X and Y of other numbers of samples."""
    if Y.shape[0] != X.shape[0]:
        raise InputError(
            f"X has {X.shape[0]} rows and Y has {Y.shape[0]}; both need one row for each sample."
        )


def _fold_groups(
    settings: Settings, n: int, groups: Any, weights: Weights | None
) -> list[FoldGroup]:
    which = "" if weights is None else " of positive sample_weight"
    if settings.kind != "folds":
        if n < 2 and settings.kind != "fixed":
            raise InputError(f"cv={settings.cv!r} needs at least 2 samples{which}, but X has {n}.")
        return []
    folds = make_folds(settings.cv, n if weights is None else weights.n_given, groups)
    if weights is not None:
        folds = [weights.restrict(fold, i) for i, fold in enumerate(folds)]
    shortest = min(len(fold.test) for fold in folds)
    if shortest < 2 and settings.scoring != "neg_mean_squared_error":
        raise InputError(
            f"scoring={settings.scoring!r} needs 2 test samples{which} in every fold, but one has "
            f"{shortest}; use cv='loo' or scoring='neg_mean_squared_error'."
        )
    return group_folds(folds, n)


def run_fit(
    settings: Settings,
    plan: Plan,
    fold_groups: list[FoldGroup],
    X: Source,
    Y: Source,
    cache: Path | None,
    scratch: Path,
    nuisance: Nuisance | None = None,
) -> Fitted:
    """Run a planned fit.

    Parameters
    ----------
    settings : Settings
    plan : Plan
    fold_groups : list of FoldGroup
    X, Y : Source
    cache : Path or None
        Folder of published factors; None keeps them in `scratch`.
    scratch : Path
        Folder for temporary files; coefficients in a file stay there.
    nuisance : Nuisance, optional
        By default the intercept, as the settings say.
    """
    nuisance = settings.nuisance(X.shape[0]) if nuisance is None else nuisance
    log.info("route %s, tiles of %d targets", plan.route.name, plan.tile)
    clock = Clock()
    maker, y_shift, whole = _open(settings, plan, X, Y, cache, scratch, nuisance)
    shown = all(nuisance.shown_by(fold.train) for group in fold_groups for fold in group.folds)
    maker.X, Y = (weighted(source, nuisance.weights) for source in (whole if shown else (X, Y)))
    clock.lap("scan")
    _check_disk(plan, scratch, maker.store.folder)
    candidate_groups, full = _candidates(settings, plan, fold_groups, maker)
    log.info("%d factor entries computed", maker.store.computed)
    clock.lap("factors")
    x_offset, drift, scale = _offsets(settings, plan, maker.shift, full.factors)
    job = FitJob(
        data=Data(
            maker.X,
            Y,
            maker.shift,
            y_shift,
            nuisance,
            plan.row_step,
            precision=settings.precision,
        ),
        grid=TileGrid(Y.shape[1], plan.tile, plan.strip),
        groups=candidate_groups,
        full=full,
        method=plan.route.method,
        products=plan.route.family == "primal",
        scoring=settings.scoring,
        alphas=settings.alphas,
        per_target=settings.per_target,
        known=settings.alpha,
        drift=drift,
        outputs=_make_outputs(plan, scratch),
        root=nuisance.N[:, 0] if nuisance.weights and plan.route.family == "dual" else None,
    )
    shared_mean = None
    if plan.route.method == "trace":
        shared_mean = _trace_scores(job, maker.matrices)
        job = replace(
            job,
            groups=(CandidateGroup(candidate_groups[-1].atoms, ()),),
            known=float(settings.alphas[np.argmax(shared_mean)]),
        )
    if plan.smoother_bytes:
        job = _with_smoother(job, plan, scratch)
    # what a log is wanted of is worth a bar, too
    with progress(None if log.isEnabledFor(logging.INFO) else False, "targets", Y.shape[1]) as bar:
        map_tasks(
            partial(fit_tile, job),
            job.grid.tiles(),
            plan.n_workers,
            scratch,
            lambda tile: bar.update(width(tile)),
        )
    alpha, scores, best = _choose(job, shared_mean, plan.n_workers, scratch)
    if plan.route.family == "dual":
        _warn_of_rounding(full.factors.eigenvalues, alpha)
    clock.lap("targets")
    return Fitted(
        outputs=_in_ram(job.outputs, plan),
        alpha=alpha,
        scores=scores,
        best=best,
        x_offset=x_offset,
        y_offset=job.outputs.offset + y_shift,
        scale=scale,
        X=whole[0],
        Y=whole[1],
        factors_computed=maker.store.computed,
        took=clock.laps,
        on_demand=OnDemand.of(job.smoother, Reader(Y, y_shift)) if job.on_demand else None,
    )


def _open(
    settings: Settings,
    plan: Plan,
    X: Source,
    Y: Source,
    cache: Path | None,
    scratch: Path,
    nuisance: Nuisance,
) -> tuple[FactorMaker, np.ndarray, tuple[Source, Source]]:
    """Read both sources once: refuse what cannot be used, fix the shifts, name the factors.

    Returns the factor maker, the shift of Y, and both sources about their fit by the confounds.
    """
    with Crew(threads_per_worker(1)) as crew:
        x_scan, y_scan = scan(X, crew.team), scan(Y, crew.team)
        name = fingerprint(X, crew.team) if cache else "scratch"
        x_shift, y_shift = np.zeros(X.shape[1], np.float32), np.zeros(Y.shape[1], np.float32)
        if settings.centered:
            x_shift = x_scan.shift()
        if settings.fit_intercept:
            y_shift = y_scan.shift()
        whole = (
            residual(X, x_shift, nuisance, crew.team),
            residual(Y, y_shift, nuisance, crew.team),
        )
    maker = FactorMaker(
        X,
        x_shift,
        Store(cache or scratch, durable=cache is not None),
        name,
        nuisance,
        settings.standardize,
        plan.block,
        scratch,
        plan.factors_at_once,
        plan.factors_in_files,
    )
    return maker, y_shift, whole


def _trace_scores(job: FitJob, matrices: Matrices) -> np.ndarray:
    candidates = [c for group in job.groups for c in group.candidates]
    with Crew(threads_per_worker(1)) as crew:
        # tiles of its own: the order of a sum over targets must not depend on n_jobs
        grid = trace_grid(job.grid.strip, job.grid.n_targets)
        return shared_scores(job.data, grid, candidates, job.alphas, job.scoring, crew, matrices)


def _with_smoother(job: FitJob, plan: Plan, scratch: Path) -> FitJob:
    """The job with the matrix that makes all its dual coefficients, now or on demand."""
    with Crew(threads_per_worker(1)) as crew:
        path = scratch / "smoother.npy"
        smoother = make_smoother(job.full.factors, float(job.known), path, crew)
    job = replace(job, smoother=smoother, on_demand=plan.coef_on_demand)
    if job.on_demand and job.drift is not None:
        job = replace(job, drift=smoother @ job.drift)
    return job


def _choose(
    job: FitJob, shared_mean: np.ndarray | None, n_workers: int, scratch: Path
) -> tuple[np.ndarray | float, np.ndarray | None, np.ndarray | float | None]:
    """Alpha, scores and best score; a shared alpha that was not known before is refitted."""
    outputs = job.outputs
    if job.method == "fixed":
        return job.known, None, None
    if job.per_target:
        return job.alphas[outputs.index], _own(outputs.scores), _own(outputs.best)
    scores = shared_mean
    if scores is None:
        # in float64, an alpha at a time
        scores = np.array([row.mean(dtype=np.float64) for row in outputs.scores])
    chosen = int(np.argmax(scores))
    alpha = float(job.alphas[chosen])
    if job.known is None:
        map_tasks(partial(finish_tile, job, alpha), job.grid.tiles(), n_workers, scratch)
    return alpha, scores, float(scores[chosen])


def _warn_of_rounding(w: np.ndarray, alpha: np.ndarray | float) -> None:
    """Warn where rounding of dual coefficients shows in predictions.

    They are as large as y / (w_min + alpha), and a prediction multiplies their rounding by w_max.
    """
    if not w.any():
        return
    unit = float(np.finfo(np.float32).eps) / 2
    share = unit * w.max() / (w[w > 0].min() + np.asarray(alpha))
    if share.max() > _ROUNDING:
        warnings.warn(
            f"dual coefficients are float32: predictions of {np.sum(share > _ROUNDING)} target(s), "
            f"with alphas down to {np.min(alpha):.3g}, may be off by {10 * share.max():.1g} of a "
            "target's size; use solver='svd', or alphas of at least "
            f"{unit * w.max() / _ROUNDING:.2g}.",
            RuntimeWarning,
            stacklevel=5,
        )


def _candidates(
    settings: Settings, plan: Plan, fold_groups: list[FoldGroup], maker: FactorMaker
) -> tuple[tuple[CandidateGroup, ...], FoldView]:
    """Factors and shrinkage of every fold, and the view of all samples."""
    family, loo = plan.route.family, settings.kind == "loo"
    # no other score looks at the sum of predictions
    weigh = maker.nuisance.weights is not None and settings.scoring == "correlation"
    groups = _with_cover(fold_groups, plan.problem.n)
    everything = np.arange(plan.problem.n)
    # a tall LOO needs the projected rows of all samples, as if they were held out
    test = everything if loo and family == "primal" else everything[:0]
    quadratic = plan.route.method == "statistics"
    requests = [
        Request(fold, group.atoms, group.in_train[i], group.in_test[i], quadratic)
        for group in groups
        for i, fold in enumerate(group.folds)
    ]
    all_atoms = np.ones(len(groups[-1].atoms), dtype=bool)
    whole = Fold(everything, test)
    requests.append(Request(whole, groups[-1].atoms, all_atoms, all_atoms, quadratic))
    *views, full = make_views(maker, family, requests)
    if settings.kind == "fixed":
        return (CandidateGroup(groups[-1].atoms, ()),), full
    if settings.kind != "folds":
        make = left_out if loo else generalised
        only = make(full, settings.alphas, family == "dual", maker.nuisance)
        if weigh and loo:
            only = weigh_sums(only, maker.nuisance)
        return (CandidateGroup(groups[-1].atoms, (only,)),), full
    folds = [held_out(view, settings.alphas) for view in views]
    if weigh and plan.route.method == "products":
        folds = [weigh_sums(fold, maker.nuisance) for fold in folds]
    candidates = iter(folds)
    return (
        tuple(
            CandidateGroup(group.atoms, tuple(next(candidates) for _ in group.folds))
            for group in groups
        ),
        full,
    )


def _with_cover(fold_groups: list[FoldGroup], n: int) -> list[FoldGroup]:
    """Groups, the last of which has atoms that cover all samples: the refit finds its sums there.

    Where no group has, one without folds is added.
    """
    groups = sorted(fold_groups, key=lambda group: sum(map(len, group.atoms)) == n)
    if groups and sum(map(len, groups[-1].atoms)) == n:
        return groups
    return [*groups, FoldGroup((), (np.arange(n),), np.empty((0, 1), bool), np.empty((0, 1), bool))]


def _offsets(
    settings: Settings, plan: Plan, shift: np.ndarray, factors: Factors
) -> tuple[np.ndarray, np.ndarray | None, np.ndarray | None]:
    """Float32 offset of X, what it lies above the training mean, and the scale."""
    mean = shift + factors.mean
    x_offset = mean.astype(np.float32)
    drift = above_mean(shift, factors.mean)
    if plan.route.family == "dual":
        drift = factors.drift
    drift = drift.astype(np.float32) if drift is not None and drift.any() else None
    return x_offset, drift, np.array(factors.scale) if settings.standardize else None


def _check_disk(plan: Plan, scratch: Path, cache: Path) -> None:
    problem = plan.problem
    n, p = problem.n, problem.p
    side = n if plan.route.family == "dual" else p
    trains = [*problem.folds, (n, n if problem.kind == "loo" else 0)]
    extra = n * p * len(trains) if plan.route.family == "svd" else 0
    factors = 4 * (sum(side * (side + test) for _, test in trains) + extra)
    check_space(cache, factors, "the cache of factors")
    grams = 8 * side**2 * (1 + (problem.n_atoms if plan.route.family == "primal" else 0))
    grams += plan.matrix_bytes + plan.job_bytes + plan.smoother_bytes
    check_space(scratch, grams + plan.coef_file_bytes, "the fit")


def _make_outputs(plan: Plan, scratch: Path) -> Outputs:
    """Arrays that tasks write: in RAM for one process, in files for several."""
    problem = plan.problem
    t = problem.t
    n_scores = 0 if plan.route.method == "trace" else problem.n_alphas
    width = problem.n if plan.route.family == "dual" else problem.p
    shapes = {
        "scores": ((n_scores, t), np.float32),
        "index": ((t,), np.int64),
        "best": ((t,), np.float64),
        "coef": ((0 if plan.coef_on_demand else t, width), np.float32),
        "offset": ((t,), np.float64),
        "constant": ((t,), np.bool_),
    }
    arrays = {}
    for name, (shape, dtype) in shapes.items():
        in_file = plan.n_workers > 1 or (name == "coef" and plan.coef_in_file)
        if in_file and 0 not in shape:
            arrays[name] = create_array(scratch / f"{name}.npy", shape, dtype)
        else:
            arrays[name] = np.empty(shape, dtype)
    return Outputs(**arrays)


def _in_ram(outputs: Outputs, plan: Plan) -> Outputs:
    small = {name: _own(getattr(outputs, name)) for name in ("index", "best", "offset", "constant")}
    if plan.coef_in_file and not plan.coef_on_demand:
        outputs.coef.flush()
        small["coef"] = open_array(Path(outputs.coef.filename))
    else:
        small["coef"] = _own(outputs.coef)
    return replace(outputs, **small)


def _own(array: np.ndarray) -> np.ndarray:
    """The array itself where it is in RAM, a copy of one in a scratch file."""
    return np.array(array) if isinstance(array, np.memmap) else array
