"""Plans of fits and permutation tests: what the call then does, takes and refuses."""

import json
import os
import re
import subprocess
import sys
from dataclasses import fields

import numpy as np
import pytest

import ridgemm
from ridgemm import Forecast, RidgeCV, RidgemmError, permutation_test, plan, rates
from ridgemm.__main__ import main
from ridgemm.engine import run_fit
from ridgemm.forecast import Stage
from ridgemm.private import is_private
from ridgemm.rates import Rates, machine_rates
from ridgemm.store import MANIFEST

LIMIT = "300MB"
RATES = Rates(
    product=2e10,
    product_mixed=4e10,
    product_bf16=6e10,
    product_double=1e10,
    eigen=1e9,
    eigen_large=3e9,
    reading=5e9,
    n_cores=2,
)


@pytest.fixture(autouse=True)
def measured(tmp_path, monkeypatch):
    """Rates of no machine, in a cache folder of this test; returns how often they were measured."""
    calls = []

    def measure():
        calls.append(None)
        return RATES

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "user cache"))
    monkeypatch.setattr(rates, "measure", measure)
    return calls


def data(n=60, p=8, t=12, seed=0):
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((n, p))
    return X, X @ rng.standard_normal((p, t)) + rng.standard_normal((n, t))


def ridge(**options):
    return RidgeCV(**{"memory_limit": LIMIT, "cv": 3, **options})


# The call that follows ---------------------------------------------------------------------

FITS = [
    ((400, 30), {}),
    ((60, 500), {}),
    ((60, 500), dict(standardize=True)),
    ((60, 500), dict(alpha_per_target=False)),
    ((400, 30), dict(alphas=[1e-9, 1.0])),
    ((400, 30), dict(cv=40)),
    ((400, 30), dict(cv="loo")),
    ((60, 500), dict(cv="loo")),
    ((400, 30), dict(cv="gcv")),
    ((60, 500), dict(cv="gcv")),
    ((400, 30), dict(solver="svd")),
    ((400, 30), dict(solver="dual-products")),
    ((60, 500), dict(solver="primal")),
    ((400, 30), dict(n_jobs=2)),
    ((400, 30), dict(memory_limit="60MB")),
]


@pytest.mark.parametrize(("shape", "options"), FITS, ids=str)
def test_a_fit_does_what_its_plan_says(shape, options):
    X, Y = data(*shape)
    model = ridge(**options)
    forecast = plan(model, X, Y)
    model.fit(X, Y)
    chosen = model.plan_
    assert forecast.kind == "fit"
    assert forecast.route == model.route_
    assert forecast.rejected == {r.name: r.flops / chosen.route.flops for r in chosen.rejected}
    assert all(ratio >= 1 for ratio in forecast.rejected.values())
    assert forecast.bytes["memory"] == chosen.peak_bytes <= forecast.bytes["memory limit"]
    assert forecast.bytes["memory limit"] == chosen.memory_limit
    assert forecast.bytes["coefficients"] == chosen.coef_bytes == model._linear.coef.nbytes
    sizes = (chosen.tile, chosen.strip, chosen.row_step, chosen.block)
    assert forecast.tiles == dict(zip(("targets", "strip", "rows", "block"), sizes, strict=True))
    assert [stage.name for stage in forecast.stages] == list(model.took_)
    assert forecast.seconds == sum(stage.seconds for stage in forecast.stages) > 0


NULLS = [
    ((60, 8), {}, {}),
    ((40, 90), {}, {}),
    ((40, 90), dict(alpha_per_target=False, scoring="neg_mean_squared_error"), {}),
    ((60, 8), dict(alphas=[1e-9, 1.0]), {}),
    ((60, 8), dict(cv="loo"), {}),
    ((60, 8), {}, dict(null="heldout")),
    ((60, 8), {}, dict(tail="gpd", scheme="sign")),
    ((60, 8), {}, dict(n_jobs=2)),
]


@pytest.mark.parametrize(("shape", "parameters", "options"), NULLS, ids=str)
def test_a_permutation_test_does_what_its_plan_says(shape, parameters, options, tmp_path):
    X, Y = data(*shape)
    model = ridge(**parameters)
    options = {"cv": 4, "n_permutations": 30, **options}
    forecast = plan(model, X, Y, **options)
    result = permutation_test(model, X, Y, out=tmp_path / "run", **options)
    chosen = json.loads((tmp_path / "run" / "request.json").read_text())["chosen"]
    assert forecast.kind == "permutation test"
    assert forecast.route == result.description["route"]
    assert forecast.bytes["memory"] == chosen["peak_bytes"] <= forecast.bytes["memory limit"]
    sizes = (chosen["tile"], chosen["strip"], chosen["batch"])
    assert forecast.tiles == dict(zip(("targets", "strip", "permutations"), sizes, strict=True))
    assert [stage.name for stage in forecast.stages] == list(result.description["took"])


def test_a_plan_writes_and_reads_nothing_it_need_not(tmp_path, monkeypatch):
    X, Y = data()
    # of the data only a sample of X is read
    Y[3, 4] = np.nan
    monkeypatch.chdir(tmp_path)
    model = ridge(cache_dir=tmp_path / "cache")
    plan(model, X, Y)
    plan(model, X, Y, n_permutations=100, tail="gpd")
    assert [path.name for path in tmp_path.iterdir()] == ["user cache"]
    assert not hasattr(model, "alpha_")


# Bytes on disk -----------------------------------------------------------------------------

CACHES = [
    ("primal-statistics", (600, 150), dict(cv=3)),
    ("primal-statistics", (600, 12), dict(cv=3)),
    ("primal-products", (600, 150), dict(cv=12)),
    ("primal-products", (600, 60), dict(cv=3)),
    ("primal-loo", (600, 60), dict(cv="loo")),
    ("primal-gcv", (600, 150), dict(cv="gcv")),
    ("svd-products", (600, 80), dict(cv=3)),
    ("svd-products", (60, 120), dict(cv=3)),
    ("svd-loo", (600, 80), dict(cv="loo")),
    ("dual-products", (150, 300), dict(cv=3)),
    ("dual-products", (40, 6000), dict(cv=3)),
    ("dual-products", (40, 900), dict(cv=3, standardize=True)),
    ("dual-loo", (150, 300), dict(cv="loo")),
    ("dual-gcv", (150, 300), dict(cv="gcv")),
]


def bytes_under(folder):
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize(("route", "shape", "options"), CACHES, ids=str)
def test_disk_of_a_fit(route, shape, options, tmp_path):
    X, Y = data(*shape)
    model = ridge(solver=route, cache_dir=tmp_path / "cache", **options)
    planned = plan(model, X, Y).bytes["cache"]
    model.fit(X, Y)
    assert all((entry / MANIFEST).exists() for entry in (tmp_path / "cache").iterdir())
    written = bytes_under(tmp_path / "cache")
    assert written <= planned <= 2 * written


@pytest.mark.parametrize(
    ("route", "shape"),
    [
        ("primal-statistics", (600, 100)),
        ("primal-products", (600, 100)),
        ("svd-products", (600, 60)),
        ("dual-residuals", (100, 300)),
        ("dual-operators", (100, 300)),
        ("dual-products", (100, 300)),
    ],
)
def test_disk_of_a_permutation_test(route, shape, tmp_path):
    X, Y = data(*shape)
    model = ridge(solver=route, cache_dir=tmp_path / "cache")
    planned = plan(model, X, Y, cv=3, n_permutations=5).bytes["cache"]
    permutation_test(model, X, Y, cv=3, n_permutations=5)
    finished = [path for path in (tmp_path / "cache").iterdir() if not is_private(path.name)]
    written = sum(map(bytes_under, finished))
    assert written <= planned <= 2 * written


@pytest.mark.parametrize("options", [{}, dict(keep_null=True), dict(tail="gpd")], ids=str)
def test_disk_of_results(options, tmp_path):
    X, Y = data(t=300)
    model = ridge()
    planned = plan(model, X, Y, n_permutations=200, **options).bytes["results"]
    permutation_test(model, X, Y, n_permutations=200, out=tmp_path, **options)
    written = sum(path.stat().st_size for path in tmp_path.glob("*.npy"))
    assert written <= planned <= 2 * written


@pytest.mark.parametrize(
    ("solver", "options"),
    [("primal", {}), ("dual", {}), ("dual", dict(standardize=True)), ("primal", dict(n_jobs=2))],
    ids=str,
)
def test_scratch_of_a_fit_is_an_upper_bound(solver, options, tmp_path, monkeypatch):
    X, Y = data(150, 100, 40)
    model = ridge(solver=solver, cache_dir=tmp_path / "cache", **options)
    planned = plan(model, X, Y).bytes["scratch"]
    found = []

    def run(*arguments):
        fitted, scratch = run_fit(*arguments), arguments[6]
        found.append(bytes_under(scratch))
        return fitted

    monkeypatch.setattr("ridgemm.model.run_fit", run)
    model.fit(X, Y)
    assert 0 < found[0] <= planned


# Warnings ----------------------------------------------------------------------------------

RESOLUTION = "float32 cross-products resolve"
TOO_FEW = "reach no p below"
COARSE = "have a standard error"
FDR = "FDR over"
UNEVEN = "folds hold out between"
TINY = "very noisy"
PAIRS_EVEN = [(np.arange(20, 60), np.arange(20)), (np.arange(40), np.arange(40, 60))]
PAIRS_UNEVEN = [(np.arange(45), np.arange(45, 60)), (np.arange(32, 60), np.arange(32))]
PAIRS_TINY = [(np.arange(9, 60), np.arange(9)), (np.arange(51), np.arange(51, 60))]


def kinds(forecast):
    """The warnings of a plan, by the words that they are known by."""
    words = (RESOLUTION, TOO_FEW, COARSE, FDR, UNEVEN, TINY)
    found = [[word for word in words if word in warning] for warning in forecast.warnings]
    assert all(len(known) == 1 for known in found), forecast.warnings
    return [word for (word,) in found]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, []),
        (dict(solver="primal"), []),
        (dict(alphas=[1e-9, 1.0], solver="primal"), [RESOLUTION]),
        (dict(alphas=[1e-9, 1.0]), []),
        (dict(alphas=[1e-9, 1.0], solver="svd"), []),
        (dict(alphas=[1e-9, 1.0], solver="dual"), []),
        (dict(cv=PAIRS_EVEN), []),
        (dict(cv=PAIRS_UNEVEN), [UNEVEN]),
        (dict(cv=PAIRS_TINY), [TINY]),
        (dict(cv=PAIRS_TINY, scoring="neg_mean_squared_error"), []),
        (dict(cv=PAIRS_TINY, scoring="correlation"), [TINY]),
        (dict(cv=[*PAIRS_TINY, *PAIRS_UNEVEN]), [UNEVEN, TINY]),
        (dict(cv=6), []),
        (dict(cv=7), [TINY]),
        (dict(cv="loo"), []),
        (dict(cv="gcv"), []),
    ],
    ids=str,
)
def test_warnings_of_a_fit(options, expected):
    assert kinds(plan(ridge(**options), *data())) == expected


@pytest.mark.parametrize(
    ("t", "options", "expected"),
    [
        (1, dict(n_permutations=400), []),
        (1, dict(n_permutations=399), [COARSE]),
        (1, dict(n_permutations=19), [COARSE]),
        (1, dict(n_permutations=18), [TOO_FEW]),
        (1, dict(n_permutations=400, level=0.01), [COARSE]),
        (1, dict(n_permutations=98, level=0.01), [TOO_FEW]),
        (1, dict(n_permutations=2000, level=0.01), []),
        (20, dict(n_permutations=399), [COARSE]),
        (20, dict(n_permutations=400), []),
        (21, dict(n_permutations=400), [FDR]),
        (100, dict(n_permutations=1000), [FDR]),
        (100, dict(n_permutations=2000), []),
        # the fitted tail is what the note advises
        (100, dict(n_permutations=1000, tail="gpd"), []),
        (100, dict(n_permutations=18), [TOO_FEW]),
    ],
    ids=str,
)
def test_warnings_of_permutations(t, options, expected):
    assert kinds(plan(ridge(), *data(120, t=t), cv=3, **options)) == expected


@pytest.mark.parametrize(
    ("parameters", "options", "expected"),
    [
        (dict(cv=2), dict(cv=2), []),
        # folds are compared with those of their own level
        (dict(cv=10), dict(cv=2), []),
        # leave-one-out inside holds out no set of training rows
        (dict(cv="loo"), dict(cv=5), []),
        (dict(cv="gcv"), dict(cv=5), []),
        (dict(cv=3), dict(cv=25), [TINY]),
        (dict(cv=30), dict(cv=3), [TINY]),
        (
            dict(cv=2),
            dict(cv=[(np.arange(160), np.arange(160, 200)), (np.arange(100, 200), np.arange(100))]),
            [UNEVEN],
        ),
        (dict(cv=2, alphas=[1e-9, 1.0], solver="primal"), dict(cv=2), [RESOLUTION]),
        (dict(cv=2, alphas=[1e-9, 1.0]), dict(cv=2), []),
    ],
    ids=str,
)
def test_warnings_of_nested_folds(parameters, options, expected):
    forecast = plan(ridge(**parameters), *data(200, t=1), n_permutations=400, **options)
    assert kinds(forecast) == expected


@pytest.mark.parametrize(("t", "m", "level"), [(1, 5, 0.05), (1, 50, 0.05), (300, 500, 0.01)])
def test_what_a_warning_advises_silences_it(t, m, level):
    X, Y = data(120, t=t)
    for word, advice in [
        (TOO_FEW, r"ask for at least (\d+)"),
        (COARSE, r"; (\d+) would make it"),
        (FDR, r"n_permutations=(\d+)"),
    ]:
        warnings = plan(ridge(), X, Y, n_permutations=m, level=level).warnings
        for warning in warnings:
            if word in warning:
                enough = int(re.search(advice, warning)[1])
                again = plan(ridge(), X, Y, n_permutations=enough, level=level)
                assert word not in " ".join(again.warnings)


@pytest.mark.parametrize("m", [50, 1000])
def test_the_standard_error_in_a_warning(m):
    (warning,) = plan(ridge(), *data(120, t=1), n_permutations=m, level=0.01).warnings
    number = re.search(r"standard error of ([\d.e-]+) with", warning)
    if m == 50:
        assert number is None and TOO_FEW in warning
        return
    assert float(number[1]) == pytest.approx(np.sqrt(0.01 * 0.99 / m), rel=0.05)


# JSON and text -----------------------------------------------------------------------------


def rebuilt(content):
    """The forecast that a JSON text holds."""
    names = {field.name for field in fields(Forecast)}
    content = {name: value for name, value in content.items() if name in names}
    stages = tuple(Stage(**stage) for stage in content.pop("stages"))
    return Forecast(**{**content, "stages": stages, "warnings": tuple(content["warnings"])})


@pytest.mark.parametrize("options", [{}, dict(n_permutations=40, tail="gpd")], ids=str)
def test_json_round_trip(options, tmp_path):
    forecast = plan(ridge(alphas=[1e-9, 1.0], solver="primal", cv=7), *data(), **options)
    assert forecast.warnings
    forecast.save(tmp_path / "plan.json")
    content = json.loads((tmp_path / "plan.json").read_text())
    assert rebuilt(content) == forecast
    assert content["seconds"] == forecast.seconds
    assert set(content) == {field.name for field in fields(Forecast)} | {"seconds"}


def test_text(tmp_path):
    forecast = plan(ridge(solver="primal", cv=7), *data(), n_permutations=40)
    table = [(line[:17].strip(), line[18:]) for line in str(forecast).splitlines()]
    names = [name for name, _ in table]
    assert table[0] == ("permutation test", forecast.route)
    assert [value for name, value in table if name == "warning"] == list(forecast.warnings)
    for stage in forecast.stages:
        assert stage.name in names
    assert {"tiles", "memory", "memory limit", "cache", "scratch", "results"} <= set(names)


def test_a_plan_that_cannot_be_saved_is_a_ridgemm_error(tmp_path):
    forecast = plan(ridge(), *data())
    for path in (tmp_path / "missing" / "plan.json", tmp_path):
        with pytest.raises(RidgemmError, match=re.escape(str(path))):
            forecast.save(path)


# Errors ------------------------------------------------------------------------------------


def error_of(function, *args, **kwargs):
    with pytest.raises(RidgemmError) as caught:
        function(*args, **kwargs)
    return type(caught.value), str(caught.value)


X, Y = data()
WRONG_FITS = [
    (dict(alphas=[]), {}),
    (dict(alphas=[-1.0]), {}),
    (dict(cv=1), {}),
    (dict(cv="kfold"), {}),
    (dict(cv=[([0, 1], [70, 71])]), {}),
    (dict(scoring="R2"), {}),
    (dict(solver="lu"), {}),
    (dict(solver="primal-loo"), {}),
    (dict(memory_limit="1KB"), {}),
    (dict(memory_limit=-3), {}),
    (dict(n_jobs=0), {}),
    (dict(n_jobs=10**9), {}),
    (dict(cv="loo", standardize=True), {}),
    (dict(cv=60), {}),
    ({}, dict(X=X[:59])),
    ({}, dict(X=X[0])),
    ({}, dict(Y=np.ones((60, 2), complex))),
    ({}, dict(Y="missing.npy")),
    ({}, dict(groups=np.ones(59))),
    ({}, dict(groups=np.arange(60) % 2)),
]


@pytest.mark.parametrize(("parameters", "arguments"), WRONG_FITS, ids=str)
def test_errors_of_a_plan_are_those_of_the_fit(parameters, arguments):
    model = ridge(**parameters)
    given = {"X": X, "Y": Y, **arguments}
    data = given.pop("X"), given.pop("Y")
    assert error_of(plan, model, *data, **given) == error_of(model.fit, *data, **given)


WRONG_NULLS = [
    (dict(alphas=[0.0]), {}),
    (dict(cv=[(np.arange(30), np.arange(30, 60))]), {}),
    (dict(memory_limit="1KB"), {}),
    (dict(solver="svd-products", cv="loo"), dict(X=np.ones((60, 59)))),
    ({}, dict(cv=1)),
    ({}, dict(cv=60)),
    ({}, dict(X=X[:59])),
    ({}, dict(n_permutations=0)),
    ({}, dict(n_permutations=10.0)),
    ({}, dict(scheme="within")),
    ({}, dict(scheme="Free")),
    ({}, dict(scheme=np.zeros((3, 60), int))),
    ({}, dict(scheme="circular", min_shift=31)),
    ({}, dict(random_state=None)),
    ({}, dict(null="both")),
    ({}, dict(null="heldout", cv=30)),
    ({}, dict(tail="normal")),
    ({}, dict(stop="besag-clifford", tail="gpd")),
    ({}, dict(n_jobs=0)),
    ({}, dict(missing="drop")),
]


@pytest.mark.parametrize(("parameters", "arguments"), WRONG_NULLS, ids=str)
def test_errors_of_a_plan_are_those_of_the_permutation_test(parameters, arguments):
    model = ridge(**parameters)
    arguments = {"X": X, "Y": Y, "n_permutations": 50, **arguments}
    assert error_of(plan, model, **arguments) == error_of(permutation_test, model, **arguments)


@pytest.mark.parametrize("level", [0, 1, -0.1, np.nan, "5%", None])
@pytest.mark.parametrize("n_permutations", [None, 100])
def test_levels_that_are_none(level, n_permutations):
    _, message = error_of(plan, ridge(), X, Y, level=level, n_permutations=n_permutations)
    assert message.startswith(f"level={level!r}")


def test_arguments_of_a_permutation_test_alone():
    _, message = error_of(plan, ridge(), X, Y, scheme="free", null="refit")
    assert "null, scheme" in message and "n_permutations" in message


# Rates -------------------------------------------------------------------------------------


def rates_file(tmp_path):
    return tmp_path / "user cache" / "ridgemm" / "rates.json"


def test_rates_are_measured_once(tmp_path, measured):
    first = plan(ridge(), X, Y)
    assert len(measured) == 1 and rates_file(tmp_path).exists()
    assert plan(ridge(), X, Y) == first
    assert machine_rates() == RATES
    assert len(measured) == 1
    assert [path.name for path in rates_file(tmp_path).parent.iterdir()] == ["rates.json"]


def test_rates_of_other_machines_are_kept(tmp_path, measured):
    rates_file(tmp_path).parent.mkdir(parents=True)
    rates_file(tmp_path).write_text('{"another": {"product": 1.0}}')
    machine_rates()
    assert json.loads(rates_file(tmp_path).read_text())["another"] == {"product": 1.0}
    machine_rates()
    assert len(measured) == 1


DAMAGES = [
    b"",
    b"{",
    b"[1]",
    b"null",
    b"\xff\xfe\x00",
    b'"text"',
    b"[" * 100_000,
]
# what a whole file may say of this machine
ENTRIES = [
    None,
    5,
    "fast",
    {},
    {"product": 1.0},
    {**vars(RATES), "product": "fast"},
    {**vars(RATES), "reading": 0},
    {**vars(RATES), "eigen": -1.0},
    {**vars(RATES), "product_double": float("nan")},
    {**vars(RATES), "product": None},
    {**vars(RATES), "more": 1.0},
]


@pytest.mark.parametrize("content", DAMAGES, ids=lambda content: repr(content[:8]))
def test_a_damaged_file_of_rates_is_no_error(content, tmp_path, measured):
    expected = plan(ridge(), X, Y)
    rates_file(tmp_path).write_bytes(content)
    assert plan(ridge(), X, Y) == expected
    # and it is mended
    assert plan(ridge(), X, Y) == expected
    assert len(measured) == 2


@pytest.mark.parametrize("entry", ENTRIES, ids=str)
def test_rates_that_are_none_are_no_error(entry, tmp_path, measured):
    expected = plan(ridge(), X, Y)
    (name,) = json.loads(rates_file(tmp_path).read_text())
    rates_file(tmp_path).write_text(json.dumps({name: entry}))
    assert plan(ridge(), X, Y) == expected
    assert plan(ridge(), X, Y) == expected
    assert len(measured) == 2


@pytest.mark.parametrize("kind", ["file", "folder", "below a file"])
def test_rates_that_cannot_be_kept_are_no_error(kind, tmp_path, measured, monkeypatch):
    base = tmp_path / "base"
    if kind == "folder":
        (base / "ridgemm" / "rates.json").mkdir(parents=True)
    else:
        base.write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(base / "below" if kind == "below a file" else base))
    assert machine_rates() == machine_rates() == RATES
    assert len(measured) == 2
    if kind == "folder":
        assert [path.name for path in (base / "ridgemm").iterdir()] == ["rates.json"]


def test_without_the_variable_rates_lie_in_the_home_folder(tmp_path, monkeypatch):
    for value in (None, ""):
        monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
        if value is not None:
            monkeypatch.setenv("XDG_CACHE_HOME", value)
        monkeypatch.setenv("HOME", str(tmp_path))
        assert machine_rates() == RATES
        assert (tmp_path / ".cache" / "ridgemm" / "rates.json").exists()


# Command line ------------------------------------------------------------------------------


@pytest.fixture
def files(tmp_path, monkeypatch):
    """Paths of X.npy and Y.npy in the current folder."""
    monkeypatch.chdir(tmp_path)
    np.save("X.npy", X)
    np.save("Y.npy", Y)
    np.save("groups.npy", np.arange(60) // 6)
    return ["X.npy", "Y.npy"]


COMMANDS = [
    ([], {}, {}),
    (["--alphas", "0.5,20", "--cv", "4"], dict(alphas=[0.5, 20.0], cv=4), {}),
    (["--cv", "loo", "--solver", "dual"], dict(cv="loo", solver="dual"), {}),
    (
        ["--scoring", "correlation", "--shared-alpha", "--standardize", "--memory-limit", "200MB"],
        dict(scoring="correlation", alpha_per_target=False, standardize=True, memory_limit="200MB"),
        {},
    ),
    (["--groups", "groups.npy"], {}, dict(groups=np.arange(60) // 6)),
    (["--n-jobs", "2"], dict(n_jobs=2), {}),
    (
        [
            "--n-permutations",
            "500",
            "--outer-cv",
            "3",
            "--alpha-level",
            "0.01",
            "--null",
            "heldout",
        ],
        {},
        dict(n_permutations=500, cv=3, level=0.01, null="heldout"),
    ),
    (
        ["--n-permutations", "50", "--scheme", "within", "--groups", "groups.npy"],
        {},
        dict(n_permutations=50, scheme="within", groups=np.arange(60) // 6, cv=5),
    ),
]


@pytest.mark.parametrize(("words", "parameters", "options"), COMMANDS, ids=str)
def test_the_command_is_the_function(words, parameters, options, files, capsys):
    limit = [] if "memory_limit" in parameters else ["--memory-limit", LIMIT]
    # as the command has them: arrays in memory would travel to workers by scratch files
    expected = plan(ridge(**{"cv": 5, **parameters}), *files, **options)
    assert main(["plan", *files, *words, *limit]) == 0
    assert capsys.readouterr().out == f"{expected}\n"
    assert main(["plan", *files, *words, *limit, "--json"]) == 0
    assert rebuilt(json.loads(capsys.readouterr().out)) == expected


def test_the_command_in_a_process(files, tmp_path):
    command = [sys.executable, "-W", "error", "-m", "ridgemm", "plan", *files]
    command += ["--memory-limit", LIMIT]
    machine_rates()
    environment = {**os.environ, "PYTHONPATH": os.path.dirname(os.path.dirname(ridgemm.__file__))}
    options = dict(capture_output=True, text=True, timeout=300, env=environment)
    done = subprocess.run(command, **options)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"{plan(ridge(cv=5), X, Y)}\n"
    done = subprocess.run([*command, "--solver", "lu"], **options)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("ridgemm plan: solver='lu'") and done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["missing.npy", "Y.npy"], "X='missing.npy' does not exist"),
        (["X.npy", "groups.npy"], "Y must be 2-D"),
        (["X.npy", "Y.npy", "--groups", "missing.npy"], "groups='missing.npy'"),
        (["X.npy", "Y.npy", "--groups", "empty.npy"], "groups='empty.npy'"),
        (["X.npy", "Y.npy", "--groups", "zip.npy"], "groups='zip.npy'"),
        (["X.npy", "Y.npy", "--memory-limit", "2 parsecs"], "memory_limit='2 parsecs'"),
        (["X.npy", "Y.npy", "--alpha-level", "2"], "level=2.0"),
        (["X.npy", "Y.npy", "--n-jobs", "0"], "n_jobs=0"),
        (["X.npy", "Y.npy", "--n-permutations", "0"], "n_permutations=0"),
        (["X.npy", "Y.npy", "--n-permutations", "9", "--null", "no"], "null='no'"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_errors_of_the_command_are_one_line(words, message, files, capsys):
    open("empty.npy", "w").close()
    with open("zip.npy", "wb") as file:
        np.savez(file, a=np.arange(60))
    assert main(["plan", *words]) == 1
    error = capsys.readouterr().err
    assert error.startswith("ridgemm plan: ") and error.count("\n") == 1
    assert message in error


# What it took ------------------------------------------------------------------------------


def assert_seconds(took, stages):
    assert list(took) == stages
    assert all(isinstance(value, float) and 0 <= value < 600 for value in took.values())
    assert took["scan"] > 0


def test_a_model_notes_its_stages():
    model = ridge().fit(X, Y)
    assert_seconds(model.took_, ["scan", "factors", "targets"])
    first = model.took_
    assert model.fit(X, Y).took_ is not first


STAGES = ["scan", "factors", "observed", "null"]


@pytest.mark.parametrize(
    "options", [{}, dict(null="heldout"), dict(stop="besag-clifford")], ids=str
)
def test_a_run_adds_up_what_its_calls_took(options, tmp_path):
    previous = dict.fromkeys(STAGES, 0.0)
    for n_permutations in (20, 35, 50):
        result = permutation_test(
            ridge(), X, Y, cv=3, n_permutations=n_permutations, out=tmp_path, **options
        )
        took = result.description["took"]
        assert_seconds(took, STAGES)
        assert json.loads((tmp_path / "took.json").read_text()) == took
        assert ridgemm.load(tmp_path).description["took"] == took
        assert all(took[name] > previous[name] for name in STAGES)
        previous = took


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        "[]",
        "null",
        '{"scan": "x"}',
        '{"scan": null}',
        "\x00",
        f'{{"scan": {10**400}}}',
    ],
    ids=lambda content: content[:12],
)
def test_a_damaged_note_is_no_error(content, tmp_path):
    options = dict(cv=3, n_permutations=20, out=tmp_path)
    first = permutation_test(ridge(), X, Y, **options)
    (tmp_path / "took.json").write_text(content)
    again = permutation_test(ridge(), X, Y, **options)
    assert_seconds(again.description["took"], STAGES)
    np.testing.assert_array_equal(again.pvalues, first.pvalues)
