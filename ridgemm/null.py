"""p-values from a null distribution; nothing here knows what is being tested."""

from typing import Any

import numpy as np

from ridgemm.errors import InputError
from ridgemm.schemes import check_integer

__all__ = [
    "count_exceedances",
    "fdr_pvalues",
    "fwer_pvalues",
    "pvalues",
    "tail_statistic",
]


def tail_statistic(scores: Any, two_sided: bool) -> np.ndarray:
    """Return the statistic whose large values speak against the null.

    ``scores`` for a one-sided test, ``|scores|`` for a two-sided one. Apply it to observed
    and null scores alike, before any maximum over targets. Two sides make sense for a
    correlation; R2 and a negative error are already one-sided.

    Examples
    --------
    >>> import numpy as np
    >>> tail_statistic(np.array([0.2, -0.5]), two_sided=True)
    array([0.2, 0.5])
    """
    return np.abs(scores) if two_sided else np.asarray(scores)


def pvalues(exceedances: Any, n_permutations: int) -> np.ndarray:
    """Permutation p-values ``(1 + c) / (1 + m)``.

    The observed order is one of the ``m + 1`` permutations, so p is never 0.

    Parameters
    ----------
    exceedances : array-like
        Number ``c`` of null statistics >= the observed one, ties counted. NaN stays NaN.
    n_permutations : int
        Number ``m`` of permutations, the observed order not counted.

    Returns
    -------
    ndarray of float64, shape of `exceedances`

    Examples
    --------
    >>> pvalues([0, 49, 99], 99)
    array([0.01, 0.5 , 1.  ])
    """
    n_permutations = check_integer("n_permutations", n_permutations, 1)
    exceedances = np.asarray(exceedances, dtype=np.float64)
    if np.any(exceedances < 0) or np.any(exceedances > n_permutations):
        raise InputError(
            f"exceedances go from {np.nanmin(exceedances):g} to {np.nanmax(exceedances):g}; "
            f"counts among n_permutations={n_permutations} lie between 0 and that number."
        )
    return (1.0 + exceedances) / (1.0 + n_permutations)


def count_exceedances(scores: Any, null: Any) -> np.ndarray:
    """Count the values of one null distribution that are >= each score.

    Parameters
    ----------
    scores : array-like
        Observed statistics; NaN gives NaN.
    null : array-like of shape (n_permutations,)
        Null statistics shared by all scores. NaN, a statistic that could not be computed,
        counts as an exceedance, so that it never makes a p-value smaller.

    Returns
    -------
    ndarray of float64, shape of `scores`

    Examples
    --------
    >>> count_exceedances([0.1, 0.5, 0.9], [0.2, 0.5, 0.3])
    array([3., 1., 0.])
    """
    null = np.sort(np.asarray(null))  # NaN last: above every score
    if null.ndim != 1 or null.size == 0:
        raise InputError(
            f"null has shape {null.shape}; give one statistic per permutation, at least one."
        )
    scores = np.asarray(scores)
    counts = null.size - np.searchsorted(null, scores, side="left")
    return np.where(np.isnan(scores), np.nan, counts)


def fwer_pvalues(scores: Any, null_max: Any) -> np.ndarray:
    """Family-wise error corrected p-values, by the maximum statistic.

    ``p_j = (1 + #{null_max >= score_j}) / (1 + m)``: the chance under the null that any target
    reaches the score of target j.

    Parameters
    ----------
    scores : array-like of shape (n_targets,)
        Observed statistics; NaN gives NaN.
    null_max : array-like of shape (n_permutations,)
        Maximum over targets of the statistic, in each permutation.

    Returns
    -------
    ndarray of float64, shape (n_targets,)

    Examples
    --------
    >>> fwer_pvalues([0.1, 0.5, 0.9], [0.2, 0.5, 0.3])
    array([1.  , 0.5 , 0.25])
    """
    return pvalues(count_exceedances(scores, null_max), np.size(null_max))


def fdr_pvalues(p: Any) -> np.ndarray:
    """Benjamini-Hochberg adjusted p-values.

    ``q_(i) = min over j >= i of min(1, n p_(j) / j)`` for the sorted p-values; the targets with
    ``q <= a`` are those that the step-up procedure rejects at level a.

    Parameters
    ----------
    p : array-like
        Uncorrected p-values. NaN stays NaN and is not counted in n.

    Returns
    -------
    ndarray of float64, shape of `p`

    Examples
    --------
    >>> import numpy as np
    >>> fdr_pvalues([0.01, 0.02, np.nan, 0.5])
    array([0.03, 0.03,  nan, 0.5 ])
    """
    adjusted = np.array(p, dtype=np.float64)
    defined = ~np.isnan(adjusted)
    known = adjusted[defined]
    if np.any(known < 0) or np.any(known > 1):
        raise InputError(
            f"p goes from {known.min():g} to {known.max():g}; p-values lie between 0 and 1."
        )
    if known.size:
        # not above: workers need it not, and it takes as long to import as all that they need
        from scipy.stats import false_discovery_control

        adjusted[defined] = false_discovery_control(known, method="bh")
    return adjusted
