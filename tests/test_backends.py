"""The choice of the BLAS, each in a process of its own: it is made on import."""

import os
import subprocess
import sys

import pytest

from ridgemm import backends

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


@pytest.mark.skipif(backends._mkl_file() is None, reason="mkl is not installed")
def test_mkl_makes_the_same_products():
    finished = run(PRODUCT, RIDGEMM_BLAS="mkl")
    assert finished.stdout == "mkl", finished.stderr


@pytest.mark.skipif(backends._mkl_file() is not None, reason="mkl is installed")
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


@pytest.mark.parametrize("processor", ["znver5", "skylake-avx512"])
def test_mkl_is_preferred_on_processors_that_are_not_amds(monkeypatch, processor):
    monkeypatch.setattr(backends.llvmlite.binding, "get_host_cpu_name", lambda: processor)
    assert ("mkl" in backends._preferred()) == (processor == "skylake-avx512")
