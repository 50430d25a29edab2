"""The command line: what it prints, leaves and returns; that it stops and continues."""

import importlib
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import ridgemm
from ridgemm import RidgeCV, commands, load, permutation_test
from ridgemm.__main__ import main
from ridgemm.commands.options import alphas
from ridgemm.commands.tables import read_column
from ridgemm.errors import InputError

ROOT = Path(__file__).resolve().parents[1]
VERBS = ("plan", "fit", "predict", "permute", "report", "verify", "clean", "demo")
RUNS = np.repeat(np.arange(10), 9)
N = len(RUNS)


def make_data():
    rng = np.random.default_rng(0)
    X, Y = rng.standard_normal((N, 5)), rng.standard_normal((N, 8)).astype(np.float32)
    Y[:, :3] += 2 * X[:, :3]
    return X, Y


X, Y = make_data()


@pytest.fixture
def files(tmp_path, monkeypatch):
    """A current folder with the files that examples name."""
    monkeypatch.chdir(tmp_path)
    np.save("X.npy", X)
    np.save("Y.npy", Y)
    np.save("runs.npy", RUNS)
    return tmp_path


def call(words, capsys, code=0):
    """Stdout and stderr of a command line in this process."""
    capsys.readouterr()
    assert main(shlex.split(words)) == code
    return capsys.readouterr()


def as_json(words, capsys):
    return json.loads(call(f"{words} --json", capsys).out)


def start(words, **options):
    """A process of the command line."""
    command = [sys.executable, "-W", "error", "-m", "ridgemm", *shlex.split(words)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        stdin=subprocess.DEVNULL,
        text=True,
        env=environment,
        **options,
    )


def run_process(words):
    process = start(words)
    out, err = process.communicate(timeout=300)
    return process.returncode, out, err


# -- fit ------------------------------------------------------------------------------------


def test_fit_is_the_estimator(files, capsys):
    words = "fit X.npy Y.npy --run run --alphas 1e0:1e3:4 --cv 4 --groups runs.npy --n-jobs 1"
    found = as_json(f"{words} --scoring correlation --standardize --no-intercept", capsys)
    model = RidgeCV(
        np.geomspace(1, 1e3, 4), cv=4, scoring="correlation", standardize=True, fit_intercept=False
    ).fit(X, Y, RUNS)
    kept = load("run")
    np.testing.assert_array_equal(kept.coef_, model.coef_)
    np.testing.assert_array_equal(np.load("run/best_score.npy"), model.best_score_)
    np.testing.assert_array_equal(np.load("run/alpha.npy"), model.alpha_)
    assert (found["samples"], found["features"], found["targets"]) == (N, 5, 8)
    assert found["route"] == model.route_ and found["scoring"] == "correlation"
    assert found["score"]["max"] == model.best_score_.max()
    assert kept.cache_dir is None and not list(files.glob("run/factors"))
    assert ridgemm.verify("run").sound


def test_fit_prints_a_table(files, capsys):
    streams = call("fit X.npy Y.npy --run run", capsys)
    rows = dict(re.split(r"\s{2,}", line, maxsplit=1) for line in streams.out.splitlines())
    assert rows["samples"] == f"{N}" and rows["maps"] == "run/best_score.npy, run/alpha.npy"
    assert all(line.startswith("ridgemm fit: ") for line in streams.err.splitlines())
    assert "\x1b" not in streams.err + streams.out


@pytest.mark.parametrize("cv", ["loo", "gcv"])
def test_fit_of_one_alpha(cv, files, capsys):
    found = as_json(f"fit X.npy Y.npy --run run --shared-alpha --cv {cv}", capsys)
    model = RidgeCV(cv=cv, alpha_per_target=False).fit(X, Y)
    assert (found["alpha"], found["score"]) == (model.alpha_, model.best_score_)


def test_a_finished_fit_is_not_done_again(files, capsys, monkeypatch):
    first = call("fit X.npy Y.npy --run run", capsys)
    before = {path: path.stat().st_mtime_ns for path in files.glob("run/*")}
    monkeypatch.setattr(RidgeCV, "fit", lambda *_: pytest.fail("it was fitted again"))
    # what does not change the result is no other request
    again = call("fit X.npy Y.npy --run run --memory-limit 1GB --cache cache", capsys)
    assert "holds this fit already" in again.err and again.out == first.out
    assert {path: path.stat().st_mtime_ns for path in files.glob("run/*")} == before


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--cv 4", "cv was 5 and is 4"),
        ("--alphas 1,2", r"alphas was \[0.1, 1.0, 10.0\] and is \[1.0, 2.0\]"),
        ("--groups runs.npy", "groups was None and is "),
        ("--standardize", "standardize was False and is True"),
    ],
)
def test_another_fit_in_the_same_folder(words, message, files, capsys):
    call("fit X.npy Y.npy --run run", capsys)
    model = Path("run/coef.npy").read_bytes()
    assert re.search(message, call(f"fit X.npy Y.npy --run run {words}", capsys, 1).err)
    np.save("Y.npy", Y + 1)
    assert "Y changed" in call("fit X.npy Y.npy --run run", capsys, 1).err
    assert Path("run/coef.npy").read_bytes() == model


def test_a_folder_of_something_else(files, capsys):
    call("fit X.npy Y.npy --run fit", capsys)
    call("permute X.npy Y.npy --run test --n-permutations 9", capsys)
    RidgeCV().fit(X, Y).save("model")
    message = "holds a fit, not a permutation test"
    assert message in call("permute X.npy Y.npy --run fit", capsys, 1).err
    message = "holds a permutation test, not a fit"
    assert message in call("fit X.npy Y.npy --run test", capsys, 1).err
    assert "did not make" in call("fit X.npy Y.npy --run model", capsys, 1).err


def test_a_damaged_model_is_fitted_again(files, capsys):
    call("fit X.npy Y.npy --run run", capsys)
    model = Path("run/coef.npy").read_bytes()
    Path("run/coef.npy").write_bytes(b"")
    call("verify run", capsys, 1)
    assert "already" not in call("fit X.npy Y.npy --run run", capsys).err
    assert Path("run/coef.npy").read_bytes() == model
    call("verify run", capsys)


def test_after_data_that_cannot_be_used_the_folder_is_free(files, capsys):
    np.save("Y.npy", np.where(Y > 2, np.nan, Y))
    assert "NaN" in call("fit X.npy Y.npy --run run", capsys, 1).err
    np.save("Y.npy", Y)
    call("fit X.npy Y.npy --run run", capsys)


# -- predict --------------------------------------------------------------------------------


def test_predict_and_score(files, capsys):
    call("fit X.npy Y.npy --run run", capsys)
    words = "predict run X.npy --out prediction.npy --score Y.npy --score-map scores.npy"
    found = as_json(words, capsys)
    model = load("run")
    np.testing.assert_array_equal(np.load("prediction.npy"), model.predict(X).astype(np.float32))
    np.testing.assert_array_equal(np.load("scores.npy"), model.score(X, Y))
    assert found["score"]["min"] == model.score(X, Y).min()
    assert not list(files.glob("*~*"))


@pytest.mark.parametrize(
    ("words", "message", "code"),
    [
        ("run X.npy", "nothing to do", 2),
        ("run X.npy --out p.txt", "must end in .npy", 2),
        ("run X.npy --out p.npy --score-map s.npy", "need --score", 2),
        ("run X.npy --score Y.npy --score-map s.nii.gz", "needs --mask", 2),
        ("run X.npy --score Y.npy --score-map s.png", "must end in .npy, .nii or .nii.gz", 2),
        ("run Y.npy --out p.npy", "X has 8 features, but RidgeCV is expecting 5", 1),
        ("run X.npy --score X.npy", "Y has shape", 1),
        ("run X.npy --out missing/p.npy", "missing", 1),
        ("missing X.npy --out p.npy", "'missing' does not exist", 1),
        ("test X.npy --out p.npy", "permutation test, which predicts nothing", 1),
    ],
)
def test_predict_with_wrong_input(words, message, code, files, capsys):
    call("fit X.npy Y.npy --run run", capsys)
    call("permute X.npy Y.npy --run test --n-permutations 9", capsys)
    error = call(f"predict {words}", capsys, code).err
    assert error.startswith("ridgemm predict: ") and error.count("\n") == 1
    assert message in error


# -- permute --------------------------------------------------------------------------------


def test_permute_is_the_function(files, capsys):
    words = "permute X.npy Y.npy --run run --n-permutations 99 --groups runs.npy --scheme within"
    found = as_json(f"{words} --outer-cv 3 --cv 4 --seed 5 --two-sided --alpha-level 0.02", capsys)
    result = permutation_test(
        RidgeCV(cv=4),
        X,
        Y,
        cv=3,
        groups=RUNS,
        scheme="within",
        n_permutations=99,
        random_state=5,
        two_sided=True,
    )
    for name in ("scores", "pvalues", "pvalues_fdr", "pvalues_fwer", "null_max"):
        np.testing.assert_array_equal(np.load(f"run/{name}.npy"), getattr(result, name))
    significant = result.pvalues_fwer <= 0.02
    assert 0 < significant.sum() < 8
    expected = np.where(significant, result.scores, np.nan)
    np.testing.assert_array_equal(np.load("run/scores_fwer.npy"), expected)
    assert found["permutations"] == 99
    assert found["fwer"] == {
        "level": 0.02,
        "significant": significant.sum(),
        "smallest_p": result.pvalues_fwer.min(),
    }
    assert ridgemm.verify("run").sound


def test_another_level_is_another_map_of_the_same_run(files, capsys):
    words = "permute X.npy Y.npy --run run --n-permutations 99"
    counts = [
        as_json(f"{words} --alpha-level {level}", capsys)["fwer"]["significant"]
        for level in (0.001, 0.05, 0.999)
    ]
    assert counts[0] == 0 < counts[1] < counts[2]
    assert np.isfinite(np.load("run/scores_fwer.npy")).sum() == counts[2]


def test_confounds(files, capsys):
    rng = np.random.default_rng(1)
    C = np.round(rng.standard_normal((N, 2)), 3)
    np.save("C.npy", C)
    lines = [" ".join(map(str, row)) for row in C]
    Path("C.txt").write_text("\n".join(["drift motion", *lines]))
    as_json("fit X.npy Y.npy --confounds C.npy --cv 3 --run fit", capsys)
    expected = RidgeCV(cv=3).fit(X, Y, confounds=C)
    np.testing.assert_array_equal(load("fit").coef_, expected.coef_)
    call("fit X.npy Y.npy --confounds C.txt --cv 3 --run fit", capsys)  # the same values
    assert "confounds was" in call("fit X.npy Y.npy --cv 3 --run fit", capsys, code=1).err
    words = "X.npy Y.npy --confounds C.txt --cv 3 --outer-cv 3 --n-permutations 9"
    call(f"plan {words}", capsys)
    as_json(f"permute {words} --run test", capsys)
    found = permutation_test(RidgeCV(cv=3), X, Y, confounds=C, cv=3, n_permutations=9)
    np.testing.assert_array_equal(load("test").pvalues, found.pvalues)
    Path("C.txt").write_text("1 2\n3 four")
    message = call(f"permute {words} --run other", capsys, code=1).err
    assert "confounds='C.txt' is no table of numbers" in message


def test_more_permutations_in_the_same_folder(files, capsys):
    call("permute X.npy Y.npy --run run --n-permutations 50", capsys)
    call("permute X.npy Y.npy --run run --n-permutations 150", capsys)
    call("permute X.npy Y.npy --run whole --n-permutations 150", capsys)
    np.testing.assert_array_equal(np.load("run/null_max.npy"), np.load("whole/null_max.npy"))
    error = call("permute X.npy Y.npy --run run --n-permutations 150 --seed 1", capsys, 1).err
    assert "random_state was 0 and is 1" in error


def test_targets_that_stop_early_have_no_fwer(files, capsys):
    words = "permute X.npy Y.npy --run run --n-permutations 99 --stop besag-clifford"
    found = as_json(words, capsys)
    assert "fwer" not in found and "fdr" in found
    assert not Path("run/scores_fwer.npy").exists()


def test_no_number_is_null(files, capsys):
    np.save("Y.npy", np.where(np.arange(8) == 0, np.nan, Y))
    words = "permute X.npy Y.npy --run run --n-permutations 9 --missing skip"
    assert np.isfinite(as_json(words, capsys)["score"]["min"])
    np.save("Y.npy", np.full_like(Y, np.nan))
    assert as_json(words.replace("--run run", "--run none"), capsys)["score"] is None


# -- tables, conditions, alphas -----------------------------------------------------------------


def write(path, text):
    Path(path).write_text(text)
    return path


@pytest.mark.parametrize(
    ("name", "text", "spec", "expected"),
    [
        ("a.txt", "rest 0\nface  10\n", "a.txt:1", [0, 10]),
        ("a.txt", "rest 0\nface 10\n", "a.txt:0", ["rest", "face"]),
        ("a.txt", "labels chunks\nrest 0\nface 1\n\n", "a.txt:chunks", [0, 1]),
        ("a.txt", "3\n1\n", "a.txt", [3, 1]),
        ("a.csv", 'run,name\n1,"a, b"\n2, c\n', "a.csv:name", ["a, b", "c"]),
        ("a.tsv", "\ufeffrun\tname\n1\ta b\n2\tc\n", "a.tsv:run", [1, 2]),
    ],
)
def test_columns(name, text, spec, expected, files):
    write(name, text)
    assert read_column(spec, "groups").tolist() == expected


@pytest.mark.parametrize(
    ("text", "spec", "message"),
    [
        ("rest 0\nface\n", "a.txt:1", "line 2 has 1 columns, the first has 2"),
        ("rest 0\nface 1\n", "a.txt", "has 2 columns; say which, such as a.txt:0"),
        ("rest 0\nface 1\n", "a.txt:2", "2 columns, 0 to 1; 2 is not one"),
        ("rest 0\nface 1\n", "a.txt:runs", "no column 'runs'; the first line has 'rest', '0'"),
        ("", "a.txt", "has no line"),
        ("runs\n", "a.txt:runs", "0 columns"),
        ("1\n", "b.txt", "b.txt' cannot be read"),
    ],
)
def test_columns_that_are_none(text, spec, message, files):
    write("a.txt", text)
    with pytest.raises(InputError, match=re.escape(message)):
        read_column(spec, "groups")


def test_groups_of_a_table_are_those_of_an_array(files, capsys):
    np.savetxt("runs.csv", np.c_[np.arange(N), RUNS], "%d", ",", header="i,run", comments="")
    call("fit X.npy Y.npy --run run --groups runs.npy", capsys)
    streams = call("fit X.npy Y.npy --run run --groups runs.csv:run", capsys)
    assert "holds this fit already" in streams.err


CONDITIONS = np.array(["rest", "face", "house"])[np.random.default_rng(3).integers(0, 3, N)]


def one_hot(*names):
    return np.stack([name == CONDITIONS for name in names], axis=1).astype(np.float32)


def test_conditions_are_columns(files, capsys):
    np.savetxt("design.txt", np.stack([CONDITIONS, RUNS.astype(str)], axis=1), "%s")
    call("fit design.txt:0 Y.npy --run all", capsys)
    model = RidgeCV().fit(one_hot("face", "house", "rest"), Y)
    np.testing.assert_array_equal(load("all").coef_, model.coef_)
    call("fit design.txt:0 Y.npy --run run --baseline rest", capsys)
    model = RidgeCV().fit(one_hot("face", "house"), Y)
    np.testing.assert_array_equal(load("run").coef_, model.coef_)
    # new data that lack a condition have its column all the same
    np.savetxt("new.txt", np.where(CONDITIONS == "face", "rest", CONDITIONS), "%s")
    call("predict run new.txt --out prediction.npy", capsys)
    new = one_hot("face", "house") * [0, 1]
    np.testing.assert_array_equal(np.load("prediction.npy"), model.predict(new).astype(np.float32))


@pytest.mark.parametrize(
    ("words", "message", "code"),
    [
        ("design.txt:0 Y.npy --baseline cat", "'cat' is no condition of X; it has 'face'", 1),
        ("X.npy Y.npy --baseline rest", "--baseline needs conditions", 2),
        ("design.txt:1 Y.npy", "1 columns, 0 to 0", 1),
    ],
)
def test_wrong_conditions(words, message, code, files, capsys):
    np.savetxt("design.txt", CONDITIONS, "%s")
    assert message in call(f"fit {words} --run run", capsys, code).err
    assert not Path("run").exists()


def test_a_condition_that_the_fit_did_not_see(files, capsys):
    np.savetxt("design.txt", CONDITIONS, "%s")
    call("fit design.txt Y.npy --run run --baseline rest", capsys)
    np.savetxt("design.txt", np.where(CONDITIONS == "face", "cat", CONDITIONS), "%s")
    error = call("predict run design.txt --out p.npy", capsys, 1).err
    assert "'cat'" in error and "'face', 'house', 'rest'" in error


@pytest.mark.parametrize("text", ["1e0:1e5:11", "1:1e5:11"])
def test_alphas_are_evenly_spaced(text):
    np.testing.assert_allclose(alphas(text), np.logspace(0, 5, 11), rtol=1e-14)
    assert alphas(text)[-1] == 1e5


# -- images and views ---------------------------------------------------------------------------


DESIGN = np.stack([CONDITIONS, RUNS.astype(str)], axis=1)


@pytest.fixture
def example_files(files):
    """All files that examples name, but those that other examples leave."""
    np.save("X_new.npy", X[:40])
    np.save("Y_new.npy", Y[:40])
    np.savetxt("design.txt", DESIGN, "%s")
    h5py = pytest.importorskip("h5py")
    with h5py.File("data.h5", "w") as file:
        file["features"], file["targets"] = X, Y
    write_images()
    return files


def write_images():
    """A mask of the 8 voxels of a cube less its corners, and Y in them."""
    nibabel = pytest.importorskip("nibabel")
    mask = np.zeros((3, 3, 2), np.uint8)
    mask[:2, :2] = 1
    affine = np.diag([3.0, 3, 4, 1])
    bold = np.zeros((*mask.shape, N), np.float32)
    bold[mask > 0] = Y.T
    nibabel.save(nibabel.Nifti1Image(mask, affine), "mask.nii.gz")
    nibabel.save(nibabel.Nifti1Image(bold, affine), "bold.nii.gz")
    half = N // 2
    nibabel.save(nibabel.Nifti1Image(bold[..., :half], affine), "bold-1.nii.gz")
    nibabel.save(nibabel.Nifti1Image(bold[..., half:], affine), "bold-2.nii.gz")


def read_map(path):
    import nibabel

    image, mask = nibabel.load(path), nibabel.load("mask.nii.gz")
    np.testing.assert_array_equal(image.affine, mask.affine)
    values, inside = image.get_fdata(), np.asarray(mask.dataobj) > 0
    assert np.isnan(values[~inside]).all()
    return values[inside]


def test_a_fit_of_images(example_files, capsys):
    found = as_json("fit X.npy bold.nii.gz --mask mask.nii.gz --run run", capsys)
    model = RidgeCV().fit(X, Y)
    np.testing.assert_array_equal(load("run").coef_, model.coef_)
    np.testing.assert_array_equal(read_map("run/scores.nii.gz"), model.best_score_.astype("f4"))
    np.testing.assert_array_equal(read_map("run/alphas.nii.gz"), model.alpha_.astype("f4"))
    assert found["maps"] == ["run/scores.nii.gz", "run/alphas.nii.gz"]
    # an image for each half, and scores of other images
    call("fit X.npy bold-1.nii.gz bold-2.nii.gz --mask mask.nii.gz --run halves", capsys)
    np.testing.assert_array_equal(load("halves").coef_, model.coef_)
    words = "predict run X.npy --score-map new.nii.gz --mask mask.nii.gz --score"
    call(f"{words} bold-1.nii.gz bold-2.nii.gz", capsys)
    np.testing.assert_array_equal(read_map("new.nii.gz"), model.score(X, Y).astype("f4"))


def test_from_images_to_a_thresholded_image(example_files, capsys):
    words = "--n-permutations 99 --scheme within --delays 0,1 --groups design.txt:1 --run run"
    call(f"permute design.txt:0 bold.nii.gz --mask mask.nii.gz --baseline rest {words}", capsys)
    result = permutation_test(
        RidgeCV(),
        ridgemm.delayed(one_hot("face", "house"), (0, 1), RUNS),
        Y,
        groups=RUNS,
        scheme="within",
        n_permutations=99,
    )
    for name in ("scores", "pvalues", "pvalues_fdr", "pvalues_fwer"):
        expected = getattr(result, name).astype("f4")
        np.testing.assert_array_equal(read_map(f"run/{name}.nii.gz"), expected)
    expected = np.where(result.pvalues_fwer <= 0.05, result.scores, np.nan).astype("f4")
    np.testing.assert_array_equal(read_map("run/scores_fwer.nii.gz"), expected)


def test_a_real_slice_from_image_to_thresholded_image(shared_data, tmp_path, capsys):
    nibabel = pytest.importorskip("nibabel")
    data = shared_data / "haxby_slice"
    command = (
        f"permute {data}/attributes_literal.txt:0 {data}/bold.nii.gz --mask {data}/mask.nii.gz "
        f"--groups {data}/attributes_literal.txt:1 --baseline rest --delays 1,2,3,4 "
        "--scoring correlation --alphas 1e0:1e4:5 --outer-cv 12 --cv 4 --scheme circular "
        f"--n-permutations 19 --run {tmp_path}"
    )
    found = as_json(command, capsys)
    image = nibabel.load(tmp_path / "scores_fwer.nii.gz")
    mask = nibabel.load(data / "mask.nii.gz")
    assert image.shape == mask.shape
    np.testing.assert_array_equal(image.affine, mask.affine)
    values, inside = image.get_fdata(), np.asarray(mask.dataobj) > 0
    significant = np.isfinite(values)
    # ventral temporal cortex: the order of a hundred voxels, all of them predicted
    assert 50 < significant.sum() == found["fwer"]["significant"] < 300
    assert inside[significant].all() and values[significant].min() > 0.1


def test_a_run_of_other_images(example_files, capsys):
    run = "fit X.npy bold.nii.gz --mask mask.nii.gz --run run"
    call(run, capsys)
    targets = Path("run/targets.npy").read_bytes()
    halves = run.replace("bold.nii.gz", "bold-1.nii.gz bold-1.nii.gz")
    assert "was made of bold.nii.gz" in call(halves, capsys, 1).err
    assert Path("run/targets.npy").read_bytes() == targets
    assert "already" in call(run, capsys).err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("missing.nii.gz --mask mask.nii.gz", "'missing.nii.gz' does not exist"),
        ("bold.nii.gz --mask missing.nii.gz", "'missing.nii.gz' does not exist"),
        ("bold.nii.gz --mask bold.nii.gz", "mask has shape"),
        ("bold-1.nii.gz --mask mask.nii.gz", "X has 90 rows and Y has 45"),
    ],
)
def test_wrong_images_leave_the_folder_free(words, message, example_files, capsys):
    assert message in call(f"plan X.npy {words}", capsys, 1).err
    assert message in call(f"fit X.npy {words} --run run", capsys, 1).err
    if "bold-1" not in words:
        call("fit X.npy bold.nii.gz --mask mask.nii.gz --run run", capsys)


def test_a_plan_of_images_writes_nothing(example_files, capsys):
    before = sorted(example_files.iterdir())
    words = "--cv 4 --memory-limit 1GB"
    found = as_json(f"plan X.npy bold.nii.gz --mask mask.nii.gz {words}", capsys)
    expected = as_json(f"plan X.npy Y.npy {words}", capsys)
    assert found["bytes"] == expected["bytes"] and found["tiles"] == expected["tiles"]
    assert sorted(example_files.iterdir()) == before


def test_delays_are_made_again_for_predictions(example_files, capsys):
    words = "--groups runs.npy --delays 1,2"
    call(f"fit X.npy Y.npy --run run {words}", capsys)
    model = RidgeCV().fit(ridgemm.delayed(X, (1, 2), RUNS), Y, RUNS)
    np.testing.assert_array_equal(load("run").coef_, model.coef_)
    call("predict run X.npy --groups runs.npy --out p.npy", capsys)
    expected = model.predict(ridgemm.delayed(X, (1, 2), RUNS))
    np.testing.assert_array_equal(np.load("p.npy"), expected.astype(np.float32))
    error = call(f"fit X.npy Y.npy --run run {words},3", capsys, 1).err
    assert "[1, 2]" in error and "[1, 2, 3]" in error


@pytest.mark.parametrize("kind", ["h5", "zarr"])
def test_containers(kind, example_files, capsys):
    if kind == "zarr":
        zarr = pytest.importorskip("zarr")
        for name, array in (("X", X), ("Y", Y)):
            zarr.save_array(f"{name}.zarr", array)
        files = "X.zarr Y.zarr"
    else:
        files = "data.h5:features data.h5:targets"
    call(f"fit {files} --run run", capsys)
    np.testing.assert_array_equal(load("run").coef_, RidgeCV().fit(X, Y).coef_)
    error = call("fit data.h5:colours data.h5:targets --run wrong", capsys, 1).err
    assert "colours" in error and error.count("\n") == 1 and not Path("wrong").exists()


def test_rows_of_several_files(files, capsys):
    np.save("X1.npy", X[:30]), np.save("X2.npy", X[30:])
    np.save("Y1.npy", Y[:50]), np.save("Y2.npy", Y[50:])
    call("fit X1.npy,X2.npy Y1.npy Y2.npy --run run", capsys)
    np.testing.assert_allclose(load("run").coef_, RidgeCV().fit(X, Y).coef_, atol=1e-6)


# -- wrong input ------------------------------------------------------------------------------


@pytest.mark.parametrize("verb", ["fit", "permute"])
@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("missing.npy Y.npy", "X='missing.npy' does not exist"),
        ("X.npy missing.npy", "Y='missing.npy' does not exist"),
        ("X.mat Y.npy", "X='X.mat' is not a"),
        ("X.npy short.npy", "X has 90 rows and Y has 80"),
        ("X.npy runs.npy", "Y must be 2-D"),
        ("X.npy Y.npy --groups short.npy", "groups has shape (80, 8)"),
        ("X.npy Y.npy --groups missing.npy", "groups='missing.npy' cannot be read"),
        ("X.npy Y.npy --groups runs.mat", "groups='runs.mat' is neither"),
        ("X.npy Y.npy --alphas=-1,2", "alphas holds -1.0"),
        ("X.npy Y.npy --scoring mse", "scoring='mse'"),
        ("X.npy Y.npy --cv 200", "cv=200 folds of"),
        ("X.npy Y.npy --memory-limit 1KB", "at least"),
        ("X.npy Y.npy --memory-limit much", "memory_limit='much'"),
        ("X.npy Y.npy --n-jobs 0", "n_jobs=0"),
        ("X.npy Y.npy --cache X.npy", "X.npy' cannot be written"),
    ],
)
def test_wrong_input_is_one_line_and_no_folder(verb, words, message, files, capsys):
    np.save("short.npy", Y[:80])
    streams = call(f"{verb} {words} --run run", capsys, 1)
    assert streams.out == ""
    lines = streams.err.splitlines()
    assert lines[-1].startswith(f"ridgemm {verb}: ") and message in lines[-1]
    assert not list(files.glob("run/*.npy"))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("fit X.npy Y.npy", "--run"),
        ("fit X.npy --run run", "Y"),
        ("fit X.npy Y.npy --run run --alphas 1,x", "--alphas: 'x' is not a number"),
        ("fit X.npy Y.npy --run run --alphas 1:2", "not FIRST:LAST:COUNT"),
        ("fit X.npy Y.npy --run run --alphas 0:2:3", "two positive ends"),
        ("fit X.npy Y.npy --run run --alphas 1:2:1", "count of at least 2"),
        ("fit X.npy Y.npy --run run --cv five", "'five' is not a number, loo or gcv"),
        ("fit X.npy Y.npy --run run --delays 1,b", "'b' is not a whole number"),
        ("fit X.npy Y.npy --run run --alph 1", "unrecognized arguments"),
        ("permute X.npy Y.npy --run run --n-permutations many", "--n-permutations"),
        ("paint X.npy", "invalid choice: 'paint'"),
        ("", "VERB"),
    ],
)
def test_wrong_usage(words, message, files, capsys):
    with pytest.raises(SystemExit) as exit_:
        main(shlex.split(words))
    assert exit_.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith("usage: ridgemm") and message in error


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("X.npy bold.nii.gz", "--mask says which voxels"),
        ("X.npy Y.npy --mask mask.nii", "--mask is for images"),
    ],
)
def test_options_that_do_not_go_together(words, message, files, capsys):
    for verb in ("plan", "fit", "permute"):
        run = "" if verb == "plan" else "--run run"
        error = call(f"{verb} {words} {run}", capsys, 2).err
        assert message in error and f"ridgemm {verb} --help" in error


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes everywhere")
def test_a_folder_that_cannot_be_written(files, capsys):
    Path("locked").mkdir(mode=0o500)
    for verb in ("fit", "permute"):
        error = call(f"{verb} X.npy Y.npy --run locked/run", capsys, 1).err
        assert "locked" in error


@pytest.mark.parametrize("verb", ["fit", "permute"])
def test_a_run_that_is_a_file(verb, files, capsys):
    error = call(f"{verb} X.npy Y.npy --run X.npy", capsys, 1).err.splitlines()[-1]
    assert error.startswith(f"ridgemm {verb}: ") and "'X.npy" in error
    np.testing.assert_array_equal(np.load("X.npy"), X)


# -- plan, verify, clean as JSON ------------------------------------------------------------------


def test_reports_as_json(files, capsys):
    assert as_json("plan X.npy Y.npy", capsys)["kind"] == "fit"
    assert as_json("plan X.npy Y.npy --n-permutations 9", capsys)["kind"] == "permutation test"
    call("fit X.npy Y.npy --run run --cache cache", capsys)
    found = as_json("verify cache", capsys)
    assert found["sound"] and found["problems"] == [] and found["folder"] == "cache"
    assert len(as_json("clean cache --size 1B", capsys)["removed"]) > 0


# -- help and examples ------------------------------------------------------------------------


def examples(verb):
    """The commands of a verb's help, one string each."""
    text = importlib.import_module(f"ridgemm.commands.{verb}").__doc__.partition("examples:\n")[2]
    return re.sub(r"\n {4,}", " ", text).strip().splitlines()


# what nilearn says of a slice with no significant voxel
@pytest.mark.filterwarnings("ignore:empty mask")
def test_every_example_runs(example_files, capsys):
    for verb in VERBS:
        for line in examples(verb):
            program, *words = shlex.split(line.partition(" > ")[0])
            assert program == "ridgemm" and main(words) == 0, line
    out = capsys.readouterr().out
    # the example that goes to a file
    assert '"kind": "fit"' in out
    assert Path("run5/scores.nii.gz").exists() and Path("test4/scores_fwer.nii.gz").exists()
    assert Path("small.png").exists()
    assert "<html" in Path("run1/report.html").read_text() + Path("test4.html").read_text()


@pytest.mark.parametrize("verb", VERBS)
def test_help_has_examples(verb, capsys):
    with pytest.raises(SystemExit) as exit_:
        main([verb, "--help"])
    assert exit_.value.code == 0
    text = capsys.readouterr().out
    assert text.startswith(f"usage: ridgemm {verb} ")
    found = [line.strip() for line in examples(verb)]
    assert found and all(line.startswith(f"ridgemm {verb} ") for line in found)
    assert all(line.partition("--run")[0].strip() in " ".join(text.split()) for line in found)


def test_all_verbs_are_tested():
    assert [module.__name__ for module in commands._VERBS] == [
        f"ridgemm.commands.{verb}" for verb in VERBS
    ]


def test_public_names_are_no_modules():
    # a module of the same name would hide what it holds
    for name in ridgemm.__all__:
        assert not isinstance(getattr(ridgemm, name), type(ridgemm)), name


def test_help_imports_nothing_that_takes_long():
    program = (
        "import sys\nfrom ridgemm.commands import main\n"
        "try:\n    main(['fit', '--help'])\nexcept SystemExit:\n    pass\n"
        "print(sorted({'numpy', 'scipy', 'numba', 'sklearn', 'joblib'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize("task", ["ridgemm.fitting", "ridgemm.nulltasks", "ridgemm.trace"])
def test_workers_import_nothing_that_they_do_not_need(task):
    program = (
        f"import sys, {task}\nprint({{'sklearn', 'pandas', 'scipy.stats'}} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout == "set()\n"


# -- as a process -----------------------------------------------------------------------------


def test_a_batch_script(files):
    code, out, err = run_process("fit X.npy Y.npy --run run --json")
    assert code == 0 and json.loads(out)["targets"] == 8
    assert "\x1b" not in err and "\r" not in err
    code, out, err = run_process("fit X.npy Y.npy --run run --json --quiet")
    assert code == 0 and json.loads(out)["targets"] == 8 and err == ""
    code, out, err = run_process("fit X.npy Y.npy --run run --cv 4")
    assert code == 1 and out == "" and err.startswith("ridgemm fit: out='run'")
    assert run_process("fit X.npy")[0] == 2
    assert run_process("--help")[0] == 0


def test_whoever_reads_has_gone(files):
    command = f"{sys.executable} -m ridgemm plan X.npy Y.npy --json | true"
    done = subprocess.run(
        ["bash", "-c", f"set -o pipefail; {command}"],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert "Traceback" not in done.stderr and "BrokenPipe" not in done.stderr


def slow_problem():
    rng = np.random.default_rng(0)
    np.save("X.npy", rng.standard_normal((800, 150)).astype(np.float32))
    np.save("Y.npy", rng.standard_normal((800, 200)).astype(np.float32))


@pytest.mark.parametrize(
    ("signum", "code", "n_jobs"),
    [
        (signal.SIGTERM, 143, 2),
        pytest.param(signal.SIGINT, 130, 1, marks=pytest.mark.slow),
        pytest.param(signal.SIGTERM, 143, 1, marks=pytest.mark.slow),
        pytest.param(signal.SIGINT, 130, 2, marks=pytest.mark.slow),
    ],
)
def test_stopped_and_continued(signum, code, n_jobs, files):
    slow_problem()
    words = f"permute X.npy Y.npy --n-permutations 150 --n-jobs {n_jobs} --run"
    # as a terminal does it, and a scheduler: the workers get the signal too
    process = start(f"{words} run", start_new_session=True)
    deadline = time.monotonic() + 120
    while not list(Path("run/parts").glob("null_*")) and process.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.005)
    os.killpg(process.pid, signum)
    _, err = process.communicate(timeout=60)
    assert process.returncode == code
    name = signal.Signals(signum).name
    expected = f"ridgemm permute: stopped by {name}; the same command continues where it was."
    assert err.splitlines()[-1] == expected
    assert "Traceback" not in err
    parts = set(Path("run/parts").iterdir())
    assert parts and not Path("run/manifest.json").exists() and not list(Path("run").glob("*~*"))
    assert run_process(f"{words} run")[0] == run_process(f"{words} whole")[0] == 0
    assert parts < set(Path("run/parts").iterdir())
    assert Path("run/null_max.npy").read_bytes() == Path("whole/null_max.npy").read_bytes()


def test_a_signal_that_was_ignored_stays_so(files, capsys, monkeypatch):
    monkeypatch.setattr(
        "ridgemm.planning.plan", lambda *_, **__: os.kill(os.getpid(), signal.SIGINT) or 1 / 0
    )
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with pytest.raises(ZeroDivisionError):
            main(["plan", "X.npy", "Y.npy"])
    finally:
        signal.signal(signal.SIGINT, before)
    call("plan X.npy Y.npy", capsys, 130)


def test_a_fit_that_is_stopped_finds_its_factors(files, capsys, monkeypatch):
    def interrupt(*_):
        os.kill(os.getpid(), signal.SIGTERM)

    with monkeypatch.context() as patch:
        patch.setattr("ridgemm.engine.fit_tile", interrupt)
        error = call("fit X.npy Y.npy --run run", capsys, 143).err
    assert "stopped by SIGTERM; the same command continues" in error
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    assert len(list(Path("run/factors").iterdir())) > 1
    again = call("fit X.npy Y.npy --run run", capsys)
    assert "0 factor entries computed" in again.err
    call("fit X.npy Y.npy --run whole", capsys)
    assert Path("run/coef.npy").read_bytes() == Path("whole/coef.npy").read_bytes()
