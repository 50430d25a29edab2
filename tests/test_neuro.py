"""Brain images in and out: values, grids, files that are found again, and wrong input."""

import gzip
import json
import os
import sys
import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import ridgemm
from ridgemm import InputError, MemoryLimitError, RidgeCV, StorageError, demo, neuro

nibabel = pytest.importorskip("nibabel")

SHAPE = (5, 4, 3)
# flipped, sheared, anisotropic, far from the origin
AFFINE = np.array([[-3.1, 0.2, 0, 60.4], [0, 3.75, 0.1, -35.6], [0.3, 0, 2.2, 11], [0, 0, 0, 1]])


def make_mask(path=None, seed=0, affine=AFFINE):
    inside = np.random.default_rng(seed).random(SHAPE) < 0.5
    image = nibabel.Nifti1Image(inside.astype(np.uint8), affine)
    if path is not None:
        image.to_filename(path)
    return inside, image


def make_bold(path=None, n=7, dtype=np.float32, slope=None, seed=1, affine=AFFINE, kind=None):
    """An image as it is read, and its values, slope and intercept applied, in float64."""
    stored = np.random.default_rng(seed).uniform(-100, 100, (*SHAPE, n)).astype(dtype)
    image = (kind or nibabel.Nifti1Image)(stored, affine, dtype=dtype)
    values = stored.astype(np.float64)
    if slope is not None:
        values = values * slope[0] + slope[1]
    if path is not None:
        image.to_filename(path)
        if slope is not None:
            set_slope(path, slope)
    return values, image


def set_slope(path, slope):
    """Put a slope and an intercept into the header of a file, whose values stay as stored."""
    opened = gzip.open if str(path).endswith(".gz") else open
    with opened(path, "rb") as file:
        content = bytearray(file.read())
    content[112:120] = np.array(slope, "<f4").tobytes()
    with opened(path, "wb") as file:
        file.write(content)


def rows(values, inside):
    return np.stack([values[..., t][inside] for t in range(values.shape[3])])


# -- values ----------------------------------------------------------------------------------


@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
@pytest.mark.parametrize(
    ("dtype", "slope"),
    [
        (np.float32, None),
        (np.float64, None),
        (np.uint8, None),
        (np.int16, None),
        (np.int16, (0.03125, 700.0)),
        (np.int16, (2.5, -1e4)),
        (">i2", (0.5, 3.0)),
    ],
)
def test_values_of_files(tmp_path, ending, dtype, slope):
    inside, _ = make_mask(tmp_path / "mask.nii.gz")
    path = tmp_path / f"bold{ending}"
    dtype = np.dtype(dtype)
    if dtype.byteorder == ">":
        stored = np.arange(np.prod(SHAPE) * 7).reshape(*SHAPE, 7).astype(dtype)
        header = nibabel.Nifti1Header(endianness=">")
        header.set_data_dtype(dtype)
        nibabel.Nifti1Image(stored, AFFINE, header).to_filename(path)
        values = stored.astype(float)
    else:
        values, _ = make_bold(path, dtype=dtype, slope=slope)
    out = neuro.masked_bold(path, tmp_path / "mask.nii.gz", tmp_path / "bold.npy")
    comp = np.load(out)
    assert comp.dtype == np.float32 and comp.flags.c_contiguous
    # rounded once, from the float64 value that nibabel promises
    np.testing.assert_array_equal(comp, rows(values, inside).astype(np.float32))


def test_float16_in_memory(tmp_path):
    # no file format of nibabel's has float16: it comes as an array
    inside, mask = make_mask()
    stored = np.random.default_rng(0).standard_normal((*SHAPE, 4)).astype(np.float16)
    image = nibabel.spatialimages.SpatialImage(stored, AFFINE)
    comp = np.load(neuro.masked_bold(image, mask, tmp_path / "bold.npy"))
    np.testing.assert_array_equal(comp, rows(stored, inside).astype(np.float32))


@pytest.mark.parametrize("kind", [nibabel.Nifti2Image, nibabel.Nifti1Pair])
def test_other_kinds_of_files(tmp_path, kind):
    inside, mask = make_mask()
    path = tmp_path / ("bold.img" if kind is nibabel.Nifti1Pair else "bold.nii")
    values, _ = make_bold(path, kind=kind)
    comp = np.load(neuro.masked_bold(path, mask, tmp_path / "bold.npy"))
    np.testing.assert_array_equal(comp, rows(values, inside).astype(np.float32))
    record = json.loads((tmp_path / "bold.npy.json").read_text())
    assert len(record["sources"][0]) == (2 if kind is nibabel.Nifti1Pair else 1)


@given(
    lengths=st.lists(st.integers(1, 6), min_size=1, max_size=4),
    volumes=st.integers(1, 4),
    in_memory=st.booleans(),
)
def test_runs_and_blocks(tmp_path_factory, lengths, volumes, in_memory):
    """Any number of runs, cut into blocks of any size, gives the stacked volumes."""
    folder = tmp_path_factory.mktemp("runs")
    inside, mask = make_mask()
    paths = [folder / f"{i}.nii.gz" for i in range(len(lengths))]
    made = [make_bold(path, lengths[i], np.int16, seed=i) for i, path in enumerate(paths)]
    ref = np.concatenate([rows(values, inside) for values, _ in made])
    one = inside.size * (2 + 16) + 8 * inside.sum()
    images = [image for _, image in made] if in_memory else paths
    out = neuro.masked_bold(images, mask, folder / "bold.npy", memory_limit=int(volumes * one))
    np.testing.assert_array_equal(np.load(out), ref)
    np.testing.assert_array_equal(neuro.run_labels(out), np.repeat(range(len(lengths)), lengths))


def test_a_packed_file_is_unpacked_once(tmp_path, monkeypatch):
    inside, mask = make_mask()
    values, _ = make_bold(tmp_path / "bold.nii.gz", n=40, dtype=np.int16)
    opened = []
    real = nibabel.openers.Opener.__init__

    def count(self, fileish, *args, **kwargs):
        opened.append(fileish)
        real(self, fileish, *args, **kwargs)

    monkeypatch.setattr(nibabel.openers.Opener, "__init__", count)
    image = nibabel.load(tmp_path / "bold.nii.gz")
    one = inside.size * 18 + 8 * inside.sum()
    out = neuro.masked_bold(image, mask, tmp_path / "bold.npy", memory_limit=int(one))
    np.testing.assert_array_equal(np.load(out), rows(values, inside))
    assert len(opened) < 10  # headers, and the data once: not 40 times


def test_order_is_that_of_nilearn(tmp_path):
    masking = pytest.importorskip("nilearn.masking")
    _, mask = make_mask()
    _, image = make_bold()
    comp = np.load(neuro.masked_bold(image, mask, tmp_path / "bold.npy"))
    np.testing.assert_array_equal(comp, masking.apply_mask(image, mask))


def test_memory_is_limited(tmp_path):
    shape, n = (64, 64, 30), 150
    rng = np.random.default_rng(0)
    stored = rng.integers(0, 1000, (*shape, n), dtype=np.int16)
    inside = rng.random(shape) < 0.5
    nibabel.Nifti1Image(stored, np.eye(4)).to_filename(tmp_path / "bold.nii")
    set_slope(tmp_path / "bold.nii", (0.5, 10.0))
    mask = nibabel.Nifti1Image(inside.astype(np.uint8), np.eye(4))
    ref = (0.5 * stored[inside].T + 10).astype(np.float32)
    neuro.masked_bold(tmp_path / "bold.nii", mask, tmp_path / "warm.npy")
    limit = 20_000_000
    assert ref.nbytes > 30_000_000 and stored.nbytes > 30_000_000
    with demo.PeakMemory(interval=0.001) as memory:
        out = neuro.masked_bold(tmp_path / "bold.nii", mask, tmp_path / "bold.npy", limit)
    assert memory.peak - memory.before < limit
    np.testing.assert_array_equal(np.load(out), ref)


def test_a_limit_of_less_than_a_volume(tmp_path):
    _, mask = make_mask()
    _, image = make_bold()
    with pytest.raises(MemoryLimitError, match=r"one volume needs \d+ bytes") as error:
        neuro.masked_bold(image, mask, tmp_path / "bold.npy", memory_limit=1000)
    enough = int(str(error.value).split("needs ")[1].split()[0])
    neuro.masked_bold(image, mask, tmp_path / "bold.npy", memory_limit=enough)


def test_a_fit_of_the_file(tmp_path):
    inside, mask = make_mask()
    values, image = make_bold(n=40)
    X = np.random.default_rng(3).standard_normal((40, 3))
    comp = RidgeCV(cv=4).fit(X, neuro.masked_bold(image, mask, tmp_path / "bold.npy"))
    ref = RidgeCV(cv=4).fit(X, rows(values, inside).astype(np.float32))
    np.testing.assert_array_equal(comp.coef_, ref.coef_)


# -- found again -----------------------------------------------------------------------------


@pytest.fixture
def made(tmp_path):
    make_mask(tmp_path / "mask.nii.gz")
    for i in range(2):
        make_bold(tmp_path / f"{i}.nii", seed=i)
    images = [tmp_path / f"{i}.nii" for i in range(2)]

    def call(**changed):
        arguments = {"images": images, "mask": tmp_path / "mask.nii.gz", **changed}
        return neuro.masked_bold(**arguments, out=tmp_path / "bold.npy")

    call()
    return call, tmp_path


def written_again(folder, call, **changed):
    before = (folder / "bold.npy").stat()
    call(**changed)
    after = (folder / "bold.npy").stat()
    return (before.st_ino, before.st_mtime_ns) != (after.st_ino, after.st_mtime_ns)


def test_the_same_call_finds_the_file(made):
    call, folder = made
    assert not written_again(folder, call)
    assert sorted(p.name for p in folder.glob("bold*")) == ["bold.npy", "bold.npy.json"]


def test_contents_decide_where_dates_differ(made):
    call, folder = made
    os.utime(folder / "0.nii", ns=(1, 1))
    assert not written_again(folder, call)
    (folder / "0.nii").rename(folder / "moved.nii")
    assert not written_again(folder, call, images=[folder / "moved.nii", folder / "1.nii"])


def change_image(folder):
    make_bold(folder / "0.nii", seed=9)
    return {}


def change_mask(folder):
    make_mask(folder / "mask.nii.gz", seed=9)
    return {}


@pytest.mark.parametrize(
    "change",
    [
        change_image,
        change_mask,
        lambda folder: {"images": [folder / "1.nii", folder / "0.nii"]},
        lambda folder: {"images": folder / "0.nii"},
        lambda folder: {"images": [make_bold(seed=i)[1] for i in (5, 1)]},
    ],
    ids=["image", "mask", "order", "fewer", "memory"],
)
def test_other_input_is_written_again(made, change):
    call, folder = made
    changed = change(folder)
    old = np.load(folder / "bold.npy")
    assert written_again(folder, call, **changed)
    new = np.load(folder / "bold.npy")
    assert new.shape != old.shape or (new != old).any()
    assert not written_again(folder, call, **changed)


def test_images_in_memory_are_recognised(made):
    call, folder = made
    images = [make_bold(seed=i)[1] for i in range(2)]
    assert written_again(folder, call, images=images)
    again = [nibabel.Nifti1Image(image.get_fdata(dtype=np.float32), AFFINE) for image in images]
    assert not written_again(folder, call, images=again)


def test_a_file_that_was_changed_is_written_again(made):
    call, folder = made
    ref = np.load(folder / "bold.npy")
    array = np.lib.format.open_memmap(folder / "bold.npy", mode="r+")
    array[0] = 7
    array.flush()
    os.utime(folder / "bold.npy", ns=(1, 1))
    with pytest.warns(RuntimeWarning, match="was changed after"):
        call()
    np.testing.assert_array_equal(np.load(folder / "bold.npy"), ref)


def test_a_file_of_somebody_else_is_kept(tmp_path):
    np.save(tmp_path / "features.npy", np.ones(3))
    with pytest.raises(InputError, match="was not written by masked_bold"):
        neuro.masked_bold(make_bold()[1], make_mask()[1], tmp_path / "features.npy")
    np.testing.assert_array_equal(np.load(tmp_path / "features.npy"), 1)
    with pytest.raises(InputError, match="was not written by masked_bold"):
        neuro.run_labels(tmp_path / "features.npy")


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.unlink(),
        lambda path: path.write_text("{"),
        lambda path: path.write_text("[]"),
        lambda path: path.write_text(path.read_text().replace("sources", "source")),
    ],
    ids=["gone", "torn", "other", "changed"],
)
def test_a_record_that_is_damaged(made, damage):
    call, folder = made
    damage(folder / "bold.npy.json")
    with pytest.raises(InputError, match="was not written by masked_bold"):
        call()
    (folder / "bold.npy").unlink()
    assert call().is_file() and not written_again(folder, call)


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_an_unfinished_file_never_looks_finished(tmp_path, monkeypatch, error):
    _, mask = make_mask()
    out = tmp_path / "bold.npy"
    images = [make_bold(seed=i)[1] for i in range(2)]
    real = neuro.MaskReader.blocks

    def blocks(self, run):
        if run.name == "images[1]":
            assert list(tmp_path.iterdir())  # the first run lies there, under a private name
            raise error
        return real(self, run)

    with monkeypatch.context() as patch:
        patch.setattr(neuro.MaskReader, "blocks", blocks)
        expected = StorageError if isinstance(error, OSError) else KeyboardInterrupt
        with pytest.raises(expected):
            neuro.masked_bold(images, mask, out)
    assert not list(tmp_path.iterdir())
    assert neuro.masked_bold(images, mask, out).is_file()


# -- maps out --------------------------------------------------------------------------------


@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
@pytest.mark.parametrize("k", [None, 1, 3])
def test_maps_come_back(tmp_path, ending, k):
    inside, mask = make_mask(tmp_path / "mask.nii.gz")
    mask.header.set_xyzt_units("mm", "sec")
    size = inside.sum() if k is None else (k, inside.sum())
    values = np.random.default_rng(0).standard_normal(size)
    values[..., 2] = np.nan  # a target that was skipped
    path = neuro.write_map(values, mask, tmp_path / f"map{ending}")
    image = nibabel.load(path)
    assert image.shape == (SHAPE if k is None else (*SHAPE, k))
    assert image.get_data_dtype() == np.float32
    np.testing.assert_allclose(image.affine, AFFINE, rtol=1e-6)
    assert image.header.get_xyzt_units() == ("mm", "sec")
    assert np.isnan(image.get_fdata()[~inside]).all()
    ref = values.astype(np.float32)
    np.testing.assert_array_equal(neuro.read_map(path, tmp_path / "mask.nii.gz"), ref)
    first = values if k is None else values[0]
    data = image.get_fdata() if k is None else image.get_fdata()[..., 0]
    np.testing.assert_array_equal(data[inside], first.astype(np.float32))


def test_the_header_of_the_mask_changes_no_value(tmp_path):
    inside, _ = make_mask()
    header = nibabel.Nifti1Header()
    header.set_data_dtype(np.int16)
    header["cal_max"], header["descrip"] = 1, b"a mask"
    mask = nibabel.Nifti1Image(inside.astype(np.int16), AFFINE, header)
    mask.header.set_sform(AFFINE, code=4)
    mask.to_filename(tmp_path / "mask.nii")
    set_slope(tmp_path / "mask.nii", (2.0, 0.0))
    values = np.linspace(-1, 1, inside.sum())
    image = nibabel.load(neuro.write_map(values, tmp_path / "mask.nii", tmp_path / "map.nii"))
    np.testing.assert_array_equal(image.get_fdata()[inside], values.astype(np.float32))
    assert image.header["cal_max"] == 0 and image.header["sform_code"] == 4


def test_the_same_values_give_the_same_bytes(tmp_path):
    inside, mask = make_mask()
    contents = [
        neuro.write_map(np.arange(inside.sum()), mask, tmp_path / name).read_bytes()
        for name in ("a.nii.gz", "b.nii.gz")
    ]
    assert contents[0] == contents[1]


def test_a_map_that_fails_leaves_the_old_one(tmp_path, monkeypatch):
    inside, mask = make_mask()
    path = neuro.write_map(np.ones(inside.sum()), mask, tmp_path / "map.nii.gz")
    before = path.read_bytes()

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(nibabel.Nifti1Image, "to_stream", full)
    with pytest.raises(StorageError, match="No space left"):
        neuro.write_map(np.zeros(inside.sum()), mask, path)
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]


# -- maskers ---------------------------------------------------------------------------------


def voxel_masker(mask, **options):
    maskers = pytest.importorskip("nilearn.maskers")
    return maskers.NiftiMasker(mask, standardize=None, **options)


def test_a_masker_does_what_the_mask_does(tmp_path):
    inside, mask = make_mask()
    values, image = make_bold()
    masker = voxel_masker(mask)
    out = neuro.masked_bold([image, image], masker, tmp_path / "bold.npy")
    ref = rows(values, inside).astype(np.float32)
    np.testing.assert_array_equal(np.load(out), np.concatenate([ref, ref]))
    # the masker that was given is not fitted behind the user's back
    assert not hasattr(masker, "mask_img_")
    some = np.linspace(-1, 1, inside.sum())
    by_masker = nibabel.load(neuro.write_map(some, masker, tmp_path / "a.nii")).get_fdata()
    by_mask = nibabel.load(neuro.write_map(some, mask, tmp_path / "b.nii")).get_fdata()
    np.testing.assert_array_equal(by_masker, by_mask)


def test_a_masker_cleans_each_run(tmp_path):
    _, mask = make_mask()
    images = [make_bold(n=30, seed=i)[1] for i in range(2)]
    masker = voxel_masker(mask, detrend=True, smoothing_fwhm=4.0).fit()
    comp = np.load(neuro.masked_bold(images, masker, tmp_path / "bold.npy"))
    ref = np.concatenate([masker.transform(image) for image in images])
    np.testing.assert_allclose(comp, ref, atol=1e-4)
    before = (tmp_path / "bold.npy").stat().st_ino
    neuro.masked_bold(images, masker, tmp_path / "bold.npy")
    assert (tmp_path / "bold.npy").stat().st_ino == before
    other = voxel_masker(mask, detrend=True, smoothing_fwhm=5.0).fit()
    neuro.masked_bold(images, other, tmp_path / "bold.npy")
    assert (np.load(tmp_path / "bold.npy") != comp).any()


def test_regions_of_an_atlas(tmp_path):
    maskers = pytest.importorskip("nilearn.maskers")
    labels = np.zeros(SHAPE, np.int16)
    labels[:2], labels[3:] = 1, 2
    values, image = make_bold()
    masker = maskers.NiftiLabelsMasker(nibabel.Nifti1Image(labels, AFFINE), standardize=None)
    comp = np.load(neuro.masked_bold(image, masker, tmp_path / "bold.npy"))
    ref = np.stack([values[labels == i].mean(axis=0) for i in (1, 2)], axis=1)
    np.testing.assert_allclose(comp, ref, rtol=1e-4, atol=1e-3)
    path = neuro.write_map([0.0, 5.0], masker, tmp_path / "map.nii")
    data = nibabel.load(path).get_fdata()
    assert np.isnan(data[labels == 0]).all()
    assert (data[labels == 1] == 0).all() and (data[labels == 2] == 5).all()
    with pytest.raises(InputError, match=r"shape \(3,\).*masker"):
        neuro.write_map([1, 2, 3], masker, tmp_path / "map.nii")


def test_maskers_that_cannot(tmp_path):
    maskers = pytest.importorskip("nilearn.maskers")
    _, mask = make_mask()
    _, image = make_bold()
    with pytest.raises(InputError, match="not fitted"):
        neuro.masked_bold(image, maskers.NiftiMasker(standardize=None), tmp_path / "a.npy")
    with pytest.raises(MemoryLimitError, match="whole run"):
        neuro.masked_bold(image, voxel_masker(mask), tmp_path / "a.npy", memory_limit="5KB")


# -- wrong input -----------------------------------------------------------------------------


def other_grid(shape=SHAPE, affine=AFFINE, dtype=np.uint8):
    return nibabel.Nifti1Image(np.ones(shape, dtype), affine)


SHIFTED = AFFINE + np.array([[0, 0, 0, 1.0]] + [[0] * 4] * 3)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"mask": other_grid((5, 4, 2))}, r"images has voxels \(5, 4, 3\), but the mask \(5, 4, 2"),
        ({"mask": other_grid(affine=SHIFTED)}, "affines that differ: voxels lie up to 1 mm apart"),
        ({"mask": other_grid((*SHAPE, 2))}, r"mask has shape \(5, 4, 3, 2\), but 3-D"),
        (
            {"mask": nibabel.Nifti1Image(np.zeros(SHAPE, np.uint8), AFFINE)},
            "mask is empty",
        ),
        (
            {"mask": nibabel.Nifti1Image(np.indices(SHAPE)[0].astype(np.int16), AFFINE)},
            r"mask has 4 values other than 0 \(1 to 4\)",
        ),
        ({"mask": np.ones(SHAPE)}, "mask is an array, which does not say where"),
        ({"mask": "nothing.nii"}, "mask='nothing.nii' does not exist"),
        ({"mask": 3}, "mask=3 is not a path"),
        ({"images": "nothing.nii.gz"}, r"images='nothing.nii.gz' does not exist"),
        ({"images": [make_bold()[1], "gone.nii"]}, r"images\[1\]='gone.nii' does not exist"),
        ({"images": []}, "images is an empty list"),
        ({"images": other_grid()}, r"images has shape \(5, 4, 3\), but 4-D is wanted"),
        ({"images": np.ones((*SHAPE, 3))}, "images is an array"),
        (
            {"images": nibabel.Nifti1Image(np.ones((*SHAPE, 2), np.complex64), AFFINE)},
            "dtype complex64; real numbers",
        ),
        ({"out": "bold.nii"}, "out='bold.nii' must end in .npy"),
        ({"memory_limit": "much"}, "memory_limit='much'"),
    ],
    ids=lambda x: None if isinstance(x, dict) else x[:30],
)
def test_wrong_input(tmp_path, monkeypatch, changed, message):
    monkeypatch.chdir(tmp_path)
    arguments = {"images": make_bold()[1], "mask": make_mask()[1], "out": "bold.npy", **changed}
    with pytest.raises(InputError, match=message):
        neuro.masked_bold(**arguments)
    assert not list(tmp_path.iterdir())


def test_affines_that_differ_by_rounding_are_one(tmp_path):
    _, mask = make_mask(affine=AFFINE.astype(np.float32) * (1 + 1e-6))
    neuro.masked_bold(make_bold()[1], mask, tmp_path / "bold.npy")


@pytest.mark.parametrize("damage", ["text", "cut", "cut.gz", "header"])
def test_damaged_images(tmp_path, damage):
    path = tmp_path / ("bold.nii.gz" if damage == "cut.gz" else "bold.nii")
    make_bold(path)
    content = path.read_bytes()
    contents = {
        "text": b"voxels",
        "cut": content[: len(content) // 2],
        "cut.gz": content[: len(content) // 2],
        "header": b"\xff" * 200 + content[200:],
    }
    path.write_bytes(contents[damage])
    with pytest.raises(InputError, match="cannot be read"):
        neuro.masked_bold(path, make_mask()[1], tmp_path / "out.npy")
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.ones(3), r"shape \(3,\), but the mask has \d+ voxels"),
        (np.ones((make_mask()[0].sum(), 2)), r"pass values.T"),
        (np.ones((1, 1, 3)), r"shape \(1, 1, 3\)"),
        (np.array([]), r"shape \(0,\)"),
        (["a"], "no array of real numbers"),
        (np.ones(make_mask()[0].sum()) * 1j, "no array of real numbers"),
    ],
)
def test_wrong_values(tmp_path, values, message):
    with pytest.raises(InputError, match=message):
        neuro.write_map(values, make_mask()[1], tmp_path / "map.nii")


def test_wrong_paths_of_maps(tmp_path):
    inside, mask = make_mask()
    values = np.ones(inside.sum())
    with pytest.raises(InputError, match=r"must end in \.nii or"):
        neuro.write_map(values, mask, tmp_path / "map.npy")
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError):
        neuro.write_map(values, mask, tmp_path / "file" / "map.nii")
    neuro.write_map(values, mask, tmp_path / "map.nii")
    with pytest.raises(InputError, match="path and the mask have affines that differ"):
        neuro.read_map(tmp_path / "map.nii", other_grid(affine=SHIFTED))


@pytest.mark.parametrize("call", ["masked_bold", "write_map", "read_gifti", "write_gifti"])
def test_without_nibabel(tmp_path, monkeypatch, call):
    monkeypatch.setitem(sys.modules, "nibabel", None)
    arguments = {
        "masked_bold": ("a.nii", "b.nii", tmp_path / "c.npy"),
        "write_map": ([1.0], "b.nii", tmp_path / "c.nii"),
        "read_gifti": ("a.gii",),
        "write_gifti": ([1.0], tmp_path / "a.gii"),
    }
    with pytest.raises(InputError, match=r"nibabel, which is not installed.*ridgemm\[neuro\]"):
        getattr(neuro, call)(*arguments[call])


# -- a real brain ----------------------------------------------------------------------------


def test_haxby_from_nifti_to_nifti(shared_data, tmp_path):
    folder = shared_data / "haxby_slice"
    out = neuro.masked_bold(folder / "bold.nii.gz", folder / "mask.nii.gz", tmp_path / "bold.npy")
    inside = nibabel.load(folder / "mask.nii.gz").get_fdata() > 0
    ref = rows(nibabel.load(folder / "bold.nii.gz").get_fdata(), inside)
    np.testing.assert_array_equal(np.load(out), ref)
    labels, runs = np.loadtxt(folder / "attributes.txt", dtype=int).T
    X = ridgemm_features(labels)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # voxels of the mask that are always 0
        model = RidgeCV([1e2], cv=3, scoring="correlation").fit(X, out, groups=runs)
    path = neuro.write_map(model.best_score_, folder / "mask.nii.gz", tmp_path / "map.nii.gz")
    image = nibabel.load(path)
    assert image.shape == (40, 20, 1)
    np.testing.assert_array_equal(image.affine, nibabel.load(folder / "mask.nii.gz").affine)
    np.testing.assert_array_equal(image.get_fdata()[inside], np.float32(model.best_score_))


def ridgemm_features(labels):
    shown = (labels[:, None] == np.arange(1, 9)).astype(np.float32)
    return np.roll(shown, 2, axis=0)


def test_the_package_does_not_import_them():
    """Whoever draws no brain need not wait for them."""
    import subprocess

    code = "import sys, ridgemm, ridgemm.neuro, ridgemm.plots; "
    code += "print({'nibabel', 'nilearn', 'matplotlib'} & set(sys.modules))"
    env = {**os.environ, "PYTHONPATH": os.path.dirname(os.path.dirname(ridgemm.__file__))}
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env)
    assert ran.stdout.strip() == "set()", ran.stderr
