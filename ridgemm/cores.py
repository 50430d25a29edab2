"""Kernels that OpenBLAS is asked for where it does not know the processor. Loads no BLAS."""

import os
import sys

import llvmlite.binding

VARIABLE = "OPENBLAS_CORETYPE"
WIDE = "SkylakeX"


def is_amd() -> bool:
    """Whether the processor is one of AMD's."""
    return llvmlite.binding.get_host_cpu_name().startswith(("znver", "bdver", "btver"))


def has(feature: str) -> bool:
    """Whether the processor has an instruction set, by LLVM's name."""
    return bool(llvmlite.binding.get_host_cpu_features().get(feature, False))


def ask_for_wide() -> None:
    """Let OpenBLAS use AVX-512 on AMD's processors: those of SciPy's wheels do not know Zen 5.

    For a program, as its first act: what is loaded already has made its choice, and then nothing
    is done, so that NumPy, SciPy and worker processes, which inherit the environment, all agree.
    What the environment says already stays.
    """
    if "numpy" not in sys.modules and is_amd() and has("avx512f"):
        os.environ.setdefault(VARIABLE, WIDE)
