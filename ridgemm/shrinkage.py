r"""Few members that make the shrinkage of many alphas.

The coefficients of alpha in the eigenbasis are :math:`D_\alpha = Z / (w + \alpha)`. As a
matrix over eigenvalues and alphas, :math:`1 / (w_k + \alpha_a)` is a Cauchy matrix: its
numerical rank q grows with the logarithm of the spectrum's range, not with the number of
alphas. Products are made of q basis members, and the scores of all alphas of these.
"""

import numpy as np


def shrinkage_basis(
    eigenvalues: np.ndarray, alphas: np.ndarray, weight: np.ndarray, tolerance: float = 1e-6
) -> tuple[np.ndarray, np.ndarray]:
    r"""Factor ``1 / (w + alpha)`` over eigenvalues and alphas.

    .. math:: \frac{1}{w_k + \alpha_a} \approx \sum_{l < q} m_{a l} \psi_{l k}

    with an error, weighted by `weight` and relative to the largest weighted entry of the same
    alpha, below `tolerance` for every k and a.

    Parameters
    ----------
    eigenvalues : (k,) float64
        Non-negative.
    alphas : (n_alphas,) float64
        Positive.
    weight : (k,) float64
        How much direction k counts in a prediction; 0 where it counts for nothing.
    tolerance : float
        1e-6 is the rounding of the float32 products that follow.

    Returns
    -------
    basis : (q, k) float32
    mix : (n_alphas, q) float32

    Examples
    --------
    >>> w, alphas = np.linspace(1.0, 2.0, 50), np.logspace(-3, 3, 20)
    >>> basis, mix = shrinkage_basis(w, alphas, w)
    >>> basis.shape[0] < 8, np.allclose(mix @ basis, 1 / (w + alphas[:, None]), rtol=1e-4)
    (True, True)
    """
    return table_basis(1 / (eigenvalues + alphas[:, None]), weight, tolerance)


def table_basis(
    table: np.ndarray, weight: np.ndarray, tolerance: float = 1e-6
) -> tuple[np.ndarray, np.ndarray]:
    """Factor any (n_alphas, k) table of shrinkage, as `shrinkage_basis` does."""
    counted = weight > 0
    if not counted.all():
        basis, mix = table_basis(table[:, counted], weight[counted], tolerance)
        full = np.zeros((len(basis), len(weight)), np.float32)
        full[:, counted] = basis
        return full, mix
    if not len(weight):
        return np.zeros((1, 0), np.float32), np.zeros((len(table), 1), np.float32)
    weighted = weight * table
    scale = np.abs(weighted).max(axis=1, keepdims=True)
    scale[scale == 0] = 1
    left, singular, right = np.linalg.svd(weighted / scale, full_matrices=False)
    rank = _rank(left * singular, right, tolerance)
    if rank == len(singular):
        return table.astype(np.float32), np.eye(len(table), dtype=np.float32)
    basis = singular[:rank, None] * right[:rank] / weight
    mix = scale * left[:, :rank]
    # members near 1, so that neither factor leaves the range of float32
    size = np.abs(basis).max(axis=1)
    size[size == 0] = 1
    return (basis / size[:, None]).astype(np.float32), (mix * size).astype(np.float32)


def _rank(left: np.ndarray, right: np.ndarray, tolerance: float) -> int:
    """Fewest leading terms of ``left @ right`` that leave no entry off by more."""
    error = np.zeros((len(left), right.shape[1]))
    for rank in range(len(right), 1, -1):
        error += np.multiply.outer(left[:, rank - 1], right[rank - 1])
        if np.abs(error).max() > tolerance:
            return rank
    return 1
