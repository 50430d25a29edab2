r"""Moments of the predictions of all alphas in one read of a strip.

``F[l]`` are the predictions of the members of a shrinkage basis and ``mix[a, l]`` the weights
that make the prediction of alpha ``a`` of them (see `ridgemm.shrinkage`), so that no
prediction of an alpha is ever stored. Moments are sums of those of the members, and

.. math:: (\sum_l m_{al} f_l)^2 = \sum_{k \le l} c_{akl} f_k f_l

so that neither is any prediction of an alpha made: a few products of members serve them all. LOO,
where every alpha weighs a row in its own way, makes them row by row.

Products and totals are float64: a score is a small difference of them, and squares of values that
float32 holds may leave it. Four rows are added up before a total is touched.
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
def product_moments(F, Y, pairs, sums, squares):
    """Add the moments of the members that make those of all alphas.

    ``sums[l, 0]`` gets ``sum_i F[l, i]``, ``sums[l, 2]`` the same of ``F[l, i] * Y[i]``, and
    ``squares[k]`` that of the products of the two members of ``pairs[k]``.
    """
    whole = F.shape[1] // 4 * 4
    for i in range(0, whole, 4):
        # a loop for each total: together they are too many arrays for LLVM to vectorise
        for member in range(F.shape[0]):
            for j in range(F.shape[2]):
                a, b = np.float64(F[member, i, j]), np.float64(F[member, i + 1, j])
                c, d = np.float64(F[member, i + 2, j]), np.float64(F[member, i + 3, j])
                sums[member, 0, j] += (a + b) + (c + d)
            for j in range(F.shape[2]):
                a, b = np.float64(F[member, i, j]), np.float64(F[member, i + 1, j])
                c, d = np.float64(F[member, i + 2, j]), np.float64(F[member, i + 3, j])
                low, high = a * Y[i, j] + b * Y[i + 1, j], c * Y[i + 2, j] + d * Y[i + 3, j]
                sums[member, 2, j] += low + high
        for pair in range(pairs.shape[0]):
            one, two = pairs[pair, 0], pairs[pair, 1]
            for j in range(F.shape[2]):
                a, b = np.float64(F[one, i, j]), np.float64(F[one, i + 1, j])
                c, d = np.float64(F[one, i + 2, j]), np.float64(F[one, i + 3, j])
                low = a * F[two, i, j] + b * F[two, i + 1, j]
                high = c * F[two, i + 2, j] + d * F[two, i + 3, j]
                squares[pair, j] += low + high
    for i in range(whole, F.shape[1]):
        for member in range(F.shape[0]):
            for j in range(F.shape[2]):
                value = np.float64(F[member, i, j])
                sums[member, 0, j] += value
                sums[member, 2, j] += value * Y[i, j]
        for pair in range(pairs.shape[0]):
            one, two = pairs[pair, 0], pairs[pair, 1]
            for j in range(F.shape[2]):
                squares[pair, j] += np.float64(F[one, i, j]) * F[two, i, j]


@jit
def square_moments(F, pairs, squares):
    """Add the sums of products alone."""
    whole = F.shape[1] // 4 * 4
    for i in range(0, whole, 4):
        for pair in range(pairs.shape[0]):
            one, two = pairs[pair, 0], pairs[pair, 1]
            for j in range(F.shape[2]):
                a, b = np.float64(F[one, i, j]), np.float64(F[one, i + 1, j])
                c, d = np.float64(F[one, i + 2, j]), np.float64(F[one, i + 3, j])
                low = a * F[two, i, j] + b * F[two, i + 1, j]
                high = c * F[two, i + 2, j] + d * F[two, i + 3, j]
                squares[pair, j] += low + high
    for i in range(whole, F.shape[1]):
        for pair in range(pairs.shape[0]):
            one, two = pairs[pair, 0], pairs[pair, 1]
            for j in range(F.shape[2]):
                squares[pair, j] += np.float64(F[one, i, j]) * F[two, i, j]


@jit
def pair_moments(F, G, pairs, products):
    """Add the sums of ``F[i, one] * G[i, two] + F[i, two] * G[i, one]`` of every pair."""
    for i in range(F.shape[0]):
        for pair in range(pairs.shape[0]):
            one, two = pairs[pair, 0], pairs[pair, 1]
            for j in range(F.shape[2]):
                left = np.float64(F[i, one, j]) * G[i, two, j]
                right = np.float64(F[i, two, j]) * G[i, one, j]
                products[pair, j] += left + right


@jit
def _blend_rows(F, mix, a, i, lines):
    """Residuals of alphas a and a + 1 in four rows: ``lines[2 * row + alpha]``."""
    other, last = min(a + 1, mix.shape[0] - 1), F.shape[1] - 1
    for row in range(4):
        _blend(F, mix[a], mix[other], min(i + row, last), lines[2 * row : 2 * row + 2])


@jit
def squared_errors(F, mix, Y, keep, leverage, lines, sums):
    """``sums[a]`` gets ``sum_i e^2 / (1 - h_i)^2`` of `loo_moments`: enough for squared errors.

    `lines` is (8, n_targets) float32.
    """
    n_alphas, last = mix.shape[0], F.shape[1] - 1
    for i in range(0, last + 1, 4):
        i1, i2, i3 = min(i + 1, last), min(i + 2, last), min(i + 3, last)
        for pair in range(0, n_alphas, 2):
            _blend_rows(F, mix, pair, i, lines)
            for a in range(pair, min(pair + 2, n_alphas)):
                k, share = a - pair, keep[a]
                # rows past the last one have no weight
                s0 = leverage[a, i]
                s1 = leverage[a, i1] if i1 == i + 1 else 0.0
                s2 = leverage[a, i2] if i2 == i + 2 else 0.0
                s3 = leverage[a, i3] if i3 == i + 3 else 0.0
                for j in range(F.shape[2]):
                    e0 = (share * np.float64(Y[i, j]) + lines[k, j]) * s0
                    e1 = (share * np.float64(Y[i1, j]) + lines[2 + k, j]) * s1
                    e2 = (share * np.float64(Y[i2, j]) + lines[4 + k, j]) * s2
                    e3 = (share * np.float64(Y[i3, j]) + lines[6 + k, j]) * s3
                    sums[a, j] += (e0 * e0 + e1 * e1) + (e2 * e2 + e3 * e3)


@jit
def loo_moments(F, mix, Y, keep, leverage, lines, sums):
    """Moments of the left-out predictions ``y - e / (1 - h)``, in the places of the above.

    ``e = keep[a] * y + sum_l mix[a, l] F[l]`` is the residual of the fit to all samples;
    ``leverage[a, i] = 1 / (1 - h_i)``. With ``keep`` 0 the basis gives the residual itself,
    which does not cancel where the fit nearly interpolates. `lines` as in `squared_errors`.
    """
    n_alphas, last = mix.shape[0], F.shape[1] - 1
    for i in range(0, last + 1, 4):
        n_rows = min(4, last + 1 - i)
        for pair in range(0, n_alphas, 2):
            _blend_rows(F, mix, pair, i, lines)
            for a in range(pair, min(pair + 2, n_alphas)):
                share = keep[a]
                for row in range(n_rows):
                    scale, line = leverage[a, i + row], 2 * row + a - pair
                    for j in range(F.shape[2]):
                        target = np.float64(Y[i + row, j])
                        value = target - (share * target + lines[line, j]) * scale
                        sums[a, 0, j] += value
                        sums[a, 1, j] += value * value
                        sums[a, 2, j] += value * target


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
