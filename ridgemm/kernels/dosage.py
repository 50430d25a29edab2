"""Genotypes, coded in a byte each, as numbers."""

import numpy as np

from ridgemm.kernels._jit import jit


@jit
def decode_dosages(codes, table, shift, out):
    """``out[i, j] = table[codes[i, j], j] - shift[j]``; a negative code takes the last row."""
    for i in range(codes.shape[0]):
        for j in range(codes.shape[1]):
            # in float64: rounded once, to the dtype of out
            out[i, j] = np.float64(table[codes[i, j] if codes[i, j] >= 0 else 3, j]) - shift[j]
