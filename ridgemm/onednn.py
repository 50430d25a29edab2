"""bfloat16 products by oneDNN, for processors whose vector or matrix units multiply bfloat16.

oneDNN compiles a product for its shapes and strides, a *primitive*, and keeps the last ones. Their
scratch memory is that of the thread that made them, so each thread has its own. Threads are ours
(`ridgemm.threads`): a product runs on the one that asks for it. Shapes and strides decide how sums
are cut, so that the last bits depend on them; a plan fixes both.

The C interface is that of version 3, https://uxlfoundation.github.io/oneDNN.
"""

import contextlib
import ctypes
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np

_CPU, _IN_ORDER = 1, 1
_SOURCE, _WEIGHTS, _DESTINATION = 1, 33, 17
_TYPES = {np.dtype(np.uint16): 2, np.dtype(np.float32): 3}
_DIMENSIONS = 12
_WORKING_DTYPE = 0  # of a sum: that of the destination
#: Primitives that a thread keeps: a run has few shapes, whole blocks and the last ones.
_KEPT = 32

_SET, _GET = "omp_set_num_threads", "omp_get_max_threads"

Layout = tuple[tuple[int, int], tuple[int, int]]


def usable(path: str) -> bool:
    """Whether a file is of version 3, and can be held to one thread: built with OpenMP."""
    try:
        library = ctypes.CDLL(path)
    except OSError:
        return False
    return all(hasattr(library, name) for name in ("dnnl_memory_desc_destroy", _SET, _GET))


class _Argument(ctypes.Structure):
    _fields_ = [("index", ctypes.c_int), ("memory", ctypes.c_void_p)]


class OneDNN:
    """The library of this process.

    Parameters
    ----------
    path : str
        A file that is `usable`.
    """

    def __init__(self, path: str):
        self._library = ctypes.CDLL(path)
        self._own = threading.local()
        self.call("set_primitive_cache_capacity", ctypes.c_int(_KEPT))
        self.engine = self.create("engine", ctypes.c_int(_CPU), ctypes.c_size_t(0))

    def multiply(self, A: np.ndarray, B: np.ndarray, out: np.ndarray, accumulate: bool) -> None:
        """As `ridgemm.blas.gemm_bfloat16`."""
        if A.size == 0 or B.size == 0:
            if not accumulate:
                out[...] = 0
            return
        with self._one_thread():
            self._product(*map(_layout, (A, B, out)), accumulate).run(A, B, out)

    def call(self, name: str, *arguments: Any) -> None:
        """Call a function of the library; its status is 0 if all is well."""
        status = getattr(self._library, f"dnnl_{name}")(*arguments)
        if status != 0:
            raise RuntimeError(f"oneDNN: dnnl_{name} ended with status {status}.")

    def create(self, kind: str, *arguments: Any, how: str = "create") -> ctypes.c_void_p:
        """A new object of the library; the caller destroys it."""
        made = ctypes.c_void_p()
        self.call(f"{kind}_{how}", ctypes.byref(made), *arguments)
        return made

    @contextlib.contextmanager
    def _one_thread(self) -> Iterator[None]:
        # OpenMP's number of threads is one of the calling thread, which may be the user's
        before = getattr(self._library, _GET)()
        getattr(self._library, _SET)(1)
        try:
            yield
        finally:
            getattr(self._library, _SET)(before)

    def _product(self, *key: Any) -> "_Product":
        kept = self._own.__dict__.setdefault("products", {})
        if key not in kept:
            if len(kept) == _KEPT:
                kept.clear()
            kept[key] = _Product(self, *key)
        return kept[key]


class _Product:
    """A compiled product of matrices with given shapes and strides."""

    def __init__(self, library: OneDNN, left: Layout, right: Layout, out: Layout, accumulate: bool):
        self._library = library
        self._stream = library.create("stream", library.engine, ctypes.c_int(_IN_ORDER))
        half, single = _TYPES.keys()
        described = [
            _described(library, layout, dtype)
            for layout, dtype in ((left, half), (right, half), (out, single))
        ]
        self._primitive = _compiled(library, *described, accumulate)
        self._memories = [
            library.create("memory", matrix, library.engine, None) for matrix in described
        ]
        for matrix in described:
            library.call("memory_desc_destroy", matrix)
        indices = (_SOURCE, _WEIGHTS, _DESTINATION)
        self._arguments = (_Argument * 3)(*zip(indices, self._memories, strict=True))

    def run(self, *matrices: np.ndarray) -> None:
        for memory, matrix in zip(self._memories, matrices, strict=True):
            data = ctypes.c_void_p(matrix.ctypes.data)
            self._library.call("memory_set_data_handle", memory, data)
        self._library.call("primitive_execute", self._primitive, self._stream, 3, self._arguments)
        self._library.call("stream_wait", self._stream)

    def __del__(self) -> None:
        for memory in self._memories:
            self._library.call("memory_destroy", memory)
        self._library.call("primitive_destroy", self._primitive)
        self._library.call("stream_destroy", self._stream)


def _described(library: OneDNN, layout: Layout, dtype: np.dtype) -> ctypes.c_void_p:
    shape, strides = ((ctypes.c_int64 * _DIMENSIONS)(*values) for values in layout)
    arguments = ctypes.c_int(2), shape, ctypes.c_int(_TYPES[dtype]), strides
    return library.create("memory_desc", *arguments, how="create_with_strides")


def _compiled(
    library: OneDNN,
    left: ctypes.c_void_p,
    right: ctypes.c_void_p,
    out: ctypes.c_void_p,
    accumulate: bool,
) -> ctypes.c_void_p:
    attributes = library.create("primitive_attr")
    afterwards = library.create("post_ops")
    if accumulate:
        plain = ctypes.c_float(1), ctypes.c_int32(0), ctypes.c_int(_WORKING_DTYPE)
        library.call("post_ops_append_sum", afterwards, *plain)
    library.call("primitive_attr_set_post_ops", attributes, afterwards)
    # no bias
    described = library.create(
        "matmul_primitive_desc", library.engine, left, right, None, out, attributes
    )
    primitive = library.create("primitive", described)
    library.call("primitive_desc_destroy", described)
    library.call("post_ops_destroy", afterwards)
    library.call("primitive_attr_destroy", attributes)
    return primitive


def _layout(A: np.ndarray) -> Layout:
    return A.shape, tuple(stride // A.itemsize for stride in A.strides)
