"""Surface data in and out, and files that are something else."""

import numpy as np
import pytest

from ridgemm import InputError, neuro

nibabel = pytest.importorskip("nibabel")


def test_surfaces_come_back(tmp_path):
    rng = np.random.default_rng(0)
    values = rng.standard_normal((4, 10)).astype(np.float32)
    paths = [
        neuro.write_gifti(values[:, :6], tmp_path / "L.func.gii", "CortexLeft"),
        neuro.write_gifti(values[:, 6:], tmp_path / "R.func.gii", "CortexRight"),
    ]
    np.testing.assert_array_equal(neuro.read_gifti(paths), values)
    np.testing.assert_array_equal(neuro.read_gifti(paths[0]), values[:, :6])
    image = nibabel.load(paths[0])
    assert image.meta["AnatomicalStructurePrimary"] == "CortexLeft"
    np.testing.assert_array_equal(np.stack(image.agg_data()), values[:, :6])
    one = neuro.write_gifti(values[0], tmp_path / "one.gii")
    np.testing.assert_array_equal(neuro.read_gifti(one), values[:1])


def test_samples_as_columns_of_one_array(tmp_path):
    values = np.random.default_rng(0).standard_normal((6, 3)).astype(np.float32)
    array = nibabel.gifti.GiftiDataArray(values, datatype="NIFTI_TYPE_FLOAT32")
    nibabel.gifti.GiftiImage(darrays=[array]).to_filename(tmp_path / "a.gii")
    np.testing.assert_array_equal(neuro.read_gifti(tmp_path / "a.gii"), values.T)


def test_wrong_surfaces(tmp_path):
    gifti = nibabel.gifti
    points = gifti.GiftiDataArray(np.ones((4, 3), np.float32), intent="NIFTI_INTENT_POINTSET")
    gifti.GiftiImage(darrays=[points]).to_filename(tmp_path / "surface.gii")
    gifti.GiftiImage().to_filename(tmp_path / "empty.gii")
    (tmp_path / "text.gii").write_text("<GIFTI")
    short = neuro.write_gifti(np.ones((2, 4)), tmp_path / "short.gii")
    long = neuro.write_gifti(np.ones((3, 4)), tmp_path / "long.gii")
    for paths, message in [
        ([], "empty list"),
        (tmp_path / "gone.gii", "does not exist"),
        (tmp_path / "text.gii", "cannot be read as GIFTI"),
        (tmp_path / "surface.gii", "a surface"),
        (tmp_path / "empty.gii", "nothing"),
        ([short, long], r"\[2, 3\] samples"),
    ]:
        with pytest.raises(InputError, match=message):
            neuro.read_gifti(paths)
    mask = nibabel.Nifti1Image(np.ones((2, 2, 2), np.uint8), np.eye(4))
    mask.to_filename(tmp_path / "mask.nii")
    with pytest.raises(InputError, match="cannot be read as GIFTI"):
        neuro.read_gifti(tmp_path / "mask.nii")
    with pytest.raises(InputError, match="surfaces are read by read_gifti"):
        neuro.masked_bold(short, tmp_path / "mask.nii", tmp_path / "out.npy")
    with pytest.raises(InputError, match=r"must end in \.gii"):
        neuro.write_gifti([1.0], tmp_path / "a.nii")
