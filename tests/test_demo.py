"""The simulated brain against its own definition, and the demonstration from end to end."""

import sys

import numpy as np
import pytest
from scipy.stats import binom

from ridgemm import demo, simulation
from ridgemm.__main__ import main
from ridgemm.errors import InputError, StorageError

N_SAMPLES, N_FEATURES, SHAPE, N_RUNS = 1500, 30, (14, 16, 14), 6


@pytest.fixture(scope="module")
def brain(tmp_path_factory):
    folder = tmp_path_factory.mktemp("brain")
    return simulation.simulate_brain(folder, N_SAMPLES, N_FEATURES, SHAPE, N_RUNS, seed=3)


def noise_of(brain):
    """Y without its signal, recomputed in float64."""
    signal = brain.X.astype(np.float64) @ brain.weights
    return brain.Y - np.sqrt(brain.explained) * signal[:, brain.region] * (brain.region >= 0)


def within_five_errors(values, expected):
    """Whether the mean of independent values is where it should be."""
    return abs(np.mean(values) - expected) < 5 * np.std(values) / np.sqrt(np.size(values))


def test_arrays_on_disk(brain):
    n_targets = np.count_nonzero(brain.mask)
    assert isinstance(brain.X, np.memmap) and isinstance(brain.Y, np.memmap)
    assert brain.X.shape == (N_SAMPLES, N_FEATURES) and brain.X.dtype == np.float32
    assert brain.Y.shape == (N_SAMPLES, n_targets) and brain.Y.dtype == np.float32
    assert brain.mask.shape == SHAPE
    np.testing.assert_array_equal(np.bincount(brain.runs), np.full(N_RUNS, N_SAMPLES // N_RUNS))


def test_mask_is_the_inscribed_ellipsoid(brain):
    assert np.isclose(brain.mask.mean(), np.pi / 6, rtol=0.03)
    for axis in range(3):
        np.testing.assert_array_equal(brain.mask, np.flip(brain.mask, axis))
        others = tuple({0, 1, 2} - {axis})
        assert brain.mask.any(axis=others).all()


def test_every_region_has_targets_and_most_targets_have_none(brain):
    assert set(brain.region) == {-1, *range(len(simulation.REGIONS))}
    assert 0.5 < np.mean(brain.region < 0) < 0.95
    np.testing.assert_array_equal(brain.region < 0, brain.explained == 0)
    assert brain.explained[brain.region >= 0].min() >= simulation.LEAST_EXPLAINED


def test_explained_variance(brain):
    # the slope on the known signal and the variance left over define sqrt(v) and 1 - v; slopes
    # are independent given the signal, so their mean is known far better than any one of them
    signal = brain.X.astype(np.float64) @ brain.weights
    noise = noise_of(brain)
    for region in range(len(simulation.REGIONS)):
        inside = brain.region == region
        s = signal[:, region]
        slope = s @ brain.Y[:, inside] / (s @ s)
        assert within_five_errors(slope - np.sqrt(brain.explained[inside]), 0)
        assert within_five_errors(np.var(noise[:, inside], axis=0) + brain.explained[inside], 1)


def test_signals_have_unit_variance(tmp_path):
    # few features, many samples: the variance of a column has a standard error of 1 %
    brain = simulation.simulate_brain(tmp_path, 36000, 4, (6, 6, 6), 4)
    np.testing.assert_allclose(np.linalg.norm(brain.weights, axis=0), 1, rtol=1e-6)
    np.testing.assert_allclose(np.var(brain.X, axis=0), 1, atol=0.05)
    np.testing.assert_allclose(np.var(brain.X @ brain.weights, axis=0), 1, atol=0.06)


def test_noise_is_ar1_inside_runs_and_starts_anew_in_each(brain):
    noise = noise_of(brain)
    starts_run = np.flatnonzero(np.diff(brain.runs)) + 1
    lagged = noise[1:] * noise[:-1]
    across = lagged[starts_run - 1]
    inside = np.delete(lagged, starts_run - 1, axis=0)
    variance = 1 - brain.explained
    assert within_five_errors(inside.mean(axis=0) / variance, simulation.NOISE_AR)
    assert within_five_errors(across / variance, 0)
    assert within_five_errors(np.mean(noise[[0, *starts_run]] ** 2, axis=0) / variance, 1)


def test_autoregress_is_the_recursion():
    white = np.random.default_rng(0).standard_normal((6, 3)).astype(np.float32)
    scale = np.array([1.0, 2.0, 0.5], dtype=np.float32)
    ref = np.empty((6, 3))
    for t in range(6):
        innovation = scale * white[t]
        ref[t] = innovation if t == 0 else 0.4 * ref[t - 1] + np.sqrt(1 - 0.4**2) * innovation

    whole = white.copy()
    simulation.autoregress(whole, 0.4, scale)
    np.testing.assert_allclose(whole, ref, rtol=1e-5)

    first, second = white[:2].copy(), white[2:].copy()
    simulation.autoregress(first, 0.4, scale)
    simulation.autoregress(second, 0.4, scale, first[-1])
    np.testing.assert_array_equal(np.vstack([first, second]), whole)


def test_data_depend_on_the_seed_and_not_on_the_blocks(brain, tmp_path, monkeypatch):
    monkeypatch.setattr(simulation, "BLOCK_BYTES", 7 * 4 * brain.Y.shape[1])
    (tmp_path / "same").mkdir()
    (tmp_path / "other").mkdir()
    problem = (N_SAMPLES, N_FEATURES, SHAPE, N_RUNS)
    same = simulation.simulate_brain(tmp_path / "same", *problem, seed=3)
    other = simulation.simulate_brain(tmp_path / "other", *problem, seed=4)
    np.testing.assert_array_equal(same.X, brain.X)
    np.testing.assert_array_equal(same.Y, brain.Y)
    assert not np.any(other.Y == brain.Y)


def test_no_file_is_overwritten(tmp_path):
    np.save(tmp_path / "X.npy", np.arange(3))
    with pytest.raises(InputError, match="another folder"):
        simulation.simulate_brain(tmp_path, 60, 5, (6, 6, 6), 3)
    np.testing.assert_array_equal(np.load(tmp_path / "X.npy"), np.arange(3))


@pytest.mark.parametrize("gigabytes", [0.001, 0.02, 0.1, 2.0])
def test_sizes_reach_the_gigabytes_and_not_much_more(gigabytes):
    n_samples, n_features, shape = simulation.sizes(gigabytes)
    n_train = (
        n_samples * simulation.N_TRAIN_RUNS // (simulation.N_TRAIN_RUNS + simulation.N_TEST_RUNS)
    )
    n_targets = np.count_nonzero(simulation.ellipsoid(shape)[1])
    assert gigabytes * 1e9 <= 4 * n_train * n_targets < 1.6 * gigabytes * 1e9
    assert n_features < n_train / 2


@pytest.mark.parametrize("gigabytes", [0, -1, 1e-6, np.inf, np.nan])
def test_sizes_refuse_what_is_no_size(gigabytes):
    with pytest.raises(InputError, match="gigabytes"):
        simulation.sizes(gigabytes)


def test_chance_threshold_holds_for_autocorrelated_series():
    # one predictor of the features' autocorrelation against many targets of the noise's
    rng = np.random.default_rng(5)
    n_samples, n_targets, chance = 400, 2000, 0.01
    n_false = 0
    for _ in range(10):
        x = rng.standard_normal((n_samples, 1)).astype(np.float32)
        noise = rng.standard_normal((n_samples, n_targets)).astype(np.float32)
        simulation.autoregress(x, simulation.FEATURE_AR, 1.0)
        simulation.autoregress(noise, simulation.NOISE_AR, 1.0)
        x -= x.mean()
        noise -= noise.mean(axis=0)
        r = (x.T @ noise)[0] / (np.linalg.norm(x) * np.linalg.norm(noise, axis=0))
        n_false += np.count_nonzero(r > demo.chance_threshold(n_samples, chance))
    # given x the targets are independent; ten draws of x widen the interval a little
    low, high = binom.interval(0.9999, 10 * n_targets, chance)
    assert low < n_false < high


def test_peak_memory_sees_an_array_that_came_and_went():
    with demo.PeakMemory(interval=0.001) as memory:
        array = np.ones(40_000_000, dtype=np.float32)
        for _ in range(10):
            array += 1
        del array
    assert 0.9 * 160e6 < memory.peak - memory.before < 1.5 * 160e6


def test_peak_memory_does_not_count_the_pages_of_a_file(tmp_path):
    path = tmp_path / "ones.npy"
    np.save(path, np.ones(20_000_000, dtype=np.float32))
    with demo.PeakMemory(interval=0.001) as memory:
        assert np.load(path, mmap_mode="r").sum() == 20_000_000
    assert memory.peak - memory.before < 40e6


def test_picture(tmp_path, brain):
    path = tmp_path / "maps.png"
    demo.draw_maps(path, brain.mask, np.sqrt(brain.explained), np.zeros(len(brain.region)))
    assert path.read_bytes().startswith(b"\x89PNG")


def test_missing_matplotlib_shows_before_the_work(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(InputError, match=r"ridgemm\[plot\]"):
        demo.run_demo(tmp_path, gigabytes=0.001)
    assert not any(tmp_path.iterdir())


def test_small_disk_is_refused_before_the_work(tmp_path):
    with pytest.raises(StorageError, match="free"):
        demo.run_demo(tmp_path, gigabytes=1e7)
    assert not any(tmp_path.iterdir())


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("demo")
    report = demo.run_demo(
        folder, gigabytes=0.02, memory_limit="256MB", picture=folder / "maps.png", seed=1
    )
    return report, simulation.load_brain(folder)


def test_demo_finds_the_signal(finished):
    report, brain = finished
    strong = brain.explained > 0.25
    assert np.mean(report.scores[strong] > report.threshold) > 0.99
    # ten samples per feature: errors of the weights cost some of the correlation, not much
    kept = report.scores[strong] / np.sqrt(brain.explained[strong])
    assert 0.8 < kept.mean() < 1
    assert report.n_found > 2 / 3 * report.n_signal


def test_demo_finds_noise_as_often_as_chance_does(finished):
    # noise targets are independent given the predictions
    report, _ = finished
    low, high = binom.interval(0.9999, report.n_noise, demo.CHANCE)
    assert low <= report.n_false <= high


def test_demo_report(finished):
    report, _ = finished
    assert report.n_signal + report.n_noise == report.n_targets == len(report.scores)
    assert report.bytes_before_fit <= report.peak_bytes
    assert set(report.seconds) == {"simulate", "fit", "score", "draw"}
    table = str(report)
    assert report.route in table and f"{report.n_found} of {report.n_signal}" in table
    assert max(map(len, table.splitlines())) <= 100


def test_demo_from_the_command_line(tmp_path, capsys):
    folder, picture = tmp_path / "data", tmp_path / "maps.png"
    words = ["--gigabytes", "0.001", "--folder", str(folder), "--picture", str(picture)]
    assert main(["demo", *words]) == 0
    assert "signal targets found" in capsys.readouterr().out
    assert picture.stat().st_size > 0
    assert simulation.load_brain(folder).Y.shape[0] > 0
