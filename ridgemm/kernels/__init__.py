"""Numba kernels: the fused, memory-bound passes. Dense products stay in BLAS."""

from ridgemm.kernels.gather import gather_rows, gather_signed_rows, gather_square
from ridgemm.kernels.moments import column_moments, count_null, weighted_squares
from ridgemm.kernels.score import (
    heldout_moments,
    loo_moments,
    product_moments,
    square_moments,
)
from ridgemm.kernels.select import first_best
from ridgemm.kernels.shrink import scale_rows, shrink_targets, subtract_outer

__all__ = [
    "column_moments",
    "count_null",
    "first_best",
    "gather_rows",
    "gather_signed_rows",
    "gather_square",
    "heldout_moments",
    "loo_moments",
    "product_moments",
    "scale_rows",
    "shrink_targets",
    "square_moments",
    "subtract_outer",
    "weighted_squares",
]
