"""Shrinkage of projected targets, and the rank-one terms of centring."""

from ridgemm.kernels._jit import jit


@jit
def scale_rows(Z, factor, out):
    """``out[k, j] = Z[k, j] * factor[k]``: one member of a shrinkage basis."""
    for k in range(Z.shape[0]):
        scale = factor[k]
        for j in range(Z.shape[1]):
            out[k, j] = Z[k, j] * scale


@jit
def scale_members(Z, basis, out):
    """``out[k, l, j] = Z[k, j] * basis[l, k]``: all members of a basis from one read of Z."""
    for k in range(Z.shape[0]):
        for member in range(basis.shape[0]):
            scale = basis[member, k]
            for j in range(Z.shape[1]):
                out[k, member, j] = Z[k, j] * scale


@jit
def shrink_targets(Z, eigenvalues, alpha, out):
    """``out[k, j] = Z[k, j] / (eigenvalues[k] + alpha[j])``: each target its own alpha."""
    for k in range(Z.shape[0]):
        eigenvalue = eigenvalues[k]
        for j in range(Z.shape[1]):
            out[k, j] = Z[k, j] / (eigenvalue + alpha[j])


@jit
def subtract_outer(column, row, out):
    """``out[k, j] -= column[k] * row[j]``, in float64 before the rounding to float32."""
    for k in range(out.shape[0]):
        factor = column[k]
        for j in range(out.shape[1]):
            out[k, j] = out[k, j] - factor * row[j]
