"""What libraries of products reserve for good, before memory is counted."""

import threading

import numpy as np

from ridgemm import blas
from ridgemm.mapreduce import Crew


def reserve_buffers(n_threads: int) -> None:
    """Let every library of products reserve what all its callers at once need.

    OpenBLAS asks for 32 MB of address space for each, uses little of it, and never gives it back.
    """
    A = np.ones((400, 400))
    libraries = (lambda out: np.matmul(A, A, out=out), lambda out: blas.gemm(A, A, out))
    barrier = threading.Barrier(n_threads)

    def multiply(_: int, library) -> None:
        out = np.empty_like(A)
        barrier.wait()
        for _ in range(10):
            library(out)

    with Crew(n_threads) as crew:
        for library in libraries:
            crew.team.run(multiply, [library] * n_threads)
    for library in libraries:
        library(np.empty_like(A))
