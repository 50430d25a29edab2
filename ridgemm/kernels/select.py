"""Choice of alpha per target."""

from ridgemm.kernels._jit import jit


@jit
def first_best(scores, index, best):
    """The largest of `scores` (n_alphas, n_targets) per target; the first alpha wins a tie."""
    for j in range(scores.shape[1]):
        index[j] = 0
        best[j] = scores[0, j]
    for a in range(1, scores.shape[0]):
        for j in range(scores.shape[1]):
            if scores[a, j] > best[j]:
                best[j] = scores[a, j]
                index[j] = a
