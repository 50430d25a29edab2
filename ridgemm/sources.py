"""Sources: anything with ``shape``, ``dtype`` and 2-D slicing, read a tile at a time.

A tile is converted and shifted while it is read, into a workspace that the caller owns.
Nothing here ever copies a whole source. Memmaps cross to worker processes as file
references (joblib does that), so a Source is as good as a path.
"""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ridgemm.containers import reopenable
from ridgemm.errors import InputError, InputTypeError, one_line
from ridgemm.kernels import column_moments, gather_rows
from ridgemm.lazy import Lazy
from ridgemm.paging import Ahead
from ridgemm.paths import open_path
from ridgemm.threads import Team
from ridgemm.tiles import spans, width
from ridgemm.workspace import Workspace

_SKIP = ", or in permutation_test leave those targets out with missing='skip'"
# products of two such values, summed over any number of samples, stay within float32
LARGEST = 1e15
_BAND = 1 << 25  # bytes of rows that threads share out by columns
_COLUMNS = {"X": "n_features", "c": "n_confounds"}
# Numba has no float16 on the CPU, and foreign byte orders are not worth a kernel
_KERNEL_DTYPES = frozenset(np.dtype(c) for c in "bBhHiIlLfd")


@dataclass(frozen=True)
class Source:
    """A matrix that is read by tiles.

    Attributes
    ----------
    data : ndarray, memmap or any object with 2-D slicing
    name : str
        The argument's name, for messages.
    shape : tuple of int
    dtype : dtype
    """

    data: Any
    name: str
    shape: tuple[int, int]
    dtype: np.dtype

    @property
    def is_array(self) -> bool:
        """An ndarray is safe to read from several threads; of another object nothing is known."""
        return isinstance(self.data, np.ndarray)

    @property
    def concurrent(self) -> bool:
        """Whether several threads may read at once."""
        return self.is_array or (isinstance(self.data, Lazy) and self.data.concurrent)

    @property
    def chunks(self) -> tuple[int, int] | None:
        """Rows and columns that are stored, and so best read, together."""
        chunks = None if self.is_array else getattr(self.data, "chunks", None)
        # of dask, a tuple of sizes for each axis
        return chunks and tuple(int(np.max(size)) for size in chunks)

    @property
    def block(self) -> tuple[int, int]:
        """Rows and columns of a block that is quick to read: about half a million values."""
        if self.chunks is None:
            return (8192, 16) if self.column_major else (256, 2048)
        rows, columns = self.chunks
        rows *= max(1, 256 // rows)
        return rows, columns * max(1, (1 << 19) // (rows * columns))

    @property
    def column_major(self) -> bool:
        """Whether one column is the long contiguous run."""
        return self.is_array and abs(self.data.strides[0]) < abs(self.data.strides[1])

    def view(self, rows: slice | np.ndarray, columns: slice) -> np.ndarray | None:
        """The tile itself where it is row-major float32 already: no copy; otherwise None."""
        if not (self.is_array and self.dtype == np.float32 and isinstance(rows, slice)):
            return None
        tile = self.data[rows, columns]
        row_major = tile.strides[1] == tile.itemsize and tile.strides[0] >= tile.shape[1] * 4
        return tile if row_major and tile.strides[0] % 4 == 0 else None

    def read(
        self,
        rows: slice | np.ndarray,
        columns: slice,
        shift: np.ndarray,
        out: np.ndarray,
    ) -> None:
        """``out = source[rows, columns] - shift``, rounded once to the dtype of `out`.

        Parameters
        ----------
        rows : slice or (m,) sorted int array
        columns : slice
        shift : (n_columns,) float32
        out : (m, n_columns) float32 or float64, row-major
        """
        if isinstance(self.data, Lazy):
            self.data.read(rows, columns, shift, out)
        elif isinstance(rows, slice):
            self._read_run(rows, columns, shift, out)
        elif self.is_array and self.dtype in _KERNEL_DTYPES:
            gather_rows(self.data[:, columns], rows, shift, out)
        else:
            # covering runs, then the wanted rows: foreign objects seldom index fast
            for piece in spans(len(rows), 256):
                wanted = rows[piece]
                run = np.asarray(self.data[int(wanted[0]) : int(wanted[-1]) + 1, columns])
                _subtract(run[wanted - wanted[0]], shift, out[piece])

    def _read_run(self, rows: slice, columns: slice, shift: np.ndarray, out: np.ndarray) -> None:
        tile = np.asarray(self.data[rows, columns])
        if tile.strides[0] >= tile.strides[1]:
            _subtract(tile, shift, out)
            return
        # column-major: blocks that stay in cache while they are turned
        for i in spans(tile.shape[0], 512):
            for j in spans(tile.shape[1], 32):
                _subtract(tile[i, j], shift[j], out[i, j])


def _subtract(tile: np.ndarray, shift: np.ndarray, out: np.ndarray) -> None:
    # in float64 for 64-bit sources, so that mean 1e6 and sd 1 survive the rounding to float32
    dtype = np.float64 if out.dtype == np.float64 else None
    # only a target that is left out (missing="skip") still has values beyond float32 here
    with np.errstate(over="ignore", invalid="ignore"):
        np.subtract(tile, shift, out=out, dtype=dtype, casting="unsafe")


def as_source(data: Any, name: str) -> Source:
    """Make a Source of an array, a path (see `open_path`) or an object with 2-D slicing.

    Raises
    ------
    InputError
        Not 2-D, empty, of a dtype that is not a real number, sparse, or a path that does not
        exist or cannot be opened.

    Examples
    --------
    >>> as_source(np.ones((3, 2)), "X").shape
    (3, 2)
    """
    return _checked(_as_array(data, name), name)


def as_targets(Y: Any) -> tuple[Source, bool]:
    """Y as a source, and whether it was given as one target without an axis for it.

    Raises
    ------
    InputError
        As `as_source`.

    Examples
    --------
    >>> source, single = as_targets([1.0, 2.0, 3.0])
    >>> source.shape, single
    ((3, 1), True)
    """
    if Y is None:
        raise InputError("Y is None: a fit requires y to be passed, but the target y is None.")
    array = _as_array(Y, "Y")
    single = len(array.shape) == 1
    return _checked(np.reshape(array, (-1, 1)) if single else array, "Y"), single


def _as_array(data: Any, name: str) -> Any:
    """What has a shape and a dtype, whatever they are."""
    if isinstance(data, (str, os.PathLike)):
        data = open_path(data, name)
    data = reopenable(data)
    if isinstance(data, np.ma.MaskedArray):
        raise InputError(
            f"{name} is a masked array, whose mask would be lost; fill or drop the masked values "
            f"first: {name}.filled(...)."
        )
    if hasattr(data, "toarray"):
        raise InputError(f"{name} is sparse; ridgemm reads dense arrays: pass {name}.toarray().")
    try:
        # a pandas Series has a shape and a dtype, but no plain slices
        if hasattr(data, "iloc") or not (hasattr(data, "shape") and hasattr(data, "dtype")):
            data = np.asarray(data)
        len(data.shape), np.dtype(data.dtype)
    except (TypeError, ValueError, OverflowError) as error:
        raise _no_array(name, error) from error
    is_objects = isinstance(data, np.ndarray) and data.dtype.kind == "O"
    return _numbers(data, name) if is_objects and data.size else data


def _no_array(name: str, error: Exception) -> InputError:
    return InputError(
        f"{name} is no array of numbers ({one_line(error)}); pass a NumPy array, or a path."
    )


def _numbers(data: np.ndarray, name: str) -> np.ndarray:
    """An array of Python objects as numbers, where they are: a table of mixed columns is one."""
    try:
        return data.astype(np.float64)
    except (TypeError, ValueError, OverflowError) as error:
        kind = InputTypeError if isinstance(error, TypeError) else InputError
        raise kind(
            f"{name} has dtype object and holds what is no number ({one_line(error)}); give "
            "numbers, int8 to float64."
        ) from error


def _checked(data: Any, name: str) -> Source:
    try:
        shape, dtype = tuple(int(size) for size in data.shape), np.dtype(data.dtype)
    except (TypeError, ValueError, OverflowError) as error:
        raise _no_array(name, error) from error
    if len(shape) != 2:
        raise InputError(
            f"{name} must be 2-D (n_samples, {_COLUMNS.get(name[0], 'n_targets')}), "
            f"but has shape {shape}. Reshape your data: {name}.reshape(-1, 1) makes one column "
            f"of it, {name}.reshape(1, -1) one sample."
        )
    if min(shape) < 0:
        raise InputError(
            f"{name} has shape {shape}, which no matrix has: its header is damaged; write it again."
        )
    if 0 in shape:
        raise InputError(
            f"{name} is empty: {shape[0]} sample(s) and {shape[1]} feature(s) (shape={shape}) "
            "while a minimum of 1 is required."
        )
    if dtype.kind == "c":
        raise InputError(
            f"{name} has dtype {dtype}. Complex data not supported: give {name}.real "
            f"and {name}.imag side by side."
        )
    if dtype.kind not in "biuf" or dtype.itemsize > 8:
        raise InputError(
            f"{name} has dtype {dtype}; ridgemm takes real numbers, int8 to float64: "
            f"convert it with {name}.astype('float32')."
        )
    return Source(data, name, shape, dtype)


@dataclass(frozen=True)
class Scan:
    """What one reading of a source tells.

    Attributes
    ----------
    mean, sd : (n_columns,) float64
        0 where a value is missing.
    missing : (n_columns,) bool
        Columns with an unusable value.
    """

    mean: np.ndarray
    sd: np.ndarray
    missing: np.ndarray

    def shift(self) -> np.ndarray:
        """What to subtract while reading: the mean where it exceeds the sd, otherwise 0.

        A smaller mean costs float32 nothing, and 0 lets row-major float32 be read in place.
        """
        return np.where(np.abs(self.mean) > self.sd, self.mean, 0).astype(np.float32)


def scan(source: Source, team: Team, skip_missing: bool = False) -> Scan:
    """Read a source once: every value must be usable, and the column means are wanted.

    Parameters
    ----------
    source : Source
    team : Team
    skip_missing : bool
        Mark columns with an unusable value instead of refusing them.

    Raises
    ------
    InputError
        NaN, infinity or a value beyond 1e15; says where the first is and how many.

    Examples
    --------
    >>> with Team(1) as team:
    ...     scan(as_source(np.array([[1.0], [3.0]]), "X"), team).mean
    array([2.])
    """
    n, m = source.shape
    sums, squares = np.zeros(m), np.zeros(m)
    row_step, column_step = source.block

    for band in _bands(source):

        def read_columns(_: int, columns: slice, band: slice = band) -> None:
            for piece in spans(width(band), row_step):
                rows = slice(band.start + piece.start, band.start + piece.stop)
                block = _kernel_block(source.data[rows, columns])
                column_moments(block, sums[columns], squares[columns])

        _over_columns(source, spans(m, column_step), team, read_columns)
    # every unusable value leaves a mark on its column's sum of squares: few columns, as a rule
    # none, have to be looked at again
    missing = ~(squares < LARGEST**2)
    bad = np.zeros(m, dtype=np.int64)

    def count(_: int, columns: slice) -> None:
        for rows in spans(n, row_step):
            block = _kernel_block(source.data[rows, columns])
            block = np.abs(block.astype(np.float64))
            bad[columns] += np.count_nonzero(~(block <= LARGEST), axis=0)

    suspects = [columns for columns in spans(m, column_step) if missing[columns].any()]
    _over_columns(source, suspects, team, count)
    missing = bad > 0
    if missing.any() and not skip_missing:
        _refuse_unusable(source, int(bad.sum()), row_step)
    sums[missing] = squares[missing] = 0
    mean = sums / n
    with np.errstate(over="ignore", invalid="ignore"):
        variance = np.maximum(squares / n - mean**2, 0)
    return Scan(mean, np.sqrt(variance), missing)


def _bands(source: Source) -> list[slice]:
    """Rows to read one band after the other, all columns of each.

    A file of rows is read once, from its start to its end, however little of it RAM holds. Where
    columns or chunks lie together, so do all rows.
    """
    n, m = source.shape
    if source.column_major or source.chunks is not None:
        return [slice(0, n)]
    return spans(n, max(source.block[0], _BAND // (m * source.dtype.itemsize)))


def _over_columns(
    source: Source, blocks: Sequence[slice], team: Team, read: Callable[[int, slice], None]
) -> None:
    """Call ``read(slot, columns)`` for all blocks, at once only where the source allows it."""
    if source.concurrent:
        team.run(read, blocks)
    else:
        for columns in blocks:
            read(0, columns)


def _kernel_block(block: Any) -> np.ndarray:
    block = np.asarray(block)
    if block.dtype in _KERNEL_DTYPES:
        return block
    with np.errstate(over="ignore"):  # what is beyond float32 becomes infinite, and is found
        return block.astype(np.float32)


def _refuse_unusable(source: Source, count: int, step: int) -> None:
    for rows in spans(source.shape[0], min(step, 256)):
        for columns in spans(source.shape[1], 4096):
            block = np.asarray(source.data[rows, columns], dtype=np.float64)
            places = np.argwhere(~(np.abs(block) <= LARGEST))
            if len(places):
                # row-major order of blocks is not row-major order of values across columns
                row = rows.start + int(places[0][0])
                line = np.asarray(source.data[row : row + 1, :], dtype=np.float64)[0]
                column = int(np.argmax(~(np.abs(line) <= LARGEST)))
                raise InputError(
                    f"{source.name} has {count} value(s) that are NaN, infinite or beyond "
                    f"{LARGEST:g}, the first at row {row}, column {column} ({line[column]}); "
                    f"remove or impute them{_SKIP if source.name == 'Y' else ''}."
                )


def rough_eigenvalues(X: Source, standardize: bool) -> tuple[float, float]:
    """Largest and mean eigenvalue of the centred Gram, from at most 256 rows and 4096 columns.

    Good to a small factor; they decide only which routes resolve the alphas.
    """
    n, p = X.shape
    sample = _sample_rows(X) if X.chunks is None else _sample_chunks(X)
    if not (np.abs(sample) <= LARGEST).all():
        return 1.0, 1.0  # the scan will say where
    sample -= sample.mean(axis=0)
    if standardize:
        sd = sample.std(axis=0)
        sample /= np.where(sd > 0, sd, 1)
    share, least = sample.size / (n * p), float(np.finfo(np.float32).tiny)
    largest, total = np.linalg.norm(sample, 2) ** 2 / share, np.linalg.norm(sample) ** 2 / share
    return max(float(largest), least), max(float(total) / min(n, p), least)


def _sample_rows(X: Source) -> np.ndarray:
    n, p = X.shape
    rows = np.unique(np.linspace(0, n - 1, min(n, 256)).astype(int))
    step = -(-p // 4096)
    # converted after the thinning: a view would keep every whole row alive
    return np.stack([np.asarray(X.data[i : i + 1, :])[0, ::step].astype(np.float64) for i in rows])


def _sample_chunks(X: Source) -> np.ndarray:
    """As `_sample_rows` from at most 16 x 32 blocks, of which no chunk is read twice."""
    rows, columns = (
        _thinned(size, step, most, wanted)
        for size, step, most, wanted in zip(X.shape, X.block, (16, 32), (256, 4096), strict=True)
    )
    sample = np.empty((sum(map(len, rows)), sum(map(len, columns))))
    i = 0
    for some in rows:
        j = 0
        for others in columns:
            block = np.asarray(X.data[some[0] : some[-1] + 1, others[0] : others[-1] + 1])
            chosen = block[np.ix_(some - some[0], others - others[0])]
            sample[i : i + len(some), j : j + len(others)] = chosen
            j += len(others)
        i += len(some)
    return sample


def _thinned(size: int, step: int, most: int, wanted: int) -> list[np.ndarray]:
    """About `wanted` of ``range(size)``, in at most `most` of its spans."""
    bands = spans(size, step)
    bands = [bands[i] for i in np.unique(np.linspace(0, len(bands) - 1, most).astype(int))]
    each = -(-wanted // len(bands))
    return [
        np.unique(np.linspace(b.start, b.stop - 1, min(each, width(b))).astype(int)) for b in bands
    ]


class Reader:
    """Shifted float32 tiles of a source.

    Parameters
    ----------
    source : Source
    shift : (n_columns,) float32

    Examples
    --------
    >>> reader = Reader(as_source(np.eye(2, dtype=np.float32), "X"), np.zeros(2, np.float32))
    >>> reader.in_place(slice(0, 1), slice(0, 2))
    array([[1., 0.]], dtype=float32)
    """

    def __init__(self, source: Source, shift: np.ndarray):
        self.source, self.shift = source, shift
        self._unshifted = not shift.any()

    def in_place(self, rows: slice | np.ndarray, columns: slice) -> np.ndarray | None:
        """The tile as it lies in the source, if nothing has to be done to it."""
        return self.source.view(rows, columns) if self._unshifted else None

    def tile(
        self,
        rows: slice | np.ndarray,
        columns: slice,
        workspace: Workspace,
        name: str,
        team: Team,
        stays: bool = False,
    ) -> np.ndarray:
        """The tile in place or, its rows shared out, in the workspace `name`.

        One that `stays` is read more than once: of a file whose rows are longer, what lies in place
        may have to be read again every time.
        """
        ahead = Ahead(self.source.data, columns)
        if not (stays and ahead.useful) and (found := self.in_place(rows, columns)) is not None:
            return found
        size = width(rows) if isinstance(rows, slice) else len(rows)
        out = workspace.array(name, (size, width(columns)))
        if not self.source.concurrent:
            self.source.read(rows, columns, self.shift[columns], out)
            return out
        parts = spans(size, 256)

        def numbers(span: slice) -> range | np.ndarray:
            if isinstance(rows, slice):
                return range(rows.start + span.start, rows.start + span.stop)
            return rows[span]

        def part(_: int, i: int) -> None:
            for later in parts[i + team.size : i + team.size + 1]:
                ahead.need(numbers(later))
            found = numbers(parts[i])
            piece = slice(found.start, found.stop) if isinstance(found, range) else found
            self.source.read(piece, columns, self.shift[columns], out[parts[i]])

        with ahead:
            for first in parts[: team.size]:
                ahead.need(numbers(first))
            team.run(part, range(len(parts)))
        return out
