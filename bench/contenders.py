"""The solvers compared. Each is built, loads its data and fits in a process of its own.

A contender has ``load(folder) -> (X, Y)``, in the form its library likes best,
``fit(X, Y) -> model``, the timed part, and ``maps(model)``, the arrays to compare.
Libraries are imported in `__init__`, so that naming a contender imports nothing.
"""

from __future__ import annotations

import copy
import os
import shutil
import time
from pathlib import Path

import numpy as np

from bench._flops import ProductFlops
from bench._machine import sgemm_gflops
from bench.problems import ALPHAS

_SGEMM = 2000


def alphas(n_alphas: int) -> np.ndarray:
    """As many as wanted, on the range of those of every benchmark."""
    return np.logspace(np.log10(ALPHAS[0]), np.log10(ALPHAS[-1]), n_alphas)


class Ridgemm:
    """`ridgemm.RidgeCV`, reading memory-mapped files unless `in_memory`."""

    def __init__(
        self, targets: str = "Y", in_memory: bool = False, n_alphas: int = len(ALPHAS), **options
    ) -> None:
        from ridgemm import RidgeCV

        self.targets, self.in_memory = targets, in_memory
        options = {"alpha_per_target": True, "n_jobs": 1} | options
        self.model = RidgeCV(alphas=alphas(n_alphas), **options)

    def load(self, folder: Path):
        mode = None if self.in_memory else "r"
        return tuple(
            np.load(folder / f"{name}.npy", mmap_mode=mode) for name in ("X", self.targets)
        )

    def fit(self, X, Y):
        model = self.model.fit(X, Y)
        # The others return coefficients: were these made on demand, they are timed too.
        assert model.coef_.shape == (Y.shape[1], X.shape[1])
        return model

    def maps(self, model) -> dict:
        return {
            "best_score": model.best_score_,
            "alpha": model.alpha_,
            "factors_computed": model.factors_computed_,
        }


class RidgemmCached(Ridgemm):
    """`ridgemm.RidgeCV` with a cache folder beside the data, emptied before a first fit."""

    def __init__(self, targets: str, first: bool) -> None:
        super().__init__(targets)
        self.first = first

    def load(self, folder: Path):
        cache = folder / "factors"
        if self.first:
            shutil.rmtree(cache, ignore_errors=True)
        self.model.cache_dir = cache
        return super().load(folder)


class RidgemmView(Ridgemm):
    """`ridgemm.RidgeCV` on four delays of X in ten runs: a view, or a file that holds the same."""

    def __init__(self, kind: str, in_file: bool) -> None:
        super().__init__()
        self.kind, self.in_file = kind, in_file

    def load(self, folder: Path):
        import ridgemm

        X, Y = super().load(folder)
        runs = np.arange(len(X)) * 10 // len(X)
        view = ridgemm.delayed(
            ridgemm.zscored(X, runs) if self.kind == "zscored" else X, groups=runs
        )
        if not self.in_file:
            return view, Y
        path = folder / f"{self.kind}.npy"
        if not path.exists():
            np.save(path, np.asarray(view))
        return np.load(path, mmap_mode="r"), Y


class RidgemmOnCores(Ridgemm):
    """`ridgemm.RidgeCV` with so many workers of so many threads, on no more cores than these."""

    def __init__(self, workers: int, threads: int) -> None:
        cores = sorted(os.sched_getaffinity(0))[: workers * threads]
        os.sched_setaffinity(0, cores)
        super().__init__(n_jobs=workers)


class EfficientFit(Ridgemm):
    """`ridgemm.RidgeCV`, with the flops of its route, planned and made, and the sgemm rate."""

    def __init__(self, **options) -> None:
        super().__init__(**options)
        self.made = ProductFlops()

    def load(self, folder: Path):
        self.before = sgemm_gflops(_SGEMM)
        return super().load(folder)

    def fit(self, X, Y):
        with self.made:
            return super().fit(X, Y)

    def maps(self, model) -> dict:
        plan = model.plan_
        return {
            "sgemm_gflops": (self.before + sgemm_gflops(_SGEMM)) / 2,
            "targets_flops": plan.target_flops,
            "made_flops": self.made.total,
            "factors_flops": plan.route.factor_flops,
            "targets_seconds": model.took_["targets"],
            "factors_seconds": model.took_["factors"],
        }


class EfficientNull:
    """`ridgemm.permutation_test`, with the same."""

    def __init__(self, **options) -> None:
        from ridgemm import RidgeCV

        self.options = {"cv": 3} | options
        self.model = RidgeCV(alphas=ALPHAS, cv=3)
        self.made = ProductFlops(permuted=True)

    def load(self, folder: Path):
        self.before = sgemm_gflops(_SGEMM)
        self.data = tuple(np.load(folder / f"{name}.npy", mmap_mode="r") for name in ("X", "Y"))
        return self.data

    def fit(self, X, Y):
        from ridgemm import permutation_test

        with self.made:
            return permutation_test(self.model, X, Y, progress=False, **self.options)

    def maps(self, result) -> dict:
        from ridgemm import plan

        stages = plan(self.model, *self.data, **self.options).stages
        flops, took = {stage.name: stage.flops for stage in stages}, result.description["took"]
        return {
            "sgemm_gflops": (self.before + sgemm_gflops(_SGEMM)) / 2,
            "targets_flops": flops["null"],
            "made_flops": self.made.total,
            "factors_flops": flops["factors"],
            "targets_seconds": took["null"],
            "factors_seconds": took["factors"],
        }


class ForecastFit(Ridgemm):
    """`ridgemm.RidgeCV`, and what `ridgemm.plan` says of it; nobody asks for coefficients."""

    def load(self, folder: Path):
        self.data = super().load(folder)
        return self.data

    def fit(self, X, Y):
        return self.model.fit(X, Y)

    def maps(self, model) -> dict:
        from ridgemm import plan

        return _forecast_maps(plan(self.model, *self.data), model.took_)


class ForecastNull(EfficientNull):
    """`ridgemm.permutation_test`, and what `ridgemm.plan` says of it."""

    def maps(self, result) -> dict:
        from ridgemm import plan

        forecast = plan(self.model, *self.data, **self.options)
        return _forecast_maps(forecast, result.description["took"])


def _forecast_maps(forecast, took: dict) -> dict:
    planned = {f"plan_{stage.name}": stage.seconds for stage in forecast.stages}
    return planned | {f"took_{name}": seconds for name, seconds in took.items()}


class Brain:
    """`ridgemm.RidgeCV` on X in a file and a procedural Y; Pearson's r on test samples, if any."""

    def __init__(self, n_targets: int, test: int = 0, coef: bool = False, **options) -> None:
        from ridgemm import RidgeCV

        self.n_targets, self.test, self.coef = n_targets, test, coef
        self.model = RidgeCV(alphas=ALPHAS, **options)

    def load(self, folder: Path):
        from bench.procedural import Features, Targets

        n_targets = self.n_targets
        if folder.name == "warmup":
            n_targets = min(n_targets, max(20, n_targets // 10))
        X = [np.load(path, mmap_mode="r") for path in sorted(folder.glob("X*.npy"))]
        rows = np.cumsum([0, *map(len, X)])
        made = [Features(x.shape, first) for x, first in zip(X, rows, strict=False)]
        return X, [Targets(x, n_targets) for x in made]

    def fit(self, X, Y):
        for targets in Y:
            targets.took.clear()
        self.targets = Y
        model = self.model.fit(X[0], Y[0])
        self.took, start = dict(model.took_), time.perf_counter()
        self.scores = model.best_score_
        if self.test:
            # of a copy: the fit after this one, the warm-up, has its own scoring
            self.scores = copy.copy(model).set_params(scoring="correlation").score(X[1], Y[1])
            self.took["score"] = time.perf_counter() - start
        start = time.perf_counter()
        if self.coef:
            assert model.coef_.shape == (Y[0].shape[1], X[0].shape[1])
            self.took["coef"] = time.perf_counter() - start
        return model

    def maps(self, model) -> dict:
        return {
            "best_score": self.scores,
            "alpha": model.alpha_,
            "n_test": self.test,
            "generating": sum(targets.core_seconds for targets in self.targets),
        } | {f"took_{name}": seconds for name, seconds in self.took.items()}


class Himalaya:
    """`himalaya.ridge.RidgeCV` on R2, 5-fold.

    With ``fit_intercept=True`` it removes the mean of each training fold from the fold's
    X and Y, training and test rows alike: the problem ridgemm solves.
    """

    def __init__(self, backend: str, n_alphas: int = len(ALPHAS)) -> None:
        from himalaya.backend import set_backend
        from himalaya.ridge import RidgeCV
        from himalaya.scoring import r2_score
        from sklearn.model_selection import KFold

        self.backend = set_backend(backend)
        self.model = RidgeCV(
            alphas=alphas(n_alphas),
            fit_intercept=True,
            cv=KFold(5),
            solver_params={"score_func": r2_score},
        )

    def load(self, folder: Path):
        return tuple(self.backend.asarray(np.load(folder / f"{name}.npy")) for name in ("X", "Y"))

    def fit(self, X, Y):
        return self.model.fit(X, Y)

    def maps(self, model) -> dict:
        return {
            "best_score": self.backend.to_numpy(model.cv_scores_),
            "alpha": self.backend.to_numpy(model.best_alphas_),
        }


class ScikitLearn:
    """`sklearn.linear_model.RidgeCV`: leave-one-out, in float64.

    ``scoring=None`` (minus the squared error) is its fast path: a named score, "r2" too,
    is called target by target.
    """

    def __init__(self, n_alphas: int = len(ALPHAS)) -> None:
        from sklearn.linear_model import RidgeCV

        self.model = RidgeCV(alphas=alphas(n_alphas), alpha_per_target=True)

    def load(self, folder: Path):
        return np.load(folder / "X.npy"), np.load(folder / "Y.npy")

    def fit(self, X, Y):
        return self.model.fit(X, Y)

    def maps(self, model) -> dict:
        return {"best_score": model.best_score_, "alpha": model.alpha_}


class Product:
    """The bare product ``X.T @ Y`` into an array that exists: the least a fit could cost."""

    def load(self, folder: Path):
        X, Y = np.load(folder / "X.npy"), np.load(folder / "Y.npy")
        # full, not empty: its pages are in memory before the clock starts.
        self.out = np.full((X.shape[1], Y.shape[1]), 0, dtype=np.float32)
        return X, Y

    def fit(self, X, Y):
        return np.matmul(X.T, Y, out=self.out)

    def maps(self, model) -> dict:
        return {}
