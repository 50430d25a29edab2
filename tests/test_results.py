"""What a permutation test leaves: the object, its text, its picture, its folder."""

import numpy as np
import pytest

import ridgemm
from ridgemm import InputError, RidgeCV, StorageError, permutation_test
from ridgemm.store import write_manifest

MAPS = (
    "scores",
    "pvalues",
    "pvalues_fdr",
    "pvalues_fwer",
    "null_max",
    "null_mean",
    "null_sd",
    "fitted_tail",
    "n_drawn",
    "null",
)


def run(out, **options):
    rng = np.random.default_rng(0)
    X, Y = rng.standard_normal((24, 4)), rng.standard_normal((24, 6))
    Y[:, 0] += 2 * X[:, 0]
    Y[3, 5] = np.nan
    options = {"cv": 3, "n_permutations": 39, "missing": "skip", **options}
    return permutation_test(RidgeCV((1.0, 30.0), cv=2), X, Y, out=out, **options)


@pytest.mark.parametrize(
    "options",
    [{}, {"keep_null": True}, {"two_sided": True, "tail": "gpd"}, {"stop": "besag-clifford"}],
    ids=lambda options: "-".join(options) or "plain",
)
def test_load_gives_the_same(options, tmp_path):
    result, loaded = run(tmp_path, **options), ridgemm.load(tmp_path)
    assert isinstance(loaded, ridgemm.PermutationResult)
    for name in MAPS:
        saved, read = getattr(result, name), getattr(loaded, name)
        if saved is None:
            assert read is None, name
            continue
        assert read.dtype == saved.dtype
        np.testing.assert_array_equal(read, saved)
    assert (loaded.n_permutations, loaded.two_sided) == (39, result.two_sided)
    assert loaded.description == result.description
    assert loaded.summary() == result.summary()


def test_a_result_without_out_cleans_up_after_itself():
    result = run(None, keep_null=True)
    folder = result.folder
    assert folder.is_dir() and result.null.shape == (39, 6)
    del result
    assert not folder.exists()


def test_summary():
    result = run(None)
    lines = dict(line.split(maxsplit=1) for line in result.summary().splitlines())
    assert lines["targets"] == "6, 1 missing"
    assert lines["scheme"] == "39 random free permutations of 24 rows (seed 0)."
    assert lines["null"] == "refit, one-sided"
    assert lines["score"].startswith("r2, ")
    assert lines["route"] == result.description["route"]
    assert lines["smallest"] == "p   0.025 can be reached"
    n_found = int((result.pvalues <= 0.05).sum())
    assert lines["uncorrected"] == f"{n_found} targets with p <= 0.05, smallest 0.025"
    assert lines["FWER"].startswith("1 targets")
    assert "0 targets with p <= 0.001" in result.summary(level=0.001)


@pytest.mark.parametrize("options", [{}, {"two_sided": True}, {"n_permutations": 5}])
def test_plot_writes_a_picture(options, tmp_path):
    pytest.importorskip("matplotlib")
    path = tmp_path / "null.png"
    run(None, **options).plot(path)
    assert path.read_bytes().startswith(b"\x89PNG")


def test_no_picture_of_a_stopped_test(tmp_path):
    with pytest.raises(InputError, match="stopped early"):
        run(None, stop="besag-clifford").plot(tmp_path / "null.png")


@pytest.mark.parametrize(
    "damage",
    [
        lambda folder: (folder / "manifest.json").unlink(),
        lambda folder: (folder / "manifest.json").write_text("{"),
        lambda folder: (folder / "pvalues.npy").unlink(),
        lambda folder: (folder / "pvalues.npy").write_bytes(b"\x93NUMPY"),
        lambda folder: np.save(folder / "scores.npy", np.zeros(6)),
        lambda folder: (folder / "null.npy").unlink(),
    ],
    ids=["no manifest", "torn manifest", "no map", "torn map", "other map", "no null"],
)
def test_damaged_folders_are_refused(damage, tmp_path):
    run(tmp_path, keep_null=True)
    damage(tmp_path)
    with pytest.raises(StorageError, match=str(tmp_path)):
        ridgemm.load(tmp_path)


def test_unknown_folders_are_refused(tmp_path):
    with pytest.raises(StorageError, match="nothing' does not exist"):
        ridgemm.load(tmp_path / "nothing")
    np.save(tmp_path / "coef.npy", np.ones(2))
    with pytest.raises(StorageError, match="a run that is not finished"):
        ridgemm.load(tmp_path)
    write_manifest(tmp_path, {"kind": "Lasso"})
    with pytest.raises(StorageError, match="'Lasso'"):
        ridgemm.load(tmp_path)


def test_repr_is_one_line():
    text = repr(run(None))
    assert "\n" not in text and "r2 of 6 targets, 39 permutations" in text
