"""Fits and permutation tests on a cluster, by joblib's Dask and Ray backends: the bits of one
process.

The cluster is real, two worker processes behind a scheduler on this machine. Workers are killed,
cannot see a file, raise, and are interrupted.
"""

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from importlib.util import find_spec
from pathlib import Path
from unittest import mock

import joblib
import numpy as np
import psutil
import pytest
from joblib.parallel import get_active_backend
from threadpoolctl import threadpool_info, threadpool_limits

from ridgemm import (
    InputError,
    RidgeCV,
    StorageError,
    WorkerError,
    clusters,
    nullplan,
    permutation_test,
)
from ridgemm.mapreduce import active_cluster, count_workers, map_tasks
from ridgemm.store import Store
from tests.faults import FITTED, TESTED, Deadly, Targets, bits, problem
from tests.marks import slow

ROOT = Path(__file__).resolve().parents[1]
# no dashboard, and not its port either: several processes run tests
CLUSTER = {
    "n_workers": 2,
    "threads_per_worker": 1,
    "processes": True,
    "dashboard_address": None,
    "scheduler_kwargs": {"dashboard_address": ":0"},
}
PATIENCE = 300  # seconds until what does not happen is taken for a deadlock

posix = pytest.mark.skipif(os.name != "posix", reason="signals and open files without a name")


@pytest.fixture(scope="module", autouse=True)
def _patient():
    """Dask gives a worker up that is not back after 15 s; a busy machine may need more."""
    with pytest.MonkeyPatch.context() as patch, contextlib.ExitStack() as stack:
        # for the programs that tests start, and for this process
        patch.setenv("DASK_DISTRIBUTED__DEPLOY__LOST_WORKER_TIMEOUT", f"{PATIENCE}s")
        if find_spec("distributed"):
            from dask import config

            lasting = {"distributed.deploy.lost-worker-timeout": f"{PATIENCE}s"}
            stack.enter_context(config.set(lasting))
        yield


@pytest.fixture(scope="module")
def _client():
    distributed = pytest.importorskip("distributed")
    with distributed.LocalCluster(**CLUSTER) as cluster, distributed.Client(cluster) as client:
        yield client


@pytest.fixture
def client(_client):
    """The client of two living workers, whatever happened to those of the last test."""
    _client.wait_for_workers(2, timeout=PATIENCE)
    return _client


@pytest.fixture(scope="module")
def two_threads():
    distributed = pytest.importorskip("distributed")
    options = {**CLUSTER, "n_workers": 1, "threads_per_worker": 2}
    with distributed.LocalCluster(**options) as cluster, distributed.Client(cluster) as client:
        yield client


def on_dask():
    return joblib.parallel_config(backend="dask")


def fit(X, Y, n_jobs, **options):
    options = {"alphas": (1.0, 30.0), "cv": 2, **options}
    return RidgeCV(n_jobs=n_jobs, **options).fit(X, Y)


def permute(X, Y, n_jobs, *, model=None, **options):
    """A permutation test of a dozen tasks or more."""
    ridge = RidgeCV((1.0, 30.0), **{"cv": 2, "n_jobs": n_jobs, **(model or {})})
    options = {"cv": 2, "n_permutations": 20, **options}
    small = {"_TASK_FLOPS": 1.0, "STRIP": 16, "_AT_ONCE": 4}
    with mock.patch.multiple(nullplan, **small):
        return permutation_test(ridge, X, Y, **options)


def elsewhere(call, *args, **kwargs):
    """A call in this process."""
    with joblib.parallel_config(backend="loky"):
        return call(*args, **{"n_jobs": 1, **kwargs})


def assert_same(found, expected, names):
    found, expected = bits(found, names), bits(expected, names)
    assert found.keys() == expected.keys()
    assert [name for name in found if found[name] != expected[name]] == []


def wait_for(happened):
    end = time.monotonic() + PATIENCE
    while not happened():
        if time.monotonic() > end:
            raise TimeoutError(f"not within {PATIENCE} s")
        time.sleep(0.01)


# The same bits -----------------------------------------------------------------------------

SHARED = {"alpha_per_target": False}
TRACE = {**SHARED, "solver": "dual", "scoring": "neg_mean_squared_error"}
FITS = {
    "statistics": {"solver": "primal-statistics"},
    "products": {"solver": "primal-products", "standardize": True},
    "svd": {"solver": "svd-products"},
    "dual": {"solver": "dual-products"},
    "loo": {"cv": "loo"},
    "gcv": {"cv": "gcv"},
    "shared alpha in two stages": {**SHARED, "solver": "primal-statistics"},
    "shared alpha by the trace": TRACE,
}
TESTS = {
    "refit": {},
    "kept null": {"keep_null": True},
    "heldout": {"null": "heldout"},
    "shared alpha": {"model": SHARED},
    "shared alpha by the trace": {"model": TRACE},
    "stop": {"stop": "besag-clifford"},
    "leave-one-out inside": {"model": {"cv": "loo"}},
}


def test_the_engine_is_that_of_joblib(client):
    assert active_cluster() is None
    with on_dask():
        assert active_cluster() == "DaskDistributedBackend"
        assert count_workers(-1) == 2 and count_workers(3) == 3


@pytest.mark.parametrize("n_jobs", [-1, 3])
@pytest.mark.parametrize("name", FITS)
def test_fit(client, name, n_jobs):
    X, Y = problem(n=40, p=6, t=2100)
    expected = fit(X, Y, 1, **FITS[name])
    with on_dask():
        model = fit(X, Y, n_jobs, **FITS[name])
    assert model.plan_.n_workers == (2 if n_jobs < 0 else n_jobs)
    assert len(range(0, Y.shape[1], model.plan_.tile)) > 1
    assert_same(model, expected, FITTED)


def test_fit_with_coefficients_in_a_file(client):
    # a limit that leaves the strips of one worker and of two alike
    X, Y = problem(n=24, p=400, t=60_000)
    options = dict(solver="primal-products", memory_limit="340MB", cv=2)
    expected = fit(X, Y, 1, **options)
    with on_dask():
        model = fit(X, Y, -1, **options)
    assert model.plan_.coef_in_file and expected.plan_.coef_in_file
    assert model.plan_.strip == expected.plan_.strip
    assert_same(model, expected, FITTED)


@pytest.mark.parametrize("name", TESTS)
def test_permutation_test(client, name, tmp_path):
    X, Y = problem(n=30, p=4, t=100)
    expected = permute(X, Y, 1, **TESTS[name])
    with on_dask():
        result = permute(X, Y, -1, out=tmp_path, **TESTS[name])
    assert_same(result, expected, TESTED)


def test_a_run_goes_on_without_the_cluster_and_back(client, tmp_path):
    X, Y = problem(n=30, p=4, t=100)
    expected = permute(X, Y, 1, n_permutations=36)
    permute(X, Y, 1, n_permutations=12, out=tmp_path)
    with on_dask():
        permute(X, Y, -1, n_permutations=24, out=tmp_path)
    grown = permute(X, Y, 1, n_permutations=36, out=tmp_path)
    assert_same(grown, expected, ("scores", "pvalues", "pvalues_fwer", "null_max"))


# Sources -----------------------------------------------------------------------------------


class Columns:
    """A source that is no array: it keeps columns apart and makes blocks when asked."""

    def __init__(self, values):
        self.columns = [column.copy() for column in values.T]
        self.shape, self.dtype = values.shape, values.dtype

    def __getitem__(self, where):
        rows, columns = where
        return np.stack([column[rows] for column in self.columns[columns]], axis=1)


def as_path(values, path):
    np.save(path, values)
    return path


def as_memmap(values, path):
    return np.load(as_path(values, path), mmap_mode="r")


KINDS = {
    "ndarray": lambda values, path: values,
    "Fortran ndarray": lambda values, path: np.asfortranarray(values),
    "memmap": as_memmap,
    "view of a memmap": lambda values, path: as_memmap(np.repeat(values, 2, axis=0), path)[::2],
    "path": as_path,
    "path of a Fortran array": lambda values, path: as_path(np.asfortranarray(values), path),
    "object": lambda values, path: Columns(values),
}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("kind", KINDS)
def test_sources(client, kind, dtype, tmp_path):
    # one array larger than what travels by value, one smaller
    X, Y = (A.astype(dtype) for A in problem(n=150, p=6, t=2000))
    assert Y.nbytes > 1 << 20 > X.nbytes
    X, Y = KINDS[kind](X, tmp_path / "X.npy"), KINDS[kind](Y, tmp_path / "Y.npy")
    for solver in ("primal-products", "dual-products"):
        expected = fit(X, Y, 1, solver=solver)
        with on_dask():
            model = fit(X, Y, -1, solver=solver)
        assert_same(model, expected, FITTED)


@pytest.mark.parametrize("kind", KINDS)
def test_sources_of_a_permutation_test(client, kind, tmp_path):
    X, Y = problem(n=24, p=4, t=100)
    X, Y = KINDS[kind](X, tmp_path / "X.npy"), KINDS[kind](Y, tmp_path / "Y.npy")
    expected = permute(X, Y, 1, n_permutations=8)
    with on_dask():
        result = permute(X, Y, -1, n_permutations=8)
    assert_same(result, expected, TESTED)


# Factors -----------------------------------------------------------------------------------

_forbidden = mock.patch.object(Store, "fetch", side_effect=RuntimeError("factors in a worker"))


@contextlib.contextmanager
def no_factors_in_workers(client):
    """In workers, whoever asks the store for factors fails."""
    client.run(lambda: _forbidden.start() and None)
    try:
        yield
    finally:
        client.run(lambda: _forbidden.stop() and None)


def _ask_for_factors():
    Store(Path(), durable=False).fetch("factors", lambda folder: None)


@pytest.mark.parametrize("name", FITS)
def test_factors_are_computed_once_and_not_by_workers(client, name, tmp_path):
    X, Y = problem(n=40, p=6, t=1100)
    expected = fit(X, Y, 1, **FITS[name])
    with no_factors_in_workers(client), on_dask():
        with pytest.raises(RuntimeError, match="factors in a worker"):
            client.run(_ask_for_factors)
        first = fit(X, Y, -1, cache_dir=tmp_path, **FITS[name])
        second = fit(X, Y, -1, cache_dir=tmp_path, **FITS[name])
    assert first.factors_computed_ == expected.factors_computed_ > 0
    assert second.factors_computed_ == 0
    assert_same(second, expected, FITTED)


@pytest.mark.parametrize("name", TESTS)
def test_a_null_asks_for_no_factors_in_workers(client, name):
    X, Y = problem(n=24, p=4, t=100)
    with no_factors_in_workers(client), on_dask():
        permute(X, Y, -1, **{"n_permutations": 8, **TESTS[name]})


# Workers -----------------------------------------------------------------------------------


class Noting:
    """A source that notes that a worker has read it."""

    def __init__(self, values, folder):
        self.values, self.folder, self.owner = values, folder, os.getpid()
        self.shape, self.dtype = values.shape, values.dtype

    def __getitem__(self, where):
        if os.getpid() != self.owner:
            (self.folder / f"read-by-{os.getpid()}").touch()
        return self.values[where]


@pytest.mark.parametrize("run", [fit, permute])
def test_a_cluster_of_one_slot_is_used(client, run, tmp_path):
    # the user's own process may be on a login node, and an adaptive cluster starts with one
    X, Y = problem(n=24, t=100)
    expected = run(X, Y, 1)
    client.cluster.scale(1)
    try:
        wait_for(lambda: len(client.ncores()) == 1)
        with on_dask():
            found = run(X, Noting(Y, tmp_path), -1)
    finally:
        client.cluster.scale(2)
    assert_same(found, expected, FITTED if run is fit else TESTED)
    assert len(list(tmp_path.glob("read-by-*"))) == 1


class Threads:
    """Note how many threads a task has, for itself and in BLAS."""

    def __init__(self, folder):
        self.folder = folder

    def __call__(self, crew, task):
        found = {len(crew.slots), *_blas_threads()}
        (self.folder / str(task)).write_text(" ".join(map(str, found)))


def _blas_threads():
    return {
        library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"
    }


def _many_blas_threads():
    threadpool_limits(2, user_api="blas")
    return _blas_threads()


def test_one_thread_for_each_slot(client, tmp_path):
    assert list(client.run(_many_blas_threads).values()) == [{2}, {2}]
    with on_dask():
        map_tasks(Threads(tmp_path), range(8), 2, tmp_path)
    assert [(tmp_path / str(task)).read_text() for task in range(8)] == ["1"] * 8
    # and after it, for a neighbour in the same worker
    assert list(client.run(_blas_threads).values()) == [{1}, {1}]


@pytest.mark.slow
@pytest.mark.parametrize("name", TESTS)
def test_slots_that_are_threads_of_one_process(two_threads, name):
    X, Y = problem(n=30, p=4, t=100)
    expected = fit(X, Y, 1), permute(X, Y, 1, **TESTS[name])
    with on_dask():
        found = fit(X, Y, -1), permute(X, Y, -1, **TESTS[name])
    assert found[0].plan_.n_workers == 2
    assert_same(found[0], expected[0], FITTED)
    assert_same(found[1], expected[1], TESTED)


class InTurn:
    """A task that ends only after the one before it has been reported."""

    def __init__(self, folder):
        self.folder = folder

    def __call__(self, crew, task):
        if task > 0:
            wait_for((self.folder / str(task - 1)).exists)


def test_progress_while_tasks_run(client, tmp_path):
    with on_dask():
        map_tasks(InTurn(tmp_path), range(6), 2, tmp_path, lambda i: (tmp_path / str(i)).touch())
    assert len(list(tmp_path.iterdir())) == 6


def test_progress_bar(client, capsys):
    X, Y = problem(n=24, p=4, t=100)
    with on_dask():
        permute(X, Y, -1, progress=True)
    shown = capsys.readouterr().err
    for label, total in [("observed", 1), ("null", 20)]:
        assert f"{label}:   0%|" in shown and f"{label}: 100%|" in shown
        assert f"| {total}/{total} [" in shown


class Wrong(Targets):
    """An error of the user's own in every worker."""

    def happen(self):
        raise ZeroDivisionError("of the user")


def test_an_error_of_a_source_is_the_users(client, tmp_path):
    X, Y = problem()
    with on_dask():
        with pytest.raises(ZeroDivisionError, match="of the user"):
            fit(X, Wrong(Y), -1, cache_dir=tmp_path)
        assert not [path for path in tmp_path.iterdir() if "~" in path.name]
        with pytest.raises(InputError, match="NaN"):
            fit(X, np.where(Y > 0, Y, np.nan), -1)
        assert_same(fit(X, Y, -1), fit(X, Y, 1), FITTED)


# Killed workers ----------------------------------------------------------------------------


class Stuck(Targets):
    """The first worker that reads writes its process number and waits for its end."""

    def __init__(self, values, note):
        super().__init__(values)
        self.note = note

    def happen(self):
        with contextlib.suppress(FileExistsError), open(self.note, "x") as file:
            file.write(f"{os.getpid()}\n")
            file.flush()
            time.sleep(3600)


def kill_stuck(note, workers, killed):
    """SIGKILL the one of `workers` that is stuck; `killed` takes its process number."""
    wait_for(lambda: note.exists() and note.read_text().endswith("\n"))
    killed.append(int(note.read_text()))
    if killed[0] in workers:
        os.kill(killed[0], signal.SIGKILL)


@posix
@pytest.mark.parametrize(
    "name", ["fit", "refit", slow("heldout"), slow("shared alpha"), slow("stop")]
)
def test_killed_worker(client, name, tmp_path):
    X, Y = problem(n=30, p=4, t=100)
    run, names = (fit, FITTED) if name == "fit" else (permute, TESTED)
    options = TESTS.get(name, {})
    note, killed = tmp_path / "note", []
    expected = run(X, Y, 1, **options)
    before = set(client.run(os.getpid).values())
    killer = threading.Thread(target=kill_stuck, args=(note, before, killed))
    killer.start()
    with on_dask():
        found = run(X, Stuck(Y, note), -1, **options)
    killer.join()
    client.wait_for_workers(2, timeout=PATIENCE)
    assert set(killed) == before - set(client.run(os.getpid).values())
    assert_same(found, expected, names)


def start(program, *arguments, **environment):
    """A program in a process group of its own."""
    return subprocess.Popen(
        [sys.executable, "-c", program, *map(str, arguments)],
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env={**os.environ, **environment},
        start_new_session=True,
    )


@contextlib.contextmanager
def ended(process):
    """Whatever happens, nothing of the process or of its workers stays."""
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        process.stdout.close()


ALWAYS_KILLED = """
import joblib
from distributed import Client, LocalCluster
from ridgemm import WorkerError
from tests.faults import Deadly, problem
from tests.test_cluster import CLUSTER, fit, permute
X, Y = problem()
with (
    LocalCluster(**CLUSTER) as cluster,
    Client(cluster) as client,
    joblib.parallel_config(backend="dask"),
):
    for run in (fit, permute):
        client.wait_for_workers(2)
        try:
            run(X, Deadly(Y), -1)
        except WorkerError as error:
            print(type(error).__name__, error, flush=True)
    client.wait_for_workers(2)
    print(permute(X, Y, -1).scores.shape)
"""


@posix
def test_a_task_that_always_kills_its_worker(tmp_path):
    pytest.importorskip("distributed")
    # at the first death, or the test would wait for six more workers
    with ended(start(ALWAYS_KILLED, DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES="0")) as process:
        shown, _ = process.communicate(timeout=PATIENCE)
        assert process.returncode == 0
    first, second, last = shown.splitlines()
    for line in (first, second):
        assert line.startswith("WorkerError") and "n_jobs" in line and "memory_limit" in line
    # the cluster is of use still
    assert last == "(6,)"


INTERRUPTED = """
import sys
from pathlib import Path
import joblib
from distributed import Client, LocalCluster
from tests.faults import Gate, problem
from tests.test_cluster import CLUSTER, fit, permute
run, folder = {"fit": fit, "permute": permute}[sys.argv[1]], Path(sys.argv[2])
X, Y = problem(t=100)
Y = Gate(Y, folder / "reached", (folder, "scratch"))
with LocalCluster(**CLUSTER) as cluster, Client(cluster), joblib.parallel_config(backend="dask"):
    run(X, Y, -1)
"""


@posix
@pytest.mark.parametrize(
    ("run", "whom"), [slow("fit", "process"), slow("fit", "group"), ("permute", "group")]
)
def test_interrupt(run, whom, tmp_path):
    pytest.importorskip("distributed")
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    with ended(start(INTERRUPTED, run, tmp_path, TMPDIR=str(scratch))) as process:
        wait_for(lambda: (tmp_path / "reached").exists() or process.poll() is not None)
        assert process.poll() is None
        workers = psutil.Process(process.pid).children(recursive=True)
        assert len(workers) >= 2
        # a terminal sends it to the group
        (os.killpg if whom == "group" else os.kill)(process.pid, signal.SIGINT)
        assert process.wait(timeout=PATIENCE) == -signal.SIGINT
        _, alive = psutil.wait_procs(workers, timeout=PATIENCE)
        assert alive == []
    assert list(scratch.glob("ridgemm~*")) == []


# Files that a worker cannot see ------------------------------------------------------------


def check_hidden_file(run, name, folder):
    """An error that names a file that is open here and nowhere else, before any task began."""
    arrays = dict(zip("XY", problem(n=40, t=100), strict=True))
    # without a name in the file system: open here, nowhere for others
    path = folder / f"{name}.npy"
    hidden = as_memmap(arrays[name], path)
    path.unlink()
    seen = {k: Noting(A, folder) for k, A in arrays.items() if k != name}
    # in this process it is as good as any
    names = FITTED if run is fit else TESTED
    ref = elsewhere(run, **arrays)
    assert_same(elsewhere(run, **{name: hidden, **seen}), ref, names)
    with pytest.raises(StorageError) as caught:
        run(**{name: hidden, **seen}, n_jobs=-1)
    assert str(path) in str(caught.value)
    assert "file system" in str(caught.value) and "cache_dir" in str(caught.value)
    assert list(folder.glob("read-by-*")) == []


@posix
@pytest.mark.parametrize("run", [fit, permute])
@pytest.mark.parametrize("name", ["X", "Y"])
def test_a_file_that_workers_cannot_see(client, run, name, tmp_path):
    with on_dask():
        check_hidden_file(run, name, tmp_path)


# Slots, and what has not begun -------------------------------------------------------------


def run_alone(message, number, batch, n_threads):
    """A batch that fails while another one runs; every one leaves a file."""
    folder = Path(message.decode())
    (folder / "running").touch(exist_ok=False)
    time.sleep(0.01)
    (folder / "running").unlink()
    (folder / str(number)).touch()
    return number


def _nothing(message):
    pass


def check_no_more_slots_than_asked_for(folder):
    backend, message = get_active_backend()[0], str(folder).encode()
    engine = clusters.engine_of(backend)
    batches = {i: [i] for i in range(10)}
    # one of two slots
    done = engine(backend, _nothing, run_alone, message, batches, 1)
    assert sorted(done) == [*range(10)]
    assert len(list(folder.iterdir())) == 10


def test_no_more_slots_than_asked_for(client, tmp_path):
    with on_dask():
        check_no_more_slots_than_asked_for(tmp_path)


class Slow:
    """A task that takes a while, and leaves a file as it begins."""

    def __init__(self, folder):
        self.folder = folder

    def __call__(self, crew, task):
        (self.folder / str(task)).touch()
        time.sleep(0.02)


def interrupt(task):
    raise KeyboardInterrupt


def check_what_has_not_begun_does_not(folder, is_idle):
    with pytest.raises(KeyboardInterrupt):
        map_tasks(Slow(folder), range(200), 2, folder, interrupt)
    wait_for(is_idle)
    n_begun = len(list(folder.iterdir()))
    assert 0 < n_begun < 100
    # and that is all
    time.sleep(0.1)
    assert len(list(folder.iterdir())) == n_begun


def test_what_has_not_begun_does_not(client, tmp_path):
    with on_dask():
        check_what_has_not_begun_does_not(tmp_path, lambda: not any(client.processing().values()))


# Ray ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def ray():
    ray = pytest.importorskip("ray")
    register = pytest.importorskip("ray.util.joblib").register_ray
    register()
    paths = {"env_vars": {"PYTHONPATH": str(ROOT)}}
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, runtime_env=paths)
    yield ray
    ray.shutdown()


@pytest.fixture
def on_ray(ray):
    with joblib.parallel_config(backend="ray"):
        yield ray


@pytest.mark.slow
@pytest.mark.parametrize("name", FITS)
def test_fit_on_ray(on_ray, name, tmp_path):
    assert active_cluster() == "RayBackend"
    X, Y = problem(n=40, p=6, t=2100)
    found = fit(X, as_path(Y, tmp_path / "Y.npy"), -1, **FITS[name])
    assert found.plan_.n_workers == 2
    assert_same(found, elsewhere(fit, X, Y, **FITS[name]), FITTED)


@pytest.mark.slow
@pytest.mark.parametrize("name", TESTS)
def test_permutation_test_on_ray(on_ray, name, tmp_path):
    X, Y = problem(n=30, p=4, t=100)
    result = permute(X, Y, -1, out=tmp_path, **TESTS[name])
    assert_same(result, elsewhere(permute, X, Y, **TESTS[name]), TESTED)


@posix
@pytest.mark.slow
@pytest.mark.parametrize("run", [fit, permute])
def test_killed_worker_of_ray(on_ray, run, tmp_path):
    X, Y = problem(n=30, p=4, t=100)
    names = FITTED if run is fit else TESTED
    found = run(X, Deadly(Y, tmp_path / "killed"), -1)
    assert (tmp_path / "killed").exists()
    assert_same(found, elsewhere(run, X, Y), names)


@posix
@pytest.mark.slow
def test_a_task_that_always_kills_its_worker_of_ray(on_ray):
    X, Y = problem()
    with pytest.raises(WorkerError, match=r"(?s)Ray gave up .*n_jobs.*memory_limit"):
        fit(X, Deadly(Y), -1)
    assert_same(fit(X, Y, -1), elsewhere(fit, X, Y), FITTED)


@pytest.mark.slow
def test_an_error_of_a_source_is_the_users_on_ray(on_ray):
    X, Y = problem()
    with pytest.raises(ZeroDivisionError, match=r"^of the user$"):
        fit(X, Wrong(Y), -1)


@pytest.mark.slow
def test_progress_while_tasks_run_on_ray(on_ray, tmp_path):
    map_tasks(InTurn(tmp_path), range(6), 2, tmp_path, lambda i: (tmp_path / str(i)).touch())
    assert len(list(tmp_path.iterdir())) == 6


@pytest.mark.slow
def test_slots_and_what_has_not_begun_on_ray(on_ray, tmp_path):
    (tmp_path / "slots").mkdir()
    check_no_more_slots_than_asked_for(tmp_path / "slots")
    (tmp_path / "begun").mkdir()
    check_what_has_not_begun_does_not(
        tmp_path / "begun", lambda: on_ray.available_resources().get("CPU") == 2
    )


@posix
@pytest.mark.slow
def test_a_file_that_nodes_of_ray_cannot_see(on_ray, tmp_path):
    check_hidden_file(fit, "Y", tmp_path)
