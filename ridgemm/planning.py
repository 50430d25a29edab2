"""plan: what a call would do, and whether it can, before it does it."""

from numbers import Real
from typing import Any

from ridgemm.engine import check_rows, plan_fit
from ridgemm.errors import InputError
from ridgemm.estimators import RidgeCV
from ridgemm.forecast import Forecast, forecast_fit
from ridgemm.nuisance import as_confounds
from ridgemm.permutation import prepare
from ridgemm.sources import as_source
from ridgemm.weights import as_weights


def plan(
    model: RidgeCV,
    X: Any,
    Y: Any,
    *,
    groups: Any = None,
    confounds: Any = None,
    sample_weight: Any = None,
    n_permutations: int | None = None,
    level: float = 0.05,
    **options: Any,
) -> Forecast:
    """Forecast ``model.fit(X, Y, groups)`` or a `permutation_test`.

    The arguments are checked as the call itself would check them. Of the data only a sample of
    X is read, so that a NaN is not found here.

    Parameters
    ----------
    model : RidgeCV
        Its parameters count; it need not be fitted.
    X, Y : as in `RidgeCV.fit`
        (n_samples, n_features), (n_samples, n_targets).
    groups : array-like of shape (n_samples,), optional
    confounds, sample_weight : as in `RidgeCV.fit`, optional
    n_permutations : int, optional
        Forecast `permutation_test` with as many, instead of the fit.
    level : float
        Level of significance that the p-values are wanted for.
    **options
        Further arguments of `permutation_test`: ``cv``, ``scheme``, ``null``, ...

    Returns
    -------
    Forecast
        Prints as a table; ``save(path)`` writes JSON.

    Raises
    ------
    InputError, MemoryLimitError

    Examples
    --------
    >>> import numpy as np
    >>> forecast = plan(RidgeCV([1, 10]), np.eye(600, 9), np.eye(600, 60), n_permutations=99)
    >>> forecast.route, [stage.name for stage in forecast.stages]
    ('primal-statistics', ['scan', 'factors', 'observed', 'null'])
    """
    check_level(level, "level")
    if n_permutations is not None:
        if sample_weight is not None:
            raise InputError(
                "sample_weight is taken by a fit alone, not by a permutation test; leave out "
                "n_permutations, or sample_weight."
            )
        arguments = {"groups": groups, "confounds": confounds, **options}
        return prepare(model, X, Y, n_permutations=n_permutations, **arguments).forecast(level)
    if options:
        raise InputError(
            f"{', '.join(sorted(options))}: only a permutation test has such arguments; give "
            "n_permutations, or leave them out."
        )
    settings = model.checked_settings()
    X, Y = as_source(X, "X"), as_source(Y, "Y")
    weights = as_weights(sample_weight, X.shape[0])
    nuisance = settings.nuisance(X.shape[0], as_confounds(confounds, X.shape[0]), weights)
    if weights is not None:
        check_rows(X, Y)
        X, Y = weights.select(X), weights.select(Y)
    chosen, fold_groups = plan_fit(settings, X, Y, groups, nuisance)
    folds = [fold for group in fold_groups for fold in group.folds]
    return forecast_fit(settings, chosen, folds, X, Y)


def check_level(level: Any, name: str) -> None:
    """Refuse a level of significance that is none."""
    if not (isinstance(level, Real) and 0 < level < 1):
        raise InputError(f"{name}={level!r} must lie between 0 and 1, such as 0.05.")
