"""The choice of the BLAS, each in a process of its own: it is made on import."""

import _ctypes
import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from ridgemm import backends, onednn

ROOT = Path(__file__).parents[1]

PRODUCT = """
import numpy as np
from ridgemm import backends, blas
rng = np.random.default_rng(0)
A = rng.standard_normal((7, 5)).astype(np.float32)
out = np.empty((5, 5), np.float32)
blas.gemm(A.T, A, out)
np.testing.assert_allclose(out, A.astype(float).T @ A, rtol=1e-5, atol=1e-5)
print(backends.describe()["backend"], end="")
"""


def run(code, **environment):
    environment = {**os.environ, **environment}
    command = [sys.executable, "-W", "error", "-c", code]
    return subprocess.run(command, env=environment, capture_output=True, text=True)


def test_scipy_is_there_for_the_asking():
    finished = run(PRODUCT, RIDGEMM_BLAS="scipy")
    assert finished.stdout == "scipy", finished.stderr


@pytest.mark.skipif(backends._installed("mkl") is None, reason="mkl is not installed")
def test_mkl_makes_the_same_products():
    finished = run(PRODUCT, RIDGEMM_BLAS="mkl")
    assert finished.stdout == "mkl", finished.stderr


@pytest.mark.skipif(backends._installed("mkl") is not None, reason="mkl is installed")
def test_a_backend_that_is_not_installed_is_named_with_the_remedy():
    finished = run("import ridgemm.blas", RIDGEMM_BLAS="mkl")
    assert "InputError" in finished.stderr and "ridgemm[mkl]" in finished.stderr


def test_an_unknown_backend_is_refused_with_the_choices():
    finished = run("import ridgemm.blas", RIDGEMM_BLAS="atlas")
    assert "'atlas' must be one of scipy, mkl" in finished.stderr


def test_its_threads_are_capped_with_all_others():
    controlled = [library["filepath"] for library in backends.libraries().info()]
    file = backends.describe()["file"]
    assert file in controlled


@pytest.mark.skipif(platform.machine() != "x86_64", reason="other kernels")
@pytest.mark.parametrize("kernels", ["Haswell", pytest.param("Nehalem", marks=pytest.mark.slow)])
def test_bits_are_kept_on_kernels_that_round_by_the_place_of_a_column(kernels):
    # those of AVX-512, on which most of us develop, give a column the same bits anywhere
    tests = "threads_give_the_same_bits or tiles_do_not_matter"
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", tests]
    environment = {**os.environ, "OPENBLAS_CORETYPE": kernels, "RIDGEMM_BLAS": "scipy"}
    finished = subprocess.run(
        [*command, "tests/test_fit.py"], env=environment, cwd=ROOT, capture_output=True, text=True
    )
    assert finished.returncode == 0, finished.stdout


@pytest.mark.parametrize("processor", ["znver5", "skylake-avx512"])
def test_mkl_is_preferred_on_processors_that_are_not_amds(monkeypatch, processor):
    monkeypatch.setattr(backends.cores.llvmlite.binding, "get_host_cpu_name", lambda: processor)
    assert ("mkl" in backends._preferred()) == (processor == "skylake-avx512")


LIBRARY = {name: backends.Backend(name, f"lib{name}.so", None) for name in ("mkl", "onednn")}


@pytest.mark.parametrize(
    ("features", "installed", "taken"),
    [
        ({"amx-bf16", "avx512bf16"}, {"mkl", "onednn"}, "mkl"),
        ({"amx-bf16", "avx512bf16"}, {"onednn"}, "onednn"),
        ({"amx-bf16", "avx512bf16"}, set(), None),
        # oneMKL makes such products of float32 ones where there are no matrix units
        ({"avx512bf16"}, {"mkl", "onednn"}, "onednn"),
        ({"avx512bf16"}, {"mkl"}, None),
        ({"avx512f"}, {"mkl", "onednn"}, None),
    ],
)
def test_bfloat16_products_go_where_they_are_fast(features, installed, taken, monkeypatch):
    monkeypatch.delenv("RIDGEMM_EMULATE_BFLOAT16", raising=False)
    monkeypatch.setattr(backends.cores, "has", features.__contains__)
    monkeypatch.setattr(
        backends, "_load", lambda name: LIBRARY[name] if name in installed else None
    )
    monkeypatch.setattr(backends, "backend", lambda: backends.Backend("scipy", None, None))
    library = backends.bfloat16.__wrapped__()
    assert (library and library.name) == taken


def test_a_file_that_is_not_onednn_is_not_taken(tmp_path):
    broken = tmp_path / "libdnnl.so.3"
    broken.write_bytes(b"no library")
    assert not onednn.usable(str(broken))
    # a library, of something else
    assert not onednn.usable(_ctypes.__file__)


@pytest.mark.parametrize(
    ("kernels", "features", "hinted"),
    [
        ("Haswell", {"avx512f"}, True),
        ("Zen", {"avx512f"}, True),
        ("SkylakeX", {"avx512f"}, False),
        ("Haswell", set(), False),
        (None, {"avx512f"}, False),
    ],
)
def test_narrow_kernels_on_a_wide_processor_are_pointed_out(
    kernels, features, hinted, monkeypatch, capsys
):
    monkeypatch.setattr(backends.cores, "has", features.__contains__)
    monkeypatch.setattr(backends, "describe", lambda: {"kernels": kernels})
    backends.show_config()
    assert ("OPENBLAS_CORETYPE=SkylakeX" in capsys.readouterr().out) == hinted


ASK = """
import os
import llvmlite.binding
llvmlite.binding.get_host_cpu_name = lambda: {name!r}
llvmlite.binding.get_host_cpu_features = lambda: {{"avx512f": {wide}}}
{first}
from ridgemm import cores
cores.ask_for_wide()
print(os.environ.get("OPENBLAS_CORETYPE"), end="")
"""


@pytest.mark.parametrize(
    ("name", "wide", "first", "environment", "expected"),
    [
        ("znver5", True, "", {}, "SkylakeX"),
        ("znver5", True, "", {"OPENBLAS_CORETYPE": "Haswell"}, "Haswell"),
        # it has chosen already, and workers are to do as it does
        ("znver5", True, "import numpy", {}, "None"),
        ("znver3", False, "", {}, "None"),
        ("sapphirerapids", True, "", {}, "None"),
    ],
)
def test_a_program_asks_openblas_for_wide_kernels(
    name, wide, first, environment, expected, monkeypatch
):
    monkeypatch.delenv("OPENBLAS_CORETYPE", raising=False)
    finished = run(ASK.format(name=name, wide=wide, first=first), **environment)
    assert finished.stdout == expected, finished.stderr


def test_the_command_line_asks_before_it_loads_numpy():
    code = (
        "import sys\n"
        "from ridgemm import cores\n"
        "cores.ask_for_wide = lambda: print('asked', 'numpy' in sys.modules, end='')\n"
        "from ridgemm.commands import main\n"
        "main(['verify', 'nothing'])"
    )
    assert run(code).stdout == "asked False"
