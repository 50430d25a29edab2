"""Flops of the products with targets that a run in this process makes, counted as they are made."""

from __future__ import annotations

import threading
from unittest import mock

import numpy as np


class ProductFlops:
    """Counts, inside a ``with`` block, what `ridgemm` multiplies with targets.

    Parameters
    ----------
    permuted : bool
        Count the products of permuted targets alone.
    """

    def __init__(self, permuted: bool = False) -> None:
        self.permuted = permuted
        # appending is atomic; += of threads is not
        self._counts: list[float] = []
        self._own = threading.local()

    @property
    def total(self) -> float:
        """Of the last block."""
        return float(sum(self._counts))

    def __enter__(self) -> ProductFlops:
        from ridgemm import fitting, quadratic
        from ridgemm.projections import TargetTile

        self._counts.clear()
        multiply, coefficients = TargetTile.multiply, fitting.multiply
        pair_product = quadratic.gemm

        def product(tile, A: np.ndarray, B: np.ndarray, *others, **options) -> None:
            # products with pairs follow those of their tile, on the same thread
            self._own.counts = _is_permuted(tile) or not self.permuted
            if self._own.counts:
                self._counts.append(2.0 * A.shape[0] * A.shape[1] * B.shape[1])
            multiply(tile, A, B, *others, **options)

        def pairs(A: np.ndarray, B: np.ndarray, out: np.ndarray) -> None:
            # those that make the pairs are float64
            if A.dtype == np.float32 and self._own.counts:
                self._counts.append(2.0 * A.shape[0] * A.shape[1] * B.shape[1])
            pair_product(A, B, out)

        def coefficient(A: np.ndarray, B: np.ndarray, *others, **options) -> None:
            # nothing is permuted there
            if not self.permuted:
                self._counts.append(2.0 * A.shape[0] * A.shape[1] * B.shape[1])
            coefficients(A, B, *others, **options)

        self._patches = [
            mock.patch.object(TargetTile, "multiply", product),
            mock.patch.object(quadratic, "gemm", pairs),
            mock.patch.object(fitting, "multiply", coefficient),
        ]
        for patch in self._patches:
            patch.start()
        return self

    def __exit__(self, *_: object) -> None:
        for patch in self._patches:
            patch.stop()


def _is_permuted(tile) -> bool:
    # observed scores are those of the order that there is
    orders = tile._orders
    return any(o.signs is not None or (np.diff(o.rows) != 1).any() for o in orders)
