"""Moments of the predictions of all alphas in one read of a strip.

``F[l]`` are the predictions of the members of a shrinkage basis and ``mix[a, l]`` the weights
that make the prediction of alpha ``a`` of them (see `ridgemm.shrinkage`), so that no
prediction of an alpha is ever stored. ``line`` is a float32 scratch row, one strip wide.
Sums are float64, because a score is a small difference of them.
"""

import numpy as np

from ridgemm.kernels._jit import jit


@jit
def _blend(F, weights, i, line):
    """``line[j] = sum_l weights[l] * F[l, i, j]``."""
    weight = weights[0]
    for j in range(F.shape[2]):
        line[j] = weight * F[0, i, j]
    for k in range(1, F.shape[0]):
        weight = weights[k]
        for j in range(F.shape[2]):
            line[j] += weight * F[k, i, j]


@jit
def product_moments(F, mix, Y, line, sums):
    """Add sum yhat, sum yhat^2 and sum yhat*y over the rows to ``sums[a, 0:3, j]``."""
    for i in range(F.shape[1]):
        for a in range(mix.shape[0]):
            _blend(F, mix[a], i, line)
            for j in range(F.shape[2]):
                value = np.float64(line[j])
                sums[a, 0, j] += value
                sums[a, 1, j] += value * value
                sums[a, 2, j] += value * Y[i, j]


@jit
def square_moments(F, mix, line, sums):
    """Add ``||sum_l mix[a, l] F[l, :, j]||^2`` to ``sums[a, 1, j]``: yhat^2 by ``||L D||^2``."""
    for i in range(F.shape[1]):
        for a in range(mix.shape[0]):
            _blend(F, mix[a], i, line)
            for j in range(F.shape[2]):
                value = np.float64(line[j])
                sums[a, 1, j] += value * value


@jit
def cross_moments(Z, C, test_sum, basis, sums):
    """Add ``sum_k D test_sum`` and ``sum_k D C`` with ``D = Z * basis[l]`` to ``sums[l, 0|2]``."""
    for k in range(Z.shape[0]):
        total = test_sum[k]
        for i in range(basis.shape[0]):
            shrink = basis[i, k]
            for j in range(Z.shape[1]):
                value = np.float64(Z[k, j] * shrink)
                sums[i, 0, j] += value * total
                sums[i, 2, j] += value * C[k, j]


@jit
def loo_moments(F, mix, Y, keep, leverage, line, sums):
    """Moments of the left-out predictions ``y - e / (1 - h)``, in the places of the above.

    ``e = keep[a] * y + sum_l mix[a, l] F[l]`` is the residual of the fit to all samples;
    ``leverage[a, i] = 1 / (1 - h_i)``. With ``keep`` 0 the basis gives the residual itself,
    which does not cancel where the fit nearly interpolates. sum e^2 is what a score needs,
    so ``sums[a, 3]`` holds it too.
    """
    for i in range(F.shape[1]):
        for a in range(mix.shape[0]):
            _blend(F, mix[a], i, line)
            scale, share = leverage[a, i], keep[a]
            for j in range(F.shape[2]):
                target = np.float64(Y[i, j])
                error = (share * target + line[j]) * scale
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
