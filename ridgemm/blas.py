"""Products written in place: the only door to BLAS.

NumPy's ``matmul`` can neither accumulate nor write a strided block; SciPy's wrappers hold the
interpreter lock. So the Fortran routines of a backend (`ridgemm.backends`) are called through
ctypes, which releases the lock. Arrays are row-major here and column-major there:
``out = A B`` is asked for as ``out' = B' A'``.
"""

import ctypes
import functools
from collections.abc import Callable

import numpy as np

from ridgemm.backends import backend, bfloat16
from ridgemm.kernels import widen_parts
from ridgemm.onednn import OneDNN

_ARGUMENTS = {"gemm": 13, "syrk": 10, "trmm": 11}
_PREFIX = {np.dtype(np.float32): "s", np.dtype(np.float64): "d"}
_REAL = {np.dtype(np.float32): ctypes.c_float, np.dtype(np.float64): ctypes.c_double}


def _routine(name: str):
    n_arguments = _ARGUMENTS[name[1:]]
    return ctypes.CFUNCTYPE(None, *[ctypes.c_void_p] * n_arguments)(backend().address(name))


_ROUTINES = {
    (dtype, name): _routine(prefix + name)
    for dtype, prefix in _PREFIX.items()
    for name in _ARGUMENTS
}


@functools.cache
def _bfloat16_product() -> Callable[[np.ndarray, np.ndarray, np.ndarray, bool], None]:
    library = bfloat16()
    if library.name == "onednn":
        return OneDNN(library.path).multiply
    if library.name == "emulated":
        return _emulated
    prototype = ctypes.CFUNCTYPE(None, *[ctypes.c_void_p] * _ARGUMENTS["gemm"])
    return functools.partial(_multiply, prototype(library.address("gemm_bf16bf16f32")))


def _int(value: int):
    return ctypes.byref(ctypes.c_int(value))


def _char(value: bytes):
    return ctypes.byref(ctypes.c_char(value))


def _layout(A: np.ndarray) -> tuple[bytes, int]:
    """Transposition flag and leading dimension of a row-major or column-major matrix."""
    rows, columns = (stride // A.itemsize for stride in A.strides)
    m, n = A.shape
    # a single row or column has a free stride: BLAS only wants a leading dimension long enough
    if columns == 1 and (rows >= n or m == 1):
        return b"N", max(rows, n, 1)
    if rows == 1 and (columns >= m or n == 1):
        return b"T", max(columns, m, 1)
    if n == 1 and rows >= 1:
        return b"N", rows
    if m == 1 and columns >= 1:
        return b"T", columns
    raise AssertionError(f"no unit stride in a matrix of shape {A.shape}, strides {A.strides}")


def _check(out: np.ndarray, shape: tuple[int, int], *operands: np.ndarray) -> None:
    # a wrong pointer here is not an exception but a corrupted heap
    assert out.shape == shape, (out.shape, shape)
    assert out.flags.writeable and all(A.dtype == out.dtype for A in operands)


def gemm(A: np.ndarray, B: np.ndarray, out: np.ndarray, accumulate: bool = False) -> None:
    """``out = A @ B``, or ``out += A @ B``, in place.

    Parameters
    ----------
    A : (m, k), B : (k, n) ndarray
        float32 or float64, all of one dtype, one unit stride each; may be read-only.
    out : (m, n) ndarray
        Row-major block of a larger array or a whole one; must not overlap A or B.
    accumulate : bool
        Add to `out` instead of overwriting it.

    Examples
    --------
    >>> out = np.ones((2, 1), dtype=np.float32)
    >>> gemm(np.eye(2, dtype=np.float32), out.copy(), out, accumulate=True)
    >>> out.ravel()
    array([2., 2.], dtype=float32)
    """
    _check(out, (A.shape[0], B.shape[1]), A, B)
    _multiply(_ROUTINES[out.dtype, "gemm"], A, B, out, accumulate)


def gemm_bfloat16(A: np.ndarray, B: np.ndarray, out: np.ndarray, accumulate: bool = False) -> None:
    """``out = A @ B``, or ``out += A @ B``, of bfloat16 matrices in uint16; sums in float32.

    Only where `ridgemm.backends.bfloat16` finds a library.

    Parameters
    ----------
    A : (m, k), B : (k, n) uint16
        One unit stride each; may be read-only.
    out : (m, n) float32
        As in `gemm`.
    accumulate : bool
    """
    assert A.dtype == B.dtype == np.uint16 and out.dtype == np.float32
    _check(out, (A.shape[0], B.shape[1]))
    _bfloat16_product()(A, B, out, accumulate)


def _emulated(A: np.ndarray, B: np.ndarray, out: np.ndarray, accumulate: bool) -> None:
    wide = [np.empty(half.shape, np.float32) for half in (A, B)]
    for half, whole in zip((A, B), wide, strict=True):
        widen_parts(half, whole)
    gemm(*wide, out, accumulate)


def _multiply(routine, A: np.ndarray, B: np.ndarray, out: np.ndarray, accumulate: bool) -> None:
    (m, k), n = A.shape, B.shape[1]
    assert B.shape[0] == k, (A.shape, B.shape)
    if m == 0 or n == 0:
        return
    if k == 0:
        if not accumulate:
            out[...] = 0
        return
    flag_a, lda = _layout(A)
    flag_b, ldb = _layout(B)
    flag_out, ldc = _layout(out)
    assert flag_out == b"N", "out must be row-major"
    real = _REAL[out.dtype]
    routine(
        _char(flag_b),
        _char(flag_a),
        _int(n),
        _int(m),
        _int(k),
        ctypes.byref(real(1)),
        B.ctypes.data,
        _int(ldb),
        A.ctypes.data,
        _int(lda),
        ctypes.byref(real(accumulate)),
        out.ctypes.data,
        _int(ldc),
    )


def syrk(A: np.ndarray, out: np.ndarray, accumulate: bool = False) -> None:
    """Lower triangle of ``out = A.T @ A``, or ``out += A.T @ A``, in place.

    Parameters
    ----------
    A : (m, n) ndarray
        Row-major (or the transpose of a row-major array), float32 or float64.
    out : (n, n) ndarray
        Row-major; its strict upper triangle is left as it was.
    accumulate : bool
        Add to `out` instead of overwriting it.

    Examples
    --------
    >>> out = np.zeros((2, 2))
    >>> syrk(np.array([[1.0, 2.0]]), out)
    >>> out
    array([[1., 0.],
           [2., 4.]])
    """
    m, n = A.shape
    _check(out, (n, n), A)
    flag, lda = _layout(A)
    _, ldc = _layout(out)
    real = _REAL[out.dtype]
    # the lower triangle of a row-major matrix is the upper one of its column-major reading
    _ROUTINES[out.dtype, "syrk"](
        _char(b"U"),
        _char(b"N" if flag == b"N" else b"T"),
        _int(n),
        _int(m),
        ctypes.byref(real(1)),
        A.ctypes.data,
        _int(lda),
        ctypes.byref(real(accumulate)),
        out.ctypes.data,
        _int(ldc),
    )


def symmetrise(G: np.ndarray) -> None:
    """Copy the lower triangle of `G` to the upper one, in place and by blocks."""
    n, step = len(G), 512
    for i in range(0, n, step):
        rows = slice(i, min(i + step, n))
        for j in range(0, i, step):
            columns = slice(j, j + step)
            G[columns, rows] = G[rows, columns].T
        block = G[rows, rows]
        block[...] = np.tril(block) + np.tril(block, -1).T


def trmm(L: np.ndarray, B: np.ndarray) -> None:
    """``B = L @ B`` in place for an upper triangular, row-major L: half the flops of a product.

    Examples
    --------
    >>> B = np.array([[1.0], [2.0]])
    >>> trmm(np.array([[1.0, 1.0], [0.0, 1.0]]), B)
    >>> B.ravel()
    array([3., 2.])
    """
    k, n = B.shape
    _check(B, (L.shape[0], n), L)
    assert L.shape == (k, k), (L.shape, B.shape)
    flag_l, ldl = _layout(L)
    flag_b, ldb = _layout(B)
    assert flag_l == b"N" and flag_b == b"N"
    real = _REAL[B.dtype]
    _ROUTINES[B.dtype, "trmm"](
        _char(b"R"),
        _char(b"L"),
        _char(b"N"),
        _char(b"N"),
        _int(n),
        _int(k),
        ctypes.byref(real(1)),
        L.ctypes.data,
        _int(ldl),
        B.ctypes.data,
        _int(ldb),
    )
