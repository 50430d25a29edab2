"""float32 as bfloat16 parts: ``x = high + low`` to 16 bits, ``high`` alone to 8.

bfloat16 is the upper half of a float32, kept in uint16. Rounding is to the nearest, ties to even.
"""

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from ridgemm.kernels._jit import jit

_I32 = ir.IntType(32)


@intrinsic
def rounded(_, value):
    """Upper half of a float32, rounded; finite values only."""

    def codegen(context, builder, signature, args):
        # in 32 bits throughout: Numba would widen to 64, at half the speed
        bits = builder.bitcast(args[0], _I32)
        odd = builder.and_(builder.lshr(bits, _I32(16)), _I32(1))
        bits = builder.add(builder.add(bits, odd), _I32(0x7FFF))
        return builder.lshr(bits, _I32(16))

    return types.uint32(types.float32), codegen


@intrinsic
def _widened(_, half):
    """The float32 whose upper half this is."""

    def codegen(context, builder, signature, args):
        return builder.bitcast(builder.shl(args[0], _I32(16)), ir.FloatType())

    return types.float32(types.uint32), codegen


@jit
def round_parts(values, high):
    """``high[i, j]`` the bfloat16 next to ``values[i, j]``."""
    for i in range(values.shape[0]):
        for j in range(values.shape[1]):
            high[i, j] = rounded(values[i, j])


@jit
def split_parts(values, high, low):
    """The same, and ``low[i, j]`` the bfloat16 next to what that leaves."""
    for i in range(values.shape[0]):
        for j in range(values.shape[1]):
            upper = rounded(values[i, j])
            high[i, j] = upper
            low[i, j] = rounded(values[i, j] - _widened(upper))


@jit
def widen_parts(half, out):
    """``out[i, j]`` the float32 of a bfloat16."""
    for i in range(half.shape[0]):
        for j in range(half.shape[1]):
            out[i, j] = _widened(half[i, j])
