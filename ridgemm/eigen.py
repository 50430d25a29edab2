"""Eigenvectors of training Grams, with the null space that their rounding leaves. float64."""

import numpy as np

EPS = float(np.finfo(np.float64).eps)


def eigenbasis(G: np.ndarray, n: int, mean: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Eigenvalues and vectors of G above its numerical null space, which predicts nothing.

    G is of `n` rows with this `mean`: what centring took from it, ``n mean^2``, leaves the
    rounding of a sum of n terms.
    """
    eigenvalues, V = np.linalg.eigh(G)
    rounding = max(len(G) * eigenvalues[-1], (n + len(G)) * n * np.max(mean**2))
    kept = eigenvalues > EPS * rounding
    if not kept.any():
        return nothing(len(G))
    return eigenvalues[kept], V[:, kept]


def nothing(p: int) -> tuple[np.ndarray, np.ndarray]:
    """The same where all features are constant: there still is a model, the mean."""
    return np.zeros(1), np.zeros((p, 1))


def constant_first(U: np.ndarray, n_null: int) -> None:
    """Turn the first `n_null` columns of U among themselves so that the first is constant."""
    # centring puts the constant into the null space; a Householder reflection finds it there
    inside = U[:, :n_null].sum(axis=0) / np.sqrt(len(U))
    inside[0] += np.copysign(np.linalg.norm(inside), inside[0])
    inside /= np.linalg.norm(inside)
    U[:, :n_null] -= 2 * np.multiply.outer(U[:, :n_null] @ inside, inside)
    U[:, 0] = 1 / np.sqrt(len(U))


def triangle(V: np.ndarray, P_gram: np.ndarray) -> np.ndarray:
    """Upper triangular L with ``L.T L = V.T P_gram V``."""
    T = V.T @ (P_gram @ V)
    diagonal = np.diag(T)
    floor = max(EPS * diagonal.max(), np.finfo(np.float64).tiny)
    # a scale for each direction, so that small ones keep their digits
    scale = np.sqrt(np.maximum(diagonal, floor))
    T /= scale
    T /= scale[:, None]
    # fewer test rows than features make T singular: a shift, far less than the rounding of the
    # float32 products that follow, keeps most such pivots positive
    T[np.diag_indices_from(T)] += 100 * len(T) * EPS
    try:
        return np.linalg.cholesky(T).T * scale
    except np.linalg.LinAlgError:
        # directions that the test rows hardly have: their rounding errors were scaled up
        eigenvalues, Q = np.linalg.eigh(T)
        root = np.sqrt(np.maximum(eigenvalues, 0))[:, None] * Q.T
        return np.linalg.qr(root, mode="r") * scale
