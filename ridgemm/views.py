"""Views: features made of other sources while they are read, tile by tile.

A view holds its parts as sources and answers ``read`` by reading them into the tile that is
asked for, converted and shifted already. So a view costs no pass over memory that an array of
another dtype would not, views of views work, and all of them cross to workers as places in files.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from ridgemm.errors import InputError, one_line
from ridgemm.folds import check_groups
from ridgemm.kernels import column_moments, standardise_rows
from ridgemm.lazy import Lazy
from ridgemm.sources import Source, as_source
from ridgemm.tiles import spans, width

# values that pass through float64 at once: they stay in the cache of a core
_PIECE = 1 << 16


class View(Lazy):
    """A view of one or several sources."""

    def __init__(self, parts: Sequence[Source], shape: tuple[int, int], dtype: Any):
        self.parts, self.shape, self.dtype = tuple(parts), shape, np.dtype(dtype)
        self.concurrent = all(part.concurrent for part in self.parts)
        chunks = [part.chunks for part in self.parts if part.chunks]
        self.chunks = tuple(max(sizes) for sizes in zip(*chunks, strict=True)) or None

    def recipe(self) -> list[Any]:
        return [self.dtype.str, *self.parts]


class Delayed(View):
    """Earlier samples of the same run beside each other; see `delayed`."""

    def __init__(self, X: Source, delays: Sequence[int], runs: np.ndarray):
        n, p = X.shape
        super().__init__([X], (n, p * len(delays)), X.dtype)
        self.delays = [int(delay) for delay in delays]
        # the row that each delay takes for a row, or -1: (n_delays, n_samples)
        self._origins = np.stack([_earlier(runs, delay) for delay in self.delays])
        self._bounds = np.arange(len(delays) + 1) * p

    def read(
        self, rows: slice | np.ndarray, columns: slice, shift: np.ndarray, out: np.ndarray
    ) -> None:
        X, blocks = self.parts[0], list(_within(self._bounds, columns))
        origins = self._origins[:, rows]
        if X.chunks and len(blocks) > 1:
            X, origins = _read_once(X, origins, out.size)
        for d, inside, place in blocks:
            _gather(X, origins[d], inside, shift[place], out[:, place])

    def recipe(self) -> list[Any]:
        return [*super().recipe(), self.delays, self._origins]


def _earlier(runs: np.ndarray, delay: int) -> np.ndarray:
    """The row that lies `delay` samples before each in its run, or -1 where there is none."""
    order = np.argsort(runs, kind="stable")
    origins = np.full(len(runs), -1)
    n = len(runs) - abs(delay)
    if n > 0:
        now, then = order[max(delay, 0) :][:n], order[max(-delay, 0) :][:n]
        same = runs[now] == runs[then]
        origins[now[same]] = then[same]
    return origins


def _read_once(X: Source, origins: np.ndarray, most: int) -> tuple[Source, np.ndarray]:
    """The rows that all delays need from a container, whose chunks are read once for them all."""
    known = origins[origins >= 0]
    first, last = (known.min(), known.max() + 1) if len(known) else (0, 1)
    # far apart, the rows between them would be more than the tile
    if (last - first) * X.shape[1] > most:
        return X, origins
    block = np.asarray(X.data[int(first) : int(last), :])
    return as_source(block, X.name), np.where(origins < 0, -1, origins - first)


def _gather(
    source: Source, rows: np.ndarray, columns: slice, shift: np.ndarray, out: np.ndarray
) -> None:
    """``out[i] = source[rows[i]] - shift``, where a row of -1 is one of zeros."""
    borders = np.flatnonzero(np.diff(rows) != 1) + 1
    if len(borders) > len(rows) // 8 + 1:
        _gather_scattered(source, rows, columns, shift, out)
        return
    for first, last in zip([0, *borders], [*borders, len(rows)], strict=True):
        if rows[first] < 0:
            # of a stretch only the first: -1 and 0 are neighbours, two -1 are not
            out[first] = 0 - shift
            first += 1
        if first < last:
            run = slice(int(rows[first]), int(rows[last - 1]) + 1)
            source.read(run, columns, shift, out[first:last])


def _gather_scattered(
    source: Source, rows: np.ndarray, columns: slice, shift: np.ndarray, out: np.ndarray
) -> None:
    places = np.flatnonzero(rows >= 0)
    out[rows < 0] = 0 - shift
    for piece in spans(len(places), max(256, _PIECE // out.shape[1])):
        # sources are read in the order of their rows
        wanted = places[piece][np.argsort(rows[places[piece]])]
        values = np.empty((len(wanted), out.shape[1]), out.dtype)
        source.read(rows[wanted], columns, shift, values)
        out[wanted] = values


def _within(bounds: np.ndarray, span: slice) -> Iterator[tuple[int, slice, slice]]:
    """Parts that a span touches: number, where in the part, where in the span."""
    first = int(np.searchsorted(bounds, span.start, "right")) - 1
    last = int(np.searchsorted(bounds, span.stop, "left"))
    for i in range(first, last):
        start, stop = max(int(bounds[i]), span.start), min(int(bounds[i + 1]), span.stop)
        inside = slice(start - int(bounds[i]), stop - int(bounds[i]))
        yield i, inside, slice(start - span.start, stop - span.start)


class ZScored(View):
    """Samples in standard deviations from the mean of their run; see `zscored`."""

    def __init__(self, X: Source, runs: np.ndarray):
        super().__init__([X], X.shape, np.float32)
        self._runs = runs
        self.mean_, self.scale_ = _run_statistics(X, runs)

    def read(
        self, rows: slice | np.ndarray, columns: slice, shift: np.ndarray, out: np.ndarray
    ) -> None:
        runs, nothing = self._runs[rows], np.zeros(width(columns), np.float32)
        mean, scale = self.mean_[:, columns], self.scale_[:, columns]
        # chunks are not cut
        step = max(self.chunks[0] if self.chunks else 1, _PIECE // width(columns))
        for piece in spans(len(out), step):
            values = np.empty((width(piece), width(columns)))
            self.parts[0].read(_some(rows, piece), columns, nothing, values)
            standardise_rows(values, runs[piece], mean, scale, shift, out[piece])

    def recipe(self) -> list[Any]:
        return [*super().recipe(), self._runs, self.mean_, self.scale_]


def _some(rows: slice | np.ndarray, piece: slice) -> slice | np.ndarray:
    if isinstance(rows, slice):
        return slice(rows.start + piece.start, rows.start + piece.stop)
    return rows[piece]


def _run_statistics(X: Source, runs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Means and scales (n_runs, n_features) of runs, from one reading in float64."""
    n, p = X.shape
    size = np.bincount(runs)[:, None]
    # moments about a sample of the run, which cost no digits; rounded as a shift has to be
    origin = np.zeros((len(size), p), np.float32)
    sums, squares = np.zeros((2, len(size), p))
    seen = np.zeros((len(size), p), bool)
    row_step, column_step = X.block
    for columns in spans(p, column_step):
        nothing = np.zeros(width(columns), np.float32)
        values = np.empty((min(row_step, n), width(columns)))
        for rows in spans(n, row_step):
            block = values[: width(rows)]
            X.read(rows, columns, nothing, block)
            labels = runs[rows]
            for run in np.unique(labels):
                mine = block[labels == run]
                if not seen[run, columns].all():
                    with np.errstate(over="ignore"):
                        origin[run, columns] = mine[0]
                    seen[run, columns] = True
                mine -= origin[run, columns]
                column_moments(mine, sums[run, columns], squares[run, columns])
    mean = sums / size
    with np.errstate(invalid="ignore", over="ignore"):
        sd = np.sqrt(np.maximum(squares / size - mean**2, 0))
        mean += origin
        # constant but for rounding: infinitely wide, so that it gives 0
        return mean, np.where(sd <= 1e-14 * np.abs(mean), np.inf, sd)


class Columns(View):
    """Columns of several sources beside each other; see `hstack`."""

    def __init__(self, parts: Sequence[Source]):
        self._bounds = np.cumsum([0, *(part.shape[1] for part in parts)])
        shape = parts[0].shape[0], int(self._bounds[-1])
        super().__init__(parts, shape, np.result_type(*(part.dtype for part in parts)))

    def read(
        self, rows: slice | np.ndarray, columns: slice, shift: np.ndarray, out: np.ndarray
    ) -> None:
        for i, inside, place in _within(self._bounds, columns):
            self.parts[i].read(rows, inside, shift[place], out[:, place])


class Rows(View):
    """Rows of several sources below each other; see `vstack`."""

    def __init__(self, parts: Sequence[Source]):
        self._bounds = np.cumsum([0, *(part.shape[0] for part in parts)])
        shape = int(self._bounds[-1]), parts[0].shape[1]
        super().__init__(parts, shape, np.result_type(*(part.dtype for part in parts)))

    def read(
        self, rows: slice | np.ndarray, columns: slice, shift: np.ndarray, out: np.ndarray
    ) -> None:
        if isinstance(rows, slice):
            for i, inside, place in _within(self._bounds, rows):
                self.parts[i].read(inside, columns, shift, out[place])
            return
        cuts = np.searchsorted(rows, self._bounds)
        for part, start, *cut in zip(
            self.parts, self._bounds[:-1], cuts[:-1], cuts[1:], strict=True
        ):
            place = slice(*cut)
            if width(place):
                part.read(rows[place] - start, columns, shift, out[place])


def delayed(X: Any, delays: Any = (1, 2, 3, 4), groups: Any = None) -> Delayed:
    r"""Features of earlier samples of the same run: a finite impulse response, never stored.

    .. math:: X'_{i, \, dp + j} = X_{i - \mathrm{delays}[d], \, j}

    where i counts the samples of a run, in the order in which they come in X (those of a run need
    not be neighbours), and 0 where the run has no such sample. All features at the first delay
    come first, then all at the second: ``coef_.reshape(n_targets, len(delays), n_features)``.

    Parameters
    ----------
    X : array, path, view or any source (n_samples, n_features)
    delays : sequence of int
        In samples; a negative one takes a later sample.
    groups : (n_samples,) array, optional
        Run of each sample; None is one run.

    Returns
    -------
    Delayed
        (n_samples, len(delays) * n_features) of the dtype of X, read by tiles: pass it to
        `RidgeCV.fit`, or slice it.

    Raises
    ------
    InputError

    Examples
    --------
    >>> X = np.array([[1.0], [2], [3], [4]])
    >>> delayed(X, delays=(0, 1), groups=[0, 0, 1, 1])[:, :]
    array([[1., 0.],
           [2., 1.],
           [3., 0.],
           [4., 3.]])
    """
    X = as_source(X, "X")
    given = list(delays) if isinstance(delays, Iterable) else [delays]
    if not given or not all(_is_whole(delay) for delay in given):
        raise InputError(
            f"delays={one_line(delays)} must be whole numbers of samples, such as (1, 2, 3, 4)."
        )
    return Delayed(X, given, _runs(groups, X))


def _is_whole(delay: Any) -> bool:
    return isinstance(delay, (int, np.integer)) and not isinstance(delay, bool)


def zscored(X: Any, groups: Any = None) -> ZScored:
    r"""Each feature about its mean in a run, in its standard deviations there.

    .. math:: X'_{ij} = (X_{ij} - m_{g(i) j}) / s_{g(i) j}

    with the mean m and the standard deviation s (divided by the number of samples) of feature j
    in the run of sample i. A feature that is constant in a run is 0 there. Means and deviations
    are float64, and computed here, in one reading of X.

    Parameters
    ----------
    X : array, path, view or any source (n_samples, n_features)
    groups : (n_samples,) array, optional
        Run of each sample; None is one run.

    Returns
    -------
    ZScored
        (n_samples, n_features) float32, read by tiles. A NaN or an infinity in X makes the
        feature NaN for the whole run.

    Raises
    ------
    InputError

    Examples
    --------
    >>> zscored(np.array([[1.0], [3], [5], [5]]), groups=[0, 0, 1, 1])[:, :]
    array([[-1.],
           [ 1.],
           [ 0.],
           [ 0.]], dtype=float32)
    """
    X = as_source(X, "X")
    return ZScored(X, _runs(groups, X))


def hstack(sources: Sequence[Any]) -> Columns:
    """The columns of several sources beside each other, as `numpy.hstack` does it with copies.

    Parameters
    ----------
    sources : sequence of arrays, paths, views or any sources
        Of the same n_samples.

    Returns
    -------
    Columns
        (n_samples, sum of n_features), of the dtype that NumPy would give.

    Raises
    ------
    InputError

    Examples
    --------
    >>> hstack([np.zeros((3, 2)), np.ones((3, 1))])[:1]
    array([[0., 0., 1.]])
    """
    return Columns(_parts(sources, 0, "rows"))


def vstack(sources: Sequence[Any]) -> Rows:
    """The rows of several sources below each other, as `numpy.vstack` does it with copies.

    Parameters
    ----------
    sources : sequence of arrays, paths, views or any sources
        Runs that are stored apart, of the same n_features.

    Returns
    -------
    Rows
        (sum of n_samples, n_features), of the dtype that NumPy would give.

    Raises
    ------
    InputError

    Examples
    --------
    >>> vstack([np.zeros((2, 3)), np.ones((1, 3))]).shape
    (3, 3)
    """
    return Rows(_parts(sources, 1, "columns"))


def _parts(sources: Sequence[Any], axis: int, what: str) -> list[Source]:
    if isinstance(sources, (str, np.ndarray)) or not isinstance(sources, Sequence) or not sources:
        raise InputError(f"sources={one_line(sources)} must be a list of arrays or paths.")
    parts = [as_source(source, f"sources[{i}]") for i, source in enumerate(sources)]
    for part in parts:
        if part.shape[axis] != parts[0].shape[axis]:
            raise InputError(
                f"{part.name} has {part.shape[axis]} {what}, but {parts[0].name} has "
                f"{parts[0].shape[axis]}; stacked sources need the same number."
            )
    return parts


def _runs(groups: Any, X: Source) -> np.ndarray:
    """Numbers of the runs, from 0."""
    groups = check_groups(groups, X.shape[0])
    if groups is None:
        return np.zeros(X.shape[0], dtype=np.int64)
    return np.unique(groups, return_inverse=True)[1].reshape(-1)
