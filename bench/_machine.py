"""What a benchmark ran on: processor, BLAS, its speed at that moment, versions."""

from __future__ import annotations

import os
import platform
import statistics
import time
from importlib import metadata
from pathlib import Path

import numpy as np
import scipy.linalg  # noqa: F401  (loads SciPy's BLAS, for threadpoolctl to see)
from threadpoolctl import threadpool_info

PACKAGES = ("numpy", "scipy", "numba", "joblib", "scikit-learn", "himalaya", "torch", "ridgemm")


def sgemm_gflops(size: int) -> float:
    """Return the speed of a float32 product ``(size, size) @ (size, size)``, median of 3."""
    A = np.full((size, size), 0.5, dtype=np.float32)
    B, out = A.copy(), A.copy()
    seconds = []
    for _ in range(3):
        start = time.perf_counter()
        np.matmul(A, B, out=out)
        seconds.append(time.perf_counter() - start)
    return 2e-9 * size**3 / statistics.median(seconds)


def machine() -> dict:
    """Return cores, processor, architecture and the BLAS libraries in use."""
    keys = ("internal_api", "version", "architecture", "threading_layer", "num_threads")
    return {
        "cores": _n_cores(),
        "cpu": _cpu_model(),
        "architecture": platform.machine(),
        "blas": [
            {key: library.get(key) for key in keys}
            for library in threadpool_info()
            if library["user_api"] == "blas"
        ],
    }


def versions() -> dict:
    """Return the versions of Python and of the packages compared, None if not installed."""
    return {"python": platform.python_version()} | {name: _version(name) for name in PACKAGES}


def _n_cores() -> int:
    if hasattr(os, "sched_getaffinity"):  # Linux: what this process may use
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _cpu_model() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor()


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
