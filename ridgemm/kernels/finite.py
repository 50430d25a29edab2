"""Is every value usable as float32?"""

from ridgemm.kernels._jit import jit


@jit
def count_unusable(block, largest):
    """Count the values of `block` that are NaN, or larger than `largest` in magnitude."""
    bad = 0
    for i in range(block.shape[0]):
        for j in range(block.shape[1]):
            # "not <=" also catches NaN, for which every comparison is false
            bad += not (abs(block[i, j]) <= largest)
    return bad
