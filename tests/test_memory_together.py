"""`memory_limit` bounds parent and workers together: under a control group of the kernel.

The group's limit is what importing took, `memory_limit`, and `SLACK` for what the kernel itself
keeps for the processes and for file cache, which counts in a group. Who takes more is killed.
Meanwhile the anonymous memory of all processes is sampled, which leaves the file cache out: that
sum has to stay below `memory_limit` without any slack.
"""

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from bench._memory import family_bytes, peak_memory
from ridgemm.mapreduce import Crew, map_tasks
from tests.test_memory import MB, ROOT, SHARED, Case, run, smallest_limit, write

pytestmark = pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="anonymous memory is told apart on Linux only"
)

#: Page tables, stacks and buffers of the kernel, and file cache enough to go on.
SLACK = 32 * MB

# -- in the child -------------------------------------------------------------------------------


def here(folder: Path, n_jobs: int, _: Crew, __: int) -> None:
    """Wait until all workers are here."""
    (folder / f"worker-{os.getpid()}").touch()
    deadline = time.monotonic() + 300
    while len([*folder.glob("worker-*")]) < n_jobs:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def main(fields: list, folder: Path, limit: int) -> None:
    """Import, start the workers, and run a case once a line comes from stdin."""
    case = Case(*fields)
    if case.n_jobs > 1:
        map_tasks(partial(here, folder, case.n_jobs), range(case.n_jobs), case.n_jobs, folder)
    print("ready", flush=True)
    sys.stdin.readline()
    if case.run == "hog":
        np.ones((limit + 2 * SLACK) // 8)
    else:
        run(case, folder, limit)
    print("done", flush=True)
    # until it has been looked at
    sys.stdin.readline()


CHILD = """
import json, os, sys
from pathlib import Path
os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:2])
from tests.test_memory_together import main
main(json.loads(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]))
"""


# -- in pytest ----------------------------------------------------------------------------------


class Group:
    """A control group for memory, of either version, below the one of this process."""

    def __init__(self):
        self.why_not = ""
        for root, below, limit, swap in (
            ("/sys/fs/cgroup/memory", "memory", "memory.limit_in_bytes", "memory.swappiness"),
            ("/sys/fs/cgroup", "", "memory.max", "memory.swap.max"),
        ):
            self.folder = Path(root + _own_group(below)) / f"ridgemm-test-{os.getpid()}"
            self.limit, self.swap = self.folder / limit, self.folder / swap
            try:
                self.folder.mkdir()
            except OSError as error:
                self.why_not = f"no control group can be made: {error}"
                continue
            if self.limit.exists():
                self.why_not = ""
                if self.swap.exists():
                    self.swap.write_text("0")
                return
            self.folder.rmdir()
            self.why_not = "the controller of memory is not there for a new control group"

    def enter(self) -> None:
        (self.folder / "cgroup.procs").write_text(str(os.getpid()))

    def remove(self) -> None:
        # the last process may still be on its way out
        deadline = time.monotonic() + 60
        while self.folder.exists():
            try:
                self.folder.rmdir()
            except OSError:
                assert time.monotonic() < deadline
                time.sleep(0.05)


def _own_group(controller: str) -> str:
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if controller in controllers.split(","):
            return path
    return ""


@pytest.fixture
def group():
    group = Group()
    if group.why_not:
        pytest.skip(group.why_not)
    yield group
    group.remove()


def start(case: Case, folder: Path, limit: int, enter=None) -> subprocess.Popen:
    """A child that has imported and has its workers."""
    process = subprocess.Popen(
        [sys.executable, "-c", CHILD, json.dumps(case), str(folder), str(limit)],
        cwd=ROOT,
        env=os.environ | {"TMPDIR": str(folder)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=enter,
    )
    assert answer(process) == "ready\n"
    return process


def answer(process: subprocess.Popen) -> str:
    """The next line of a child; "" from one that is dead, whose workers may hold the pipe open."""
    deadline = time.monotonic() + 300
    while not select.select([process.stdout], [], [], 0.2)[0]:
        if process.poll() is not None or time.monotonic() > deadline:
            return ""
    return process.stdout.readline()


def finish(process: subprocess.Popen) -> tuple[str, int]:
    """What a child says, and the most that it and its workers held above what they began with."""
    try:
        with peak_memory(process.pid) as memory:
            process.stdin.write("go\n")
            process.stdin.flush()
            said = answer(process)
        if said:
            process.stdin.close()
            process.wait(60)
        return said, memory.peak - memory.baseline
    finally:
        # its workers too
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(60)
        process.stdin.close()
        process.stdout.close()


@pytest.fixture
def ready(tmp_path):
    """Files of a case and the limit that a refusal names; kernels are compiled by then."""

    def make(case: Case) -> tuple[Path, int]:
        folder = tmp_path / "case"
        write(case, folder)
        write(case.tiny, folder / "tiny")
        run(case.tiny._replace(n_jobs=1), folder / "tiny", None)
        return folder, case.limit or smallest_limit(case, folder)

    return make


CASES = [
    Case(400, 60, 60_000, "primal-statistics", n_jobs=1),
    Case(400, 60, 60_000, "primal-statistics", n_jobs=2),
    Case(300, 800, 20_000, "dual-products", n_jobs=3, limit=300 * MB),
    Case(600, 700, 300, "svd-products", 2, n_jobs=2),
    Case(300, 40, 20_000, "primal-statistics", 3, "refit", n_jobs=2),
    Case(300, 400, 20_000, "dual-operators", 3, "heldout", n_jobs=3),
    Case(900, 300, 3000, "dual-operators", 2, "refit", **SHARED, n_jobs=2),
]


#: Left out of the short suite, which has a fit and a null.
LONG = [CASES[i] for i in (0, 2, 3, 4, 6)]


@pytest.mark.parametrize(
    "case",
    [pytest.param(case, marks=[pytest.mark.slow] * (case in LONG)) for case in CASES],
    ids=str,
)
def test_all_processes_together_under_a_control_group(case, group, ready):
    folder, limit = ready(case)
    process = start(case, folder, limit, group.enter)
    group.limit.write_text(str(family_bytes(process.pid) + limit + SLACK))
    said, together = finish(process)
    assert said == "done\n" and process.returncode == 0
    assert together <= limit, f"{together} bytes of {limit}"


@pytest.mark.parametrize("n_jobs", [1, 2])
def test_a_control_group_kills_who_takes_more(n_jobs, group, ready):
    case = Case(40, 5, 10, "primal-statistics", run="fit", n_jobs=n_jobs, limit=64 * MB)
    folder, limit = ready(case)
    process = start(case._replace(run="hog"), folder, limit, group.enter)
    group.limit.write_text(str(family_bytes(process.pid) + limit + SLACK))
    said, _ = finish(process)
    assert said == "" and process.returncode == -9


@pytest.mark.parametrize(
    "case", [CASES[1], pytest.param(CASES[4], marks=pytest.mark.slow)], ids=str
)
def test_all_processes_together_by_samples(case, ready):
    folder, limit = ready(case)
    said, together = finish(start(case, folder, limit))
    assert said == "done\n" and 0 < together <= limit, f"{together} bytes of {limit}"
