"""The example of parcels runs and finds the regions that are heritable."""

import numpy as np
import pytest
from matplotlib import image

from tests.test_permutation_examples import run

pytest.importorskip("bed_reader")


def test_parcels(tmp_path):
    options = ("--permutations", 99, "--output", tmp_path / "parcels.png")
    variables, printed = run("plot_parcels_genetics", *options)
    assert image.imread(tmp_path / "parcels.png").std() > 0.05
    # not zero either: it compares float32 with float64, not a thing with itself
    assert 0 < variables["difference"] < 1e-4
    found, share = variables["found"], variables["share"]
    assert found.any() and (share[found] > 0).all()
    # both regions
    maps = variables["ward"].labels_
    for region in np.flatnonzero(variables["heritable"]):
        inside = variables["regions"][region][variables["brain"]]
        assert found[maps[inside]].mean() > 0.5
    assert f"{found.sum()} of 60 parcels" in printed
