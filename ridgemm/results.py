"""What a run leaves, read back from its folder."""

from pathlib import Path

from ridgemm.errors import StorageError
from ridgemm.estimators import RidgeCV
from ridgemm.store import read_manifest

_KINDS = {"RidgeCV": RidgeCV}


def load(folder: str | Path) -> RidgeCV:
    """Read what ``save`` or a run left in a folder.

    Parameters
    ----------
    folder : path

    Returns
    -------
    RidgeCV

    Raises
    ------
    StorageError
        The folder is missing, incomplete or damaged.

    Examples
    --------
    >>> import tempfile
    >>> import numpy as np
    >>> from ridgemm import RidgeCV
    >>> X, Y = np.eye(4), np.arange(8.0).reshape(4, 2)
    >>> with tempfile.TemporaryDirectory() as parent:
    ...     RidgeCV(cv="loo").fit(X, Y).save(f"{parent}/model")
    ...     model = load(f"{parent}/model")
    ...     model.predict(X).shape
    (4, 2)
    """
    folder = Path(folder)
    kind = read_manifest(folder).get("kind")
    if kind not in _KINDS:
        raise StorageError(f"{str(folder)!r} holds {kind!r}, which this version cannot read.")
    return _KINDS[kind].from_folder(folder)
