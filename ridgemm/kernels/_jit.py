"""The one home of the JIT decorator.

Kernel contract: inputs, sizes, ``out`` last; returns None (or a count); allocates nothing;
accepts read-only arrays. Signatures are lazy, because an eager one would reject the
read-only arrays that a ``mode="r"`` memmap gives.

``nogil`` and no ``prange``: threads are ours (`ridgemm.threads`), so that the number of
threads changes neither the order of a sum nor the number of Numba thread pools.
``float(x)`` of a float32 stays float32 in Numba: sums are made with ``np.float64(x)``.
No ``fastmath``: inner loops run along targets, which are independent, so LLVM vectorises
them without being allowed to reorder a sum.
"""

import numba

jit = numba.njit(nogil=True, cache=True, error_model="numpy")
