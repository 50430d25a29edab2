"""A permutation test in its run folder: plan, continue what is there, reduce."""

import logging
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ridgemm.clock import Clock
from ridgemm.engine import Settings
from ridgemm.errors import InputError, StorageError, one_line
from ridgemm.factors import FactorMaker
from ridgemm.fitplan import OVERHEAD, factor_bytes, factors_at_once
from ridgemm.folds import Fold
from ridgemm.forecast import Forecast, forecast_null
from ridgemm.journal import Journal, missing_ranges
from ridgemm.mapreduce import Crew, map_tasks, threads_per_worker
from ridgemm.nested import make_nested, nested_splits
from ridgemm.nullplan import TRACE_BATCH, NullPlan, NullProblem, plan_null
from ridgemm.nullreduce import counted_null, null_file, parts, stopped_null
from ridgemm.nulltasks import (
    OBSERVED,
    NullJob,
    choice_task,
    observed_task,
    order,
    prediction_task,
)
from ridgemm.nulltrace import error_matrices, shared_errors, target_gram
from ridgemm.private import private_name, remove
from ridgemm.projections import Data
from ridgemm.results import NULL, PermutationResult, threshold, write_result
from ridgemm.schemes import PermutationScheme
from ridgemm.sources import Scan, Source, largest_eigenvalue, scan
from ridgemm.store import (
    Store,
    check_folder,
    check_space,
    checksum,
    create_array,
    fingerprint,
    key,
    open_array,
    read_manifest,
    storage_error,
)
from ridgemm.tiles import TileGrid, width

log = logging.getLogger("ridgemm")

FORMAT = 2


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
    ):
        self.settings, self.options, self.X, self.Y = settings, options, X, Y
        (self.n, self.p), self.t = X.shape, Y.shape[1]
        self.schemes, self.identity = schemes, identity
        self.m = schemes[0][0].n_permutations
        self.splits = nested_splits(settings, outer, groups, X.shape[0])
        self.heldout = options.null == "heldout"
        _check_scoring(settings, self.splits)
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
        at_once = self._factors_at_once(plan)
        return forecast_null(
            problem, plan, self.X, self.Y, at_once, level, self._keeps_null, self.options.tail
        )

    def execute(self, folder: Path, cache: Path | None) -> PermutationResult:
        """Plan, continue what is in the run folder, reduce.

        The folder keeps the plan and, stage by stage, the seconds that it really took.
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
        plan = NullPlan(
            **self.journal.open({"asked": self._asked(prints), "chosen": plan.chosen()})
        )
        log.info("permutation test by %s", plan.route)
        self._check_working_files()
        self.journal.keep_plan(self._forecast(problem, plan).as_dict())
        clock.lap("scan")
        with self.journal.scratch() as scratch:
            maker = FactorMaker(
                self.X,
                scans[0].shift() if self.settings.centered else np.zeros(self.p, np.float32),
                Store(cache or scratch, durable=cache is not None),
                prints[0],
                self.settings.nuisance(self.n),
                self.settings.standardize,
                plan.block,
                scratch,
                self._factors_at_once(plan),
                plan.factors_in_files,
            )
            job = self._make_job(plan, maker, scans[1])
            clock.lap("factors")
            run_tasks = partial(self._map, plan, scratch)
            job = self._observe(job, plan, maker, scratch, run_tasks)
            clock.lap("observed")
            grid = TileGrid(self.t, plan.tile, plan.strip)
            if self.options.stop:
                reduced = stopped_null(job, grid, self.m, plan.batch, run_tasks)
            else:
                reduced = counted_null(job, grid, self.m, run_tasks)
            clock.lap("null")
        return write_result(
            folder,
            reduced,
            n_permutations=self.m,
            two_sided=self.options.two_sided,
            tail=self.options.tail,
            description=self._describe(plan) | {"took": self.journal.took(clock.laps)},
        )

    def _check_working_files(self) -> None:
        """Forget what was computed into a large file that is damaged now, or gone."""
        try:
            manifest = read_manifest(self.folder)
        except StorageError:
            manifest = {}
        for name, expected in manifest.get("large", {}).items():
            kind = "null" if name == NULL else "observed"
            path = self.folder / name
            if kind == "null" and _n_rows(path) not in (None, manifest["n_permutations"]):
                continue  # it has grown since, by a run that was interrupted
            if not path.exists() or checksum(path) != expected:
                message = f"{str(path)!r} is damaged or gone; it is computed again"
                warnings.warn(message, RuntimeWarning, stacklevel=2)
                self.journal.forget(kind)
                remove(path)
        if self._keeps_null and _n_rows(self.folder / NULL) is None:
            self.journal.forget("null")
            remove(self.folder / NULL)

    def _problem(self) -> NullProblem:
        settings = self.settings
        largest = largest_eigenvalue(self.X, settings.standardize)
        return NullProblem(
            settings=settings,
            splits=self.splits,
            n=self.n,
            p=self.p,
            t=self.t,
            n_permutations=self.m,
            heldout=self.heldout,
            smallest_alpha=settings.alphas.min() / largest,
            n_threads=threads_per_worker(settings.n_workers),
        )

    def _factors_at_once(self, plan: NullPlan) -> int:
        one = factor_bytes(plan.family, self.n, self.p, plan.block)
        free = self.settings.memory_limit - OVERHEAD - 200 * (self.t + self.p)
        return factors_at_once(one, free, threads_per_worker(1))

    def _make_job(self, plan: NullPlan, maker: FactorMaker, y_scan: Scan) -> NullJob:
        settings = self.settings
        # flips of sign are about zero, not about a shift
        unshifted = self.schemes[0][0].name == "sign" or not settings.fit_intercept
        y_shift = np.zeros(self.t, np.float32) if unshifted else y_scan.shift()
        exact = not settings.per_target and not self.heldout
        outer_method = "products" if self.heldout else plan.method
        return NullJob(
            data=Data(
                self.X,
                self.Y,
                maker.shift,
                y_shift,
                maker.nuisance,
                plan.row_step,
                y_scan.missing,
            ),
            strip=plan.strip,
            at_once=plan.at_once,
            folds=make_nested(
                settings, self.splits, plan.family, plan.method, maker, exact, outer_method
            ),
            products=plan.family == "primal",
            scoring=settings.scoring,
            alphas=settings.alphas,
            schemes=self.schemes,
            two_sided=self.options.two_sided,
            journal=self.journal,
            missing=y_scan.missing,
            null=null_file(self.folder, (self.m, self.t)) if self._keeps_null else None,
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
        }

    def _describe(self, plan: NullPlan) -> dict[str, Any]:
        return {
            "scheme": self._describe_scheme(),
            "null": self.options.null,
            "scoring": self.settings.scoring,
            "alpha_per_target": self.settings.per_target,
            "n_outer_folds": len(self.splits),
            "route": plan.route,
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

    def _map(
        self,
        plan: NullPlan,
        scratch: Path,
        function: Callable[..., None],
        kind: str,
        first: int,
        last: int,
        label: str,
    ) -> None:
        """Run the tasks of a kind whose parts are not there yet, under a progress bar."""
        grid = TileGrid(self.t, plan.tile, plan.strip)
        done = self.journal.done(kind)
        if any(stop > last for ranges in done.values() for _, stop in ranges):
            most = max(stop for ranges in done.values() for _, stop in ranges)
            raise InputError(
                f"n_permutations={last} is fewer than the {most} that out={str(self.folder)!r} "
                f"holds; ask for at least {most}."
            )
        tasks = [
            (columns, start, stop)
            for columns in grid.tiles()
            for start, stop in missing_ranges(done.get(columns.start, []), first, last, plan.batch)
        ]
        # batch by batch over all tiles: what is finished first is of use first
        tasks.sort(key=lambda task: (task[1], task[0].start))
        with _progress(self.options.progress, label, last - first) as bar:
            share = sum((stop - start) * width(c) for c, start, stop in tasks)
            bar.update(last - first - share / self.t)

            def advance(task: tuple[slice, int, int]) -> None:
                columns, start, stop = task
                # shares of permutations: their sum may exceed the whole by a rounding error
                bar.update(min((stop - start) * width(columns) / self.t, bar.total - bar.n))

            map_tasks(function, tasks, self.settings.n_workers, scratch, advance)

    def _observe(
        self,
        job: NullJob,
        plan: NullPlan,
        maker: FactorMaker,
        scratch: Path,
        run_tasks: Callable[..., None],
    ) -> NullJob:
        """Shared alphas, then observed scores; the job with the thresholds of the null."""
        if not self.settings.per_target:
            job = replace(job, choices=self._choose(job, plan, maker, scratch, run_tasks))
        task = observed_task
        if self.heldout:
            task = prediction_task
            predictions = []
            for k, split in enumerate(self.splits):
                path = self.folder / f"prediction_{k}.npy"
                shape = (len(split.outer.test), self.t)
                predictions.append(self._prediction_file(path, shape))
            job = replace(job, predictions=tuple(predictions))
        run_tasks(partial(task, job), "observed", OBSERVED, 0, "observed")
        tiles = TileGrid(self.t, plan.tile, plan.strip).tiles()
        observed = np.concatenate([part for _, _, _, part in parts(job, "observed", tiles)])
        reach = threshold(observed, self.options.two_sided)
        return replace(job, observed=observed, threshold=reach)

    def _prediction_file(self, path: Path, shape: tuple[int, int]) -> np.ndarray:
        """Predictions of an outer fold on disk; a new file has all its blocks before its name."""
        try:
            if not _has_blocks(path, shape):
                # observed scores without the predictions they are of are no use
                self.journal.forget("observed")
                partial_path = path.with_name(private_name(path.name))
                create_array(partial_path, shape, np.float32)
                partial_path.replace(path)
            return np.load(path, mmap_mode="r+", allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            for left in self.folder.glob(f"{path.name}~*"):
                remove(left)
            raise storage_error(self.folder, error) from error

    def _choose(
        self,
        job: NullJob,
        plan: NullPlan,
        maker: FactorMaker,
        scratch: Path,
        run_tasks: Callable[..., None],
    ) -> np.ndarray:
        """Number of the shared alpha of every permutation (first the observed) and outer fold."""
        last = 0 if self.heldout else self.m
        if plan.trace:
            return self._choose_by_trace(job, plan, maker, scratch)
        run_tasks(partial(choice_task, job), "choice", OBSERVED, last, "alphas")
        total = np.zeros((1 + last, len(self.splits), len(self.settings.alphas)))
        tiles = TileGrid(self.t, plan.tile, plan.strip).tiles()
        for _, start, stop, part in parts(job, "choice", tiles):
            total[start - OBSERVED : stop - OBSERVED] += part
        return total.argmax(axis=2)

    def _choose_by_trace(
        self, job: NullJob, plan: NullPlan, maker: FactorMaker, scratch: Path
    ) -> np.ndarray:
        n, r = self.n, len(self.settings.alphas)
        done = self.journal.done("trace").get(0, [])
        gaps = missing_ranges(done, OBSERVED, self.m, TRACE_BATCH)
        if gaps:
            check_space(scratch, 4 * n**2 * r * len(self.splits), "the trace identity")
            grid = TileGrid(self.t, plan.tile, plan.strip)
            settings, path = self.settings, scratch / "traces.npy"
            with (
                Crew(threads_per_worker(1)) as crew,
                _progress(self.options.progress, "alphas", self.m + 1) as bar,
            ):
                M = error_matrices(
                    self.splits, maker, settings.alphas, settings.fit_intercept, path, crew
                )
                S = target_gram(job.data, grid, crew)
                for start, stop in gaps:
                    orders = [order(job, i) for i in range(start, stop)]
                    errors = shared_errors(M, S, orders, crew)
                    chosen = errors.reshape(stop - start, len(self.splits), r).argmin(axis=2)
                    self.journal.publish("trace", 0, start, stop, chosen)
                    bar.update(stop - start)
        chosen = [part for *_, part in self.journal.read("trace", [0])]
        return np.concatenate(chosen)[: self.m + 1]


def _n_rows(path: Path) -> int | None:
    try:
        return len(open_array(path))
    except (OSError, ValueError, EOFError):
        return None


def _has_blocks(path: Path, shape: tuple[int, int]) -> bool:
    """Whether an array is there in its full length, without holes."""
    try:
        found = open_array(path)
        held = path.stat()
    except (OSError, ValueError, EOFError):
        return False
    return found.shape == shape and 512 * held.st_blocks >= held.st_size


def _check_scoring(settings: Settings, splits: Sequence[Any]) -> None:
    inner = [fold for split in splits for fold in split.inner if settings.kind == "folds"]
    tests = [fold.test for fold in inner] + [split.outer.test for split in splits]
    if min(map(len, tests)) < 2 and settings.scoring != "neg_mean_squared_error":
        raise InputError(
            f"scoring={settings.scoring!r} needs 2 test samples in every fold of both levels; "
            "use fewer folds in cv or scoring='neg_mean_squared_error'."
        )


def _progress(show: bool | None, label: str, total: int) -> Any:
    from tqdm import tqdm

    disable = None if show is None else not show
    layout = "{desc}: {percentage:3.0f}%|{bar}| {n:.0f}/{total_fmt} [{elapsed}<{remaining}]"
    return tqdm(total=total, desc=label, disable=disable, bar_format=layout + " {rate_fmt}")
