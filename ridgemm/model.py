"""What `RidgeCV` and `Ridge` share: a fitted linear model that predicts, scores and is saved."""

import contextlib
import logging
import os
import shutil
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.utils.validation import check_is_fitted, validate_data

from ridgemm.engine import Fitted, Settings, check_rows, plan_fit, run_fit
from ridgemm.errors import InputError, StorageError, as_path, one_line
from ridgemm.fitplan import parse_memory
from ridgemm.linear import LinearModel, dual_coefficients, primal_coefficients
from ridgemm.nuisance import Nuisance, about, as_confounds
from ridgemm.persistence import load_model, save_model
from ridgemm.prediction import check_out, predict, score_targets
from ridgemm.private import remove, temporary_folder
from ridgemm.report import report_fit
from ridgemm.sources import Source, as_source, as_targets
from ridgemm.store import check_folder, check_space
from ridgemm.tiles import spans
from ridgemm.weights import as_weights

log = logging.getLogger("ridgemm")

_JSON = (int, float, str, type(None))


class RidgeModel(RegressorMixin, BaseEstimator):
    """A ridge regression of one target or very many, out of core.

    Subclasses have the parameters ``memory_limit``, ``cache_dir`` and ``verbose``, and say which
    fit they want: `checked_settings`.
    """

    # small fitted arrays that `save` writes, without their underscore
    _saved: tuple[str, ...] = ("alpha",)
    _scoring = "r2"

    def checked_settings(self) -> Settings:
        """The parameters, checked; what needs no data is refused here."""
        raise NotImplementedError

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags

    def _fit(self, X: Any, Y: Any, groups: Any, confounds: Any, sample_weight: Any):
        settings = self.checked_settings()
        source, (targets, single) = as_source(X, "X"), as_targets(Y)
        self._check_names(X, reset=True)
        cache = None if self.cache_dir is None else as_path(self.cache_dir, "cache_dir")
        if cache is not None:
            check_folder(cache, "cache_dir")
        columns = as_confounds(confounds, source.shape[0])
        weights = as_weights(sample_weight, source.shape[0])
        nuisance = settings.nuisance(source.shape[0], columns, weights)
        if weights is not None:
            check_rows(source, targets)
            source, targets = weights.select(source), weights.select(targets)
        plan, fold_groups = plan_fit(settings, source, targets, groups, nuisance)
        with logging_to_stderr(self.verbose), _scratch_folder(cache, plan.coef_in_file) as scratch:
            fitted = run_fit(settings, plan, fold_groups, source, targets, cache, scratch, nuisance)
        if plan.coef_in_file:
            self._own_folder(scratch)
        self.plan_, self.route_ = plan, plan.route.name
        self.n_features_in_ = source.shape[1]
        self._single = single
        self._adopt(fitted, fitted.X if plan.route.family == "dual" else None)
        self._removed = None
        if columns is not None:
            self._removed = _removed(nuisance, fitted)
        return self

    def _adopt(self, fitted: Fitted, train: Source | None) -> None:
        outputs = fitted.outputs
        self.alpha_ = fitted.alpha
        if self._single and np.ndim(fitted.alpha):
            self.alpha_ = fitted.alpha[0]
        self.x_offset_, self.y_offset_ = fitted.x_offset, fitted.y_offset
        self.factors_computed_, self.took_ = fitted.factors_computed, fitted.took
        self.n_constant_targets_ = int(outputs.constant.sum())
        self._linear = LinearModel(
            outputs.coef if fitted.on_demand is None else None,
            fitted.x_offset,
            fitted.y_offset,
            train,
            fitted.scale,
            fitted.on_demand,
        )
        self._primal = self._dual = None

    @property
    def confound_offset_(self) -> np.ndarray:
        """(n_confounds,) float64: where confounds have no effect, their means over the fit."""
        return self._of_confounds()["offset"]

    @property
    def confound_coef_(self) -> np.ndarray:
        """(n_targets, n_confounds) float64: fit of Y by the confounds, before X takes part."""
        return self._rows_of(self._of_confounds()["y"].T)

    def _of_confounds(self) -> dict[str, np.ndarray]:
        check_is_fitted(self, "alpha_")
        if self._removed is None:
            raise AttributeError("the model was fitted without confounds")
        return self._removed

    def predict(
        self, X: Any, out: np.ndarray | None = None, *, confounds: Any = None
    ) -> np.ndarray:
        """Predictions of all targets.

        Parameters
        ----------
        X : as in `fit`, (n_new, n_features)
        out : (n_new, n_targets) float32 or float64 array or memmap, optional
        confounds : (n_new, n_confounds) array-like, optional
            Of a model that was fitted with confounds. Without them the prediction is that at
            their means (at 0 without an intercept).

        Returns
        -------
        (n_new, n_targets) float64 if X is, otherwise float32
            In either, products have the digits of float32. `out` if given; (n_new,) if the model
            was fitted with a 1-D y.

        Raises
        ------
        InputError, MemoryLimitError
        """
        X, limit = self._check_new(X), parse_memory(self.memory_limit)
        dtype = np.float64 if X.dtype.kind == "f" and X.dtype.itemsize > 4 else np.float32
        effects = None
        if confounds is not None:
            C = self._new_confounds(confounds, X.shape[0])
            X, effects = about(X, C, self._removed["x"]), (C, self._removed["y"])
        if not self._single:
            return predict(self._linear, X, out, limit, effects, dtype)
        if out is not None:
            check_out(out, (X.shape[0],))
        column = None if out is None else out[:, None]
        column = predict(self._linear, X, column, limit, effects, dtype)
        return column[:, 0] if out is None else out

    def score(
        self,
        X: Any,
        y: Any,
        out: np.ndarray | None = None,
        *,
        multioutput: str | None = None,
        confounds: Any = None,
    ) -> np.ndarray | float:
        """Score on new data: of every target, or of a 1-D y as one number.

        `RidgeCV` scores by its ``scoring``, `Ridge` by R2.

        Parameters
        ----------
        X, y : as X and Y of `fit`
        out : (n_targets,) float array, optional
            For the scores of the targets.
        multioutput : {"raw_values", "uniform_average"}, optional
            Score every target, or average them, as a tool that wants one number needs it. None
            averages a 1-D y alone.
        confounds : (n_new, n_confounds) array-like, optional
            Of a model that was fitted with confounds: score, as cross-validation does, what their
            effects leave of y by what they leave of X.

        Returns
        -------
        (n_targets,) float64, or float
            `out` if given.

        Raises
        ------
        InputError
        """
        if multioutput not in (None, "raw_values", "uniform_average"):
            raise InputError(
                f"multioutput={one_line(multioutput)} is unknown; choose 'raw_values' or "
                "'uniform_average'."
            )
        X, (Y, single) = self._check_new(X), as_targets(y)
        expected = (X.shape[0], self._linear.n_targets)
        if Y.shape != expected:
            raise InputError(f"Y has shape {Y.shape}, but X and the model ask for {expected}.")
        if confounds is not None:
            C = self._new_confounds(confounds, X.shape[0])
            X, Y = about(X, C, self._removed["x"]), about(Y, C, self._removed["y"])
        limit = parse_memory(self.memory_limit)
        scores = score_targets(self._linear, X, Y, self._scoring, limit)
        if out is not None:
            _write_scores(scores, out)
            return out
        average = single if multioutput is None else multioutput == "uniform_average"
        return float(scores.mean()) if average else scores

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
        arrays = {name: np.asarray(getattr(self, f"{name}_")) for name in self._saved}
        arrays |= {f"confound_{name}": array for name, array in (self._removed or {}).items()}
        manifest = {
            "kind": type(self).__name__,
            "parameters": {name: _as_json(value) for name, value in self.get_params().items()},
            "route": self.route_,
            "single_target": self._single,
            "n_constant_targets": self.n_constant_targets_,
        }
        if hasattr(self, "feature_names_in_"):
            manifest["feature_names"] = self.feature_names_in_.tolist()
        if hasattr(self, "plan_"):
            manifest |= {"plan": str(self.plan_).splitlines(), "took": self.took_}
        save_model(as_path(folder, "folder"), self._linear, arrays, manifest, self._free)

    def report(self, path: str | Path, mask: Any = None) -> Path:
        """Write one HTML page of what was chosen and found; `ridgemm.report.report_fit` says more.

        Parameters
        ----------
        path : path
            Ends in ``.html``.
        mask : bool array, path, nibabel image or nilearn masker, optional
            To draw the map of scores, as for `ridgemm.plots.plot_map`.

        Returns
        -------
        Path
        """
        check_is_fitted(self, "alpha_")
        return report_fit(self, path, mask)

    @classmethod
    def from_folder(cls, folder: Path) -> "RidgeModel":
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
    def _from_parts(cls, linear, arrays, manifest) -> "RidgeModel":
        model = cls(**manifest["parameters"])
        for name in cls._saved:
            # a shared alpha and its score are scalars
            setattr(model, f"{name}_", arrays[name][()])
        model.x_offset_, model.y_offset_ = linear.x_offset, linear.y_offset
        model.route_, model.n_features_in_ = manifest["route"], len(linear.x_offset)
        model.n_constant_targets_ = manifest["n_constant_targets"]
        if "feature_names" in manifest:
            model.feature_names_in_ = np.array(manifest["feature_names"], dtype=object)
        if "plan" in manifest:
            model.plan_, model.took_ = "\n".join(manifest["plan"]), dict(manifest["took"])
        model._single = bool(manifest.get("single_target", False))
        model._linear, model._primal, model._dual = linear, None, None
        model._removed = None
        if "confound_offset" in arrays:
            model._removed = {name: arrays[f"confound_{name}"] for name in ("offset", "x", "y")}
        return model

    @property
    def coef_(self) -> np.ndarray:
        """(n_targets, n_features) float32; a dual model makes it when first asked."""
        check_is_fitted(self, "alpha_")
        return self._rows_of(self._coefficients())

    def _rows_of(self, coef: np.ndarray) -> np.ndarray:
        return coef[0] if self._single else coef

    def _coefficients(self) -> np.ndarray:
        if self._linear.train is None:
            return self._linear.coef
        if self._primal is None:
            self._primal = self._made(primal_coefficients, self.n_features_in_, "coef")
        return self._primal

    @property
    def _free(self) -> int:
        """Bytes that the limit leaves beside the model."""
        return max(0, parse_memory(self.memory_limit) - self._linear.fixed_bytes)

    def _made(self, make: Callable[..., np.ndarray], n_columns: int, name: str) -> np.ndarray:
        """Coefficients, in a file where they are large."""
        n_bytes = 4 * self._linear.n_targets * n_columns
        free, path = self._free, None
        if n_bytes > free // 4:
            folder = temporary_folder(self.cache_dir)
            self._own_folder(folder)
            check_space(folder, n_bytes, f"{name}_")
            path = folder / f"{name}.npy"
        else:
            free -= n_bytes
        return make(self._linear, path, free)

    @property
    def dual_coef_(self) -> np.ndarray:
        """(n_targets, n_samples) float32, of a dual model."""
        check_is_fitted(self, "alpha_")
        if self._linear.train is None:
            raise AttributeError(f"a model of route {self.route_} has no dual coefficients")
        if self._linear.coef is not None:
            return self._rows_of(self._linear.coef)
        if self._dual is None:
            n_train = self._linear.train.shape[0]
            self._dual = self._made(dual_coefficients, n_train, "dual_coef")
        return self._rows_of(self._dual)

    @property
    def intercept_(self) -> np.ndarray | float:
        """(n_targets,) float64: the prediction at x = 0."""
        check_is_fitted(self, "alpha_")
        linear, coef = self._linear, self._coefficients()
        intercept = linear.y_offset.copy()
        # float64 blocks of a few MB
        for strip in spans(len(coef), 256):
            for columns in spans(self.n_features_in_, 4096):
                block = coef[strip, columns].astype(np.float64)
                intercept[strip] -= block @ linear.x_offset[columns]
        return float(intercept[0]) if self._single else intercept

    def _own_folder(self, folder: Path) -> None:
        """Remove `folder` when the model is gone."""
        weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)

    def _check_new(self, X: Any) -> Source:
        check_is_fitted(self, "alpha_")
        source = as_source(X, "X")
        self._check_names(X, reset=False)
        if source.shape[1] != self.n_features_in_:
            raise InputError(
                f"X has {source.shape[1]} features, but {type(self).__name__} is expecting "
                f"{self.n_features_in_} features as input."
            )
        return source

    def _new_confounds(self, confounds: Any, n_new: int) -> np.ndarray:
        """Confounds of new samples, about where they have no effect."""
        if self._removed is None:
            raise InputError("confounds were given, but the model was fitted without any.")
        values = as_confounds(confounds, n_new)
        offset = self._removed["offset"]
        if values.shape[1] != len(offset):
            raise InputError(
                f"confounds has {values.shape[1]} columns, but the model was fitted with "
                f"{len(offset)}."
            )
        return values - offset

    def _check_names(self, X: Any, reset: bool) -> None:
        """Remember the names of the features, or compare them with those that were fitted."""
        if isinstance(X, (str, os.PathLike)):
            if reset and hasattr(self, "feature_names_in_"):
                del self.feature_names_in_
            return
        try:
            validate_data(self, X, reset=reset, skip_check_array=True)
        except ValueError as error:
            raise InputError(str(error)) from error


def _removed(nuisance: Nuisance, fitted: Fitted) -> dict[str, np.ndarray]:
    """Effects of the confounds as they were given: their offset, slopes on X and on Y."""
    slopes = {name: np.zeros((len(nuisance.offset), m)) for name, m in _widths(fitted)}
    if nuisance.n_confounds:
        slopes = {
            "x": nuisance.transform @ fitted.X.slopes,
            "y": nuisance.transform @ fitted.Y.slopes,
        }
    return {"offset": nuisance.offset, **slopes}


def _widths(fitted: Fitted) -> tuple[tuple[str, int], ...]:
    return (("x", fitted.X.shape[1]), ("y", fitted.Y.shape[1]))


def _as_json(value: Any) -> Any:
    """A parameter for a manifest: numbers as they are, what JSON cannot hold as its text."""
    if isinstance(value, _JSON):
        return value
    try:
        numbers = np.asarray(value)
    except ValueError:
        return repr(value)
    is_list = numbers.dtype.kind in "iuf" and numbers.ndim <= 1
    return numbers.tolist() if is_list else repr(value)


def _write_scores(scores: np.ndarray, out: Any) -> None:
    good = isinstance(out, np.ndarray) and out.shape == scores.shape
    if not good or out.dtype.kind != "f" or not out.flags.writeable:
        raise InputError(
            f"out must be a writable float array of shape {scores.shape}, not "
            f"{getattr(out, 'dtype', type(out).__name__)} {getattr(out, 'shape', '')}."
        )
    out[...] = scores


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
