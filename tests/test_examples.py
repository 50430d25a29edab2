"""The examples run, agree with scikit-learn, and find what was put into their simulated data."""

import contextlib
import io
import runpy
import sys
import types
from pathlib import Path

import nibabel
import numpy as np
import pytest
from matplotlib import image
from matplotlib import pyplot as plt

EXAMPLES = Path(__file__).parents[1] / "examples"
SLICES = runpy.run_path(EXAMPLES / "_haxby.py")


def run(name, *arguments):
    """Run an example as a script; its variables and what it printed."""
    script = EXAMPLES / f"{name}.py"
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(io.StringIO()) as out:
        patch.syspath_prepend(EXAMPLES)
        patch.setattr(sys, "argv", [str(script), *map(str, arguments)])
        variables = runpy.run_path(script, run_name="__main__")
    plt.close("all")
    return variables, out.getvalue()


def check_run(variables, printed, picture):
    # not zero either: it compares float32 with float64, not a thing with itself
    assert 0 < variables["difference"] < 1e-4
    assert f"{variables['difference']:.1e}" in printed
    assert "ridgemm " in printed and "scikit-learn " in printed
    assert image.imread(picture).std() > 0.05


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    return tmp_path_factory.mktemp("pictures")


@pytest.fixture(scope="module")
def haxby(pictures):
    return run("plot_haxby_encoding", "--output", pictures / "haxby.png")


@pytest.fixture(scope="module")
def gough(pictures):
    return run("plot_gough_growth", "--output", pictures / "gough.png")


def test_haxby_simulated(haxby, pictures):
    variables, printed = haxby
    check_run(variables, printed, pictures / "haxby.png")
    x, y = np.nonzero(variables["mask"])
    near = [np.hypot(x - centre, y - 9) < 3 for centre in (8, 21)]
    far = np.all([np.hypot(x - centre, y - 9) > 7 for centre in (8, 21)], axis=0)
    score, preference = variables["model"].best_score_, variables["preference"]
    assert min(score[patch].mean() for patch in near) > 0.2 > score[far].max()
    assert preference[near[0]].mean() > 0.05 and preference[near[1]].mean() < -0.05


def test_delay_stays_in_the_run(haxby):
    features = np.arange(1, 8)[:, None]
    delayed = haxby[0]["delay"](features, np.array([0, 0, 0, 0, 1, 1, 1]), range(1, 3))
    np.testing.assert_array_equal(delayed.T, [[0, 1, 2, 3, 0, 5, 6], [0, 0, 1, 2, 0, 0, 5]])


def test_remove_lines_is_within_runs(haxby):
    runs = np.repeat([3, 5], [20, 30])
    rng = np.random.default_rng(0)
    columns = np.arange(50)[:, None] * np.where(runs == 3, 7.0, -2.0)[:, None] + 1000
    np.testing.assert_allclose(haxby[0]["remove_lines"](columns, runs), 0, atol=1e-4)
    noise = rng.standard_normal((50, 2))
    other = np.where(runs[:, None] == 5, 10 * noise, noise)
    first = haxby[0]["remove_lines"](noise, runs)[:20]
    np.testing.assert_array_equal(haxby[0]["remove_lines"](other, runs)[:20], first)


def save_image(path, array):
    nibabel.Nifti1Image(array, np.eye(4)).to_filename(path)
    return str(path)


def test_haxby_reads_what_it_simulates(tmp_path):
    bold, mask, labels, runs = ref = SLICES["simulate_slice"]()
    save_image(tmp_path / "bold.nii.gz", bold[:, :, None])
    save_image(tmp_path / "mask.nii.gz", mask[:, :, None].astype(np.uint8))
    np.savetxt(tmp_path / "attributes_literal.txt", np.stack([labels, runs], axis=1), fmt="%s")
    comp = SLICES["read_slice"](tmp_path)
    for ref_part, comp_part in zip(ref, comp, strict=True):
        np.testing.assert_array_equal(comp_part, ref_part)


def test_haxby_fetches_the_ventral_slice(tmp_path, monkeypatch):
    bold, mask, labels, runs = ref = SLICES["simulate_slice"]()
    empty = np.zeros_like(mask)
    table = tmp_path / "labels.txt"
    rows = [f"{label} {run}" for label, run in zip(labels, runs, strict=True)]
    table.write_text("\n".join(["labels chunks", *rows]))

    def stack(name, *slices):
        return save_image(tmp_path / name, np.stack(slices, axis=2).astype(np.int16))

    files = types.SimpleNamespace(
        func=[stack("bold.nii.gz", bold + 1, bold)],
        mask=stack("mask.nii.gz", empty, mask),
        mask_vt=[stack("ventral.nii.gz", empty, mask)],
        session_target=[str(table)],
    )
    datasets = types.ModuleType("nilearn.datasets")
    datasets.fetch_haxby = lambda subjects: files if subjects == [1] else None
    monkeypatch.setitem(sys.modules, "nilearn", types.ModuleType("nilearn"))
    monkeypatch.setitem(sys.modules, "nilearn.datasets", datasets)
    for ref_part, comp_part in zip(ref, SLICES["fetch_slice"](), strict=True):
        np.testing.assert_array_equal(comp_part, ref_part)


def test_haxby_real(shared_data, tmp_path):
    folder, picture = shared_data / "haxby_slice", tmp_path / "haxby.png"
    variables, printed = run("plot_haxby_encoding", "--data", folder, "--output", picture)
    check_run(variables, printed, picture)
    assert "1452 volumes in 12 runs, 530 voxels" in printed
    assert variables["X"].shape == (1452, 32) and variables["Y"].shape == (1452, 530)
    assert variables["model"].best_score_.max() > 0.6


def test_gough_simulated(gough, pictures):
    variables, printed = gough
    check_run(variables, printed, pictures / "gough.png")
    assert variables["model"].route_.startswith("dual")
    by_kind = variables["by_kind"]
    assert by_kind["sm"][-1] > 0.3
    assert by_kind["deriv"][:5].mean() > 0.1 + by_kind["deriv"][-5:].mean()
    assert printed[printed.index("R2 by week") :].count("\n") == 18
    assert not variables["path"].exists()


def test_gough_features(gough, tmp_path):
    genotypes = np.array([[0, 2], [1, -1], [2, 0], [-1, 1]], dtype=np.int8)
    # filled: 0 1 2 1 and 2 1 0 1; sexes are rows 0, 1 and rows 2, 3
    ref = [[-0.5, 0.5], [0.5, -0.5], [0.5, -0.5], [-0.5, 0.5]]
    for block in (1, 2):
        path = tmp_path / f"{block}.npy"
        gough[0]["write_features"](genotypes, np.array([1, 1, 0, 0]), path, block)
        comp = np.load(path)
        assert comp.dtype == np.float32
        np.testing.assert_array_equal(comp, ref)


def test_gough_reads_what_it_simulates(gough, tmp_path):
    genotypes, phenotypes, names, sex = ref = gough[0]["simulate_cross"](n_mice=10)
    for name, array in [("genotypes", genotypes), ("phenotypes", phenotypes), ("sex", sex)]:
        np.save(tmp_path / f"{name}.npy", array)
    (tmp_path / "phenotype_names.txt").write_text("\n".join(names) + "\n")
    for ref_part, comp_part in zip(ref, gough[0]["read_cross"](tmp_path), strict=True):
        np.testing.assert_array_equal(comp_part, ref_part)


@pytest.mark.slow
def test_gough_real(shared_data, tmp_path):
    folder, picture = shared_data / "gough", tmp_path / "gough.png"
    variables, printed = run("plot_gough_growth", "--data", folder, "--output", picture)
    check_run(variables, printed, picture)
    assert variables["model"].route_.startswith("dual")
    assert "1008 of 1212 mice" in printed and "48 phenotypes, 11833 markers" in printed
    growth = variables["by_kind"]["deriv"]
    assert growth[:4].max() > 0.1 > growth[-4:].max()
