"""`memory_limit` is kept: what a plan accepts runs under the operating system's own limit.

Fits, predictions, scores and permutation tests of drawn shapes run by every route in processes
whose RLIMIT_DATA leaves them `memory_limit` above what importing took: each worker its share, and
the calling process what is left. Meanwhile the sum of what all of them hold is sampled. A limit
that the plan refuses is raised to the one that the refusal names.
"""

import contextlib
import gc
import json
import os
import re
import select
import shutil
import signal
import subprocess
import sys
import time
import traceback
from functools import partial
from pathlib import Path
from typing import NamedTuple
from unittest import mock

import numpy as np
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from bench import memory
from bench._memory import anonymous_bytes, family, peak_memory
from ridgemm import (
    MemoryLimitError,
    RidgeCV,
    engine,
    nullplan,
    nullrun,
    permutation_test,
    pieces,
    plan,
)
from ridgemm.fitplan import OVERHEAD
from ridgemm.mapreduce import Crew, map_tasks, threads_per_worker
from ridgemm.products import lack_of
from tests.buffers import reserve_buffers
from tests.marks import slow

if linux := sys.platform.startswith("linux"):
    import resource

pytestmark = pytest.mark.skipif(not linux, reason="RLIMIT_DATA counts what it should on Linux only")

ROOT = Path(__file__).parents[1]
MB = 10**6
N_PERMUTATIONS = 5
#: A death is noticed at once; a BLAS that asks for memory in vain may ask for ever.
HANGS = 900
AGAIN = "kernels were compiled"


class Case(NamedTuple):
    """What runs, on which data, within which limit; None is the smallest that a refusal names."""

    n: int
    p: int
    t: int
    solver: str
    cv: int | str = 3
    run: str = "fit"
    limit: int | None = None
    per_target: bool = True
    scoring: str = "r2"
    standardize: bool = False
    n_jobs: int = 1
    x_dtype: str = "float32"
    y_dtype: str = "float32"
    # means above the sd are taken off while reading: no tile is read in place
    mean: int = 0
    # of a null
    precision: str = "single"

    @property
    def tiny(self) -> "Case":
        """Few samples and features, and as many targets as take several strips."""
        return self._replace(n=min(self.n, 60), p=min(self.p, 8), t=min(self.t, 1100), limit=None)


# -- in the child -------------------------------------------------------------------------------


def run(case: Case, folder: Path, limit: int | None) -> None:
    """Fit, predict and score, or test by permutation, in a new cache folder."""
    out = folder / f"out-{os.getpid()}"
    X, Y = folder / "X.npy", folder / "Y.npy"
    model = model_of(case, limit, out / "cache")
    try:
        if case.run == "fit":
            _fit(model.fit(X, Y), X, Y, out)
        else:
            _permute(model, X, Y, case, out)
    finally:
        shutil.rmtree(out)


def model_of(case: Case, limit: int | None, cache: Path | None) -> RidgeCV:
    return RidgeCV(
        [100.0, 1000.0, 10000.0],
        cv=case.cv,
        scoring=case.scoring,
        alpha_per_target=case.per_target,
        standardize=case.standardize,
        solver=case.solver,
        memory_limit=limit,
        cache_dir=cache,
        n_jobs=case.n_jobs,
    )


def forecast(case: Case, folder: Path, limit: int) -> None:
    """Plan what `run` does."""
    model, null = model_of(case, limit, None), {}
    if case.run != "fit":
        null = {"cv": 2, "n_permutations": N_PERMUTATIONS, "null": case.run}
        null["precision"] = case.precision
    plan(model, folder / "X.npy", folder / "Y.npy", **null)


def _fit(model: RidgeCV, X: Path, Y: Path, out: Path) -> None:
    shape = np.load(Y, mmap_mode="r").shape
    predicted = np.lib.format.open_memmap(out / "P.npy", "w+", np.float32, shape)
    assert model.predict(X, out=predicted) is predicted
    assert np.isfinite(predicted[-1]).all()
    assert np.isfinite(model.score(X, Y)).all()
    assert np.isfinite(model.best_score_).all()
    # coefficients that are not there yet are made for the file alone
    model.save(out / "model")
    assert np.isfinite(model.coef_[-1]).all() and np.isfinite(model.intercept_).all()


def _permute(model: RidgeCV, X: Path, Y: Path, case: Case, out: Path) -> None:
    result = permutation_test(
        model,
        X,
        Y,
        cv=2,
        n_permutations=N_PERMUTATIONS,
        null=case.run,
        precision=case.precision,
        out=out / "run",
        progress=False,
    )
    assert np.isfinite(result.scores).all() and (result.pvalues > 0).all()


def named_limit(refusal: MemoryLimitError) -> int:
    return int(re.search(r"needs at least (\d+) bytes", str(refusal))[1])


def smallest_limit(case: Case, folder: Path) -> int:
    """The limit that the refusal of another names; the refused call is not bounded."""
    with pytest.raises(MemoryLimitError) as refusal:
        run(case, folder, 1000)
    return named_limit(refusal.value)


def status_bytes(field: str, pid: int | str = "self") -> int:
    """VmData: private writable memory, which RLIMIT_DATA bounds. RssAnon: what of it is used."""
    found = re.search(rf"{field}:\s*(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    return int(found[1]) * 1024


def warm_up(case: Case, folder: Path, n_threads: int) -> None:
    """Load what a case will, in large tiles and in the smallest; compile what never was."""
    reserve_buffers(n_threads)
    tiny = case.tiny._replace(n_jobs=1)
    for limit in (None, smallest_limit(tiny, folder)):
        run(tiny, folder, limit)


def n_compiled() -> int:
    """Kernels that this process compiled, instead of loading them from the disk."""
    modules = [module for name, module in sys.modules.items() if name.startswith("ridgemm.kernels")]
    kernels = {
        id(k): k for m in modules for k in vars(m).values() if hasattr(k, "nopython_signatures")
    }
    return sum(sum(kernel.stats.cache_misses.values()) for kernel in kernels.values())


def warm_worker(case: Case, folder: Path, crew: Crew, _: int) -> None:
    """Warm up in a worker, and wait for the others: none may do the task of two."""
    imported = status_bytes("RssAnon")
    warm_up(case, folder / "tiny", len(crew.slots))
    (folder / f"worker-{os.getpid()}").write_text(str(imported))
    deadline = time.monotonic() + HANGS
    while len([*folder.glob("worker-*")]) < case.n_jobs:
        assert time.monotonic() < deadline
        time.sleep(0.01)


@contextlib.contextmanager
def warm_workers(case: Case, folder: Path):
    """The workers that a run will find, each warm, and the memory that importing took them."""
    workers = {}
    if case.n_jobs > 1:
        map_tasks(partial(warm_worker, case, folder), range(case.n_jobs), case.n_jobs, folder)
        for file in folder.glob("worker-*"):
            workers[int(file.name.removeprefix("worker-"))] = int(file.read_text())
    try:
        yield workers
    finally:
        for pid in workers:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


class Shares:
    """Bounds of this process and its workers, whose sum is the limit and what importing took.

    Address space counts from now on, what is in use already is taken off: buffers and stacks
    that were reserved before, and only in part used, are no part of the program's memory.
    While tasks run, every worker has the share that the plan gives it; while they wait, they hold
    what a process holds beside its arrays. The rest is this process's.
    """

    def __init__(self, limit: int, imported: int, workers: dict[int, int]):
        gc.collect()
        self.limit, self.workers, self.worker_share = limit, workers, OVERHEAD
        taken = {os.getpid(): imported} | workers
        self.zero = {
            pid: status_bytes("VmData", pid) - (status_bytes("RssAnon", pid) - before)
            for pid, before in taken.items()
        }

    def bound(self, worker_share: int) -> None:
        self._bound(os.getpid(), self.limit - len(self.workers) * worker_share)
        for pid in self.workers:
            self._bound(pid, worker_share)

    def _bound(self, pid: int, share: int) -> None:
        _, hard = resource.prlimit(pid, resource.RLIMIT_DATA)
        resource.prlimit(pid, resource.RLIMIT_DATA, (self.zero[pid] + share, hard))

    def lift(self) -> None:
        for pid in self.zero:
            with contextlib.suppress(ProcessLookupError):
                _, hard = resource.prlimit(pid, resource.RLIMIT_DATA)
                resource.prlimit(pid, resource.RLIMIT_DATA, (resource.RLIM_INFINITY, hard))

    # what the calls below are replaced by

    def make_plan(self, *args):
        plan = MAKE_PLAN(*args)
        self.worker_share = plan.worker_bytes
        return plan

    def kept_plan(self, problem, chosen):
        plan = KEPT_PLAN(problem, chosen)
        self.worker_share = nullplan.worker_bytes(problem, plan)
        return plan

    def map_tasks(self, *args) -> None:
        self.bound(self.worker_share)
        try:
            map_tasks(*args)
        finally:
            self.bound(OVERHEAD)


MAKE_PLAN, KEPT_PLAN = engine.make_plan, nullrun.kept_plan


@contextlib.contextmanager
def bounded(limit: int, imported: int, workers: dict[int, int]):
    """Let this process and its workers together use `limit` above what importing took."""
    shares = Shares(limit, imported, workers)
    patches = contextlib.ExitStack()
    if workers:
        for module in (engine, pieces):
            patches.enter_context(mock.patch.object(module, "map_tasks", shares.map_tasks))
        patches.enter_context(mock.patch.object(engine, "make_plan", shares.make_plan))
        patches.enter_context(mock.patch.object(nullrun, "kept_plan", shares.kept_plan))
    others = sum(map(anonymous_bytes, set(family(os.getpid())) - set(shares.zero)))
    try:
        with patches, peak_memory() as memory:
            shares.bound(OVERHEAD)
            with pytest.raises(MemoryError):
                # well above: stacks of threads that are just ending are counted as taken before
                np.empty(limit + 64 * MB, dtype=np.uint8)
            yield
        # a worker that was replaced would have escaped its limit
        assert all(Path(f"/proc/{pid}").exists() for pid in workers)
        together = memory.peak - imported - sum(workers.values()) - others
        assert together <= limit, f"{together} bytes together"
    finally:
        shares.lift()


def check(case: Case, folder: Path, imported: int) -> None:
    """Run a case within its limit or, where the plan refuses that, within the one it names."""
    limit = case.limit or smallest_limit(case, folder)
    try:
        forecast(case, folder, limit)
    except MemoryLimitError as refusal:
        # what a refusal named is not refused again
        assert case.limit is not None
        limit = named_limit(refusal)
        assert limit > case.limit
    with warm_workers(case, folder) as workers, bounded(limit, imported, workers):
        run(case, folder, limit)


def answer(case: Case, folder: Path, imported: int) -> str:
    """What went wrong, "" or that the case has to be asked again."""
    try:
        warm_up(case, folder / "tiny", threads_per_worker(1))
        if n_compiled():
            # what a compiler leaves behind is not what a run takes
            return AGAIN
        check(case, folder, imported)
    except Exception:
        return traceback.format_exc()
    return ""


def serve() -> None:
    """Answer the cases that arrive on stdin, each in a fork that has imported and no more."""
    imported = status_bytes("RssAnon")
    for line in sys.stdin:
        fields, folder = json.loads(line)
        pid = os.fork()
        if pid == 0:
            print(json.dumps(answer(Case(*fields), Path(folder), imported)), flush=True)
            os._exit(0)
        _, status = os.waitpid(pid, 0)
        if status:
            print(json.dumps(f"died, wait status {status}"), flush=True)


# -- in pytest ----------------------------------------------------------------------------------

# Two cores, small stacks: a plan does not count the stacks of threads, which nobody touches and
# RLIMIT_DATA counts whole.
CHILD = """
import os, threading
os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:2])
threading.stack_size(1 << 20)
from tests.test_memory import serve
serve()
"""


class Child:
    """The process that forks for every case; one that hangs is replaced."""

    def __init__(self, folder: Path):
        self.folder, self.process, self.count = folder, None, 0

    def check(self, case: Case) -> None:
        self.count += 1
        folder = self.folder / f"case-{self.count}"
        write(case, folder)
        write(case.tiny, folder / "tiny")
        try:
            answer = self._ask(case, folder)
            if answer == AGAIN:
                answer = self._ask(case, folder)
        finally:
            shutil.rmtree(folder)
        assert not answer, f"{case}\n{answer}\n{self._last_words()}"

    def _ask(self, case: Case, folder: Path) -> str:
        if self.process is None:
            self._start()
        self.process.stdin.write(json.dumps([case, str(folder)]).encode() + b"\n")
        if select.select([self.process.stdout], [], [], HANGS)[0]:
            return json.loads(self.process.stdout.readline() or '"no answer"')
        self.stop()
        return "hangs"

    def _start(self) -> None:
        self.stderr = open(self.folder / "stderr", "wb")  # noqa: SIM115
        self.process = subprocess.Popen(
            [sys.executable, "-c", CHILD],
            cwd=ROOT,
            env=os.environ | {"TMPDIR": str(self.folder)},
            bufsize=0,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.stderr,
            start_new_session=True,
        )

    def _last_words(self) -> str:
        return (self.folder / "stderr").read_text(errors="replace")[-4000:]

    def stop(self) -> None:
        if self.process is not None:
            # the fork and its workers too
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
            for file in (self.process.stdin, self.process.stdout, self.stderr):
                file.close()
            self.process = None


def write(case: Case, folder: Path) -> None:
    """Files of normal numbers, of mean `case.mean`; integers hold rounded ones."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    for name, columns, dtype in (("X", case.p, case.x_dtype), ("Y", case.t, case.y_dtype)):
        file = np.lib.format.open_memmap(folder / f"{name}.npy", "w+", dtype, (case.n, columns))
        for start in range(0, case.n, 64):
            rows = rng.standard_normal((len(file[start : start + 64]), columns), dtype=np.float32)
            file[start : start + 64] = 10 * rows + case.mean


@pytest.fixture(scope="module")
def child(tmp_path_factory):
    child = Child(tmp_path_factory.mktemp("memory"))
    yield child
    child.stop()


FITS = [
    ("primal-statistics", 3),
    ("primal-products", 3),
    ("svd-products", 3),
    ("dual-products", 3),
    ("dual-trace", 3),
    ("dual-trace", "loo"),
    ("primal-loo", "loo"),
    ("svd-loo", "loo"),
    ("dual-loo", "loo"),
    ("primal-gcv", "gcv"),
    ("svd-gcv", "gcv"),
    ("dual-gcv", "gcv"),
]
#: The model of a permutation test names a family where its folds are not K-folds.
NULLS = [
    ("primal-statistics", 3),
    ("primal-products", 3),
    ("svd-products", 3),
    ("dual-operators", 3),
    ("dual-products", 3),
    ("primal", "loo"),
    ("dual", "loo"),
    ("primal", "gcv"),
    ("dual", "gcv"),
]
ROUTES = [("fit", *fit) for fit in FITS]
ROUTES += [(null, *model) for null in ("refit", "heldout") for model in NULLS]


class Scale(NamedTuple):
    """Bounds of a problem: order of its square matrices, values of Y, products of X and Y."""

    side: int
    values: float
    products: float


SMALL, LARGE = Scale(500, 2e6, 2e8), Scale(2500, 5e7, 1e10)


def sizes(smallest: int, largest: int):
    """Integers that are spread evenly over orders of magnitude."""
    return st.floats(0, 1).map(lambda u: round(smallest * (largest / smallest) ** u))


@st.composite
def cases(draw, scale: Scale, routes: list):
    """Problems by any of the routes, shrunk to a scale where it would take long."""
    run, solver, cv = draw(st.sampled_from(routes))
    n, p, t = draw(sizes(20, 3000)), draw(sizes(5, 2500)), draw(sizes(1, 40000))
    if solver.startswith("dual"):
        n = min(n, scale.side)
    else:
        p = min(p, scale.side)
    if cv != 3 and not solver.startswith("dual"):
        # fits that may interpolate are not offered; half of the rows train an outer fold
        p = max(1, min(p, int((n if run == "fit" else n // 2) / 1.25)))
    t = max(1, int(min(t, scale.values / n, scale.products / (n * p))))
    if run != "fit":
        t = -(-t // N_PERMUTATIONS)
    scorings = ["r2", "neg_mean_squared_error"]
    if cv != "gcv" and solver != "dual-trace":
        scorings.append("correlation")
    return Case(
        n,
        p,
        t,
        solver,
        cv,
        run,
        limit=draw(st.sampled_from((None, 128 * MB, 200 * MB, 500 * MB))),
        per_target=solver != "dual-trace" and draw(st.booleans()),
        scoring=draw(st.sampled_from(scorings)),
        standardize=cv != "loo" and draw(st.booleans()),
        n_jobs=draw(st.sampled_from((1, 1, 2, 3))),
        x_dtype=draw(st.sampled_from(("float32", "float64", "int8"))),
        y_dtype=draw(st.sampled_from(("float32", "float64"))),
        mean=draw(st.sampled_from((0, 60))),
    )


# no shrinking: an example takes seconds, and a smaller one is no easier to read
PHASES = (Phase.explicit, Phase.reuse, Phase.generate)


@settings(max_examples=5, phases=PHASES)
@given(case=cases(SMALL, ROUTES))
def test_whatever_the_plan_accepts_keeps_its_limit(child, case):
    child.check(case)


@pytest.mark.slow
@pytest.mark.parametrize("route", ROUTES, ids=str)
@settings(max_examples=3, phases=PHASES)
@given(data=st.data())
def test_whatever_the_plan_accepts_keeps_its_limit_at_full_size(child, route, data):
    child.check(data.draw(cases(LARGE, [route])))


#: Shared by the hard cases: an alpha for all targets of a null, by the trace identity.
SHARED = {"per_target": False, "scoring": "neg_mean_squared_error"}
BF16 = {"precision": "bf16"}
UNITS = pytest.mark.skipif(lack_of("bf16") is not None, reason=f"needs {lack_of('bf16')}")


@pytest.mark.parametrize(
    "case",
    [
        # square matrices larger than what is left of the limit: in files
        Case(500, 900, 300, "primal-statistics", 2),
        Case(900, 1500, 300, "dual-products", 2),
        Case(300, 800, 200, "primal-statistics", 2, "refit"),
        # one target, and very many of few samples
        Case(2000, 100, 1, "primal-loo", "loo"),
        Case(200, 1500, 1, "dual-operators", 3, "refit"),
        Case(40, 10, 200_000, "primal-statistics", limit=128 * MB),
        slow(Case(30, 50, 50_000, "dual-products", 3, "heldout")),
        # dual coefficients on demand
        Case(300, 200, 40_000, "dual-trace", "loo", limit=128 * MB, **SHARED),
        # and primal ones made of them while workers wait, which take most of the limit; Y is copied
        slow(
            Case(722, 5, 40_000, "dual-trace", limit=200 * MB, per_target=False, n_jobs=3, mean=60)
        ),
        # outer folds that share one pass over the samples
        slow(Case(2000, 60, 3000, "primal-statistics", 3, "refit")),
        Case(300, 100, 3000, "dual-operators", 3, "refit", **SHARED),
        # residuals of all samples
        Case(200, 1500, 1, "dual-residuals", 3, "refit"),
        Case(300, 400, 3000, "dual-residuals", 3, "refit"),
        Case(200, 400, 3000, "dual-residuals", 3, "refit", n_jobs=2),
        slow(Case(200, 400, 3000, "dual-operators", 3, "refit", n_jobs=2)),
        # where a library makes such products
        pytest.param(Case(300, 400, 3000, "dual-operators", 3, "refit", **BF16), marks=UNITS),
        pytest.param(Case(2000, 60, 3000, "primal-statistics", 3, "refit", **BF16), marks=UNITS),
    ],
    ids=str,
)
def test_hard_cases(child, case):
    child.check(case)


@pytest.mark.slow
@pytest.mark.parametrize(
    "case",
    [
        Case(1000, 2500, 1000, "primal-statistics", 2, limit=128 * MB),
        Case(1000, 2500, 1000, "primal-products", 2, limit=128 * MB, n_jobs=2),
        Case(3000, 2400, 500, "primal-loo", "loo", limit=128 * MB),
        Case(2500, 4000, 1000, "dual-products", 2, limit=128 * MB),
        Case(2500, 4000, 500, "dual-products", 2, limit=128 * MB, standardize=True),
        Case(2500, 4000, 500, "dual-gcv", "gcv", limit=128 * MB),
        Case(1000, 2200, 200, "primal-statistics", 2, "refit", limit=128 * MB),
        Case(2400, 4000, 200, "dual-operators", 2, "refit", limit=128 * MB),
        Case(1200, 300, 10_000, "dual-operators", 3, "refit", **SHARED),
        Case(1600, 300, 500, "dual-residuals", 3, "refit", limit=128 * MB),
        Case(1200, 300, 10_000, "dual-residuals", 4, "refit", limit=150 * MB),
        Case(1200, 300, 40_000, "dual-trace", "loo", **SHARED),
        Case(1000, 2500, 1, "primal-statistics", 2),
        Case(40, 10, 1_200_000, "primal-statistics", limit=300 * MB),
        Case(40, 10, 400_000, "primal-statistics", 3, "refit", limit=150 * MB),
        Case(1200, 100, 40_000, "primal-statistics", limit=200 * MB, n_jobs=2),
    ],
    ids=str,
)
def test_hard_cases_at_full_size(child, case):
    child.check(case)


@pytest.mark.slow
def test_quick_bench_reports_every_route(tmp_path):
    file = tmp_path / "memory.json"
    command = [sys.executable, "-m", "bench", "memory", "--quick", "--json", file]
    subprocess.run(command, cwd=ROOT, capture_output=True, check=True)
    report = json.loads(file.read_text())
    rows = {row["contender"]: row for row in report["rows"]}
    fits = [*memory.TALL, *memory.WIDE, "matrices-in-files", "matrices-in-ram"]
    assert set(fits) <= set(rows)
    figures = report["figures"]
    for name in fits:
        slug = name.replace("-", "_")
        above = rows[name]["peak_anonymous_bytes"] - rows[name]["baseline_anonymous_bytes"]
        assert figures[f"peak_bytes_{slug}"] == above
        assert figures[f"planned_bytes_{slug}"] <= figures[f"limit_bytes_{slug}"]
        assert figures[f"peak_over_limit_{slug}"] < 1
        assert figures[f"plan_seconds_over_taken_{slug}"] > 0
    assert figures["seconds_in_files_over_in_ram"] > 0
