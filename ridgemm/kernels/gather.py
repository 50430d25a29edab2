"""Rows by index into a reused workspace."""

import numpy as np

from ridgemm.kernels._jit import jit
from ridgemm.kernels.bfloat import rounded


@jit
def gather_rows(source, rows, offset, out):
    """``out[i, j] = source[rows[i], j] - offset[j]``.

    Four rows at once: each is somewhere else, and the processor waits for all of them together.
    """
    whole = rows.shape[0] // 4 * 4
    for i in range(0, whole, 4):
        row0, row1, row2, row3 = rows[i], rows[i + 1], rows[i + 2], rows[i + 3]
        for j in range(out.shape[1]):
            # in float64 whatever the source: rounded once, to the dtype of out
            out[i, j] = np.float64(source[row0, j]) - offset[j]
            out[i + 1, j] = np.float64(source[row1, j]) - offset[j]
            out[i + 2, j] = np.float64(source[row2, j]) - offset[j]
            out[i + 3, j] = np.float64(source[row3, j]) - offset[j]
    for i in range(whole, rows.shape[0]):
        row = rows[i]
        for j in range(out.shape[1]):
            out[i, j] = np.float64(source[row, j]) - offset[j]


@jit
def gather_signed_rows(source, rows, signs, offset, out):
    """``out[i, j] = signs[i] * source[rows[i], j] - offset[j]``, four rows at once."""
    whole = rows.shape[0] // 4 * 4
    for i in range(0, whole, 4):
        row0, row1, row2, row3 = rows[i], rows[i + 1], rows[i + 2], rows[i + 3]
        sign0, sign1, sign2, sign3 = signs[i], signs[i + 1], signs[i + 2], signs[i + 3]
        for j in range(out.shape[1]):
            out[i, j] = sign0 * source[row0, j] - offset[j]
            out[i + 1, j] = sign1 * source[row1, j] - offset[j]
            out[i + 2, j] = sign2 * source[row2, j] - offset[j]
            out[i + 3, j] = sign3 * source[row3, j] - offset[j]
    for i in range(whole, rows.shape[0]):
        row, sign = rows[i], signs[i]
        for j in range(out.shape[1]):
            out[i, j] = sign * source[row, j] - offset[j]


@jit
def round_columns(source, offset, out):
    """``out[i, j]`` the bfloat16 next to ``source[i, j] - offset[j]``, of float32."""
    for i in range(source.shape[0]):
        for j in range(source.shape[1]):
            out[i, j] = rounded(source[i, j] - offset[j])


@jit
def take_rounded_rows(source, rows, flips, out):
    """``out[i, j] = source[rows[i], j] ^ flips[i]``, four rows at once.

    The sign of a bfloat16 is its highest bit: a flip is ``0x8000``, none 0.
    """
    whole = rows.shape[0] // 4 * 4
    for i in range(0, whole, 4):
        row0, row1, row2, row3 = rows[i], rows[i + 1], rows[i + 2], rows[i + 3]
        flip0, flip1, flip2, flip3 = flips[i], flips[i + 1], flips[i + 2], flips[i + 3]
        for j in range(out.shape[1]):
            out[i, j] = source[row0, j] ^ flip0
            out[i + 1, j] = source[row1, j] ^ flip1
            out[i + 2, j] = source[row2, j] ^ flip2
            out[i + 3, j] = source[row3, j] ^ flip3
    for i in range(whole, rows.shape[0]):
        for j in range(out.shape[1]):
            out[i, j] = source[rows[i], j] ^ flips[i]


@jit
def gather_square(source, rows, columns, row_signs, column_signs, out):
    """``out[i, j] = row_signs[i] column_signs[j] source[rows[i], columns[j]]``."""
    for i in range(out.shape[0]):
        row, sign = rows[i], row_signs[i]
        for j in range(out.shape[1]):
            out[i, j] = sign * column_signs[j] * source[row, columns[j]]
