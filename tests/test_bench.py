"""The benchmarks run and report; what they measure is not asserted here."""

import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from bench import (
    _child,
    _run,
    brain,
    cluster,
    contenders,
    draw,
    efficiency,
    forecast,
    genetics,
    growth,
    problems,
    procedural,
    scaling,
    threads,
)
from bench._flops import ProductFlops
from bench._memory import peak_memory
from bench._run import Contender, alternate
from ridgemm import Ridge, RidgeCV
from ridgemm.folds import make_folds
from ridgemm.nested import nested_splits, target_flops
from ridgemm.rates import Rates

ROOT = Path(__file__).parents[1]
KEYS = {"name", "problem", "quick", "machine", "versions", "rows", "left_out", "figures"}
ROW = {
    "contender",
    "median_seconds",
    "min_seconds",
    "max_seconds",
    "repeats",
    "baseline_anonymous_bytes",
    "peak_anonymous_bytes",
    "note",
}


def bench(*arguments):
    command = [sys.executable, "-m", "bench", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout


def test_quick_report(tmp_path):
    file = tmp_path / "cache.json"
    printed = bench("cache", "--quick", "--json", file)
    report = json.loads(file.read_text())
    assert set(report) == KEYS
    assert report["name"] == "cache" and report["quick"] is True
    machine = {"cores", "cpu", "architecture", "blas", "sgemm_gflops"}
    assert set(report["machine"]) == machine
    assert {"python", "numpy", "ridgemm"} <= set(report["versions"])
    assert [row["contender"] for row in report["rows"]] == ["first-fit", "second-fit"]
    for row in report["rows"]:
        assert set(row) == ROW
        assert row["repeats"] == 1
        assert 0 < row["min_seconds"] <= row["median_seconds"] <= row["max_seconds"]
        assert 0 < row["baseline_anonymous_bytes"] <= row["peak_anonymous_bytes"]
        assert row["contender"] in printed
    assert report["figures"]["factors_computed_first"] > 0
    assert report["figures"]["factors_computed_second"] == 0


def test_quick_views_make_the_maps_of_arrays(tmp_path):
    file = tmp_path / "views.json"
    bench("views", "--quick", "--json", file)
    figures = json.loads(file.read_text())["figures"]
    assert figures["delayed_max_abs_map_difference"] == 0
    assert figures["zscored_max_abs_map_difference"] == 0
    assert figures["delayed_view_over_array"] > 0


def test_quick_genetics_measures_what_is_asked_for(tmp_path):
    file = tmp_path / "genetics.json"
    options = ["--permutations", 20, "--shared-permutations", 10, "--json", file]
    bench("genetics", "--quick", "--precision", "single", *options)
    report = json.loads(file.read_text())
    rows = {row["contender"]: row for row in report["rows"]}
    assert list(rows) == ["factors-and-8", "factors-found-ready", "20-permutations", "one-alpha-10"]
    figures = report["figures"]
    whole = figures["setup_seconds"] + 10000 * figures["seconds_per_permutation"]
    assert figures["core_hours_10000"] == pytest.approx(whole * report["machine"]["cores"] / 3600)
    assert figures["permutations_measured"] == 20 and "whole_core_hours" not in figures


@pytest.mark.slow
def test_quick_genetics_repeats_and_goes_on_to_the_whole(tmp_path):
    file = tmp_path / "genetics.json"
    options = ["--permutations", 30, "--shared-permutations", 20, "--repeats", 2, "--json", file]
    options += ["--whole", 80]
    bench("genetics", "--quick", "--precision", "single", *options)
    report = json.loads(file.read_text())
    assert set(report) == KEYS
    rows = {row["contender"]: row for row in report["rows"]}
    assert list(rows) == [
        "factors-and-8",
        "factors-found-ready",
        "30-permutations",
        "on-to-80-single",
        "one-alpha-20",
    ]
    assert all(set(row) == ROW for row in rows.values())
    assert rows["30-permutations"]["repeats"] == 2
    assert rows["one-alpha-20"]["note"] == "dual-operators-trace"
    figures = report["figures"]
    cores = report["machine"]["cores"]
    whole = figures["setup_seconds"] + 10000 * figures["seconds_per_permutation"]
    assert figures["core_hours_10000"] == pytest.approx(whole * cores / 3600)
    assert figures["permutations_measured"] == 60
    assert figures["whole_permutations"] == 80
    assert figures["whole_against_permutations"] == 68
    spent = [rows[name]["median_seconds"] * rows[name]["repeats"] for name in list(rows)[:4]]
    assert figures["whole_core_hours"] == pytest.approx(sum(spent) * cores / 3600)
    assert figures["shared_seconds_20"] == rows["one-alpha-20"]["median_seconds"]
    assert figures["peak_anonymous_bytes"] > 0


@pytest.mark.slow
def test_quick_null_memory_runs_both_nulls(tmp_path):
    file = tmp_path / "memory.json"
    bench("null-memory", "--quick", "--permutations", 2, "--json", file)
    report = json.loads(file.read_text())
    assert set(report) == KEYS
    assert [row["contender"] for row in report["rows"]] == ["refit", "heldout"]
    for row in report["rows"]:
        assert set(row) == ROW
        above = row["peak_anonymous_bytes"] - row["baseline_anonymous_bytes"]
        figures = report["figures"]
        assert 0 < above == figures[f"peak_anonymous_bytes_{row['contender']}"] < 1e9


@pytest.mark.slow
def test_quick_cluster_compares_with_b_mor_on_one_cluster(tmp_path):
    pytest.importorskip("distributed")
    file = tmp_path / "cluster.json"
    bench("cluster", "--quick", "--json", file)
    report = json.loads(file.read_text())
    assert set(report) == KEYS
    names = ["ridgemm-local", "ridgemm-dask", "ridgemm-dask-second", "b-mor", "mor-sample"]
    assert [row["contender"] for row in report["rows"]] == names
    assert all(set(row) == ROW and row["note"] for row in report["rows"])
    seconds = {row["contender"]: row["median_seconds"] for row in report["rows"]}
    figures = report["figures"]
    overhead = seconds["ridgemm-dask"] / seconds["ridgemm-local"] - 1
    assert figures["dask_overhead"] == pytest.approx(overhead)
    assert figures["dask_same_bits_as_local"] == 1
    assert (figures["factors_computed_first"], figures["factors_computed_second"]) == (1, 0)
    assert figures["alphas_b_mor_chooses"] == figures["n_workers"] == 2
    assert figures["share_of_targets_with_the_alpha_of_b_mor"] == 1
    assert figures["max_abs_coef_difference_where_alphas_agree"] < 1e-5
    all_targets = seconds["mor-sample"] * 1500 / cluster.SAMPLE
    assert figures["mor_seconds_extrapolated_to_all_targets"] == pytest.approx(all_targets)


def test_cluster_without_dask_runs_the_local_contender_alone(monkeypatch):
    monkeypatch.setattr(_run, "find_spec", lambda package: None)
    report = cluster.run(True, 1)
    assert [row["contender"] for row in report["rows"]] == ["ridgemm-local"]
    assert len(report["left_out"]) == 4
    assert "distributed not installed" in report["left_out"][0]


def test_scaling_is_a_model_of_its_assumptions(monkeypatch):
    rates = Rates(1.5e11, 1.5e11, 1.5e11, 7e10, 5e9, 1e10, 1.5e10, 2)
    monkeypatch.setattr(scaling, "machine_rates", lambda: rates)
    text, figures = scaling.scaling_model()
    assert all(f"{job:8}{nodes:5} x 32" in text for job in scaling.JOBS for nodes in scaling.NODES)
    assert all(figures[f"{job}_1_efficiency"] == 1 for job in scaling.JOBS)
    assert all(figures[f"{job}_8_speedup"] < 8 for job in scaling.JOBS)
    usual = scaling.predict("refit", 1000, scaling.Assumptions(), rates)
    better = scaling.Assumptions(disk=40e9, names=4e6)
    changed = scaling.predict("refit", 1000, better, rates)
    assert changed["read"] == pytest.approx(usual["read"] / 2)
    assert changed["journal"] < usual["journal"]
    assert {name for name in usual if usual[name] != changed[name]} == {"read", "journal"}


def run_in_this_process(monkeypatch):
    """Runs without the start of a process for each."""
    monkeypatch.setattr(
        _run,
        "_run_once",
        lambda contender, folder: _child.main(
            {
                "solver": contender.solver,
                "options": contender.options,
                "folder": str(folder),
                "maps": str(_run._maps_file(contender, folder)),
            }
        ),
    )


def test_quick_bmor_finds_signals_and_nothing_else(monkeypatch):
    run_in_this_process(monkeypatch)
    report = brain.bmor(True, 1)
    assert [row["contender"] for row in report["rows"]] == ["ridgemm", "ridgemm-primal-coef"]
    figures = report["figures"]
    assert figures["ridgemm_n_targets"] == 1200 and figures["ridgemm_with_a_signal"] == 300
    assert figures["ridgemm_found"] > 0 == figures["ridgemm_found_without"]
    assert figures["ridgemm_primal_coef_coef_stage_seconds"] > 0


def test_a_part_of_the_targets_tells_the_whole_by_a_line_through_two(monkeypatch):
    def alternate(contenders, folder, repeats):
        sizes = [contender.options["n_targets"] for contender in contenders]
        assert sizes == [300, 600]
        run = {"baseline": 1, "peak": 2}
        rows = {
            c.name: _run._row(c, [run | {"seconds": 5 + t / 100}], 1)
            for c, t in zip(contenders, sizes, strict=True)
        }
        maps = {"best_score": np.zeros(600), "n_test": 0, "generating": 4.0, "took_scan": 1.0}
        return _run.Outcome(rows, {name: [maps] for name in rows})

    monkeypatch.setattr(brain, "alternate", alternate)
    figures = brain.wholebrain(True, 1, scale=0.5)["figures"]
    assert figures["ridgemm_seconds_extrapolated_to_1200"] == pytest.approx(17)
    assert figures["ridgemm_scan_stage_seconds"] == 1


def test_efficiency_has_a_share_for_every_row(monkeypatch):
    run_in_this_process(monkeypatch)
    monkeypatch.setattr(contenders, "_SGEMM", 200)
    monkeypatch.setattr(efficiency, "QUICK", {"wide": efficiency.QUICK["wide"]})
    monkeypatch.setattr(efficiency, "usable", lambda function, wanted: ("single",))
    report = efficiency.run(True, 1)
    assert [row["contender"] for row in report["rows"]] == ["fit-wide-single", "null-wide-single"]
    assert all(set(row) == ROW for row in report["rows"])
    names = [
        f"{kind}_wide_single_{part}_share"
        for kind in ("fit", "null")
        for part in ("targets", "factors", "made")
    ]
    assert list(report["figures"]) == ["bare_single_gflops", *names]
    assert all(value > 0 for value in report["figures"].values())


def test_made_flops_are_those_of_the_products():
    X, Y = np.random.default_rng(0).standard_normal((2, 60, 4)).astype(np.float32)
    count = ProductFlops()
    with count:
        Ridge(alpha=1.0, solver="primal").fit(X, Y)
    # X'Y, Z = V'X'Y and coefficients V D
    assert count.total == 2 * 4 * (60 * 4 + 4 * 4 + 4 * 4)


def test_forecasts_have_a_prediction_for_every_stage(monkeypatch):
    run_in_this_process(monkeypatch)
    report = forecast.run(True, 1)
    assert [row["contender"] for row in report["rows"]] == ["tall", "genetics"]
    figures = report["figures"]
    tall = sum(
        figures[f"tall_{stage}_predicted_seconds"] for stage in ("scan", "factors", "targets")
    )
    ratio = tall / report["rows"][0]["median_seconds"]
    assert figures["predicted_over_seconds_tall"] == pytest.approx(ratio)
    assert figures["genetics_null_predicted_seconds"] > 0 < figures["genetics_null_seconds"]


def test_threads_and_growth_are_drawn(tmp_path, monkeypatch):
    pytest.importorskip("matplotlib")
    run_without_processes(monkeypatch, {f"{w}x{t}": 4 / (w * t) for w, t in threads._forms(4)})
    monkeypatch.setattr(threads, "_n_cores", lambda: 4)
    report = threads.run(True, 1) | {"name": "threads"}
    assert set(report["figures"].values()) == {1.0} and len(report["figures"]) == 6
    seconds = {}
    for axis, cases in growth.QUICK.items():
        for problem, r in cases:
            size = {"n": problem.n_samples, "t": problem.n_targets, "r": r}[axis]
            peers = zip(("ridgemm", "himalaya", "scikit-learn"), (1, 2, 4), strict=True)
            seconds |= {f"{name} {axis}={size}": time for name, time in peers}
    run_without_processes(monkeypatch, seconds)
    monkeypatch.setattr(_run, "find_spec", lambda package: package)
    grown = growth.run(True, 1) | {"name": "growth"}
    assert grown["figures"]["speedup_over_scikit-learn r=6"] == 4
    for made in (report, grown):
        (tmp_path / "report.json").write_text(json.dumps(made))
        draw.main(tmp_path / "report.json", tmp_path / f"{made['name']}.png")
        assert (tmp_path / f"{made['name']}.png").read_bytes().startswith(b"\x89PNG")


def test_procedural_values_follow_from_row_and_column_alone():
    X, later = procedural.split(problems.Problem(500, 300, 4000), 100)
    Y, held_out = (procedural.Targets(rows, 4000) for rows in (X, later))
    whole = procedural.Targets(procedural.Features((500, 300)), 4000)[:, :]
    np.testing.assert_array_equal(held_out[:, :], whole[400:])
    rows = np.array([3, 77, 399])
    np.testing.assert_array_equal(Y[rows, 1000:2500], whole[rows, 1000:2500])
    out = np.empty((2, 9), np.float64)
    Y.read(slice(7, 9), slice(1020, 1029), np.ones(9, np.float32), out)
    np.testing.assert_array_equal(out, whole[7:9, 1020:1029].astype(np.float64) - 1)
    np.testing.assert_allclose(whole.var(axis=0).mean(), 1, atol=0.01)
    noise = whole[:, ~procedural.signalled(np.arange(4000))]
    expected = 1 / np.sqrt(noise.shape[1])
    correlations = np.corrcoef(noise)[~np.eye(500, dtype=bool)]
    assert correlations.std() == pytest.approx(expected, rel=0.05)
    assert abs(correlations.mean()) < 3 * expected / 500


def test_an_option_of_another_benchmark_is_refused():
    command = [sys.executable, "-m", "bench", "cache", "--quick", "--permutations", "3"]
    finished = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert finished.returncode == 2
    assert "cache does not take --permutations" in finished.stderr


def test_flops_of_a_permutation_are_those_of_the_plan():
    problem = problems.Problem(150, 5000, 3)
    model = RidgeCV(cv=genetics.INNER)
    outer = make_folds(genetics.OUTER, problem.n_samples, None)
    splits = nested_splits(model.checked_settings(), outer, None, problem.n_samples)
    planned = target_flops(splits, "dual", "operators", problem.n_samples, problem.n_features, 5)
    assert genetics._flops(problem, 5) == pytest.approx(planned * problem.n_targets, rel=1e-12)


def test_without_a_name_lists_the_benchmarks():
    names = [line.split()[0] for line in bench().splitlines()]
    assert names == [
        "peers-square",
        "peers-tall",
        "xty",
        "lowram",
        "cache",
        "cold",
        "genetics",
        "bmor",
        "wholebrain",
        "roi",
        "parcel",
        "efficiency",
        "forecast",
        "threads",
        "growth",
        "null-memory",
        "memory",
        "cluster",
        "hardening",
        "views",
        "scaling",
    ]


def run_without_processes(monkeypatch, seconds):
    """Replace the subprocess of a run; return the list of names in the order of the runs."""
    order = []

    def run_once(contender, folder):
        order.append(contender.name)
        np.savez(_run._maps_file(contender, folder))
        return {"seconds": seconds[contender.name], "baseline": 1, "peak": 2}

    monkeypatch.setattr(_run, "_run_once", run_once)
    return order


def test_contenders_take_turns_and_slow_ones_run_once(monkeypatch, tmp_path):
    order = run_without_processes(monkeypatch, {"a": 1.0, "slow": 61.0, "b": 2.0})
    outcome = alternate([Contender(name, "") for name in ("a", "slow", "b")], tmp_path)
    assert order == ["a", "slow", "b"] + ["a", "b"] * 4
    assert [outcome.rows[name]["repeats"] for name in ("a", "slow", "b")] == [5, 1, 5]
    assert "one run" in outcome.rows["slow"]["note"] and not outcome.rows["a"]["note"]


def test_repeats_asked_for_are_run_by_slow_contenders_too(monkeypatch, tmp_path):
    order = run_without_processes(monkeypatch, {"a": 1.0, "slow": 61.0})
    alternate([Contender(name, "") for name in ("a", "slow")], tmp_path, repeats=2)
    assert order == ["a", "slow", "a", "slow"]


def test_a_contender_that_is_not_installed_is_named(monkeypatch, tmp_path):
    order = run_without_processes(monkeypatch, {"a": 1.0})
    absent = Contender("absent", "", requires=("no_such_package",))
    outcome = alternate([Contender("a", ""), absent], tmp_path, repeats=1)
    assert order == ["a"] and list(outcome.rows) == ["a"]
    assert outcome.left_out == ["absent: no_such_package not installed"]


def test_peak_memory_sees_an_array_that_is_gone_at_the_end():
    with peak_memory() as memory:
        array = np.ones(2**23)
        # A sample is taken every few milliseconds, when the thread gets its turn: wait for one.
        deadline = time.monotonic() + 30
        while memory.peak - memory.baseline < 0.9 * array.nbytes and time.monotonic() < deadline:
            time.sleep(0.01)
        size = array.nbytes
        del array
    assert memory.peak - memory.baseline > 0.9 * size


def test_problems_are_seeded_of_unit_variance_and_removed():
    problem = problems.Problem(2000, 20, 30)
    with problems.on_disk(problem, targets=("Y", "Y2")) as folder:
        X, Y, other = (np.load(folder / f"{name}.npy") for name in ("X", "Y", "Y2"))
        small = np.load(folder / "warmup" / "Y.npy")
    with problems.on_disk(problem) as again:
        np.testing.assert_array_equal(np.load(again / "Y.npy"), Y)
    assert not folder.exists() and not again.exists()
    assert X.shape == (2000, 20) and Y.shape == other.shape == (2000, 30)
    assert X.dtype == Y.dtype == np.float32
    assert small.shape == (200, 20)
    assert not np.array_equal(Y, other)
    np.testing.assert_allclose(Y.var(axis=0), 1, atol=0.7)


def test_genotypes_are_seeded_dosages_with_linked_neighbours(tmp_path):
    problem = problems.Problem(400, 3000, 100)
    for name in ("one", "two"):
        problems.write_genotypes(tmp_path / name, problem)
    X, Y, heritable = (np.load(tmp_path / "one" / f"{n}.npy") for n in ("X", "Y", "heritable"))
    np.testing.assert_array_equal(np.load(tmp_path / "two" / "X.npy"), X)
    np.testing.assert_array_equal(np.load(tmp_path / "two" / "Y.npy"), Y)
    assert X.shape == (400, 3000) and X.dtype == np.int8
    assert set(np.unique(X)) == {0, 1, 2}
    assert Y.shape == (400, 100) and Y.dtype == np.float32 and heritable.sum() == 2
    np.testing.assert_allclose(Y.var(axis=0), 1, atol=0.3)
    varied = X[:, X.std(axis=0) > 0]
    correlation = np.abs(np.corrcoef(varied.T))
    assert np.diag(correlation, 1).mean() > 2 * np.diag(correlation, 200).mean()
    expected = problems.typical_eigenvalue(tmp_path / "one")
    assert expected == pytest.approx(X.var(axis=0).sum(), rel=0.05)


def test_a_full_disk_is_said_before_anything_is_written(monkeypatch):
    monkeypatch.setattr(problems.shutil, "disk_usage", lambda folder: type("", (), {"free": 10}))
    with pytest.raises(SystemExit, match="set TMPDIR"), problems.on_disk(problems.Problem(9, 9, 9)):
        pass


def test_cold(tmp_path):
    printed = bench("cold", "--quick", "--repeats", "1", "--json", tmp_path / "cold.json")
    assert "speedup_of_a_tile" in printed
    figures = json.loads((tmp_path / "cold.json").read_text())["figures"]
    # both ways read the same values
    assert figures["different_sums_of_a_tile"] == 1
