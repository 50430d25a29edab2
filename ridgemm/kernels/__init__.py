"""Numba kernels: the fused, memory-bound passes. Dense products stay in BLAS."""

from ridgemm.kernels.bfloat import round_parts, split_parts, widen_parts
from ridgemm.kernels.dosage import decode_dosages
from ridgemm.kernels.gather import (
    gather_rows,
    gather_signed_rows,
    gather_square,
    round_columns,
    take_rounded_rows,
)
from ridgemm.kernels.moments import column_moments, count_null, weighted_squares
from ridgemm.kernels.score import (
    heldout_moments,
    loo_moments,
    pair_moments,
    product_moments,
    square_moments,
    squared_errors,
)
from ridgemm.kernels.select import first_best
from ridgemm.kernels.shrink import scale_members, scale_rows, shrink_targets, subtract_outer
from ridgemm.kernels.shrunk import apart_moments, close_moments, shrunk_moments
from ridgemm.kernels.standardise import standardise_rows

__all__ = [
    "apart_moments",
    "close_moments",
    "column_moments",
    "count_null",
    "decode_dosages",
    "first_best",
    "gather_rows",
    "gather_signed_rows",
    "gather_square",
    "heldout_moments",
    "loo_moments",
    "pair_moments",
    "product_moments",
    "round_columns",
    "round_parts",
    "scale_members",
    "scale_rows",
    "shrink_targets",
    "shrunk_moments",
    "split_parts",
    "square_moments",
    "squared_errors",
    "standardise_rows",
    "subtract_outer",
    "take_rounded_rows",
    "weighted_squares",
    "widen_parts",
]
