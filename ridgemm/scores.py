r"""Scores from moments.

With :math:`\tilde y = y - \bar y_{train}` and the prediction :math:`\hat y` in the same units,
every scoring is a function of n, :math:`\sum \tilde y`, :math:`\sum \tilde y^2`,
:math:`\sum \hat y`, :math:`\sum \hat y^2` and :math:`\sum \hat y \tilde y`.
"""

from dataclasses import dataclass

import numpy as np

from ridgemm.errors import InputError, one_line

SCORINGS = ("r2", "correlation", "neg_mean_squared_error")

# below this share of the sum of squares about the shift, a variance is rounding
_NOTHING = 1e-12
# share that float32 rounding leaves of equal values that are scaled, each by its own weight
ROUNDED = 1e-13


@dataclass(frozen=True)
class Moments:
    """Moments of n rows of targets and of predictions of them.

    Attributes
    ----------
    n : float
        Or the sum of their weights.
    y, y_square : (n_targets,) float64
    prediction, prediction_square, product : (..., n_targets) float64
    """

    n: float
    y: np.ndarray
    y_square: np.ndarray
    prediction: np.ndarray
    prediction_square: np.ndarray
    product: np.ndarray

    @property
    def y_variation(self) -> np.ndarray:
        """``sum (y - mean y)^2``, 0 for constant targets."""
        return variation(self.n, self.y, self.y_square)


def variation(n: float, total: np.ndarray, square: np.ndarray) -> np.ndarray:
    """``sum (v - mean v)^2`` of n values from their sum and sum of squares; rounding gives 0."""
    spread = square - total**2 / n
    return np.where(spread > _NOTHING * square, spread, 0)


def check_scoring(scoring: str) -> None:
    """Refuse what is not one of `SCORINGS`."""
    if not (isinstance(scoring, str) and scoring in SCORINGS):
        raise InputError(
            f"scoring={one_line(scoring)} is unknown; choose one of {', '.join(SCORINGS)}."
        )


def score(scoring: str, moments: Moments) -> np.ndarray:
    """Score of every prediction of every target; constant ones score 0.

    Parameters
    ----------
    scoring : {"r2", "correlation", "neg_mean_squared_error"}
    moments : Moments

    Returns
    -------
    (..., n_targets) float64

    Examples
    --------
    >>> one = np.ones(1)
    >>> m = Moments(2, 0 * one, 2 * one, 0 * one, 2 * one, 2 * one)  # y = yhat = (-1, 1)
    >>> score("r2", m), score("correlation", m)
    (array([1.]), array([1.]))
    """
    if scoring == "correlation":
        covariation = moments.product - moments.prediction * moments.y / moments.n
        spread = variation(moments.n, moments.prediction, moments.prediction_square)
        return _ratio(covariation, np.sqrt(spread * moments.y_variation))
    error = moments.y_square - 2 * moments.product + moments.prediction_square
    return from_error(scoring, np.maximum(error, 0), moments.n, moments.y_variation)


def from_error(scoring: str, error: np.ndarray, n: float, y_variation: np.ndarray) -> np.ndarray:
    """R2 or negative mean squared error of a sum of squared errors."""
    if scoring == "neg_mean_squared_error":
        return -error / n
    return np.where(y_variation > 0, 1 - _ratio(error, y_variation), 0)


def _ratio(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    return np.divide(
        numerator,
        denominator,
        out=np.zeros(np.broadcast_shapes(np.shape(numerator), np.shape(denominator))),
        where=denominator > 0,
    )
