"""permutation_test: validate and run."""

import contextlib
import weakref
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ridgemm.errors import InputError, as_path, one_line
from ridgemm.estimators import RidgeCV
from ridgemm.folds import Fold, make_folds
from ridgemm.mapreduce import count_workers
from ridgemm.model import logging_to_stderr
from ridgemm.nuisance import as_confounds
from ridgemm.nullrun import NullRun, Options
from ridgemm.private import remove, temporary_folder
from ridgemm.products import PRECISIONS, usable_precision
from ridgemm.results import PermutationResult
from ridgemm.schemes import PermutationScheme, check_integer, permutation_scheme
from ridgemm.sources import as_source
from ridgemm.store import check_folder, key


def permutation_test(
    model: RidgeCV,
    X: Any,
    Y: Any,
    *,
    cv: Any = 5,
    groups: Any = None,
    confounds: Any = None,
    scheme: Any = "free",
    n_permutations: int = 1000,
    random_state: int = 0,
    null: str = "refit",
    two_sided: bool = False,
    missing: str = "raise",
    min_shift: int = 1,
    tail: str | None = None,
    stop: str | None = None,
    keep_null: bool = False,
    precision: str | None = None,
    n_jobs: int | None = None,
    out: str | Path | None = None,
    progress: bool | None = None,
) -> PermutationResult:
    r"""Test the cross-validated score of every target by permutation.

    .. math:: p = \frac{1 + \#\{i : s_i \ge s\}}{1 + m}

    with s the mean test score over the outer folds of `cv`, alpha chosen inside the training
    rows of each as ``model.cv`` says, and :math:`s_i` the same for permutation i of the rows
    of Y.

    Parameters
    ----------
    model : RidgeCV
        Not fitted; its parameters are used. Its ``cv`` is the inner one.
    X, Y : as in `RidgeCV.fit`
        (n_samples, n_features), (n_samples, n_targets).
    cv : int, splitter or list of (train, test)
        Outer folds.
    groups : array-like of shape (n_samples,), optional
        Run, session or family: for the folds of both levels and for `scheme`.
    confounds : array-like of shape (n_samples, n_confounds), optional
        Removed from X and Y inside every training fold of both levels, as by `RidgeCV.fit`. The
        null is that of Freedman and Lane: the fit of Y by the confounds over all samples (and
        the intercept) stays in place, its residuals are rearranged by `scheme`, and both
        together are Y of permutation i.
    scheme : {"free", "within", "whole", "circular", "sign"} or (m, n_samples) int array
        What is exchangeable, see `ridgemm.permutation_scheme`.
    n_permutations : int
        Fewer are used, all of them, if fewer exist.
    random_state : int
        Permutation i depends on ``(random_state, i)`` alone.
    null : {"refit", "heldout"}
        Repeat the whole nested procedure for every permutation, the choice of alpha included;
        or leave the models and permute the held-out rows of each outer fold against their
        predictions, which is much cheaper. "heldout" is exact for one outer fold; the models of
        several share samples, which it does not repeat, so that with few samples it rejects
        too often (9 % at 0.05 with 24 samples in 2 folds). "refit" is exact. With confounds
        either permutes residuals, which are exchangeable but for the estimated fit.
    two_sided : bool
        Test the magnitude of the score.
    missing : {"raise", "skip"}
        Refuse targets with NaN, or leave them NaN in every map.
    min_shift : int
        Shortest shift of scheme "circular".
    tail : {None, "gpd"}
        Small p-values from a generalised Pareto distribution fitted to the tail of the null,
        where it fits; keeps the null on disk.
    stop : {None, "besag-clifford"}
        Stop a target at its 10th exceedance. There is no maximum statistic then.
    keep_null : bool
        Keep all null scores, (n_permutations, n_targets) float32, as ``result.null``.
    precision : {"single", "mixed", "bf16"}, optional
        Of products with targets; the model's by default. "bf16" makes those of permuted targets
        of bfloat16 values, several times faster on matrix units and up to twice on AVX512_BF16:
        null scores are then good to three digits. Observed scores, and a shared alpha, are single.
    n_jobs : int, optional
        Worker processes; the model's by default.
    out : path, optional
        Run folder. The same call on it continues a run that was interrupted, to the same
        bits; with a larger `n_permutations` only the new ones are computed. Processes that make
        the same call at the same time, on hosts that share the folder, share its work. Without it a
        temporary folder lives as long as the result.
    progress : bool, optional
        Show a progress bar on stderr; by default if that is a terminal.

    Returns
    -------
    PermutationResult

    Raises
    ------
    InputError
        Data or a parameter cannot be used, or `out` holds a run that differs.
    MemoryLimitError, StorageError

    Notes
    -----
    Scores are float32; a null score within 1e-5 (relative to 1 + \|score\|) below the observed
    one is a tie, and ties count against the effect.

    With the confounds and the ones in N, H the projection on N over all samples, and :math:`P_i`
    a permutation or flips, the targets of permutation i are

    .. math:: Y_i = H Y + P_i (Y - H Y).

    X keeps its order. A training fold that shows every direction of N removes all of H Y again,
    from its test rows too. Where one does not (the indicator of a run that is held out), the fit
    of the test rows in that direction stays in them, as it does in the observed score. Residuals
    are exchangeable as errors are only up to the fit that was taken from them, so that the test
    is exact without confounds and close to exact with few of them for the number of samples [3]_
    [4]_.

    References
    ----------
    .. [1] T. E. Nichols and A. P. Holmes, "Nonparametric permutation tests for functional
       neuroimaging", Human Brain Mapping 15, 2002.
    .. [2] B. Phipson and G. K. Smyth, "Permutation p-values should never be zero",
       Statistical Applications in Genetics and Molecular Biology 9, 2010.
    .. [3] D. Freedman and D. Lane, "A nonstochastic interpretation of reported significance
       levels", Journal of Business & Economic Statistics 1, 1983.
    .. [4] A. M. Winkler, G. R. Ridgway, M. A. Webster, S. M. Smith and T. E. Nichols, "Permutation
       inference for the general linear model", NeuroImage 92, 2014.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> X = rng.standard_normal((60, 4))
    >>> Y = rng.standard_normal((60, 3))
    >>> Y[:, 0] += 2 * X[:, 0]
    >>> result = permutation_test(RidgeCV([1, 10]), X, Y, cv=3, n_permutations=99)
    >>> (result.pvalues_fwer < 0.05).tolist()
    [True, False, False]
    """
    run = prepare(
        model,
        X,
        Y,
        cv=cv,
        groups=groups,
        confounds=confounds,
        scheme=scheme,
        n_permutations=n_permutations,
        random_state=random_state,
        null=null,
        two_sided=two_sided,
        missing=missing,
        min_shift=min_shift,
        tail=tail,
        stop=stop,
        keep_null=keep_null,
        precision=precision,
        n_jobs=n_jobs,
        progress=progress,
    )
    cache = None if model.cache_dir is None else as_path(model.cache_dir, "cache_dir")
    if cache is not None:
        check_folder(cache, "cache_dir")
    with logging_to_stderr(model.verbose):
        if out is not None:
            return run.execute(as_path(out, "out"), cache)
        with contextlib.ExitStack() as stack:
            folder = temporary_folder(cache)
            stack.callback(remove, folder)
            result = run.execute(folder, cache)
            # from now on the folder lives as long as the result
            stack.pop_all()
            weakref.finalize(result, remove, folder)
            return result


def prepare(
    model: RidgeCV,
    X: Any,
    Y: Any,
    *,
    cv: Any = 5,
    groups: Any = None,
    confounds: Any = None,
    scheme: Any = "free",
    n_permutations: int = 1000,
    random_state: int = 0,
    null: str = "refit",
    two_sided: bool = False,
    missing: str = "raise",
    min_shift: int = 1,
    tail: str | None = None,
    stop: str | None = None,
    keep_null: bool = False,
    precision: str | None = None,
    n_jobs: int | None = None,
    progress: bool | None = None,
) -> NullRun:
    """The run of `permutation_test` with these arguments, checked; nothing has been written."""
    min_shift = check_integer("min_shift", min_shift, 0)
    random_state = check_integer("random_state", random_state, 0)
    options = Options(
        null, bool(two_sided), missing, min_shift, tail, stop, bool(keep_null), progress
    )
    options.check()
    if not isinstance(model, RidgeCV):
        raise InputError(
            f"model={one_line(model)} is no RidgeCV, whose choice of alpha is part of the test; "
            "for an alpha that is known give RidgeCV([alpha])."
        )
    settings = model.checked_settings()
    if n_jobs is not None:
        settings = replace(settings, n_workers=count_workers(n_jobs))
    if precision is not None:
        settings = replace(settings, precision=usable_precision(precision, PRECISIONS))
    X, Y = as_source(X, "X"), as_source(Y, "Y")
    if X.shape[0] != Y.shape[0]:
        raise InputError(
            f"X has {X.shape[0]} rows and Y has {Y.shape[0]}; both need one row for each sample."
        )
    columns = as_confounds(confounds, X.shape[0])
    if not isinstance(scheme, str):
        try:
            scheme = np.asarray(scheme)
        except ValueError as error:
            raise InputError(f"scheme is no array of integers ({one_line(error)}).") from error
    outer = make_folds(cv, X.shape[0], groups)
    groups = None if groups is None else np.asarray(groups)
    schemes = _schemes(scheme, outer, X.shape[0], n_permutations, groups, random_state, options)
    identity = key(
        scheme if isinstance(scheme, str) else np.asarray(scheme, dtype=np.int64),
        [] if groups is None else np.unique(groups, return_inverse=True)[1].tolist(),
        min_shift,
    )
    return NullRun(settings, options, X, Y, outer, groups, schemes, identity, columns)


def _schemes(
    scheme: Any,
    outer: Sequence[Fold],
    n: int,
    n_permutations: int,
    groups: np.ndarray | None,
    random_state: int,
    options: Options,
) -> tuple[tuple[PermutationScheme, np.ndarray], ...]:
    """Disjoint rows and how each is permuted: all of them, or each held-out set by itself."""
    shift = options.min_shift
    if options.null == "refit":
        whole = permutation_scheme(scheme, n, n_permutations, groups, random_state, shift)
        return ((whole, np.arange(n)),)
    tests = np.concatenate([fold.test for fold in outer])
    if len(np.unique(tests)) < len(tests):
        raise InputError(
            "null='heldout' needs outer folds whose test sets do not overlap; use null='refit'."
        )
    if not isinstance(scheme, str):
        whole = permutation_scheme(scheme, n, n_permutations, groups, random_state, shift)
        for i in range(whole.n_permutations):
            rows, _ = whole.draw(i)
            for fold in outer:
                if len(np.setdiff1d(rows[fold.test], fold.test)):
                    raise InputError(
                        f"scheme[{i}] moves rows between held-out sets; null='heldout' permutes "
                        "inside each."
                    )
        return ((whole, np.arange(n)),)
    # the folds are blocks of one scheme, each with a seed of its own
    seeds = np.random.SeedSequence(random_state).generate_state(len(outer), np.uint64)
    parts = [
        permutation_scheme(
            scheme,
            len(fold.test),
            n_permutations,
            None if groups is None else groups[fold.test],
            int(seed),
            shift,
        )
        for fold, seed in zip(outer, seeds, strict=True)
    ]
    if any(part.exhaustive for part in parts):
        raise InputError(
            f"scheme={scheme!r} has fewer than n_permutations={n_permutations} distinct "
            "permutations in a held-out set; use larger folds, fewer permutations or null='refit'."
        )
    return tuple((part, fold.test) for part, fold in zip(parts, outer, strict=True))
