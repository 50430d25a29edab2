"""A brain-encoding regression on a Dask cluster of this machine, against B-MOR.

B-MOR (Ahmadi, Bellec and Glatard) cuts the targets into one batch for each worker and lets
every worker fit scikit-learn's RidgeCV to its batch. The problem is theirs, more features than
samples, with a fifth of both and a tenth of the targets. What is chosen differs: ridgemm takes
one alpha for all targets, B-MOR one for each batch, MultiOutputRegressor one for each target.
"""

from __future__ import annotations

import contextlib
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import joblib
import numpy as np
import psutil

from bench._memory import peak_memory
from bench._run import SLOW, Contender, Outcome, _absence, _row
from bench.problems import ALPHAS, Problem, on_disk
from ridgemm import RidgeCV

REPEATS = 3
SAMPLE = 50
INTERVAL = 0.05
OPTIONS = {
    "alphas": ALPHAS,
    "cv": "loo",
    "scoring": "neg_mean_squared_error",
    "alpha_per_target": False,
    "memory_limit": "4GB",
}
DASK = ("distributed",)
LOCAL = Contender("ridgemm-local", "ridgemm", note="one alpha for all; joblib's processes")
FIRST = Contender(
    "ridgemm-dask", "ridgemm", {"engine": "dask"}, DASK, "one alpha for all; no factors yet"
)
SECOND = Contender(
    "ridgemm-dask-second",
    "ridgemm",
    {"engine": "dask", "first": False},
    DASK,
    "one alpha for all; factors found ready",
)
B_MOR = Contender("b-mor", "b_mor", {}, DASK, "one alpha for each batch of targets")
MOR = Contender("mor-sample", "mor", {}, DASK, f"one alpha for each of {SAMPLE} targets, no more")


def run(quick: bool, repeats: int | None) -> dict:
    problem = Problem(200, 328, 1500) if quick else Problem(2000, 3277, 26480)
    # one worker would be this process, and no cluster
    n_workers = 2 if quick else max(2, joblib.cpu_count())
    with on_disk(problem) as folder, _cluster(n_workers) as client:
        solvers = {
            "ridgemm": partial(ridgemm, n_workers),
            "b_mor": partial(b_mor, client, n_workers),
            "mor": mor,
        }
        outcome = _alternate([LOCAL, FIRST, SECOND, B_MOR, MOR], solvers, folder, repeats)
    title = f"{problem}, 11 alphas, leave-one-out, squared error, {n_workers} workers of one thread"
    return {"problem": title} | outcome.report(
        {"n_workers": n_workers} | _figures(problem, outcome)
    )


@contextlib.contextmanager
def _cluster(n_workers: int) -> Iterator[object]:
    """A client of a Dask cluster of processes of one thread; None where Dask is missing."""
    if FIRST.missing:
        yield None
        return
    from distributed import Client, LocalCluster

    with (
        LocalCluster(
            n_workers=n_workers,
            threads_per_worker=1,
            processes=True,
            dashboard_address=None,
            # no dashboard, and not its port either: another cluster may run here
            scheduler_kwargs={"dashboard_address": ":0"},
            memory_limit=0,
        ) as cluster,
        Client(cluster) as client,
    ):
        yield client


def ridgemm(
    n_workers: int, folder: Path, engine: str | None = None, first: bool = True
) -> Callable[[], dict]:
    """`ridgemm.RidgeCV` in joblib's processes or, by `engine`, in those of the cluster."""
    cache = folder / f"factors-{engine or 'local'}"
    if first:
        shutil.rmtree(cache, ignore_errors=True)
    model = RidgeCV(cache_dir=cache, n_jobs=-1 if engine else n_workers, **OPTIONS)

    def fit() -> dict:
        with joblib.parallel_config(engine) if engine else contextlib.nullcontext():
            model.fit(folder / "X.npy", folder / "Y.npy")
        coef = model.coef_
        return {"alpha": model.alpha_, "coef": coef, "factors_computed": model.factors_computed_}

    return fit


def b_mor(client, n_workers: int, folder: Path) -> Callable[[], dict]:
    """B-MOR: one batch of targets for each worker, results gathered here."""

    def fit() -> dict:
        n_targets = np.load(folder / "Y.npy", mmap_mode="r").shape[1]
        edges = np.linspace(0, n_targets, n_workers + 1).astype(int).tolist()
        # not pure: a result of an earlier turn must not be taken for this one's
        futures = client.map(fit_batch, [folder] * n_workers, edges[:-1], edges[1:], pure=False)
        alphas, coefs = zip(*client.gather(futures), strict=True)
        return {
            "alpha": np.repeat(alphas, np.diff(edges)),
            "coef": np.concatenate(coefs),
            "n_batches": n_workers,
        }

    return fit


def fit_batch(folder: Path, start: int, stop: int) -> tuple[float, np.ndarray]:
    """Load all of X and some columns of Y, and fit them with scikit-learn."""
    from sklearn.linear_model import RidgeCV as Peer

    X = np.load(folder / "X.npy")
    Y = np.ascontiguousarray(np.load(folder / "Y.npy", mmap_mode="r")[:, start:stop])
    model = Peer(alphas=ALPHAS).fit(X, Y)
    return model.alpha_, model.coef_


def mor(folder: Path) -> Callable[[], dict]:
    """scikit-learn's MultiOutputRegressor, a model for each target, on some targets."""
    from sklearn.linear_model import RidgeCV as Peer
    from sklearn.multioutput import MultiOutputRegressor

    def fit() -> dict:
        Y = np.load(folder / "Y.npy", mmap_mode="r")
        columns = np.linspace(0, Y.shape[1] - 1, SAMPLE).astype(int)
        with joblib.parallel_config("dask"):
            model = MultiOutputRegressor(Peer(alphas=ALPHAS), n_jobs=-1)
            model.fit(np.load(folder / "X.npy"), Y[:, columns])
        return {"alpha": np.array([each.alpha_ for each in model.estimators_])}

    return fit


def _alternate(
    contenders: list[Contender], solvers: dict, folder: Path, repeats: int | None
) -> Outcome:
    """Run contenders in turn in this process, each after an untimed tenth of the problem.

    The tenth starts workers that have gone to sleep and loads what they import.
    """
    present = [contender for contender in contenders if not contender.missing]
    runs: dict[str, list[dict]] = {contender.name: [] for contender in present}
    outcome = Outcome(left_out=[_absence(c) for c in contenders if c.missing])
    for turn in range(repeats or REPEATS):
        for contender in present:
            done, solver = runs[contender.name], solvers[contender.solver]
            if not repeats and turn and done[0]["seconds"] > SLOW:
                continue
            solver(folder / "warmup", **contender.options)()
            fit = solver(folder, **contender.options)
            with peak_memory() as memory:
                start = time.perf_counter()
                maps = fit()
                seconds = time.perf_counter() - start
            outcome.runs.setdefault(contender.name, []).append(maps)
            done.append({"seconds": seconds, "baseline": memory.baseline, "peak": memory.peak})
            print(f"  {contender.name}: {seconds:.3g} s", file=sys.stderr)
    for contender in present:
        done = runs[contender.name]
        if len(done) < (repeats or REPEATS):
            note = f"{contender.note}; one run: slower than {SLOW:.0f} s"
            contender = replace(contender, note=note)
        outcome.rows[contender.name] = _row(contender, done, len(done))
    return outcome


def _anonymous_bytes(process: psutil.Process) -> int:
    with contextlib.suppress(psutil.Error):
        memory = process.memory_info()
        # where the system does not tell what files back, all that is resident
        return memory.rss - getattr(memory, "shared", 0)
    return 0


def _figures(problem: Problem, outcome: Outcome) -> dict:
    if FIRST.name not in outcome.rows:
        return {"factors_computed_first": outcome.maps[LOCAL.name]["factors_computed"]}
    local, first, second, peer = (
        outcome.maps[contender.name] for contender in (LOCAL, FIRST, SECOND, B_MOR)
    )
    seconds = outcome.seconds(FIRST.name)
    all_targets = outcome.seconds(MOR.name) * problem.n_targets / SAMPLE
    agree = np.isclose(peer["alpha"], first["alpha"])
    figures = {
        "dask_overhead": seconds / outcome.seconds(LOCAL.name) - 1,
        "dask_same_bits_as_local": float(np.array_equal(local["coef"], first["coef"])),
        "factors_computed_first": first["factors_computed"],
        "factors_computed_second": second["factors_computed"],
        "first_over_second": seconds / outcome.seconds(SECOND.name),
        "speedup_over_b_mor": outcome.seconds(B_MOR.name) / seconds,
        "mor_targets_measured": SAMPLE,
        "mor_seconds_extrapolated_to_all_targets": all_targets,
        "speedup_over_mor_extrapolated": all_targets / seconds,
        "alphas_ridgemm_chooses": np.size(first["alpha"]),
        "alphas_b_mor_chooses": peer["n_batches"],
        "alphas_mor_chooses_extrapolated": problem.n_targets,
        "share_of_targets_with_the_alpha_of_b_mor": float(agree.mean()),
    }
    if agree.any():
        difference = np.abs(first["coef"][agree] - peer["coef"][agree])
        figures["max_abs_coef_difference_where_alphas_agree"] = float(difference.max())
        figures["max_abs_coef"] = float(np.abs(peer["coef"][agree]).max())
    return figures
