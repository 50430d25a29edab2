"""How fast this machine is: measured once, kept in the user's cache folder.

The rates turn a plan's flops and bytes into seconds. They are measured on what runs use: strips
of float32 products, one BLAS thread each; a float64 eigendecomposition; the kernel that reads
a tile.
"""

import contextlib
import json
import os
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import llvmlite.binding
import numpy as np

from ridgemm import blas
from ridgemm.backends import describe
from ridgemm.kernels import column_moments
from ridgemm.mapreduce import Crew, one_blas_thread, threads_per_worker
from ridgemm.private import private_name, remove
from ridgemm.tiles import spans

_FORMAT = 2
_STRIP = 512
_ROWS = 1024
_ORDER = 384
_LARGE = 64 << 20  # beyond any cache


@dataclass(frozen=True)
class Rates:
    """Rates of one machine, all its cores together.

    Attributes
    ----------
    product : float
        Flops per second of float32 products.
    product_double : float
        Of float64 products.
    eigen : float
        ``n^3`` per second of a float64 eigendecomposition, on one core.
    reading : float
        Bytes per second of a float32 array in RAM, beyond any cache.
    n_cores : int
    """

    product: float
    product_double: float
    eigen: float
    reading: float
    n_cores: int


def machine_rates() -> Rates:
    """Rates of this machine, from the file that keeps them or measured now (about a second)."""
    path = _cache_file()
    chosen = describe()
    name = [_FORMAT, llvmlite.binding.get_host_cpu_name(), chosen["version"], chosen["kernels"]]
    name = json.dumps([*name, chosen["backend"], threads_per_worker(1)])
    kept: dict = {}
    with contextlib.suppress(OSError, ValueError, TypeError, RecursionError):
        kept = dict(json.loads(path.read_text()))
        rates = Rates(**kept[name]) if name in kept else None
        if rates is not None and all(0 < value < float("inf") for value in vars(rates).values()):
            return rates
    rates = measure()
    # a folder that cannot be written costs a second at every call, no more
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(private_name(path.name))
        try:
            partial.write_text(json.dumps({**kept, name: asdict(rates)}, indent=1))
            os.replace(partial, path)
        finally:
            remove(partial)
    return rates


def _cache_file() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "ridgemm" / "rates.json"


def measure() -> Rates:
    """Measure the rates of this machine.

    Examples
    --------
    >>> measure().product > 0
    True
    """
    n_cores = threads_per_worker(1)
    rng = np.random.default_rng(0)
    width = _STRIP * n_cores * 2
    x = rng.standard_normal((_ROWS, _ROWS), dtype=np.float32)
    y = rng.standard_normal((_ROWS, width), dtype=np.float32)
    out = np.empty_like(y)
    large = np.zeros((_LARGE // (4 * width), width), dtype=np.float32)
    sums = np.zeros((2, width))
    A = x[:_ORDER, :_ORDER].astype(np.float64)
    A = A + A.T
    with Crew(n_cores) as crew:

        def product(_: int, strip: slice) -> None:
            blas.gemm(x, y[:, strip], out[:, strip])

        def reading(_: int, strip: slice) -> None:
            column_moments(large[:, strip], sums[0, strip], sums[1, strip])

        strips = spans(width, _STRIP)
        single = _seconds(lambda: crew.team.run(product, strips))
        read = _seconds(lambda: crew.team.run(reading, strips))
        x, y, out = (array.astype(np.float64) for array in (x, y, out))
        double = _seconds(lambda: crew.team.run(product, strips))
    with one_blas_thread(True):
        eigen = _seconds(lambda: np.linalg.eigh(A))
    flops = 2.0 * _ROWS * _ROWS * width
    return Rates(flops / single, flops / double, _ORDER**3 / eigen, large.nbytes / read, n_cores)


def _seconds(function: Callable[[], object]) -> float:
    """Median of five calls, after one that warms up."""
    function()
    times = []
    for _ in range(5):
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return statistics.median(times)
