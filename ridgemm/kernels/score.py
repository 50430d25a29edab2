"""Moments of the predictions of all alphas in one read of a strip.

``F[l]`` are the predictions of the members of a shrinkage basis and ``mix[a, l]`` the weights
that make the prediction of alpha ``a`` of them (see `ridgemm.shrinkage`), so that no
prediction of an alpha is ever stored. ``lines`` are two float32 scratch rows, one strip wide.
Sums are float64, because a score is a small difference of them.
"""

import numpy as np

from ridgemm.kernels._jit import jit


@jit
def _blend(F, weights, other, i, lines):
    """``lines[0, j] = sum_l weights[l] * F[l, i, j]``, and ``lines[1]`` by `other`.

    Two alphas read F once, and four members in a pass leave the lines in registers.
    """
    last, none = F.shape[0] - 1, np.float32(0)
    for k in range(0, last + 1, 4):
        # the last member stands in, with weight 0, for those that are none
        k1, k2, k3 = min(k + 1, last), min(k + 2, last), min(k + 3, last)
        v0, w0 = weights[k], other[k]
        v1, w1 = (weights[k1], other[k1]) if k + 1 <= last else (none, none)
        v2, w2 = (weights[k2], other[k2]) if k + 2 <= last else (none, none)
        v3, w3 = (weights[k3], other[k3]) if k + 3 <= last else (none, none)
        if k == 0:
            for j in range(F.shape[2]):
                f0, f1, f2, f3 = F[k, i, j], F[k1, i, j], F[k2, i, j], F[k3, i, j]
                lines[0, j] = v0 * f0 + v1 * f1 + v2 * f2 + v3 * f3
                lines[1, j] = w0 * f0 + w1 * f1 + w2 * f2 + w3 * f3
        else:
            for j in range(F.shape[2]):
                f0, f1, f2, f3 = F[k, i, j], F[k1, i, j], F[k2, i, j], F[k3, i, j]
                lines[0, j] += v0 * f0 + v1 * f1 + v2 * f2 + v3 * f3
                lines[1, j] += w0 * f0 + w1 * f1 + w2 * f2 + w3 * f3


@jit
def product_moments(F, mix, Y, lines, sums):
    """Add sum yhat, sum yhat^2 and sum yhat*y over the rows to ``sums[a, 0:3, j]``."""
    last = mix.shape[0] - 1
    for i in range(F.shape[1]):
        for pair in range(0, last + 1, 2):
            _blend(F, mix[pair], mix[min(pair + 1, last)], i, lines)
            for a in range(pair, min(pair + 2, last + 1)):
                for j in range(F.shape[2]):
                    value = np.float64(lines[a - pair, j])
                    sums[a, 0, j] += value
                    sums[a, 1, j] += value * value
                    sums[a, 2, j] += value * Y[i, j]


@jit
def square_moments(F, mix, lines, sums):
    """Add ``||sum_l mix[a, l] F[:, l, j]||^2`` to ``sums[a, 1, j]``: yhat^2 by ``||L D||^2``.

    F has its members side by side in every row, as one product makes them.
    """
    last = mix.shape[0] - 1
    n_rows, n_members, width = F.shape
    for i in range(n_rows):
        row = F[i].reshape((n_members, 1, width))
        for pair in range(0, last + 1, 2):
            _blend(row, mix[pair], mix[min(pair + 1, last)], 0, lines)
            for a in range(pair, min(pair + 2, last + 1)):
                for j in range(width):
                    value = np.float64(lines[a - pair, j])
                    sums[a, 1, j] += value * value


@jit
def loo_moments(F, mix, Y, keep, leverage, lines, sums):
    """Moments of the left-out predictions ``y - e / (1 - h)``, in the places of the above.

    ``e = keep[a] * y + sum_l mix[a, l] F[l]`` is the residual of the fit to all samples;
    ``leverage[a, i] = 1 / (1 - h_i)``. With ``keep`` 0 the basis gives the residual itself,
    which does not cancel where the fit nearly interpolates. sum e^2 is what a score needs,
    so ``sums[a, 3]`` holds it too.
    """
    last = mix.shape[0] - 1
    for i in range(F.shape[1]):
        for pair in range(0, last + 1, 2):
            _blend(F, mix[pair], mix[min(pair + 1, last)], i, lines)
            for a in range(pair, min(pair + 2, last + 1)):
                scale, share = leverage[a, i], keep[a]
                for j in range(F.shape[2]):
                    target = np.float64(Y[i, j])
                    error = (share * target + lines[a - pair, j]) * scale
                    value = target - error
                    sums[a, 0, j] += value
                    sums[a, 1, j] += value * value
                    sums[a, 2, j] += value * target
                    sums[a, 3, j] += error * error


@jit
def heldout_moments(Y, prediction, rows, signs, offset, sums):
    """Add sum y and sum yhat*y of permuted targets to ``sums[0|1, j]``.

    ``y[i, j] = signs[i] * Y[rows[i], j] - offset[j]``; the prediction stays where it is.
    """
    for i in range(rows.shape[0]):
        row, sign = rows[i], signs[i]
        for j in range(Y.shape[1]):
            target = np.float64(sign * Y[row, j]) - offset[j]
            sums[0, j] += target
            sums[1, j] += target * prediction[i, j]
