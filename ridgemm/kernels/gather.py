"""Rows by index into a reused workspace."""

from ridgemm.kernels._jit import jit


@jit
def gather_rows(source, rows, offset, out):
    """``out[i, j] = source[rows[i], j] - offset[j]``."""
    for i in range(rows.shape[0]):
        row = rows[i]
        for j in range(out.shape[1]):
            out[i, j] = source[row, j] - offset[j]
