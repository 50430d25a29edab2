"""RidgeCV: validate, plan, run."""

import contextlib
import logging
import shutil
import weakref
from collections.abc import Iterator
from numbers import Real
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.utils.validation import check_is_fitted

from ridgemm.engine import Fitted, Settings, plan_fit, run_fit
from ridgemm.errors import InputError, StorageError, as_path, one_line
from ridgemm.fitplan import parse_memory
from ridgemm.mapreduce import count_workers
from ridgemm.persistence import load_model, save_model
from ridgemm.prediction import LinearModel, predict, primal_coefficients, score_targets
from ridgemm.private import remove, temporary_folder
from ridgemm.scores import check_scoring
from ridgemm.sources import Source, as_source
from ridgemm.store import check_folder, check_space
from ridgemm.tiles import spans

log = logging.getLogger("ridgemm")

_SAVED = ("alpha", "best_score", "cv_scores")
_JSON = (int, float, str, type(None))


class RidgeCV(RegressorMixin, BaseEstimator):
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
        asked for on a dual route.
    intercept_ : ndarray of shape (n_targets,), float64
    x_offset_, y_offset_ : ndarray
        ``predict`` computes ``(x - x_offset_) @ coef_.T + y_offset_``.
    route_ : str
        The algebra that was used.
    plan_ : Plan
        Tiles, bytes and flops; prints as a table.
    factors_computed_ : int
        Factor entries that were not found in the cache.
    took_ : dict of str to float
        Seconds of the stages scan, factors and targets.
    n_constant_targets_ : int
    n_features_in_ : int

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
        self.memory_limit = memory_limit
        self.cache_dir = cache_dir
        self.n_jobs = n_jobs
        self.verbose = verbose

    def fit(self, X: Any, Y: Any, groups: Any = None) -> "RidgeCV":
        """Choose alphas by cross-validation and fit all samples with them.

        Parameters
        ----------
        X : ndarray, memmap, path to ``.npy`` or object with 2-D slicing
            (n_samples, n_features), int8 to float64, any order.
        Y : as X
            (n_samples, n_targets).
        groups : array-like of shape (n_samples,), optional
            Run, session or family of each sample; whole groups are held out.

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
        settings = self.checked_settings()
        X, Y = as_source(X, "X"), as_source(Y, "Y")
        cache = None if self.cache_dir is None else as_path(self.cache_dir, "cache_dir")
        if cache is not None:
            check_folder(cache, "cache_dir")
        plan, fold_groups = plan_fit(settings, X, Y, groups)
        with logging_to_stderr(self.verbose), _scratch_folder(cache, plan.coef_in_file) as scratch:
            fitted = run_fit(settings, plan, fold_groups, X, Y, cache, scratch)
        if plan.coef_in_file:
            self._own_folder(scratch)
        self.plan_, self.route_ = plan, plan.route.name
        self.n_features_in_ = X.shape[1]
        self._adopt(fitted, X if plan.route.family == "dual" else None)
        return self

    def predict(self, X: Any, out: np.ndarray | None = None) -> np.ndarray:
        """Predictions of all targets.

        Parameters
        ----------
        X : as in `fit`
            (n_new, n_features).
        out : (n_new, n_targets) float32 array or memmap, optional
            Where to write them.

        Returns
        -------
        (n_new, n_targets) float32
            `out` if given.

        Raises
        ------
        InputError
            `X` or `out` has another shape or dtype.
        MemoryLimitError
            `out` is not given and would not fit the limit.
        """
        X = self._check_new(X)
        return predict(self._linear, X, out, parse_memory(self.memory_limit))

    def score(self, X: Any, Y: Any, out: np.ndarray | None = None) -> np.ndarray:
        """Score of every target on new data, by the model's own scoring.

        Parameters
        ----------
        X, Y : as in `fit`
            (n_new, n_features), (n_new, n_targets).
        out : (n_targets,) float array, optional
            Where to write them.

        Returns
        -------
        (n_targets,) float64
            `out` if given.

        Raises
        ------
        InputError
        """
        X, Y = self._check_new(X), as_source(Y, "Y")
        expected = (X.shape[0], self._linear.n_targets)
        if Y.shape != expected:
            raise InputError(f"Y has shape {Y.shape}, but X and the model ask for {expected}.")
        limit = parse_memory(self.memory_limit)
        scores = score_targets(self._linear, X, Y, self.scoring, limit)
        if out is None:
            return scores
        good = isinstance(out, np.ndarray) and out.shape == scores.shape
        if not good or out.dtype.kind != "f" or not out.flags.writeable:
            raise InputError(
                f"out must be a writable float array of shape {scores.shape}, not "
                f"{getattr(out, 'dtype', type(out).__name__)} {getattr(out, 'shape', '')}."
            )
        out[...] = scores
        return out

    def save(self, folder: str | Path) -> None:
        """Write the fitted model as ``.npy`` files and a JSON manifest, read by `ridgemm.load`.

        A dual model is written with its primal coefficients unless its X is a ``.npy`` file,
        which is then referred to by path.

        Raises
        ------
        StorageError
            The folder exists already or cannot be written.
        """
        check_is_fitted(self, "alpha_")
        arrays = {name: np.asarray(getattr(self, f"{name}_")) for name in _SAVED}
        parameters = {
            name: value if isinstance(value, _JSON) else repr(value)
            for name, value in self.get_params().items()
        }
        manifest = {
            "kind": "RidgeCV",
            "parameters": {**parameters, "alphas": np.asarray(self.alphas).tolist()},
            "route": self.route_,
            "n_constant_targets": self.n_constant_targets_,
        }
        if hasattr(self, "plan_"):
            manifest |= {"plan": str(self.plan_).splitlines(), "took": self.took_}
        save_model(as_path(folder, "folder"), self._linear, arrays, manifest)

    @classmethod
    def from_folder(cls, folder: Path) -> "RidgeCV":
        """A model that `save` wrote; `ridgemm.load` calls this."""
        linear, arrays, manifest = load_model(folder)
        try:
            return cls._from_parts(linear, arrays, manifest)
        except (KeyError, TypeError, ValueError) as error:
            raise StorageError(
                f"{str(folder)!r} holds a manifest that is damaged ({one_line(error)}); fit and "
                "save the model again."
            ) from error

    @classmethod
    def _from_parts(cls, linear, arrays, manifest) -> "RidgeCV":
        model = cls(**manifest["parameters"])
        for name in _SAVED:
            # a shared alpha and its score are scalars
            setattr(model, f"{name}_", arrays[name][()])
        model.x_offset_, model.y_offset_ = linear.x_offset, linear.y_offset
        model.route_, model.n_features_in_ = manifest["route"], len(linear.x_offset)
        model.n_constant_targets_ = manifest["n_constant_targets"]
        model._linear, model._primal = linear, None
        return model

    @property
    def coef_(self) -> np.ndarray:
        """(n_targets, n_features) float32; a dual model makes it when first asked."""
        check_is_fitted(self, "alpha_")
        if self._linear.train is None:
            return self._linear.coef
        if self._primal is None:
            n_bytes = 4 * self._linear.n_targets * self.n_features_in_
            limit = parse_memory(self.memory_limit)
            path = None
            if n_bytes > limit // 4:
                folder = temporary_folder(self.cache_dir)
                self._own_folder(folder)
                check_space(folder, n_bytes, "coef_")
                path = folder / "coef.npy"
            self._primal = primal_coefficients(self._linear, path, limit)
        return self._primal

    @property
    def dual_coef_(self) -> np.ndarray:
        """(n_targets, n_samples) float32, of a dual model."""
        check_is_fitted(self, "alpha_")
        if self._linear.train is None:
            raise AttributeError(f"a model of route {self.route_} has no dual coefficients")
        return self._linear.coef

    @property
    def intercept_(self) -> np.ndarray:
        """(n_targets,) float64: the prediction at x = 0."""
        check_is_fitted(self, "alpha_")
        linear, coef = self._linear, self.coef_
        intercept = linear.y_offset.copy()
        # float64 blocks of a few MB
        for strip in spans(len(coef), 256):
            for columns in spans(self.n_features_in_, 4096):
                block = coef[strip, columns].astype(np.float64)
                intercept[strip] -= block @ linear.x_offset[columns]
        return intercept

    def checked_settings(self) -> Settings:
        """The parameters, checked; what needs no data is refused here."""
        check_scoring(self.scoring)
        if not isinstance(self.verbose, Real):
            raise InputError(f"verbose={one_line(self.verbose)} is not a number; use 0 or 1.")
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
            alphas=_check_alphas(self.alphas),
            cv=self.cv,
            scoring=self.scoring,
            per_target=bool(self.alpha_per_target),
            fit_intercept=bool(self.fit_intercept),
            standardize=bool(self.standardize),
            solver=self.solver,
            memory_limit=parse_memory(self.memory_limit),
            n_workers=count_workers(self.n_jobs),
        )

    def _adopt(self, fitted: Fitted, train: Source | None) -> None:
        outputs = fitted.outputs
        self.alpha_, self.best_score_, self.cv_scores_ = fitted.alpha, fitted.best, fitted.scores
        self.x_offset_, self.y_offset_ = fitted.x_offset, fitted.y_offset
        self.factors_computed_, self.took_ = fitted.factors_computed, fitted.took
        self.n_constant_targets_ = int(outputs.constant.sum())
        self._linear = LinearModel(
            outputs.coef, fitted.x_offset, fitted.y_offset, train, fitted.scale
        )
        self._primal = None

    def _own_folder(self, folder: Path) -> None:
        """Remove `folder` when the model is gone."""
        weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)

    def _check_new(self, X: Any) -> Source:
        check_is_fitted(self, "alpha_")
        X = as_source(X, "X")
        if X.shape[1] != self.n_features_in_:
            raise InputError(
                f"X has {X.shape[1]} features, but the model was fitted with {self.n_features_in_}."
            )
        return X


def _check_alphas(alphas: Any) -> np.ndarray:
    try:
        if np.asarray(alphas).dtype.kind == "c":
            raise TypeError("complex")
        alphas = np.atleast_1d(np.asarray(alphas, dtype=np.float64))
    except (TypeError, ValueError, OverflowError) as error:
        raise InputError(
            f"alphas={one_line(alphas)} are not numbers; give positive penalties."
        ) from error
    if alphas.ndim != 1 or alphas.size == 0:
        raise InputError(f"alphas has shape {alphas.shape}; give a list of at least one penalty.")
    wrong = alphas[~((alphas > 0) & (alphas < np.inf))]
    if len(wrong):
        raise InputError(
            f"alphas holds {wrong[0]}; penalties must be positive and finite (for no penalty "
            "give one that is small against the eigenvalues of X.T @ X)."
        )
    return alphas


@contextlib.contextmanager
def logging_to_stderr(verbose: int) -> Iterator[None]:
    """Show the log on stderr for a while."""
    if verbose <= 0:
        yield
        return
    handler, level = logging.StreamHandler(), log.level
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    try:
        yield
    finally:
        log.removeHandler(handler)
        log.setLevel(level)


@contextlib.contextmanager
def _scratch_folder(cache: Path | None, keep: bool) -> Iterator[Path]:
    """A temporary folder beside the cache, removed at the end or, with `keep`, on an error."""
    folder = temporary_folder(cache)
    try:
        yield folder
    except BaseException:
        remove(folder)
        raise
    if not keep:
        remove(folder)
