"""Predictions and scores of a fitted model, a tile at a time.

x is centred while it is read, so that features with mean 1000 and sd 1 lose no digit.
"""

import numpy as np
from numpy.typing import DTypeLike

from ridgemm import blas
from ridgemm.errors import InputError
from ridgemm.kernels import column_moments, product_moments
from ridgemm.linear import LinearModel, inside
from ridgemm.mapreduce import Crew, threads_per_worker
from ridgemm.predictplan import STRIP, Steps
from ridgemm.scores import Moments, score
from ridgemm.sources import Reader, Source, scan
from ridgemm.tiles import spans, width

_BLOCK = 1 << 16
_REAL = (np.dtype(np.float32), np.dtype(np.float64))


def predict(
    model: LinearModel,
    X: Source,
    out: np.ndarray | None,
    limit: int,
    effects: tuple[np.ndarray, np.ndarray] | None = None,
    dtype: DTypeLike = np.float32,
) -> np.ndarray:
    """Predictions (n_new, n_targets), into `out` if given.

    Parameters
    ----------
    model : LinearModel
    X : Source
    out : (n_new, n_targets) float32 or float64, optional
    limit : int
    effects : (n_new, q) and (q, n_targets) float64, optional
        Their product is added.
    dtype : float32 or float64
        Of predictions without `out`. Products are float32; offsets, which are float64, are added
        in the type of the predictions.

    Raises
    ------
    InputError
        `out` has another shape, dtype or order.
    MemoryLimitError
        The limit is too small, as a rule for an `out` that is not given; says which would do.
    """
    shape = (X.shape[0], model.n_targets)
    n_bytes = np.dtype(dtype).itemsize * shape[0] * shape[1] if out is None else 0
    model.check()
    steps = model.steps(shape[0], limit, n_bytes, scored=False)
    if out is None:
        out = np.empty(shape, dtype)
    check_out(out, shape)

    with Crew(threads_per_worker(1)) as crew:
        scan(X, crew.team)
        for rows, columns, left, right in _tiles(model, X, crew, steps):

            def write(_: int, part: slice, prediction: np.ndarray, rows=rows, columns=columns):
                strip = inside(columns, part)
                if effects is not None:
                    prediction += effects[0][rows] @ effects[1][:, strip]
                np.add(prediction, model.y_offset[strip], out=out[rows, strip], casting="unsafe")

            _predict_strips(left, right, crew, write)
    return out


def score_targets(model: LinearModel, X: Source, Y: Source, scoring: str, limit: int) -> np.ndarray:
    """Score of every target (n_targets,) float64 in one reading of X and Y.

    Raises
    ------
    MemoryLimitError
        The limit is too small; says which would do.
    """
    t = model.n_targets
    model.check()
    steps = model.steps(X.shape[0], limit, 0, scored=True)
    shift = model.y_offset.astype(np.float32)
    y_reader = Reader(Y, shift)
    one = np.zeros((1, 2), dtype=np.int64)
    with Crew(threads_per_worker(1)) as crew:
        scan(X, crew.team)
        scan(Y, crew.team)
        # not before: a scan has sums of its own
        y_sums, sums = np.zeros((2, t)), np.zeros((1, 3, t))

        for rows, columns, left, right in _tiles(model, X, crew, steps):
            y = y_reader.tile(rows, columns, crew.shared, "y", crew.team)

            def add(_: int, part: slice, prediction: np.ndarray, y=y, columns=columns):
                here, strip = y[:, part], inside(columns, part)
                column_moments(here, y_sums[0, strip], y_sums[1, strip])
                product_moments(prediction[None], here, one, sums[:, :, strip], sums[0, 1:2, strip])

            _predict_strips(left, right, crew, add)
    scores = np.empty(t)
    # by blocks: the moments are all the memory that a million targets may take
    for some in spans(t, _BLOCK):
        y, y_square = y_sums[:, some]
        moments = Moments(X.shape[0], y, y_square, *(sums[:, i, some] for i in range(3)))
        scores[some] = score(scoring, moments)[0]
    return scores


def _tiles(model: LinearModel, X: Source, crew: Crew, steps: Steps):
    """Blocks of rows and of targets, with the operands the product of which is the prediction."""
    for rows, left in _left_blocks(model, X, crew, steps):
        for columns in spans(model.n_targets, steps.targets):
            yield rows, columns, left, model.right(columns, crew)


def _left_blocks(model: LinearModel, X: Source, crew: Crew, steps: Steps):
    """Blocks of rows of the left operand: centred features, or the kernel with training rows."""
    features = Reader(X, model.x_offset)
    for rows in spans(X.shape[0], steps.rows):
        if model.train is None:
            columns = slice(0, steps.p)
            yield rows, features.tile(rows, columns, crew.shared, "left", crew.team)
        else:
            kernel = _kernel(model, features, rows, crew, steps.columns)
            yield rows, model.smoothed(kernel, crew, "smoothed")


def _kernel(model: LinearModel, features: Reader, rows: slice, crew: Crew, step: int):
    n, p = model.train.shape
    train = Reader(model.train, model.x_offset)
    total = crew.shared.zeros("kernel", (width(rows), n))
    product = crew.shared.array("product", total.shape)
    for columns in spans(p, step):
        new = features.tile(rows, columns, crew.shared, "new", crew.team)
        old = train.tile(slice(0, n), columns, crew.shared, "old", crew.team)
        if model.scale is not None:
            new = new / (model.scale[columns] ** 2).astype(np.float32)

        def multiply(_: int, part: slice, new=new, old=old) -> None:
            blas.gemm(new, old[part].T, product[:, part])
            # float32 within a tile, float64 across tiles
            total[:, part] += product[:, part]

        crew.team.run(multiply, spans(n, STRIP))
    product[...] = total
    return product


def _predict_strips(left: np.ndarray, right: np.ndarray, crew: Crew, use) -> None:
    """Call `use` with the slot, the strip of a tile and its predictions."""

    def one(slot: int, part: slice) -> None:
        prediction = crew.slots[slot].array("prediction", (len(left), width(part)))
        blas.gemm(left, right[:, part], prediction)
        use(slot, part, prediction)

    crew.team.run(one, spans(right.shape[1], STRIP))


def check_out(out: np.ndarray, shape: tuple[int, ...]) -> None:
    """Refuse what predictions of a shape cannot be written to."""
    fits = isinstance(out, np.ndarray) and out.shape == shape and out.dtype in _REAL
    if not fits or not out.flags.writeable:
        raise InputError(
            f"out must be a writable array of shape {shape}, float32 or float64, not "
            f"{getattr(out, 'dtype', type(out).__name__)} {getattr(out, 'shape', '')}."
        )
