"""The examples of fits on disk, of other libraries and of a cluster, each in a small form."""

import importlib.util

import numpy as np
import pytest
from matplotlib import image

from tests.test_examples import check_run, run


def test_fit_on_disk(tmp_path):
    picture = tmp_path / "disk.png"
    variables, printed = run("plot_fit_on_disk", "--targets", 300, "--output", picture)
    check_run(variables, printed, picture)
    strong, weak, none = (
        variables["scores"][variables["kind"] == k].mean() for k in range(len(variables["KINDS"]))
    )
    assert strong > 0.5 > 0.15 > weak > 0.02 > none > -0.05
    # everything but the targets is found
    assert "0 factors computed (before: 6)" in printed
    assert not variables["folder"].exists()


def test_whole_brain(tmp_path):
    picture = tmp_path / "brain.png"
    variables, printed = run("plot_whole_brain", "--gigabytes", 0.02, "--output", picture)
    check_run(variables, printed, picture)
    scores, signal = variables["scores"], variables["signal"]
    assert scores[signal].mean() > 0.2 and abs(scores[~signal].mean()) < 0.01
    assert np.corrcoef(scores, variables["truth"])[0, 1] > 0.8


@pytest.mark.parametrize("himalaya", [True, False], ids=["himalaya", "without"])
def test_from_other_libraries(himalaya, tmp_path, monkeypatch):
    found = importlib.util.find_spec
    if himalaya and found("himalaya") is None:
        pytest.skip("himalaya is not installed")
    if not himalaya:
        hide = lambda name, *rest: None if name == "himalaya" else found(name, *rest)  # noqa: E731
        monkeypatch.setattr(importlib.util, "find_spec", hide)
    picture = tmp_path / "libraries.png"
    variables, printed = run("plot_from_other_libraries", "--targets", 200, "--output", picture)
    assert 0 < variables["difference"] < 1e-4
    assert image.imread(picture).std() > 0.05
    assert ("himalaya: same alpha" in printed) == himalaya
    assert ("himalaya, 5 folds" in variables["scores"]) == himalaya


def test_on_a_cluster(tmp_path, monkeypatch):
    # processes of this machine: tests/test_cluster.py has Dask, which takes its time to start
    found = importlib.util.find_spec
    hide = lambda name, *rest: None if name == "distributed" else found(name, *rest)  # noqa: E731
    monkeypatch.setattr(importlib.util, "find_spec", hide)
    picture = tmp_path / "cluster.png"
    variables, printed = run("plot_on_a_cluster", "--permutations", 40, "--output", picture)
    assert image.imread(picture).std() > 0.05
    assert printed.startswith("worker processes") and "the same bits" in printed
    significant = variables["result"].pvalues_fwer <= 0.05
    effects = variables["effects"]
    assert significant[effects].mean() > 0.5 and significant[~effects].mean() < 0.01
    # tiles x permutations are covered once
    area = sum(
        (variables["stops"][tile] - tile) * (high - low)
        for tile, low, high, _ in variables["parts"]
    )
    assert area == variables["n_targets"] * 40
    assert not variables["folder"].exists()
