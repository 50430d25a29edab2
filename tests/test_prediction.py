"""Predictions and scores: in blocks of any size, of features of any mean, within the limit."""

import itertools
import re
import tracemalloc

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from ridgemm import MemoryLimitError, RidgeCV, prediction, predictplan
from ridgemm.fitplan import OVERHEAD
from ridgemm.workspace import Workspace
from tests import naive

MODELS = {
    "primal": dict(solver="primal"),
    "svd": dict(solver="svd"),
    "dual": dict(solver="dual"),
    "standardized": dict(solver="primal", standardize=True),
    "dual standardized": dict(solver="dual", standardize=True),
    "dual without intercept": dict(solver="dual", fit_intercept=False),
}


every_model = pytest.mark.parametrize("options", MODELS.values(), ids=MODELS)


def signal(n, p=9, t=30, mean=2.0, seed=0):
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((n, p))
    Y = X @ np.random.default_rng(99).standard_normal((p, t))
    return X + mean, Y + rng.standard_normal((n, t))


@every_model
@pytest.mark.parametrize("scoring", naive.SCORINGS)
def test_blocks_do_not_matter(options, scoring, monkeypatch):
    model = RidgeCV(cv=3, scoring=scoring, **options).fit(*signal(60))
    X, Y = signal(500, seed=1)
    ref = model.predict(X), model.score(X, Y)
    coef, intercept = naive.ridge(*signal(60), model.alpha_, model.fit_intercept, model.standardize)
    exact = naive.predict(X, coef, intercept)
    assert_allclose(ref[0], exact, atol=1e-4)
    assert_allclose(ref[1], naive.score(Y, exact, scoring), rtol=1e-4, atol=1e-5)

    # the smallest blocks: 16 rows, 7 targets
    for module in (prediction, predictplan):
        monkeypatch.setattr(module, "STRIP", 7)
    assert_allclose(at_the_smallest_limit(model, model.predict, X), ref[0], atol=5e-5)
    found = at_the_smallest_limit(model, model.score, X, Y)
    assert_allclose(found, ref[1], rtol=1e-5, atol=1e-5)


def at_the_smallest_limit(model, call, *args):
    """What a call returns under the limit that a refusal names; it is refused a byte below."""
    model.set_params(memory_limit=1000)
    with pytest.raises(MemoryLimitError) as refusal:
        call(*args)
    limit = int(re.search(r"at least (\d+) bytes", str(refusal.value))[1])
    model.set_params(memory_limit=limit - 1)
    with pytest.raises(MemoryLimitError):
        call(*args)
    model.set_params(memory_limit=limit)
    return call(*args)


@pytest.mark.parametrize("scored", [False, True])
@pytest.mark.parametrize("n_train", [0, 300])
def test_a_lower_limit_makes_smaller_steps(n_train, scored):
    steps = [
        predictplan.plan_steps((10_000, 700, 9000), n_train, 4, free, scored)
        for free in (10**10, 10**8, 10**7, 10**6, 0)
    ]
    assert all(a.n_bytes >= b.n_bytes for a, b in itertools.pairwise(steps))
    assert steps[0].rows == 8192 and steps[1].n_bytes <= 10**8 and steps[2].n_bytes <= 10**7
    assert steps[-1] == steps[-1].smaller()


def test_predictions_that_do_not_fit_want_a_file():
    model = RidgeCV(cv=3).fit(*signal(60))
    model.set_params(memory_limit=OVERHEAD + 10**6)
    X, _ = signal(20_000, seed=1)
    with pytest.raises(MemoryLimitError, match="give out="):
        model.predict(X)
    out = np.empty((20_000, 30), np.float32)
    assert model.predict(X, out=out) is out


@pytest.mark.parametrize("mean", [1e3, 1e4, 1e6])
@every_model
def test_features_of_any_mean(options, mean):
    if not options.get("fit_intercept", True):
        pytest.skip("the mean is part of the problem")
    # means that float32 cannot hold
    mean = mean * np.linspace(0.5, 1, 9)
    X, Y = signal(60, mean=mean)
    model = RidgeCV([1.0], cv=3, **options).fit(X, Y)
    coef, intercept = naive.ridge(X, Y, 1.0, standardize=model.standardize)
    X_new, Y_new = signal(40, mean=mean, seed=1)
    exact = naive.predict(X_new, coef, intercept)
    assert_allclose(model.predict(X_new), exact, atol=3e-5)
    assert_allclose(model.score(X_new, Y_new), naive.score(Y_new, exact, "r2"), atol=1e-5)


@every_model
def test_predict_into_any_array(options, tmp_path):
    model = RidgeCV(cv=3, **options).fit(*signal(60))
    X, _ = signal(70, seed=1)
    X = X.astype(np.float32)
    expected = model.predict(X)
    outs = [
        np.empty((70, 30), np.float32, order="F"),
        np.empty((140, 60), np.float32)[::2, ::-2],
        np.lib.format.open_memmap(tmp_path / "out.npy", "w+", np.float32, (70, 30)),
    ]
    for out in outs:
        assert model.predict(X, out=out) is out
        assert_array_equal(out, expected)


@every_model
def test_predict_from_any_dtype(options):
    model = RidgeCV(cv=3, **options).fit(*signal(60))
    X = np.rint(10 * signal(70, seed=1)[0]).clip(0, 100)
    expected = model.predict(X)
    for dtype in (np.uint8, np.int64, np.float16, np.float32, ">f8"):
        assert_allclose(model.predict(X.astype(dtype)), expected, rtol=1e-5, atol=1e-4)
    assert_allclose(model.predict(X.tolist()), expected, rtol=1e-5, atol=1e-4)


def peak(function):
    """Bytes that NumPy and Python allocate at most during a call."""
    tracemalloc.start()
    try:
        function()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_a_workspace_lets_go_of_a_buffer_before_it_grows():
    workspace = Workspace()

    def grow():
        for size in (10**6, 2 * 10**6):
            workspace.array("a", (size,))

    assert peak(grow) < 4 * 2.1e6


@pytest.mark.parametrize("name", ["coef_", "intercept_"])
def test_attributes_of_many_features_keep_the_limit(name):
    # float32 coefficients of 40 MB, of a dual model: a file
    X, Y = signal(20, p=100_000, t=100)
    limit = 70 * 10**6
    model = RidgeCV([1.0], cv=2, memory_limit=limit).fit(X.astype(np.float32), Y)
    assert peak(lambda: getattr(model, name)) < limit
    assert isinstance(model.coef_, np.memmap)


@every_model
def test_prediction_keeps_the_limit(options, tmp_path):
    # beside what the process holds, and the coefficients
    limit = 8 * 10**6
    X, Y = signal(60, t=2000)
    model = RidgeCV([1.0], cv=3, **options).fit(X, Y).set_params(memory_limit=OVERHEAD + limit)
    X, Y = signal(5000, t=2000, seed=1)
    out = np.lib.format.open_memmap(tmp_path / "out.npy", "w+", np.float32, Y.shape)
    assert out.nbytes > 4 * limit
    for call in (lambda: model.predict(X, out=out), lambda: model.score(X, Y)):
        # what it takes to compile or load a kernel is no part of a prediction
        call()
        assert peak(call) < limit
