"""RidgeCV and Ridge: their parameters, checked, and their fits."""

from numbers import Real
from pathlib import Path
from typing import Any

import numpy as np

from ridgemm.engine import Fitted, Settings
from ridgemm.errors import InputError, one_line
from ridgemm.fitplan import parse_memory
from ridgemm.mapreduce import count_workers
from ridgemm.model import RidgeModel
from ridgemm.products import usable_precision
from ridgemm.scores import check_scoring


class RidgeCV(RidgeModel):
    r"""Cross-validated ridge regression of very many targets, out of core.

    .. math:: \min_B \|Y - X B\|^2 + \alpha \|B\|^2

    with alpha chosen for each target, or one for all, among `alphas`. X and Y may be larger
    than RAM: they are read by tiles, and nothing copies a whole one.

    Parameters
    ----------
    alphas : array-like of shape (n_alphas,)
        Positive penalties, as scikit-learn's (not squared).
    cv : int, splitter, list of (train, test), "loo" or "gcv"
        An int means `KFold`, or `GroupKFold` when `fit` is given groups. "loo" is
        leave-one-out with scores pooled over samples; "gcv" the generalised
        cross-validation by the trace.
    scoring : {"r2", "correlation", "neg_mean_squared_error"}
        Score of a candidate, averaged over folds; "correlation" is Pearson's. Constant
        targets score 0 by the first two.
    alpha_per_target : bool
        Choose an alpha for each target, instead of the best on average.
    fit_intercept : bool
        Remove training means of X and Y.
    standardize : bool
        Divide features by their standard deviations, of the training fold's rows.
    solver : str
        "auto" picks the route of fewest flops that fits the memory limit; "primal", "svd" and
        "dual" force a factorisation, and a name as in ``route_`` the whole route.
    precision : {"single", "mixed"}
        Of products with targets. "mixed" splits float32 into two bfloat16 parts, for processors
        with matrix units (AMX) and ``ridgemm[mkl]``: faster, with an error of 5e-6 of the largest
        value instead of 4e-7. Elsewhere it warns and is single.
    memory_limit : int, str or None
        Bytes, or a text such as "2GB", of program memory above what importing takes (file
        cache does not count). None is half of what is available.
    cache_dir : path or None
        Folder where the factors of X are kept for later fits with the same X and folds.
    n_jobs : int
        Worker processes. 1 uses all cores by threads.
    verbose : int
        Log the plan and the steps to the logger "ridgemm" at INFO if positive.

    Attributes
    ----------
    alpha_ : ndarray of shape (n_targets,) or float
    best_score_ : ndarray of shape (n_targets,) or float
    cv_scores_ : ndarray of shape (n_alphas, n_targets), or (n_alphas,) for one alpha
    coef_ : ndarray or memmap of shape (n_targets, n_features), float32
        A read-only memmap if it would take a quarter of the memory limit. Made when first
        asked for on a dual route, of X and, where `plan_` says "on demand", of Y.
    intercept_ : ndarray of shape (n_targets,), float64
    x_offset_, y_offset_ : ndarray
        ``predict`` computes ``(x - x_offset_) @ coef_.T + y_offset_``.
    route_ : str
        The algebra that was used.
    plan_ : Plan
        Tiles, bytes and flops; prints as a table. Of a model that was loaded, the table.
    factors_computed_ : int
        Factor entries that were not found in the cache.
    took_ : dict of str to float
        Seconds of the stages scan, factors and targets.
    n_constant_targets_ : int
    n_features_in_ : int
    confound_offset_, confound_coef_ : ndarray of shape (n_confounds,), (n_targets, n_confounds)
        Of a fit with confounds: their means, and their coefficients in a fit of Y by them alone.
    feature_names_in_ : ndarray of shape (n_features,)
        Where X was a DataFrame with names.

    Notes
    -----
    After a fit with a 1-D y, of shape (n_samples,), the axis of targets is left out of every
    attribute: ``coef_`` is (n_features,), ``alpha_`` and ``intercept_`` are numbers.

    References
    ----------
    .. [1] A. E. Hoerl and R. W. Kennard, "Ridge regression: biased estimation for
       nonorthogonal problems", Technometrics 12, 1970.
    .. [2] G. H. Golub, M. Heath and G. Wahba, "Generalized cross-validation as a method for
       choosing a good ridge parameter", Technometrics 21, 1979.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> X = rng.standard_normal((60, 5))
    >>> Y = X @ rng.standard_normal((5, 3)) + 0.1 * rng.standard_normal((60, 3))
    >>> model = RidgeCV(alphas=[0.1, 1, 10], cv=3).fit(X, Y)
    >>> model.coef_.shape, bool((model.best_score_ > 0.9).all())
    ((3, 5), True)
    """

    _saved = ("alpha", "best_score", "cv_scores")

    def __init__(
        self,
        alphas: Any = (0.1, 1.0, 10.0),
        *,
        cv: Any = 5,
        scoring: str = "r2",
        alpha_per_target: bool = True,
        fit_intercept: bool = True,
        standardize: bool = False,
        solver: str = "auto",
        precision: str = "single",
        memory_limit: int | str | None = None,
        cache_dir: str | Path | None = None,
        n_jobs: int = 1,
        verbose: int = 0,
    ):
        self.alphas = alphas
        self.cv = cv
        self.scoring = scoring
        self.alpha_per_target = alpha_per_target
        self.fit_intercept = fit_intercept
        self.standardize = standardize
        self.solver = solver
        self.precision = precision
        self.memory_limit = memory_limit
        self.cache_dir = cache_dir
        self.n_jobs = n_jobs
        self.verbose = verbose

    def fit(
        self,
        X: Any,
        y: Any,
        groups: Any = None,
        *,
        confounds: Any = None,
        sample_weight: Any = None,
    ) -> "RidgeCV":
        """Choose alphas by cross-validation and fit all samples with them.

        Parameters
        ----------
        X : ndarray, memmap, DataFrame, path, view or object with 2-D slicing
            (n_samples, n_features), int8 to float64, any order.
        y : as X
            Y, (n_samples, n_targets) or (n_samples,); the name is scikit-learn's.
        groups : array-like of shape (n_samples,), optional
            Run, session or family of each sample; whole groups are held out.
        confounds : array-like of shape (n_samples, n_confounds), optional
            Fitted to X and Y without a penalty and removed from both, inside each training fold;
            test rows are rid of them by the coefficients of the training fold. Scores are of what
            is left. ``coef_`` acts on X; see `predict` for their part in a prediction.
        sample_weight : array-like of shape (n_samples,) or float, optional
            Weights of the squared errors, used as they are: twice the weights want twice the
            alphas. Means, standard deviations and scores are weighted, too: for LOO the pooled
            score, for GCV the squared errors (its trace is that of the weighted fit, its count
            that of the samples). 0 leaves a sample out of training and of scores, after the
            folds are made; ``dual_coef_`` has no place for it.

        Returns
        -------
        self

        Raises
        ------
        InputError
            Data or a parameter cannot be used.
        MemoryLimitError
            The limit is too small; says which would do.
        StorageError
            A folder cannot be written, or the disk is too full.
        """
        return self._fit(X, y, groups, confounds, sample_weight)

    def checked_settings(self) -> Settings:
        """The parameters, checked; what needs no data is refused here."""
        check_scoring(self.scoring)
        _check_verbose(self.verbose)
        kind = self.cv if isinstance(self.cv, str) else "folds"
        if kind == "loo" and self.standardize:
            raise InputError(
                "standardize=True cannot be exact with cv='loo': every left-out sample has its "
                "own scale; standardise X yourself or use cv=n folds."
            )
        if isinstance(self.cv, str) and self.cv not in ("loo", "gcv"):
            raise InputError(f"cv={self.cv!r} is unknown; as a text it may be 'loo' or 'gcv'.")
        if kind == "gcv" and self.scoring == "correlation":
            raise InputError(
                "scoring='correlation' is not defined for cv='gcv', which makes no held-out "
                "prediction; use 'r2' or 'neg_mean_squared_error', or cv='loo'."
            )
        return Settings(
            alphas=_check_alphas(self.alphas, "alphas"),
            cv=self.cv,
            scoring=self.scoring,
            per_target=bool(self.alpha_per_target),
            fit_intercept=bool(self.fit_intercept),
            standardize=bool(self.standardize),
            solver=self.solver,
            memory_limit=parse_memory(self.memory_limit),
            n_workers=count_workers(self.n_jobs),
            precision=usable_precision(self.precision),
        )

    @property
    def _scoring(self) -> str:
        return self.scoring

    def _adopt(self, fitted: Fitted, *args: Any) -> None:
        super()._adopt(fitted, *args)
        self.best_score_, self.cv_scores_ = fitted.best, fitted.scores
        if self._single and fitted.scores.ndim == 2:
            self.best_score_, self.cv_scores_ = fitted.best[0], fitted.scores[:, 0]


class Ridge(RidgeModel):
    r"""Ridge regression of very many targets with penalties that are known, out of core.

    .. math:: \min_B \|Y - X B\|^2 + \alpha \|B\|^2

    with one alpha, or one for each target. The fit is that which `RidgeCV` makes once it has
    chosen: X is factored once, whatever the number of alphas.

    Parameters
    ----------
    alpha : float or array-like of shape (n_targets,)
        Positive penalties, as scikit-learn's (not squared).
    fit_intercept, standardize : bool
        As in `RidgeCV`.
    solver : str
        "auto", a family ("primal", "svd", "dual"), or a name as in ``route_``.
    precision, memory_limit, cache_dir, n_jobs, verbose
        As in `RidgeCV`.

    Attributes
    ----------
    alpha_ : float or ndarray of shape (n_targets,)
    coef_ : ndarray or memmap of shape (n_targets, n_features), float32
    intercept_ : ndarray of shape (n_targets,), float64
    route_, plan_, factors_computed_, took_, n_constant_targets_, n_features_in_ :
        As in `RidgeCV`, like ``x_offset_`` and ``y_offset_``.

    Notes
    -----
    After a fit with a 1-D y the axis of targets is left out of every attribute.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> X, Y = rng.standard_normal((60, 5)), rng.standard_normal((60, 3))
    >>> Ridge(alpha=[1.0, 10.0, 100.0]).fit(X, Y).coef_.shape
    (3, 5)
    """

    def __init__(
        self,
        alpha: Any = 1.0,
        *,
        fit_intercept: bool = True,
        standardize: bool = False,
        solver: str = "auto",
        precision: str = "single",
        memory_limit: int | str | None = None,
        cache_dir: str | Path | None = None,
        n_jobs: int = 1,
        verbose: int = 0,
    ):
        self.alpha = alpha
        self.fit_intercept = fit_intercept
        self.standardize = standardize
        self.solver = solver
        self.precision = precision
        self.memory_limit = memory_limit
        self.cache_dir = cache_dir
        self.n_jobs = n_jobs
        self.verbose = verbose

    def fit(self, X: Any, y: Any, *, confounds: Any = None, sample_weight: Any = None) -> "Ridge":
        """Fit all samples.

        Parameters
        ----------
        X, y, confounds, sample_weight : as in `RidgeCV.fit`

        Returns
        -------
        self

        Raises
        ------
        InputError, MemoryLimitError, StorageError
            As `RidgeCV.fit`.
        """
        return self._fit(X, y, None, confounds, sample_weight)

    def checked_settings(self) -> Settings:
        """The parameters, checked; what needs no data is refused here."""
        _check_verbose(self.verbose)
        alpha = _check_alphas(self.alpha, "alpha")
        return Settings(
            alphas=alpha[:0],
            cv=None,
            scoring=self._scoring,
            per_target=np.ndim(self.alpha) > 0,
            fit_intercept=bool(self.fit_intercept),
            standardize=bool(self.standardize),
            solver=self.solver,
            memory_limit=parse_memory(self.memory_limit),
            n_workers=count_workers(self.n_jobs),
            precision=usable_precision(self.precision),
            alpha=float(alpha[0]) if np.ndim(self.alpha) == 0 else alpha,
        )


def _check_verbose(verbose: Any) -> None:
    if not isinstance(verbose, Real):
        raise InputError(f"verbose={one_line(verbose)} is not a number; use 0 or 1.")


def _check_alphas(alphas: Any, name: str) -> np.ndarray:
    try:
        if np.asarray(alphas).dtype.kind == "c":
            raise TypeError("complex")
        alphas = np.atleast_1d(np.asarray(alphas, dtype=np.float64))
    except (TypeError, ValueError, OverflowError) as error:
        raise InputError(
            f"{name}={one_line(alphas)} are not numbers; give positive penalties."
        ) from error
    if alphas.ndim != 1 or alphas.size == 0:
        raise InputError(f"{name} has shape {alphas.shape}; give a list of at least one penalty.")
    wrong = alphas[~((alphas > 0) & (alphas < np.inf))]
    if len(wrong):
        raise InputError(
            f"{name} holds {wrong[0]}; penalties must be positive and finite (for no penalty "
            "give one that is small against the eigenvalues of X.T @ X)."
        )
    return alphas
