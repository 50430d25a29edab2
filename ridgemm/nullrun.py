"""A permutation test in its run folder: plan, continue what is there, reduce."""

import logging
import warnings
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ridgemm.claims import Claims
from ridgemm.clock import Clock
from ridgemm.engine import Settings
from ridgemm.errors import InputError, StorageError, one_line
from ridgemm.factors import FactorMaker
from ridgemm.folds import Fold, refine
from ridgemm.forecast import Forecast, forecast_null
from ridgemm.journal import Journal
from ridgemm.mapreduce import Crew, threads_per_worker
from ridgemm.nested import make_downdated, make_nested, nested_splits, rounded_operators
from ridgemm.nuisance import check_room, residual, whole_residual
from ridgemm.nullchoice import shared_choices
from ridgemm.nullplan import NullPlan, NullProblem, kept_plan, null_factors_at_once, plan_null
from ridgemm.nullreduce import counted_null, n_rows, parts, run_null, stopped_null
from ridgemm.nulltasks import (
    KEPT,
    OBSERVED,
    PREDICTION,
    NullJob,
    observed_task,
    prediction_task,
)
from ridgemm.pieces import Pieces
from ridgemm.private import remove
from ridgemm.projections import Data
from ridgemm.results import NULL, Null, PermutationResult, threshold, write_result
from ridgemm.schemes import PermutationScheme
from ridgemm.sources import Scan, Source, rough_eigenvalues, scan
from ridgemm.store import (
    MANIFEST,
    Store,
    check_folder,
    checksum,
    fingerprint,
    key,
    read_manifest,
)
from ridgemm.tiles import TileGrid

log = logging.getLogger("ridgemm")

FORMAT = 3


@dataclass(frozen=True)
class Options:
    """Parameters of `permutation_test` that need no data to be checked."""

    null: str
    two_sided: bool
    missing: str
    min_shift: int
    tail: str | None
    stop: str | None
    keep_null: bool
    progress: bool | None

    def check(self) -> None:
        allowed = {
            "null": ("refit", "heldout"),
            "missing": ("raise", "skip"),
            "tail": (None, "gpd"),
            "stop": (None, "besag-clifford"),
        }
        for name, values in allowed.items():
            value = getattr(self, name)
            if not (isinstance(value, str) or value is None) or value not in values:
                raise InputError(
                    f"{name}={one_line(value)} is unknown; choose one of "
                    f"{', '.join(map(repr, values))}."
                )
        if self.stop and (self.tail or self.keep_null):
            raise InputError(
                f"stop={self.stop!r} leaves targets out of the null, so that neither tail nor "
                "keep_null can be had with it; leave one of them out."
            )


class NullRun:
    """One permutation test in its run folder."""

    def __init__(
        self,
        settings: Settings,
        options: Options,
        X: Source,
        Y: Source,
        outer: Sequence[Fold],
        groups: np.ndarray | None,
        schemes: tuple[tuple[PermutationScheme, np.ndarray], ...],
        identity: str,
        confounds: np.ndarray | None = None,
    ):
        self.settings, self.options, self.X, self.Y = settings, options, X, Y
        (self.n, self.p), self.t = X.shape, Y.shape[1]
        self.schemes, self.identity = schemes, identity
        self.m = schemes[0][0].n_permutations
        self.splits = nested_splits(settings, outer, groups, X.shape[0])
        self.heldout = options.null == "heldout"
        self.confounds = confounds
        self.nuisance = settings.nuisance(self.n, confounds)
        _check_scoring(settings, self.splits)
        trains = [f.train for split in self.splits for f in (*split.inner, split.outer)]
        self.shown = confounds is None or all(map(self.nuisance.shown_by, trains))
        left_out = [split.outer.train for split in self.splits] if settings.kind == "loo" else []
        check_room(self.nuisance, min(map(len, trains)), left_out)
        if settings.precision == "bf16" and schemes[0][0].exhaustive:
            raise InputError(
                f"precision='bf16' cannot tell ties, which count where all {self.m} permutations "
                "are enumerated; use 'single' or 'mixed'."
            )
        if options.stop and schemes[0][0].exhaustive:
            raise InputError(
                f"stop={options.stop!r} needs permutations in a random order, but all {self.m} "
                "are enumerated; leave it out."
            )

    def forecast(self, level: float) -> Forecast:
        """What `execute` would do and take."""
        problem = self._problem()
        return self._forecast(problem, plan_null(problem), level)

    def _forecast(self, problem: NullProblem, plan: NullPlan, level: float = 0.05) -> Forecast:
        at_once = null_factors_at_once(problem, plan)
        return forecast_null(
            problem, plan, self.X, self.Y, at_once, level, self._keeps_null, self.options.tail
        )

    def execute(self, folder: Path, cache: Path | None) -> PermutationResult:
        """Plan, continue what is in the run folder, reduce.

        Other processes may do the same, in the same folder: each does tasks that nobody else has
        claimed. The folder keeps the plan and, stage by stage, the seconds that it really took
        the process that wrote the result.
        """
        clock = Clock()
        self.folder, self.journal = folder, Journal(folder)
        problem = self._problem()
        plan = plan_null(problem)
        check_folder(folder, "out")
        with Crew(threads_per_worker(1)) as crew:
            scans = (
                scan(self.X, crew.team),
                scan(self.Y, crew.team, skip_missing=self.options.missing == "skip"),
            )
            prints = [fingerprint(source, crew.team) for source in (self.X, self.Y)]
        begun = self.journal.open({"asked": self._asked(prints), "chosen": plan.chosen()})
        plan = kept_plan(problem, begun)
        with Claims(folder) as claims:
            with claims.first("check") as mine:
                if mine:
                    self._check_null_file()
            if (result := self._finished()) is not None:
                return result
            log.info("permutation test by %s", plan.route)
            self.journal.keep_plan(self._forecast(problem, plan).as_dict())
            clock.lap("scan")
            with self.journal.scratch() as scratch:
                claims.keep(scratch)
                data = self._data(plan, *scans)
                maker = FactorMaker(
                    data.X,
                    data.x_shift,
                    Store(cache or scratch, durable=cache is not None),
                    prints[0],
                    self.nuisance,
                    self.settings.standardize,
                    plan.block,
                    scratch,
                    null_factors_at_once(problem, plan),
                    plan.factors_in_files,
                )
                # into a cache by one process: the others open what it has made
                with claims.first("factors") if cache is not None else nullcontext():
                    job = self._make_job(plan, maker, data)
                clock.lap("factors")
                pieces = Pieces(
                    self.journal,
                    claims,
                    TileGrid(self.t, plan.tile, plan.strip),
                    plan.batch,
                    self.settings.n_workers,
                    scratch,
                    self.options.progress,
                )
                job = self._observe(job, plan, maker, pieces)
                clock.lap("observed")
                reduce = self._run_null(job, pieces)
                clock.lap("null")
                return self._result(reduce, plan, claims, clock)

    def _run_null(self, job: NullJob, pieces: Pieces) -> Callable[[], Null]:
        """All tasks of the null; what reduces their parts."""
        job = replace(job, data=replace(job.data, precision=self.settings.precision))
        if self.settings.precision == "bf16":
            job = replace(job, folds=rounded_operators(job.folds, pieces.scratch))
        if self.options.stop:
            # a round is reduced before the next: it leaves targets out
            null = stopped_null(job, self.m, pieces)
            return lambda: null
        run_null(job, self.m, pieces)
        return partial(counted_null, job, pieces.grid, self.m)

    def _result(
        self, reduce: Callable[[], Null], plan: NullPlan, claims: Claims, clock: Clock
    ) -> PermutationResult:
        """The result, written by the first of all processes that come here."""
        while True:
            with claims.first("result") as mine:
                if (result := self._finished()) is not None:
                    return result
                if mine:
                    result = write_result(
                        self.folder,
                        reduce(),
                        n_permutations=self.m,
                        two_sided=self.options.two_sided,
                        tail=self.options.tail,
                        description=self._describe(plan) | {"took": self.journal.took(clock.laps)},
                        parts=self.journal.identity(but=KEPT),
                    )
                    self.journal.forget(KEPT, self.m)
                    # of those that were killed on the way
                    self.journal.sweep()
                    return result

    def _finished(self) -> PermutationResult | None:
        """The result that is there already, if it is that of this call and of all its parts."""
        try:
            manifest = read_manifest(self.folder)
            expected = {"n_permutations": self.m, "tail": self.options.tail}
            if any(manifest.get(name, 0) != value for name, value in expected.items()):
                return None
            if manifest.get("parts") != self.journal.identity(but=KEPT):
                return None
            result = PermutationResult.from_folder(self.folder)
        except StorageError:
            # made again
            return None
        # in null.npy now
        self.journal.forget(KEPT, self.m)
        return result

    def _check_null_file(self) -> None:
        """Forget the null if the file that holds all of it is damaged now, or gone."""
        try:
            manifest = read_manifest(self.folder)
        except StorageError:
            return
        path, expected = self.folder / NULL, manifest.get("large", {}).get(NULL)
        if expected is None or (n_rows(path) or 0) > manifest["n_permutations"]:
            return  # none, or it has grown since, by a run that was interrupted
        if not path.exists() or checksum(path) != expected:
            message = f"{str(path)!r} is damaged or gone; it is computed again"
            warnings.warn(message, RuntimeWarning, stacklevel=2)
            for kind in ("null", KEPT):
                self.journal.forget(kind)
            remove(path)
            # last, and before anything is computed: nobody forgets again what is new
            remove(self.folder / MANIFEST)

    def _problem(self) -> NullProblem:
        settings = self.settings
        largest, mean = rough_eigenvalues(self.X, settings.standardize)
        return NullProblem(
            settings=settings,
            splits=self.splits,
            n=self.n,
            p=self.p,
            t=self.t,
            n_permutations=self.m,
            heldout=self.heldout,
            smallest_alpha=settings.alphas.min() / largest,
            largest_alpha=settings.alphas.max() / mean,
            n_threads=threads_per_worker(settings.n_workers),
            n_confounds=self.nuisance.n_confounds,
            shown=self.shown,
        )

    def _data(self, plan: NullPlan, x_scan: Scan, y_scan: Scan) -> Data:
        """The sources, of Y with confounds what may be rearranged: its residuals."""
        settings, nuisance = self.settings, self.nuisance
        # flips of sign are about zero, not about a shift; of residuals, about their mean
        flipped = self.schemes[0][0].name == "sign" and not nuisance.n_confounds
        y_shifted = settings.fit_intercept and not flipped
        x_shift = x_scan.shift() if settings.centered else np.zeros(self.p, np.float32)
        y_shift = y_scan.shift() if y_shifted else np.zeros(self.t, np.float32)
        X, Y, in_place = self.X, self.Y, None
        if nuisance.n_confounds:
            with Crew(threads_per_worker(1)) as crew:
                Y, effects = whole_residual(Y, y_shift, nuisance, y_scan.missing, crew.team)
                if self.shown:
                    X = residual(X, x_shift, nuisance, crew.team)
                else:
                    in_place = effects
        # what is observed, and what all targets choose together, at least in single
        precision = "single" if settings.precision == "bf16" else settings.precision
        return Data(
            X, Y, x_shift, y_shift, nuisance, plan.row_step, y_scan.missing, in_place, precision
        )

    def _make_job(self, plan: NullPlan, maker: FactorMaker, data: Data) -> NullJob:
        settings = self.settings
        shared_atoms: tuple[np.ndarray, ...] = ()
        if plan.shared_pass:
            shared_atoms, unions = refine([split.group for split in self.splits], self.n)
        whole = None
        if plan.method == "residuals":
            whole, folds = make_downdated(settings, self.splits, maker, shared_atoms)
        else:
            exact = not settings.per_target and not self.heldout
            outer_method = "products" if self.heldout else plan.method
            folds = make_nested(
                settings, self.splits, plan.family, plan.method, maker, exact, outer_method
            )
        if plan.shared_pass:
            pairs = zip(folds, unions, strict=True)
            folds = tuple(replace(fold, parts=union) for fold, union in pairs)
        return NullJob(
            data=data,
            strip=plan.strip,
            at_once=plan.at_once,
            folds=folds,
            products=plan.family == "primal",
            shared_atoms=shared_atoms,
            scoring=settings.scoring,
            alphas=settings.alphas,
            schemes=self.schemes,
            two_sided=self.options.two_sided,
            journal=self.journal,
            missing=data.skip,
            keep=self._keeps_null,
            whole=whole,
        )

    @property
    def _keeps_null(self) -> bool:
        return self.options.keep_null or self.options.tail is not None

    def _asked(self, prints: list[str]) -> dict[str, Any]:
        settings, options = self.settings, self.options
        scheme = self.schemes[0][0]
        rows = [row for split in self.splits for row in (split.outer.train, split.outer.test)]
        inner = [row for split in self.splits for f in split.inner for row in (f.train, f.test)]
        return {
            "format": FORMAT,
            "X": prints[0],
            "Y": prints[1],
            "alphas": settings.alphas.tolist(),
            "scoring": settings.scoring,
            "alpha_per_target": settings.per_target,
            "fit_intercept": settings.fit_intercept,
            "standardize": settings.standardize,
            "outer folds": key(*rows),
            "inner folds": key(settings.kind, *inner),
            "scheme": scheme.name,
            "permutations": self.identity,
            "exhaustive": scheme.exhaustive,
            "random_state": scheme.random_state,
            "null": options.null,
            "two_sided": options.two_sided,
            "missing": options.missing,
            "stop": options.stop,
            "keep_null": self._keeps_null,
            # runs without any are those of earlier versions
            **({} if self.confounds is None else {"confounds": key(self.confounds)}),
            **({} if settings.precision == "single" else {"precision": settings.precision}),
        }

    def _describe(self, plan: NullPlan) -> dict[str, Any]:
        return {
            "scheme": self._describe_scheme(),
            "null": self.options.null,
            "scoring": self.settings.scoring,
            "alpha_per_target": self.settings.per_target,
            "n_outer_folds": len(self.splits),
            "route": plan.route,
            "precision": self.settings.precision,
            **({} if self.confounds is None else {"confounds": self.nuisance.n_confounds}),
        }

    def _describe_scheme(self) -> str:
        scheme = self.schemes[0][0]
        if len(self.schemes) == 1:
            return scheme.describe()
        sizes = [len(rows) for _, rows in self.schemes]
        return (
            f"{self.m} random {scheme.name} permutations inside each of {len(sizes)} held-out sets "
            f"of {min(sizes)} to {max(sizes)} rows."
        )

    def _observe(self, job: NullJob, plan: NullPlan, maker: FactorMaker, pieces: Pieces) -> NullJob:
        """Shared alphas, then observed scores; the job with the thresholds of the null."""
        if not self.settings.per_target:
            last = 0 if self.heldout else self.m
            choices = shared_choices(job, plan, self.splits, maker, pieces, last)
            job = replace(job, choices=choices)
        task, beside = (prediction_task, PREDICTION) if self.heldout else (observed_task, None)
        if beside is not None:
            # those that are damaged go, and their scores with them
            self.journal.paths(beside)
        pieces.run(partial(task, job), "observed", OBSERVED, 0, "observed", beside=beside)
        tiles = pieces.grid.tiles()
        observed = np.concatenate([part for *_, part in parts(job, "observed", tiles, OBSERVED, 0)])
        if beside is not None:
            found = self.journal.paths(beside)
            paths = {tile: path for tile, ranges in found.items() for *_, path in ranges}
            job = replace(job, predictions=paths)
        reach = threshold(observed, self.options.two_sided)
        return replace(job, observed=observed, threshold=reach)


def _check_scoring(settings: Settings, splits: Sequence[Any]) -> None:
    inner = [fold for split in splits for fold in split.inner if settings.kind == "folds"]
    tests = [fold.test for fold in inner] + [split.outer.test for split in splits]
    if min(map(len, tests)) < 2 and settings.scoring != "neg_mean_squared_error":
        raise InputError(
            f"scoring={settings.scoring!r} needs 2 test samples in every fold of both levels; "
            "use fewer folds in cv or scoring='neg_mean_squared_error'."
        )
