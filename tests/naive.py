"""Slow, obvious float64 references that the engine's results are compared with.

Nothing here is shared with ridgemm: every fit is a fresh one by a dense SVD, every fold is
fitted anew for every alpha, and leave-one-out leaves out one row at a time.

Shapes: X (n_samples, n_features), Y (n_samples, n_targets), alphas (n_alphas,),
scores (n_alphas, n_targets).
"""

from types import SimpleNamespace

import numpy as np
from sklearn.model_selection import GroupKFold, KFold

SCORINGS = ("r2", "correlation", "neg_mean_squared_error")


def split(cv, n_samples, groups=None):
    """List of (train, test) for an int, a scikit-learn splitter or a list of such pairs."""
    if isinstance(cv, int):
        cv = KFold(cv) if groups is None else GroupKFold(cv)
    pairs = cv.split(np.zeros((n_samples, 1)), groups=groups) if hasattr(cv, "split") else cv
    return [(np.asarray(train), np.asarray(test)) for train, test in pairs]


def _means(A):
    """Column means, exact for a constant column, so that centring makes it exactly zero."""
    return np.where(np.ptp(A, axis=0) == 0, A[0], A.mean(axis=0))


def ridge(X, Y, alpha, fit_intercept=True, standardize=False):
    """coef (n_targets, n_features) and intercept (n_targets,) in the units of X.

    Minimises ``||Y - XB||^2 + alpha ||B||^2`` by the SVD of the centred (and scaled) X, with
    one alpha or one for each target.
    """
    X, Y = np.asarray(X, dtype=np.float64), np.asarray(Y, dtype=np.float64)
    n_features, n_targets = X.shape[1], Y.shape[1]
    x_mean, x_scale, y_mean = np.zeros(n_features), np.ones(n_features), np.zeros(n_targets)
    if fit_intercept or standardize:
        x_mean = _means(X)
    if fit_intercept:
        y_mean = _means(Y)
    if standardize:
        sd = np.sqrt(np.mean((X - x_mean) ** 2, axis=0))
        x_scale = np.where(sd == 0, 1.0, sd)

    U, s, Vt = np.linalg.svd((X - x_mean) / x_scale, full_matrices=False)
    # Singular values that are zero but for rounding would be divided by a tiny alpha.
    kept = s > max(X.shape) * np.finfo(np.float64).eps * s[0]
    U, s, Vt = U[:, kept], s[kept], Vt[kept]
    shrunk = s[:, None] / (s[:, None] ** 2 + np.broadcast_to(alpha, n_targets))
    coef = (Vt.T @ (shrunk * (U.T @ (Y - y_mean)))).T / x_scale
    return coef, y_mean - coef @ x_mean


def predict(X, coef, intercept):
    """Predictions (n_samples, n_targets), row by row, so that equal rows are predicted equal."""
    return np.array([coef @ x + intercept for x in np.asarray(X, dtype=np.float64)])


def _score_one(y, yhat, scoring):
    if scoring == "neg_mean_squared_error":
        return -np.mean((y - yhat) ** 2)
    if np.ptp(y) == 0:
        return 0.0
    if scoring == "r2":
        return 1 - np.sum((y - yhat) ** 2) / np.sum((y - y.mean()) ** 2)
    if scoring == "correlation":
        # The same prediction for every row, but for rounding.
        if np.ptp(yhat) <= 1e-12 * np.max(np.abs(yhat)):
            return 0.0
        return np.corrcoef(y, yhat)[0, 1]
    raise ValueError(f"unknown scoring {scoring!r}")


def score(y_true, y_pred, scoring):
    """Score of each target, (n_targets,); 0 where R2 or the correlation is not defined."""
    y_true, y_pred = np.asarray(y_true, np.float64), np.asarray(y_pred, np.float64)
    return np.array(
        [_score_one(y, yhat, scoring) for y, yhat in zip(y_true.T, y_pred.T, strict=True)]
    )


def kfold_scores(X, Y, alphas, folds, scoring, fit_intercept=True, standardize=False):
    """Mean over the folds of each test fold's score."""
    scores = np.zeros((len(folds), len(alphas), Y.shape[1]))
    for f, (train, test) in enumerate(folds):
        for a, alpha in enumerate(alphas):
            model = ridge(X[train], Y[train], alpha, fit_intercept, standardize)
            scores[f, a] = score(Y[test], predict(X[test], *model), scoring)
    return scores.mean(axis=0)


def loo_scores(X, Y, alphas, scoring, fit_intercept=True, standardize=False):
    """Score of the pooled predictions of every row by a model fitted on all the others."""
    scores = np.zeros((len(alphas), Y.shape[1]))
    for a, alpha in enumerate(alphas):
        held_out = np.zeros(Y.shape)
        for i in range(len(Y)):
            others = np.arange(len(Y)) != i
            model = ridge(X[others], Y[others], alpha, fit_intercept, standardize)
            held_out[i] = predict(X[[i]], *model)[0]
        scores[a] = score(Y, held_out, scoring)
    return scores


def quadratic_forms(w, M, Z, alphas):
    """``D.T M D`` of each target with ``D = Z / (w + alpha)``, (n_alphas, n_targets)."""
    w, Z = np.asarray(w, np.float64), np.asarray(Z, np.float64)
    forms = np.empty((len(alphas), Z.shape[1]))
    for a, alpha in enumerate(alphas):
        for j, z in enumerate(Z.T):
            D = z / (w + alpha)
            forms[a, j] = D @ M @ D
    return forms


def hat_matrix(X, alpha, fit_intercept=True, standardize=False):
    """H (n_samples, n_samples) with Hy the fitted values of y: column i is the fit of e_i."""
    return predict(X, *ridge(X, np.eye(len(X)), alpha, fit_intercept, standardize))


def gcv_scores(X, Y, alphas, scoring, fit_intercept=True, standardize=False):
    """Scores from the GCV error ``mean(((y - Hy) / (1 - tr(H) / n))^2)``."""
    if scoring not in ("r2", "neg_mean_squared_error"):
        raise ValueError(f"GCV has an error and an R2, not {scoring!r}")
    Y = np.asarray(Y, dtype=np.float64)
    scores = np.zeros((len(alphas), Y.shape[1]))
    for a, alpha in enumerate(alphas):
        H = hat_matrix(X, alpha, fit_intercept, standardize)
        residuals = (Y - H @ Y) / (1 - np.trace(H) / len(Y))
        scores[a] = score(Y, Y - residuals, scoring)
    return scores


def cv_scores(X, Y, alphas, cv, scoring, fit_intercept=True, standardize=False, groups=None):
    """Scores (n_alphas, n_targets) by "loo", "gcv" or whatever `split` takes."""
    options = (scoring, fit_intercept, standardize)
    if isinstance(cv, str):
        return {"loo": loo_scores, "gcv": gcv_scores}[cv](X, Y, alphas, *options)
    return kfold_scores(X, Y, alphas, split(cv, len(X), groups), *options)


def select(scores, alphas, alpha_per_target):
    """The alpha of the best score: (n_targets,), or a float by the mean over the targets.

    The first of equal scores wins.
    """
    alphas = np.asarray(alphas, dtype=np.float64)
    if alpha_per_target:
        return alphas[np.argmax(scores, axis=0)]
    return float(alphas[np.argmax(scores.mean(axis=1))])


def ridge_cv(
    X,
    Y,
    alphas,
    cv,
    scoring,
    alpha_per_target=True,
    fit_intercept=True,
    standardize=False,
    groups=None,
):
    """cv_scores, alpha, best_score, coef and intercept, shaped as the attributes of RidgeCV."""
    scores = cv_scores(X, Y, alphas, cv, scoring, fit_intercept, standardize, groups)
    alpha = select(scores, alphas, alpha_per_target)
    coef, intercept = ridge(X, Y, alpha, fit_intercept, standardize)
    if not alpha_per_target:
        scores = scores.mean(axis=1)
    return SimpleNamespace(
        cv_scores=scores,
        alpha=alpha,
        best_score=scores.max(axis=0),
        coef=coef,
        intercept=intercept,
    )


def confound_basis(C, centred):
    """Independent columns that span C, or C about its means, orthogonal and of mean square 1."""
    C = np.asarray(C, dtype=np.float64)
    C = C - C.mean(axis=0) if centred else C
    U, s, _ = np.linalg.svd(C, full_matrices=False)
    return U[:, s > 1e-10 * s[0]] * np.sqrt(len(C))


def without_confounds(A, basis, train, intercept):
    """A less its least-squares fit by the confounds (and ones) on `train`, in all rows.

    Of all effects that fit the training rows as well, those of smallest sum of squares.
    """
    A = np.asarray(A, dtype=np.float64)
    if intercept:
        A, basis = A - A[train].mean(axis=0), basis - basis[train].mean(axis=0)
    return A - basis @ np.linalg.lstsq(basis[train], A[train], rcond=1e-6)[0]


def confound_fit(X, Y, C, train, alpha, fit_intercept=True, standardize=False):
    """coef, and X and Y without confounds as the rows `train` tell."""
    basis = confound_basis(C, fit_intercept)
    X = without_confounds(X, basis, train, fit_intercept or standardize)
    Y = without_confounds(Y, basis, train, fit_intercept)
    scale = np.sqrt(np.mean(X[train] ** 2, axis=0)) if standardize else np.ones(X.shape[1])
    coef, _ = ridge(X[train] / scale, Y[train], alpha, fit_intercept=False)
    return coef / scale, X, Y


def confound_scores(X, Y, C, alphas, cv, scoring, fit_intercept=True, standardize=False):
    """As `cv_scores`, of what confounds leave of X and Y."""
    n, options = len(X), (fit_intercept, standardize)
    everything = np.arange(n)
    scores = []
    for alpha in alphas:
        if cv == "gcv":
            coef, x, y = confound_fit(X, Y, C, everything, alpha, *options)
            scale = np.sqrt(np.mean(x**2, axis=0)) if standardize else 1.0
            hat = np.trace(x / scale @ ridge(x / scale, np.eye(n), alpha, False)[0].T)
            removed = confound_basis(C, fit_intercept).shape[1] + fit_intercept
            error = (y - x @ coef.T) / (1 - (hat + removed) / n)
            scores.append(score(y, y - error, scoring))
        elif cv == "loo":
            error = np.zeros(Y.shape)
            for i in everything:
                coef, x, y = confound_fit(X, Y, C, everything != i, alpha, *options)
                error[i] = y[i] - x[i] @ coef.T
            y = confound_fit(X, Y, C, everything, alpha, *options)[2]
            scores.append(score(y, y - error, scoring))
        else:
            each = []
            for train, test in split(cv, n):
                coef, x, y = confound_fit(X, Y, C, train, alpha, *options)
                each.append(score(y[test], x[test] @ coef.T, scoring))
            scores.append(np.mean(each, axis=0))
    return np.array(scores)


def nested_predictions(
    X,
    Y,
    alphas,
    outer_folds,
    inner_cv,
    scoring,
    alpha_per_target=True,
    fit_intercept=True,
    standardize=False,
    groups=None,
):
    """Predictions of each outer test fold, alpha chosen by `inner_cv` within its training rows."""
    predictions = []
    for train, test in outer_folds:
        inner_groups = None if groups is None else np.asarray(groups)[train]
        model = ridge_cv(
            X[train],
            Y[train],
            alphas,
            inner_cv,
            scoring,
            alpha_per_target,
            fit_intercept,
            standardize,
            inner_groups,
        )
        predictions.append(predict(X[test], model.coef, model.intercept))
    return predictions


def _outer_scores(Y, predictions, outer_folds, scoring):
    tests = [test for _, test in outer_folds]
    return np.mean(
        [score(Y[test], P, scoring) for test, P in zip(tests, predictions, strict=True)], axis=0
    )


def nested_scores(X, Y, alphas, outer_folds, inner_cv, scoring, *args, **kwargs):
    """Mean over the outer folds of the score of their predictions, (n_targets,).

    Takes the arguments of `nested_predictions`.
    """
    predictions = nested_predictions(X, Y, alphas, outer_folds, inner_cv, scoring, *args, **kwargs)
    return _outer_scores(Y, predictions, outer_folds, scoring)


def rearrange(Y, permutation, signs=None):
    """``Y[permutation]``, row i times ``signs[i]`` if there are any."""
    moved = np.asarray(Y, dtype=np.float64)[permutation]
    return moved if signs is None else moved * signs[:, None]


def permutation_scores(X, Y, permutations, *args, signs=None, **kwargs):
    """Nested scores of ``Y[permutation]``, refitted each time, (n_permutations, n_targets).

    After `permutations` (n_permutations, n_samples) come the arguments of `nested_scores`
    from `alphas` on; `signs` has the shape of `permutations`. Groups belong to the rows of X,
    which do not move.
    """
    signs = [None] * len(permutations) if signs is None else signs
    return np.array(
        [
            nested_scores(X, rearrange(Y, *order), *args, **kwargs)
            for order in zip(permutations, signs, strict=True)
        ]
    )


def heldout_permutation_scores(
    X, Y, permutations, alphas, outer_folds, inner_cv, scoring, *args, signs=None, **kwargs
):
    """Scores of the unpermuted models on ``Y[permutation][test]``, as `permutation_scores`."""
    predictions = nested_predictions(X, Y, alphas, outer_folds, inner_cv, scoring, *args, **kwargs)
    signs = [None] * len(permutations) if signs is None else signs
    return np.array(
        [
            _outer_scores(rearrange(Y, *order), predictions, outer_folds, scoring)
            for order in zip(permutations, signs, strict=True)
        ]
    )
