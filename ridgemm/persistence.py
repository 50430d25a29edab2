"""A fitted model as a folder: ``.npy`` arrays and a JSON manifest, no pickle."""

import glob
import os
from pathlib import Path
from typing import Any

import numpy as np

from ridgemm.errors import StorageError
from ridgemm.linear import LinearModel, dual_coefficients, primal_coefficients
from ridgemm.private import private_folder, sweep
from ridgemm.sources import Source, as_source
from ridgemm.store import (
    check_folder,
    check_space,
    open_array,
    publish,
    read_entry,
    read_manifest,
    save_array,
    storage_error,
    write_manifest,
)

FORMAT = 1


def save_model(
    folder: Path,
    linear: LinearModel,
    arrays: dict[str, np.ndarray],
    manifest: dict[str, Any],
    free: int,
) -> None:
    """Write a model to a new folder, whole or not at all.

    Parameters
    ----------
    folder : Path
        Must not exist.
    linear : LinearModel
        A dual one keeps its form if its X is a ``.npy`` file, which is then referred to by
        path; otherwise its primal coefficients are written.
    arrays : dict of arrays
        Small ones: alphas, scores.
    manifest : dict
        JSON-able.
    free : int
        Bytes for coefficients that are made only now.
    """
    if os.path.lexists(folder):
        raise StorageError(f"{str(folder)!r} exists already; choose another folder to save to.")
    check_folder(folder.parent, "folder")
    train = _npy_file(linear.train)
    n_bytes = 4 * linear.n_targets * (linear.train.shape[0] if train else len(linear.x_offset))
    check_space(folder.parent, n_bytes, "the saved model")
    sweep(folder.parent, f"{glob.escape(folder.name)}~*")
    try:
        with private_folder(folder.parent, folder.name) as partial:
            if linear.train is not None and train is None:
                primal_coefficients(linear, partial / "coef.npy", free)
            elif linear.coef is None:
                dual_coefficients(linear, partial / "coef.npy", free)
            else:
                save_array(partial / "coef.npy", linear.coef)
            arrays = {**arrays, "x_offset": linear.x_offset, "y_offset": linear.y_offset}
            if train and linear.scale is not None:
                arrays["scale"] = linear.scale
            for name, array in arrays.items():
                save_array(partial / f"{name}.npy", array)
            write_manifest(partial, {**manifest, "format": FORMAT, "train": train})
            publish(partial, folder)
    except OSError as error:
        raise storage_error(folder.parent, error) from error


def load_model(folder: Path) -> tuple[LinearModel, dict[str, np.ndarray], dict[str, Any]]:
    """Coefficients (a read-only memmap), the other arrays and the manifest of a saved model.

    Raises
    ------
    StorageError
        A file is missing or damaged, or the X that a dual model refers to is gone or has
        another shape.
    """
    manifest = read_manifest(folder)
    if manifest.get("format") != FORMAT:
        raise StorageError(
            f"{str(folder)!r} has format {manifest.get('format')!r}, this version reads {FORMAT}; "
            "fit and save the model again."
        )
    arrays = dict(read_entry(folder))
    missing = {"coef", "x_offset", "y_offset", "alpha"} - set(arrays)
    train = manifest.get("train", 0)
    if missing or not (train is None or isinstance(train, str)):
        raise StorageError(f"{str(folder)!r} holds a manifest that is damaged; save it again.")
    coef = arrays.pop("coef")
    arrays = {name: np.array(array) for name, array in arrays.items()}
    train, scale = None, arrays.pop("scale", None)
    if manifest["train"] is not None:
        train = _open_train(Path(manifest["train"]), coef.shape[1], len(arrays["x_offset"]))
    linear = LinearModel(coef, arrays.pop("x_offset"), arrays.pop("y_offset"), train, scale)
    return linear, arrays, manifest


def _npy_file(train: Source | None) -> str | None:
    """Path of the ``.npy`` file that a source is the whole of, if it is."""
    if (
        type(train) is not Source
        or not isinstance(train.data, np.memmap)
        or train.data.filename is None
    ):
        return None
    path = Path(train.data.filename)
    if path.suffix != ".npy" or not path.is_file():
        return None
    whole = open_array(path)
    same = whole.shape == train.shape and whole.dtype == train.dtype
    return str(path.resolve()) if same and whole.strides == train.data.strides else None


def _open_train(path: Path, n_samples: int, n_features: int) -> Source:
    if not path.is_file():
        raise StorageError(
            f"the model needs its training X at {str(path)!r}, which is gone; put it back."
        )
    train = as_source(path, "X")
    if train.shape != (n_samples, n_features):
        raise StorageError(
            f"{str(path)!r} has shape {train.shape}, but the model was fitted with "
            f"{(n_samples, n_features)}; put the training X back."
        )
    return train
