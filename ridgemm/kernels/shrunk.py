r"""Moments that projections of a target make alone, shrunk by every alpha.

``d_i = 1 / (w_i + alpha)`` and what else weighs a row is made on the fly: a division for a whole
line of targets. The products of eight rows, in float64, pass by all alphas while they are in cache.

``lines`` is (9, at least 8) float64 and as long as there are targets: eight lines of products, and
their weights for one alpha.
"""

import numpy as np

from ridgemm.kernels._jit import jit


@jit
def _multiply(Z, B, i, line):
    """``line = Z[i] * B[i]``, and 0 past the last row."""
    if i >= Z.shape[0]:
        line[:] = 0
        return
    for j in range(Z.shape[1]):
        line[j] = np.float64(Z[i, j]) * B[i, j]


@jit
def _add(lines, total):
    """Add the weighted lines to a total, which is touched once."""
    v = lines[8]
    v0, v1, v2, v3, v4, v5, v6, v7 = v[0], v[1], v[2], v[3], v[4], v[5], v[6], v[7]
    for j in range(total.shape[0]):
        low = (v0 * lines[0, j] + v1 * lines[1, j]) + (v2 * lines[2, j] + v3 * lines[3, j])
        high = (v4 * lines[4, j] + v5 * lines[5, j]) + (v6 * lines[6, j] + v7 * lines[7, j])
        total[j] += low + high


@jit
def shrunk_moments(Z, C, total, eigenvalues, alphas, lines, sums):
    """``sums[a, 0]`` gets ``sum_i total[i] d_i Z[i]``, ``sums[a, 2]`` ``sum_i d_i Z[i] C[i]``."""
    for i in range(0, Z.shape[0], 8):
        n_rows = min(8, Z.shape[0] - i)
        for row in range(8):
            _multiply(Z, C, i + row, lines[row])
        lines[8, :8] = 0
        for a in range(alphas.shape[0]):
            for row in range(n_rows):
                lines[8, row] = 1 / (eigenvalues[i + row] + alphas[a])
            _add(lines, sums[a, 2])
        for row in range(n_rows):
            for j in range(Z.shape[1]):
                lines[row, j] = total[i + row] * Z[i + row, j]
        for a in range(alphas.shape[0]):
            for row in range(n_rows):
                lines[8, row] = 1 / (eigenvalues[i + row] + alphas[a])
            _add(lines, sums[a, 0])


@jit
def apart_moments(Z, Y, eigenvalues, largest, alphas, lines, sums):
    """``sums[a] += sum_i 2 (d_i - d_0) Z[i] Y[i]``, with ``d_0`` of the eigenvalue `largest`."""
    for i in range(0, Z.shape[0], 8):
        for row in range(8):
            _multiply(Z, Y, i + row, lines[row])
        lines[8, :8] = 0
        for a in range(alphas.shape[0]):
            reference = largest + alphas[a]
            for row in range(min(8, Z.shape[0] - i)):
                w = eigenvalues[i + row]
                # the difference without cancellation
                lines[8, row] = 2 * (largest - w) / ((w + alphas[a]) * reference)
            _add(lines, sums[a])


@jit
def close_moments(Z, B, eigenvalues, unit, alphas, lines, sums):
    """``sums[a] += unit * sum_i (d_i^2 Z[i] B[i, 0] - (w_i d_i^2)^2 / 2 Z[i] B[i, 1])``."""
    for i in range(0, Z.shape[0], 4):
        for row in range(4):
            _multiply(Z, B[:, 0], i + row, lines[2 * row])
            _multiply(Z, B[:, 1], i + row, lines[2 * row + 1])
        lines[8, :8] = 0
        for a in range(alphas.shape[0]):
            for row in range(min(4, Z.shape[0] - i)):
                w = eigenvalues[i + row]
                d = 1 / (w + alphas[a])
                lines[8, 2 * row] = unit * d * d
                lines[8, 2 * row + 1] = -0.5 * unit * (w * d) * (w * d) * d * d
            _add(lines, sums[a])
