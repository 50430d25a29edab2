"""How fast this machine is: measured once, kept in the user's cache folder.

The rates turn a plan's flops and bytes into seconds. They are measured on what runs use: strips
of float32 products, one BLAS thread each; float64 eigendecompositions, small and large; the kernel
that reads a tile.
"""

import contextlib
import json
import os
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import llvmlite.binding
import numpy as np

from ridgemm import blas
from ridgemm.backends import bfloat16, describe
from ridgemm.kernels import column_moments
from ridgemm.lapack import Matrices, eigh
from ridgemm.mapreduce import Crew, one_blas_thread, threads_per_worker
from ridgemm.private import private_name, remove
from ridgemm.products import PRECISIONS, multiply
from ridgemm.tiles import spans

_FORMAT = 4
_STRIP = 512
_ROWS = 1024
_ORDER, _LARGE_ORDER = 384, 1536
_LARGE = 64 << 20  # beyond any cache


@dataclass(frozen=True)
class Rates:
    """Rates of one machine, all its cores together.

    Attributes
    ----------
    product, product_mixed, product_bf16 : float
        Flops per second of float32 products, in every precision; that of "single" where there are
        no matrix units.
    product_double : float
        Of float64 products.
    eigen : float
        ``n^3`` per second of a small float64 eigendecomposition, on one core.
    eigen_large : float
        The same of a large one, on all cores.
    reading : float
        Bytes per second of a float32 array in RAM, beyond any cache.
    n_cores : int
    """

    product: float
    product_mixed: float
    product_bf16: float
    product_double: float
    eigen: float
    eigen_large: float
    reading: float
    n_cores: int

    def products(self, precision: str) -> float:
        """Flops per second of products with targets."""
        return self.product if precision == "single" else getattr(self, f"product_{precision}")


def machine_rates() -> Rates:
    """Rates of this machine, from the file that keeps them or measured now (about two seconds)."""
    path = _cache_file()
    chosen = describe()
    name = [_FORMAT, llvmlite.binding.get_host_cpu_name(), chosen["version"], chosen["kernels"]]
    units = bfloat16()
    name += [chosen["backend"], units and units.name, threads_per_worker(1)]
    name = json.dumps(name)
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
    with Crew(n_cores) as crew:

        def product(slot: int, strip: slice, precision: str) -> None:
            multiply(x, y[:, strip], out[:, strip], precision, crew.slots[slot])

        def double_product(_: int, strip: slice) -> None:
            blas.gemm(x, y[:, strip], out[:, strip])

        def reading(_: int, strip: slice) -> None:
            column_moments(large[:, strip], sums[0, strip], sums[1, strip])

        strips = spans(width, _STRIP)
        single, *others = (
            _seconds(lambda p=p: crew.team.run(partial(product, precision=p), strips))
            for p in (PRECISIONS if bfloat16() else PRECISIONS[:1])
        )
        read = _seconds(lambda: crew.team.run(reading, strips))
        x, y, out = (array.astype(np.float64) for array in (x, y, out))
        double = _seconds(lambda: crew.team.run(double_product, strips))
    with one_blas_thread(True):
        eigen = _eigen(_ORDER, 9)
    flops = 2.0 * _ROWS * _ROWS * width
    return Rates(
        *(flops / seconds for seconds in (single, *(others or (single, single)), double)),
        eigen,
        _eigen(_LARGE_ORDER, 3),
        large.nbytes / read,
        n_cores,
    )


def _eigen(order: int, repeats: int) -> float:
    A = np.random.default_rng(0).standard_normal((order, order))
    A += A.T
    work = np.empty_like(A)

    def solve() -> None:
        work[...] = A
        eigh(work, Matrices())

    return order**3 / _seconds(solve, repeats)


def _seconds(function: Callable[[], object], repeats: int = 9) -> float:
    """Of the fastest of some calls, after one that warms up.

    What else runs slows some of them; the file would keep it for ever.
    """
    function()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return min(times)
