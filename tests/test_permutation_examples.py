"""The examples of permutation tests run, and find what there is to find and no more."""

import contextlib
import io
import re
import runpy
import sys
from pathlib import Path

import numpy as np
import pytest
from matplotlib import image
from matplotlib import pyplot as plt

EXAMPLES = Path(__file__).parents[1] / "examples"


def run(name, *arguments):
    """Run an example as a script; its variables and what it printed."""
    script = EXAMPLES / f"{name}.py"
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(io.StringIO()) as out:
        patch.syspath_prepend(EXAMPLES)
        patch.setattr(sys, "argv", [str(script), *map(str, arguments)])
        variables = runpy.run_path(script, run_name="__main__")
    plt.close("all")
    return variables, out.getvalue()


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    return tmp_path_factory.mktemp("pictures")


def check_picture(path):
    assert image.imread(path).std() > 0.05


def run_schemes(pictures, draws):
    options = ("--draws", draws, "--permutations", 99)
    return run("plot_permutation_schemes", "--output", pictures / "schemes.png", *options)


@pytest.fixture(scope="module")
def schemes(pictures):
    return run_schemes(pictures, 2)


@pytest.fixture(scope="module")
def haxby(pictures):
    options = ("--permutations", 39)
    return run("plot_haxby_permutation", "--output", pictures / "haxby.png", *options)


def test_haxby_from_nifti_to_nifti(tmp_path):
    nibabel = pytest.importorskip("nibabel")
    pytest.importorskip("nilearn")
    variables, printed = run("plot_haxby_nifti", "--output", tmp_path, "--permutations", 39)
    check_picture(tmp_path / "map.png")
    result, mask = variables["result"], nibabel.load(tmp_path / "mask.nii.gz")
    inside = mask.get_fdata() > 0
    image = nibabel.load(tmp_path / "scores-fwer.nii.gz")
    np.testing.assert_array_equal(image.affine, mask.affine)
    found = result.pvalues_fwer <= 0.05
    shown = image.get_fdata()
    np.testing.assert_array_equal(np.isfinite(shown[inside]), found)
    np.testing.assert_array_equal(shown[inside][found], np.float32(result.scores[found]))
    assert np.isnan(shown[~inside]).all() and 5 < found.sum() < found.size / 2
    assert f"{found.sum()} voxels in" in printed
    assert "Permutation test" in (tmp_path / "report.html").read_text()


@pytest.fixture(scope="module")
def gough(pictures):
    options = ("--permutations", 99)
    return run("plot_gough_permutation", "--output", pictures / "gough.png", *options)


def test_schemes(schemes, pictures):
    variables, printed = schemes
    check_picture(pictures / "schemes.png")
    assert variables["rates"].shape == (4, 3)
    assert printed.count("holds") + printed.count("fails") == 12


@pytest.mark.slow
def test_rates_of_schemes(pictures):
    variables, printed = run_schemes(pictures, 12)
    rates = dict(zip(variables["SCHEMES"], variables["rates"], strict=True))
    high = variables["high"]
    # (white noise, a level for each run, autocorrelated)
    assert rates["free"][0] < high and min(rates["free"][1:]) > 0.5
    assert max(rates["within"][:2]) < high and rates["within"][2] > 3 * high
    # a test that never rejects would hold as well
    for scheme in ("whole", "circular"):
        assert rates[scheme].min() > 0.01 and rates[scheme].max() < high
    assert printed.count("holds") == 9 and printed.count("fails") == 3


def test_autoregress(schemes):
    white = np.random.default_rng(0).standard_normal((400, 50, 1))
    series = schemes[0]["autoregress"](white, 0.7)[..., 0]
    np.testing.assert_allclose(series.std(axis=0), 1, atol=0.15)
    neighbours = [np.corrcoef(series[:, t], series[:, t + 1])[0, 1] for t in range(49)]
    np.testing.assert_allclose(np.mean(neighbours), 0.7, atol=0.02)
    ref = 0.7 * series[:, 10] + np.sqrt(1 - 0.7**2) * white[:, 11, 0]
    np.testing.assert_allclose(series[:, 11], ref)


def check_haxby(variables, printed, picture):
    check_picture(picture)
    assert "12 orders of the categories, 1 timing of the blocks" in printed
    within, whole, circular = (variables["results"][s] for s in ("within", "whole", "circular"))
    np.testing.assert_array_equal(within.scores, circular.scores)
    np.testing.assert_array_equal(within.scores, whole.scores)
    for result in (within, whole, circular):
        assert (result.pvalues_fwer <= 0.05).sum() > 0
        assert re.search(rf"\b{(result.pvalues_fdr <= 0.05).sum()} +\d+\.\d s", printed)
    # what runs have in common stays under "whole" alone
    assert abs(circular.null_mean.mean()) < 0.01 < whole.null_mean.mean()


def test_haxby_simulated(haxby, pictures):
    variables, printed = haxby
    check_haxby(variables, printed, pictures / "haxby.png")
    x, y = np.nonzero(variables["mask"])
    distance = np.min([np.hypot(x - centre, y - 9) for centre in (8, 21)], axis=0)
    found = variables["results"]["circular"].pvalues_fwer <= 0.05
    assert found[distance < 2].all() and found[distance > 8].mean() < 0.05


@pytest.mark.slow
def test_haxby_real(shared_data, tmp_path):
    folder, picture = shared_data / "haxby_slice", tmp_path / "haxby.png"
    variables, printed = run(
        "plot_haxby_permutation", "--data", folder, "--output", picture, "--permutations", 99
    )
    check_haxby(variables, printed, picture)
    assert "1452 volumes in 12 runs, 530 voxels" in printed
    results = variables["results"]
    assert results["circular"].null_sd.mean() > 1.2 * results["within"].null_sd.mean()
    n_found = {s: (r.pvalues_fwer <= 0.05).sum() for s, r in results.items()}
    assert n_found["within"] > n_found["circular"] > n_found["whole"]


def check_gough(variables, printed, picture):
    check_picture(picture)
    assert variables["result"].description["route"].startswith("dual")
    p = variables["p"]
    assert p.shape == (16, 3)
    assert f"{(p <= 0.05).sum()} of 48 phenotypes" in printed
    # wider than the interval that is printed: 99 permutations leave the threshold uncertain too
    assert variables["shuffled_p"].shape == (200, 48) and 1 <= variables["n_found"] <= 30
    above = variables["scores"] > variables["threshold"]
    np.testing.assert_array_equal(above, p <= 0.05)
    assert not variables["path"].exists()


def test_gough_simulated(gough, pictures):
    check_gough(*gough, pictures / "gough.png")
    p = gough[0]["p"]
    assert (p[4:, 1] <= 0.05).all() and (p[:5, 2] <= 0.05).all()


def test_gough_permutations_keep_the_sex(gough):
    variables = gough[0]
    orders = variables["permutations_within_sex"](5, seed=3)
    sex = variables["sex"]
    np.testing.assert_array_equal(np.sort(orders), [np.arange(len(sex))] * 5)
    np.testing.assert_array_equal(sex[orders], [sex] * 5)
    assert len(np.unique(orders, axis=0)) == 5


@pytest.mark.slow
def test_gough_real(shared_data, tmp_path):
    folder, picture = shared_data / "gough", tmp_path / "gough.png"
    variables, printed = run(
        "plot_gough_permutation", "--data", folder, "--output", picture, "--permutations", 99
    )
    check_gough(variables, printed, picture)
    assert "1008 mice, 48 phenotypes, 11833 markers" in printed
    p = variables["p"]
    assert (p[2:, :2] <= 0.05).all() and (p[:6, 2] <= 0.05).all() and p[-3:, 2].min() > 0.5
