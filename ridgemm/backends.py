"""Which library the products run on, and how it is found.

A backend is a library with the Fortran routines of BLAS and LAPACK for 32-bit integers:

======  =======================================================================================
scipy   What SciPy was built with, through the table that it publishes for Cython.
mkl     The package ``mkl`` (extra ``[mkl]``), beside whatever NumPy and SciPy use.
======  =======================================================================================

The environment variable ``RIDGEMM_BLAS`` names one; otherwise mkl is taken where it is
installed and the processor is Intel's: on others it leaves half of their speed unused. The
choice is made once, on import, before any thread is counted, so that threads of the chosen
library are capped with those of all others.

Products of bfloat16 matrices are oneMKL's or oneDNN's (`bfloat16`), whichever library makes the
others.
"""

import ctypes
import functools
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import llvmlite.binding
from scipy.linalg import cython_blas, cython_lapack
from threadpoolctl import ThreadpoolController

from ridgemm import cores, onednn
from ridgemm.errors import InputError

NAMES = ("scipy", "mkl")
_VARIABLE = "RIDGEMM_BLAS"
# MKL_CBWR_AUTO | MKL_CBWR_STRICT
_REPRODUCIBLE = 0x2 | 0x10000
_FILES = {"mkl": ("libmkl_rt.so*", "mkl_rt*.dll"), "onednn": ("libdnnl.so.3", "dnnl.dll")}
# OpenBLAS's kernels for 256 bits, and what to do where the processor has 512
_NARROW = ("Haswell", "Zen")
_HINT = (
    f"set {cores.VARIABLE}={cores.WIDE} before Python starts: OpenBLAS does not know this processor"
)
# for tests of the numerics where there are no matrix units
_EMULATE = "RIDGEMM_EMULATE_BFLOAT16"


@dataclass(frozen=True)
class Backend:
    """A loaded library.

    Attributes
    ----------
    name : str
        One of `NAMES`, or "onednn".
    path : str, optional
        The file; None for scipy.
    address : callable
        From the name of a Fortran routine, such as "sgemm", to its address; oneDNN has none.
    """

    name: str
    path: str | None
    address: Callable[[str], int]


@functools.cache
def backend() -> Backend:
    """Load the backend of this process, once.

    Raises
    ------
    InputError
        ``RIDGEMM_BLAS`` names none, or one that is not installed.
    """
    wanted = os.environ.get(_VARIABLE)
    if not wanted:
        return next(filter(None, (_load(name) for name in _preferred())))
    if wanted not in NAMES:
        raise InputError(f"{_VARIABLE}={wanted!r} must be one of {', '.join(NAMES)}.")
    found = _load(wanted)
    if found is None:
        raise InputError(
            f"{_VARIABLE}={wanted!r}, but it is not installed; pip install 'ridgemm[{wanted}]', "
            f"or unset {_VARIABLE}."
        )
    return found


@functools.cache
def bfloat16() -> Backend | None:
    """The library of bfloat16 products where they are fast.

    oneMKL on a processor with AMX; oneDNN there without oneMKL, and on one with AVX512_BF16.
    ``RIDGEMM_EMULATE_BFLOAT16=1`` makes the same products of float32 matrices, slowly, anywhere.
    """
    if os.environ.get(_EMULATE) == "1":
        return Backend("emulated", None, _no_routine)
    chosen = backend()
    if has_amx() and (mkl := chosen if chosen.name == "mkl" else _load("mkl")):
        return mkl
    return _load("onednn") if has_amx() or has_bfloat16() else None


def has_amx() -> bool:
    """Whether the processor has matrix units for bfloat16."""
    return cores.has("amx-bf16")


def has_bfloat16() -> bool:
    """Whether its vector units multiply bfloat16, at about twice the rate of float32."""
    return cores.has("avx512bf16")


@functools.cache
def libraries() -> ThreadpoolController:
    """Control of the threads of all loaded libraries, the backend's among them."""
    # looking for the loaded libraries takes longer than a small fit
    backend()
    bfloat16()
    return ThreadpoolController()


def describe() -> dict[str, str | int | None]:
    """Name, version, kernels, threads and file of the backend.

    Examples
    --------
    >>> describe()["backend"] in NAMES
    True
    """
    chosen = backend()
    found = [library for library in libraries().info() if library["user_api"] == "blas"]
    # SciPy's table does not say which library it points into: its wheel has its own
    place = chosen.path or "scipy."
    mine = [library for library in found if place in library["filepath"]] or found or [{}]
    return {
        "backend": chosen.name,
        "library": mine[0].get("internal_api"),
        "version": mine[0].get("version"),
        "kernels": mine[0].get("architecture"),
        "threads": mine[0].get("num_threads"),
        "file": mine[0].get("filepath"),
    }


def show_config() -> None:
    """Print which BLAS makes the products, for which processor, on how many threads.

    ``kernels`` is the instruction set as the library names it ("SkylakeX" and "Cooperlake" are
    AVX-512, "Haswell" and "Zen" AVX2). A library that does not know a processor may leave half of
    its speed unused: ``hint`` says so. ``bfloat16`` is the library that ``precision="mixed"`` and
    ``"bf16"`` use, None where there is none.

    Examples
    --------
    >>> import ridgemm
    >>> ridgemm.show_config()  # doctest: +ELLIPSIS
    processor   ...
    backend     ...
    """
    matrix = bfloat16()
    rows = {"processor": llvmlite.binding.get_host_cpu_name()} | describe()
    rows["bfloat16"] = matrix and matrix.name
    if rows["kernels"] in _NARROW and cores.has("avx512f"):
        rows["hint"] = _HINT
    for name, value in rows.items():
        print(f"{name:12}{value}")


def _preferred() -> tuple[str, ...]:
    return ("scipy",) if cores.is_amd() else ("mkl", "scipy")


def _no_routine(name: str) -> None:
    return None


def _load(name: str) -> Backend | None:
    """The library of a name, None if it is not installed."""
    if name == "scipy":
        return Backend(name, None, _scipy_address)
    path = _installed(name)
    if path is None:
        return None
    if name == "onednn":
        return Backend(name, str(path), _no_routine) if onednn.usable(str(path)) else None
    library = ctypes.CDLL(str(path))
    # the same bits on any number of threads; only before its first product
    library.MKL_CBWR_Set(_REPRODUCIBLE)

    def address(routine: str) -> int:
        return ctypes.cast(getattr(library, routine + "_"), ctypes.c_void_p).value

    return Backend(name, str(path), address)


def _scipy_address(routine: str) -> int:
    api = ctypes.pythonapi
    api.PyCapsule_GetName.restype = ctypes.c_char_p
    api.PyCapsule_GetName.argtypes = [ctypes.py_object]
    api.PyCapsule_GetPointer.restype = ctypes.c_void_p
    api.PyCapsule_GetPointer.argtypes = [ctypes.py_object, ctypes.c_char_p]
    capsule = (cython_blas.__pyx_capi__ | cython_lapack.__pyx_capi__)[routine]
    return api.PyCapsule_GetPointer(capsule, api.PyCapsule_GetName(capsule))


def _installed(name: str) -> Path | None:
    # wheels put their libraries beside those of the environment
    for folder in (Path(sys.prefix) / "lib", Path(sys.prefix) / "Library" / "bin"):
        for pattern in _FILES[name]:
            if (found := _first(folder, pattern)) is not None:
                return found
    return None


def _first(folder: Path, pattern: str) -> Path | None:
    return next(iter(sorted(folder.glob(pattern))), None)
