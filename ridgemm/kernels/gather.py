"""Rows by index into a reused workspace."""

import numpy as np

from ridgemm.kernels._jit import jit


@jit
def gather_rows(source, rows, offset, out):
    """``out[i, j] = source[rows[i], j] - offset[j]``."""
    for i in range(rows.shape[0]):
        row = rows[i]
        for j in range(out.shape[1]):
            # in float64 whatever the source: rounded once, to the dtype of out
            out[i, j] = np.float64(source[row, j]) - offset[j]


@jit
def gather_signed_rows(source, rows, signs, offset, out):
    """``out[i, j] = signs[i] * source[rows[i], j] - offset[j]``."""
    for i in range(rows.shape[0]):
        row, sign = rows[i], signs[i]
        for j in range(out.shape[1]):
            out[i, j] = sign * source[row, j] - offset[j]


@jit
def gather_square(source, rows, columns, row_signs, column_signs, out):
    """``out[i, j] = row_signs[i] column_signs[j] source[rows[i], columns[j]]``."""
    for i in range(out.shape[0]):
        row, sign = rows[i], row_signs[i]
        for j in range(out.shape[1]):
            out[i, j] = sign * column_signs[j] * source[row, columns[j]]
