"""Rows about the mean of their run, in units of its standard deviation."""

import numpy as np

from ridgemm.kernels._jit import jit


@jit
def standardise_rows(values, runs, mean, scale, shift, out):
    """``out[i, j] = (values[i, j] - mean[runs[i], j]) / scale[runs[i], j] - shift[j]``."""
    for i in range(values.shape[0]):
        run = runs[i]
        for j in range(values.shape[1]):
            # rounded to float32 before the shift: the value that the view has
            value = np.float32((values[i, j] - mean[run, j]) / scale[run, j])
            out[i, j] = np.float64(value) - shift[j]
