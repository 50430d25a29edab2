"""Eigenvectors of training Grams, with the null space that their rounding leaves.

Float64 and in place. Eigenvectors are rows, as LAPACK leaves them.
"""

import numpy as np

from ridgemm import lapack
from ridgemm.lapack import Matrices
from ridgemm.tiles import spans

EPS = float(np.finfo(np.float64).eps)
_STEP = 512


def eigenbasis(
    G: np.ndarray, n: int, mean: np.ndarray, matrices: Matrices
) -> tuple[np.ndarray, np.ndarray]:
    """Eigenvalues and vectors of G above its numerical null space, which predicts nothing.

    Parameters
    ----------
    G : (p, p) float64
        Overwritten: the vectors are rows of it.
    n : int
        Rows that it is the Gram of.
    mean : (p,) float64
        Their mean, or the root mean square of what else centring took: ``n mean^2`` leaves the
        rounding of a sum of n terms.
    matrices : Matrices

    Returns
    -------
    eigenvalues : (k,) float64
    vectors : (k, p) float64
    """
    eigenvalues = lapack.eigh(G, matrices)
    rounding = max(len(G) * eigenvalues[-1], (n + len(G)) * n * np.max(mean**2))
    first = np.searchsorted(eigenvalues, EPS * rounding, side="right")
    if first == len(G):
        return nothing(len(G))
    return eigenvalues[first:], G[first:]


def nothing(p: int) -> tuple[np.ndarray, np.ndarray]:
    """The same where all features are constant: there still is a model, the mean."""
    return np.zeros(1), np.zeros((1, p))


def nuisance_first(U: np.ndarray, n_null: int, directions: np.ndarray) -> None:
    """Turn the first `n_null` rows of U among themselves so that they begin with `directions`."""
    # centring puts them into the null space; Householder reflections find them there
    for i, direction in enumerate(directions):
        _turn(U[i:n_null], direction)


def _turn(U: np.ndarray, direction: np.ndarray) -> None:
    inside = U @ direction
    inside[0] += np.copysign(np.linalg.norm(inside), inside[0])
    inside /= np.linalg.norm(inside)
    along = inside @ U
    for rows in spans(len(U), _STEP):
        U[rows] -= 2 * np.multiply.outer(inside[rows], along)
    U[0] = direction
