"""Files: arrays on disk, entries published atomically, checksums, fingerprints.

An entry is a folder of ``.npy`` files and a ``manifest.json``. It is written under a private
name, synchronised, and renamed into place: whoever sees it sees all of it. Two processes may
make the same entry; the first to publish wins and the other uses the winner's.
"""

import contextlib
import errno
import hashlib
import json
import logging
import os
import shutil
import tempfile
import threading
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ridgemm.errors import StorageError, one_line
from ridgemm.lazy import Lazy
from ridgemm.private import private_folder, private_name, remove, sweep
from ridgemm.sources import Source
from ridgemm.threads import Team
from ridgemm.tiles import spans

log = logging.getLogger("ridgemm")

MANIFEST = "manifest.json"
_HEADER = threading.Lock()
_CHUNK = 1 << 22
_SMALL = 1 << 16


def check_folder(folder: Path, argument: str) -> None:
    """Make `folder` if need be and prove that files can be written into it.

    Raises
    ------
    StorageError
        It cannot be made or written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise StorageError(
            f"{argument}={str(folder)!r} cannot be written ({error.strerror or error}); "
            "give a folder on a writable disk."
        ) from error


def check_space(folder: Path, n_bytes: int, what: str) -> None:
    """Refuse to start writing what the disk cannot hold."""
    try:
        free = shutil.disk_usage(folder).free
    except OSError as error:
        raise storage_error(folder, error) from error
    if n_bytes > free:
        raise StorageError(
            f"{what} needs {n_bytes / 1e9:.1f} GB on disk, but {str(folder)!r} has "
            f"{free / 1e9:.1f} GB free; free some space or choose another folder."
        )


def create_array(path: Path, shape: tuple[int, ...], dtype: Any) -> np.memmap:
    """A new ``.npy`` file as a writable memmap; its pages are file cache, not program memory.

    Its blocks are reserved at once: a disk that fills up is an error here, where a page written
    later to a file with holes would kill the process.

    Raises
    ------
    StorageError
        The folder cannot be written, or the disk is full.
    """
    try:
        array = np.lib.format.open_memmap(path, mode="w+", dtype=np.dtype(dtype), shape=shape)
        _reserve(path)
    except OSError as error:
        path.unlink(missing_ok=True)
        raise storage_error(path.parent, error) from error
    return array


def _reserve(path: Path) -> None:
    if not hasattr(os, "posix_fallocate"):
        return
    with open(path, "r+b") as file:
        size = os.fstat(file.fileno()).st_size
        try:
            os.posix_fallocate(file.fileno(), 0, size)
        except OSError as error:
            if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL):
                raise


def storage_error(folder: Path, error: OSError) -> StorageError:
    """What a failed write means to the caller."""
    if isinstance(error, StorageError):
        return error
    return StorageError(
        f"{str(folder)!r} cannot be written ({getattr(error, 'strerror', None) or error}); free "
        "some space, mend the folder's permissions or choose another, and make the same call again."
    )


@contextlib.contextmanager
def replaced(path: Path) -> Iterator[Path]:
    """A private name to write to, renamed to `path` at the end of the block."""
    partial = path.with_name(private_name(path.name))
    try:
        yield partial
        os.replace(partial, path)
    except OSError as error:
        raise storage_error(path.parent, error) from error
    finally:
        remove(partial)


def save_array(path: Path, array: Any) -> None:
    """Write a ``.npy`` file.

    `numpy.save` writes through a stream of the C library, closes it and does not look whether
    its last bytes got to the disk: a full one leaves a file that is too short, and no error.
    """
    array = np.asarray(array, order="C")
    with open(path, "wb") as file:
        np.lib.format.write_array_header_1_0(file, np.lib.format.header_data_from_array_1_0(array))
        file.write(array.data if array.ndim else array.tobytes())


def open_array(path: Path) -> np.memmap:
    """A ``.npy`` file as a read-only memmap."""
    # NumPy parses the header by ``ast``, which in CPython 3.11 fails if two threads do it at once
    with _HEADER:
        try:
            return np.load(path, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError, EOFError):
            raise
        except Exception as error:
            # a header is text that NumPy parses: damaged, it may raise anything
            raise ValueError(f"its header is damaged: {one_line(error)}") from error


def checksum(path: Path) -> str:
    """BLAKE2b of a file."""
    digest = hashlib.blake2b(digest_size=16)
    with open(path, "rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def key(*parts: Any) -> str:
    """A name made of everything that an entry depends on."""
    digest = hashlib.blake2b(digest_size=16)
    for part in parts:
        raw = np.ascontiguousarray(part).tobytes() if isinstance(part, np.ndarray) else None
        digest.update(raw if raw is not None else json.dumps(part, sort_keys=True).encode())
        digest.update(b"\0")
    return digest.hexdigest()


def fingerprint(source: Source, team: Team) -> str:
    """BLAKE2b over the values, shape and dtype of a source, in the order of its rows or columns.

    All of the values count: a file changed in place keeps its name, its size and, if somebody
    insists, its date. A view has the fingerprints of its parts and of what it makes of them.
    """
    if isinstance(source.data, Lazy):
        parts = [_ingredient(part, team) for part in source.data.recipe()]
        return key(type(source.data).__name__, list(source.shape), *parts)
    by_column, pieces = source.column_major, _pieces(source)
    digests = [b""] * len(pieces)

    def digest(_: int, i: int) -> None:
        block = np.asarray(source.data[pieces[i]])
        block = np.ascontiguousarray(block.T if by_column else block)
        digests[i] = hashlib.blake2b(block, digest_size=16).digest()

    if source.concurrent:
        team.run(digest, range(len(pieces)))
    else:
        for i in range(len(pieces)):
            digest(0, i)
    order = by_column if source.chunks is None else list(source.block)
    return key(list(source.shape), source.dtype.str, order, b"".join(digests).hex())


def _pieces(source: Source) -> list[tuple[slice, slice]]:
    """Blocks that cover a source: of whole chunks, or of whole rows or columns."""
    n, m = source.shape
    if source.chunks is not None:
        row_step, column_step = source.block
        return [(rows, columns) for rows in spans(n, row_step) for columns in spans(m, column_step)]
    length, width = (m, n) if source.column_major else (n, m)
    step = max(1, _CHUNK // (width * source.dtype.itemsize))
    whole = slice(None)
    return [(whole, span) if source.column_major else (span, whole) for span in spans(length, step)]


def _ingredient(part: Any, team: Team) -> Any:
    if isinstance(part, Source):
        return fingerprint(part, team)
    return checksum(part) if isinstance(part, Path) else part


class Store:
    """Published entries under one folder.

    Parameters
    ----------
    folder : Path
        Exists and is writable.
    durable : bool
        Synchronise files to the disk before publishing; a scratch folder need not.
    """

    def __init__(self, folder: Path, durable: bool):
        self.folder = folder
        self.durable = durable
        self.computed = 0
        self._lock = threading.Lock()
        if durable:
            sweep(folder)

    def has(self, name: str) -> bool:
        """Whether an entry is there, sound or not."""
        return (self.folder / name).exists()

    def fetch(
        self, name: str, build: Callable[[Path], None], counted: bool = True
    ) -> dict[str, np.ndarray]:
        """The arrays of entry `name`, made by ``build(folder)`` unless they are there and sound.

        Parameters
        ----------
        name : str
        build : callable
            Writes ``.npy`` files into the folder that it is given.
        counted : bool
            Whether making it counts in ``computed``.

        Returns
        -------
        dict of read-only memmaps, by file stem.
        """
        final = self.folder / name
        if os.path.lexists(final):
            try:
                found = read_entry(final, verify=self.durable)
                if self.durable:
                    _touch(final)
                return found
            except StorageError as error:
                warnings.warn(f"{error}; it is built again", RuntimeWarning, stacklevel=2)
                remove(final)
        with self._lock:
            self.computed += counted
        try:
            with private_folder(self.folder, name) as partial:
                build(partial)
                write_manifest(partial, {}, self.durable)
                publish(partial, final, self.durable)
        except OSError as error:
            raise storage_error(self.folder, error) from error
        return read_entry(final, verify=False)


def _touch(entry: Path) -> None:
    """Note that an entry was of use, for `ridgemm.maintenance.clean`."""
    with contextlib.suppress(OSError):
        os.utime(entry / MANIFEST)


def write_manifest(folder: Path, content: Mapping[str, Any], durable: bool = True) -> None:
    """Write ``manifest.json`` with the checksum of every ``.npy`` file of a folder."""
    files = sorted(folder.glob("*.npy"))
    if durable:
        for file in files:
            _synchronise(file)
    # what one run makes and reads is not worth a checksum
    checksums = {file.name: checksum(file) if durable else "" for file in files}
    manifest = {**content, "files": checksums}
    manifest["checksum"] = key(manifest)
    path = folder / MANIFEST
    path.write_text(json.dumps(manifest, indent=1))
    if durable:
        _synchronise(path)
        _synchronise(folder)


def publish(partial: Path, final: Path, durable: bool = True) -> None:
    """Rename a finished folder into place; the first to publish wins."""
    try:
        os.rename(partial, final)
    except OSError:
        if not final.exists():
            raise
        log.info("%s was published by another process", final.name)
        return
    if durable:
        _synchronise(final.parent)


def publish_files(partial: Path, folder: Path) -> None:
    """Rename the files of a finished folder into one that exists, the manifest last."""
    for path in sorted(partial.iterdir(), key=lambda path: path.name == MANIFEST):
        os.replace(path, folder / path.name)


def _synchronise(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a published folder.

    Raises
    ------
    StorageError
        It is missing, is not JSON, or names files outside its folder.
    """
    try:
        manifest = json.loads((folder / MANIFEST).read_text())
        names: Iterable[str] = [*manifest["files"].keys(), *manifest.get("large", {}).keys()]
        for name in names:
            if Path(name).name != name or not name.endswith(".npy"):
                raise StorageError(f"{str(folder)!r} names a file outside itself: {name!r}")
        # of the manifest itself: what it no longer names would not be missed
        if manifest.pop("checksum", None) != key(manifest):
            raise ValueError("its checksum is wrong")
    except StorageError:
        raise
    except FileNotFoundError as error:
        if not folder.is_dir():
            raise StorageError(f"{str(folder)!r} does not exist; look at the path") from error
        raise StorageError(
            f"{str(folder)!r} has no {MANIFEST}: a run that is not finished (make the same call "
            "again), or something else than a run or a saved model"
        ) from error
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise StorageError(f"{str(folder)!r} has no readable manifest ({error})") from error
    if not manifest["files"]:
        raise StorageError(f"{str(folder)!r} has a manifest that names no file")
    return manifest


def wrong_files(folder: Path, verify: bool) -> dict[str, str]:
    """What is wrong with the files of a published folder, by name; the manifest is one of them."""
    try:
        manifest = read_manifest(folder)
    except StorageError as error:
        return {MANIFEST: str(error)}
    wrong = {}
    for name, expected in {**manifest["files"], **manifest.get("large", {})}.items():
        path = folder / name
        try:
            if verify and expected and checksum(path) != expected:
                wrong[name] = "its checksum is wrong"
            open_array(path)
        except (OSError, ValueError, EOFError) as error:
            wrong[name] = str(error)
    return wrong


def read_entry(folder: Path, verify: bool = True) -> dict[str, np.memmap]:
    """Arrays of a published folder by file stem: read-only memmaps, or small copies.

    Raises
    ------
    StorageError
        A file is missing or its checksum is wrong.
    """
    arrays = {}
    for name, expected in read_manifest(folder)["files"].items():
        path = folder / name
        try:
            if verify and checksum(path) != expected:
                raise StorageError(f"{str(path)!r} does not match its checksum")
            array = open_array(path)
            # a memmap holds a file descriptor: vectors of hundreds of folds would use them up
            arrays[path.stem] = np.array(array) if array.nbytes <= _SMALL else array
        except (OSError, ValueError, EOFError) as error:
            if isinstance(error, StorageError):
                raise
            raise StorageError(f"{str(path)!r} cannot be read ({error})") from error
    return arrays
