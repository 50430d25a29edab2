"""The memory limit is kept: a fit under the operating system's own limit, of targets larger."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.marks import slow

ROOT = Path(__file__).parents[1]

pytestmark = pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="RLIMIT_DATA counts what it should on Linux only"
)

# Private writable memory (VmData, what RLIMIT_DATA bounds) is what `memory_limit` speaks of:
# file mappings do not count. Compiling and loading libraries come before: a tiny fit does both.
SCRIPT = """
import resource, sys
import numpy as np
from ridgemm import RidgeCV
from ridgemm.mapreduce import threads_per_worker
from tests.buffers import reserve_buffers

folder, solver, cv, limit = sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])
options = dict(solver=solver, cv=int(cv) if cv.isdigit() else cv)
rng = np.random.default_rng(0)
reserve_buffers(threads_per_worker(1))
RidgeCV([1.0, 10.0], **options).fit(
    rng.random((90, 20), dtype=np.float32), rng.random((90, 600), dtype=np.float32)
)

def data_bytes():
    with open("/proc/self/status") as status:
        line = next(line for line in status if line.startswith("VmData"))
    return int(line.split()[1]) * 1024

allowed = data_bytes() + limit
resource.setrlimit(resource.RLIMIT_DATA, (allowed, allowed))
try:
    # well above: stacks of threads that are just ending are counted in `allowed`
    np.empty(limit + (64 << 20), dtype=np.uint8)
except MemoryError:
    print("limit holds")
model = RidgeCV([1.0, 10.0], memory_limit=limit, cache_dir=folder, **options)
model.fit(folder + "/X.npy", folder + "/Y.npy")
print(model.route_, model.coef_.shape[0], bool(np.isfinite(model.best_score_).all()))
"""


@pytest.mark.parametrize(
    ("solver", "cv", "shape"),
    [
        ("primal-statistics", "3", (2000, 50)),
        slow("primal-products", "3", (2000, 50)),
        ("svd-products", "3", (2000, 50)),
        ("primal-loo", "loo", (2000, 50)),
        slow("dual-products", "3", (400, 1000)),
        ("dual-gcv", "gcv", (400, 1000)),
    ],
)
def test_targets_larger_than_the_memory_limit(solver, cv, shape, tmp_path):
    n, p = shape
    limit = 112 << 20
    n_targets = (160 << 20) // (4 * n)
    rng = np.random.default_rng(0)
    np.save(tmp_path / "X.npy", rng.random((n, p), dtype=np.float32))
    Y = np.lib.format.open_memmap(tmp_path / "Y.npy", "w+", np.float32, (n, n_targets))
    for i in range(n):
        Y[i] = rng.random(n_targets, dtype=np.float32)
    assert Y.nbytes > limit
    command = [sys.executable, "-c", SCRIPT, str(tmp_path), solver, cv, str(limit)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["limit holds", f"{solver} {n_targets} True"]
