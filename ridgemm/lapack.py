"""LAPACK in place on row-major float64 matrices, in RAM or in files.

NumPy's functions copy their input and allocate what they work in; here both are the caller's, so
that a matrix larger than the memory limit can lie in a scratch file from beginning to end.
LAPACK reads column-major: what is the lower triangle there is the upper one here.
"""

import ctypes
from pathlib import Path
from typing import Any

import numpy as np

from ridgemm.backends import backend
from ridgemm.private import private_name
from ridgemm.store import create_array

_ARGUMENTS = {"dsyevd": 11, "dgelqf": 8, "dgesdd": 14}
_ROUTINES = {
    name: ctypes.CFUNCTYPE(None, *[ctypes.c_void_p] * n)(backend().address(name))
    for name, n in _ARGUMENTS.items()
}
# the sizes of workspaces are 32-bit integers: 2 n^2 of dsyevd, 4 n^2 of dgesdd
LARGEST_ORDER = 32_000
LARGEST_RANK = 23_000


class Matrices:
    """Where large matrices lie.

    Parameters
    ----------
    folder : Path, optional
        In scratch files under it, gone when the last reference is; None means in RAM.

    Examples
    --------
    >>> Matrices().empty((2, 3)).shape
    (2, 3)
    """

    def __init__(self, folder: Path | None = None):
        self.folder = folder

    def empty(self, shape: tuple[int, ...], dtype: Any = np.float64) -> np.ndarray:
        """A new row-major array; a file's pages count as file cache, not as program memory."""
        if self.folder is None:
            return np.empty(shape, dtype)
        path = self.folder / private_name("matrix")
        array = create_array(path, shape, dtype)
        # the mapping keeps the blocks; nobody else needs the name
        path.unlink()
        return np.asarray(array)


def eigh(A: np.ndarray, matrices: Matrices) -> np.ndarray:
    """Eigenvalues of a symmetric matrix, ascending; its rows become the eigenvectors.

    Parameters
    ----------
    A : (n, n) float64, row-major
        Overwritten.
    matrices : Matrices
        For a workspace of ``2 n^2``.

    Raises
    ------
    numpy.linalg.LinAlgError
        No convergence.

    Examples
    --------
    >>> A = np.array([[2.0, 0.0], [0.0, 1.0]])
    >>> eigh(A, Matrices()), np.abs(A)
    (array([1., 2.]), array([[0., 1.],
           [1., 0.]]))
    """
    n = _order(A)
    if n > LARGEST_ORDER:
        eigenvalues, V = np.linalg.eigh(A)
        A[...] = V.T
        return eigenvalues
    eigenvalues = np.empty(n)
    work = matrices.empty((1 + 6 * n + 2 * n**2,))
    integers = np.empty(3 + 5 * n, np.int32)
    info = ctypes.c_int(0)
    _ROUTINES["dsyevd"](
        _char(b"V"),
        _char(b"L"),
        _int(n),
        A.ctypes.data,
        _int(n),
        eigenvalues.ctypes.data,
        work.ctypes.data,
        _int(len(work)),
        integers.ctypes.data,
        _int(len(integers)),
        ctypes.byref(info),
    )
    if info.value != 0:
        raise np.linalg.LinAlgError("the eigenvalues did not converge")
    return eigenvalues


def triangle_of(A: np.ndarray) -> None:
    """Overwrite A (m, n), of at least n rows, by the R (n, n) of its QR decomposition.

    R is upper triangular; the rows below it are spoilt.

    Examples
    --------
    >>> A = np.array([[0.0, 1.0], [2.0, 0.0]])
    >>> triangle_of(A)
    >>> np.abs(A)
    array([[2., 0.],
           [0., 1.]])
    """
    (m, n), info = _shape(A), ctypes.c_int(0)
    assert m >= n
    tau, work = np.empty(n), np.empty(64 * n)
    # QR of A is LQ of its transpose, which is what LAPACK sees
    _ROUTINES["dgelqf"](
        _int(n),
        _int(m),
        A.ctypes.data,
        _int(n),
        tau.ctypes.data,
        work.ctypes.data,
        _int(len(work)),
        ctypes.byref(info),
    )
    _clear_below(A[:n])


def stack_rows(n: int, p: int, block: int) -> int:
    """Rows in one step of a tiled QR of (n, p): R of those before, and as many more or a block.

    Examples
    --------
    >>> stack_rows(1000, 10, 64), stack_rows(1000, 100, 64), stack_rows(50, 100, 64)
    (74, 200, 50)
    """
    return min(n, p + max(p, block))


def svd(A: np.ndarray, matrices: Matrices) -> tuple[np.ndarray, np.ndarray]:
    """Singular values of A (m, n), descending, and its right singular vectors.

    Parameters
    ----------
    A : (m, n) float64, row-major, m <= n
        Overwritten.
    matrices : Matrices
        For the vectors and for workspaces of ``5 m^2``.

    Returns
    -------
    singular : (m,) float64
    vectors : (m, n) float64
        In rows.

    Raises
    ------
    numpy.linalg.LinAlgError
        No convergence.

    Examples
    --------
    >>> singular, vectors = svd(np.array([[0.0, 2.0]]), Matrices())
    >>> singular, np.abs(vectors)
    (array([2.]), array([[0., 1.]]))
    """
    m, n = _shape(A)
    assert m <= n
    if m > LARGEST_RANK:
        return np.linalg.svd(A, full_matrices=False)[1:]
    # of the transpose, which is what LAPACK sees, they are the left ones
    singular, vectors, others = np.empty(m), matrices.empty((m, n)), matrices.empty((m, m))
    integers, info = np.empty(8 * m, np.int32), ctypes.c_int(0)

    def call(work: np.ndarray, size: int) -> None:
        _ROUTINES["dgesdd"](
            _char(b"S"),
            _int(n),
            _int(m),
            A.ctypes.data,
            _int(n),
            singular.ctypes.data,
            vectors.ctypes.data,
            _int(n),
            others.ctypes.data,
            _int(m),
            work.ctypes.data,
            _int(size),
            integers.ctypes.data,
            ctypes.byref(info),
        )

    wanted = np.empty(1)
    call(wanted, -1)
    call(matrices.empty((int(wanted[0]),)), int(wanted[0]))
    if info.value != 0:
        raise np.linalg.LinAlgError("the singular values did not converge")
    return singular, vectors


def _clear_below(A: np.ndarray) -> None:
    for i in range(1, len(A)):
        A[i, :i] = 0


def _order(A: np.ndarray) -> int:
    m, n = _shape(A)
    assert m == n
    return n


def _shape(A: np.ndarray) -> tuple[int, int]:
    # a wrong pointer here is not an exception but a corrupted heap
    assert A.ndim == 2 and A.dtype == np.float64
    assert A.flags.c_contiguous and A.flags.writeable
    return A.shape


def _int(value: int):
    return ctypes.byref(ctypes.c_int(value))


def _char(value: bytes):
    return ctypes.byref(ctypes.c_char(value))
