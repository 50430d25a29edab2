"""Column sums in float64 of float32 tiles."""

import numpy as np

from ridgemm.kernels._jit import jit


@jit
def column_moments(block, sums, squares):
    """Add the column sums and the sums of squares of `block` to float64 totals.

    Eight rows are added up before the totals are touched: reading and writing these took longer
    than the sums.
    """
    whole = block.shape[0] // 8 * 8
    for i in range(0, whole, 8):
        for j in range(block.shape[1]):
            one, one_squared = _four(block, i, j)
            two, two_squared = _four(block, i + 4, j)
            sums[j] += one + two
            squares[j] += one_squared + two_squared
    for i in range(whole, block.shape[0]):
        for j in range(block.shape[1]):
            value = np.float64(block[i, j])
            sums[j] += value
            squares[j] += value * value


@jit
def _four(block, i, j):
    """Sum of four values of column j, and sum of their squares."""
    a, b = np.float64(block[i, j]), np.float64(block[i + 1, j])
    c, d = np.float64(block[i + 2, j]), np.float64(block[i + 3, j])
    return (a + b) + (c + d), (a * a + b * b) + (c * c + d * d)


@jit
def weighted_squares(Z, weights, out):
    """``out[a, j] += sum_k weights[a, k] * Z[k, j]**2``, all alphas in one read of Z."""
    for k in range(Z.shape[0]):
        for a in range(weights.shape[0]):
            weight = weights[a, k]
            for j in range(Z.shape[1]):
                value = np.float64(Z[k, j])
                out[a, j] += weight * (value * value)


@jit
def count_null(null, threshold, counts, sums, squares, largest):
    """Add one permutation's statistics to the totals of each target.

    ``counts`` where the null reaches the threshold, ``sums`` and ``squares`` of the null, and
    the maximum over targets in ``largest[0]``. A NaN null is not counted.
    """
    for j in range(null.shape[0]):
        value = null[j]
        counts[j] += value >= threshold[j]
        sums[j] += value
        squares[j] += value * value
        if value > largest[0]:
            largest[0] = value
