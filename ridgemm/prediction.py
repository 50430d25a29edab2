r"""Predictions and scores of a fitted model, a tile at a time.

.. math:: \hat y = (x - x_0)^T B + y_0

with the training means :math:`x_0, y_0`: x is centred while it is read, so that features with
mean 1000 and sd 1 lose no digit. On the dual route :math:`B = S^{-2} (X - x_0)^T \Delta`, and the
kernel of new with training samples takes the place of x; B itself is never needed.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import DTypeLike

from ridgemm import blas
from ridgemm.errors import InputError, MemoryLimitError
from ridgemm.fitplan import format_bytes, overhead
from ridgemm.kernels import column_moments, product_moments
from ridgemm.mapreduce import Crew, threads_per_worker, waiting_workers
from ridgemm.predictplan import PER_FEATURE, PER_TARGET, STRIP, Steps, plan_steps
from ridgemm.scores import Moments, score
from ridgemm.sources import Reader, Source, scan
from ridgemm.store import create_array
from ridgemm.tiles import spans, width

_BLOCK = 1 << 16
_REAL = (np.dtype(np.float32), np.dtype(np.float64))


@dataclass(frozen=True)
class LinearModel:
    """Coefficients and offsets of all targets.

    Attributes
    ----------
    coef : (n_targets, n_features) or (n_targets, n_train) float32
        Primal, or dual if `train` is given.
    x_offset : (n_features,) float32
    y_offset : (n_targets,) float64
    train : Source, optional
        Training X, for dual coefficients.
    scale : (n_features,) float64, optional
        Its standard deviations, where they were divided out.
    """

    coef: np.ndarray
    x_offset: np.ndarray
    y_offset: np.ndarray
    train: Source | None = None
    scale: np.ndarray | None = None

    @property
    def n_targets(self) -> int:
        """Number of targets."""
        return len(self.y_offset)

    def steps(self, n: int, limit: int, out_bytes: int, scored: bool) -> Steps:
        """Blocks of `n` new samples within a limit that covers the model in RAM, too.

        Raises
        ------
        MemoryLimitError
            The smallest blocks need more; says how much.
        """
        t, (n_train, p) = self.n_targets, (0, self.coef.shape[1])
        if self.train is not None:
            n_train, p = self.train.shape
        in_ram = 0 if isinstance(self.coef, np.memmap) else self.coef.nbytes
        fixed = overhead(max(1, waiting_workers())) + in_ram + out_bytes
        fixed += PER_TARGET * t + PER_FEATURE * p
        steps = plan_steps((n, p, t), n_train, threads_per_worker(1), limit - fixed, scored)
        if (needed := fixed + steps.n_bytes) > limit:
            raise MemoryLimitError(
                f"memory_limit={format_bytes(limit)} is too small: {n} samples x {t} targets need "
                f"at least {needed} bytes ({format_bytes(needed)}); raise the limit"
                + (", or give out=, a float32 memmap." if out_bytes else ".")
            )
        return steps


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
    steps = model.steps(shape[0], limit, n_bytes, scored=False)
    if out is None:
        out = np.empty(shape, dtype)
    check_out(out, shape)

    def write(rows: slice, strip: slice, prediction: np.ndarray) -> None:
        if effects is not None:
            prediction += effects[0][rows] @ effects[1][:, strip]
        np.add(prediction, model.y_offset[strip], out=out[rows, strip], casting="unsafe")

    with Crew(threads_per_worker(1)) as crew:
        scan(X, crew.team)
        for rows, left in _left_blocks(model, X, crew, steps):
            _predict_rows(model, rows, left, crew, write)
    return out


def score_targets(model: LinearModel, X: Source, Y: Source, scoring: str, limit: int) -> np.ndarray:
    """Score of every target (n_targets,) float64 in one reading of X and Y.

    Raises
    ------
    MemoryLimitError
        The limit is too small; says which would do.
    """
    t = model.n_targets
    steps = model.steps(X.shape[0], limit, 0, scored=True)
    shift = model.y_offset.astype(np.float32)
    y_reader = Reader(Y, shift)
    one = np.zeros((1, 2), dtype=np.int64)
    with Crew(threads_per_worker(1)) as crew:
        scan(X, crew.team)
        scan(Y, crew.team)
        # not before: a scan has sums of its own
        y_sums, sums = np.zeros((2, t)), np.zeros((1, 3, t))

        def add(y: np.ndarray, first: int, slot: int, strip: slice, prediction: np.ndarray):
            here = y[:, strip.start - first : strip.stop - first]
            column_moments(here, y_sums[0, strip], y_sums[1, strip])
            product_moments(prediction[None], here, one, sums[:, :, strip], sums[0, 1:2, strip])

        for rows, left in _left_blocks(model, X, crew, steps):
            for columns in spans(t, steps.targets):
                y = y_reader.tile(rows, columns, crew.shared, "y", crew.team)
                strips = [
                    slice(columns.start + s.start, columns.start + s.stop)
                    for s in spans(width(columns), STRIP)
                ]

                def strip_scores(slot: int, strip: slice, y=y, left=left, columns=columns) -> None:
                    prediction = _strip_prediction(model, left, strip, crew, slot)
                    add(y, columns.start, slot, strip, prediction)

                crew.team.run(strip_scores, strips)
    scores = np.empty(t)
    # by blocks: the moments are all the memory that a million targets may take
    for some in spans(t, _BLOCK):
        y, y_square = y_sums[:, some]
        moments = Moments(X.shape[0], y, y_square, *(sums[:, i, some] for i in range(3)))
        scores[some] = score(scoring, moments)[0]
    return scores


def primal_coefficients(model: LinearModel, path, limit: int) -> np.ndarray:
    """``coef`` (n_targets, n_features) of a dual model, in RAM or, if `path` is given, a file."""
    n, p = model.train.shape
    shape = (model.n_targets, p)
    coef = np.empty(shape, np.float32) if path is None else create_array(path, shape, np.float32)
    step = max(64, min(p, limit // (16 * n)))
    with Crew(threads_per_worker(1)) as crew:
        reader = Reader(model.train, model.x_offset)
        for columns in spans(p, step):
            x = reader.tile(slice(0, n), columns, crew.shared, "x", crew.team)

            def fill(_: int, strip: slice, columns=columns, x=x) -> None:
                tile = coef[strip, columns]
                blas.gemm(model.coef[strip], x, tile)
                if model.scale is not None:
                    tile /= (model.scale[columns] ** 2).astype(np.float32)

            crew.team.run(fill, spans(model.n_targets, STRIP))
    return coef


def _left_blocks(model: LinearModel, X: Source, crew: Crew, steps: Steps):
    """Blocks of rows of the left operand: centred features, or the kernel with training rows."""
    features = Reader(X, model.x_offset)
    for rows in spans(X.shape[0], steps.rows):
        if model.train is None:
            columns = slice(0, steps.p)
            yield rows, features.tile(rows, columns, crew.shared, "left", crew.team)
        else:
            yield rows, _kernel(model, features, rows, crew, steps.columns)


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


def _predict_rows(model: LinearModel, rows: slice, left: np.ndarray, crew: Crew, write) -> None:
    def strip_prediction(slot: int, strip: slice) -> None:
        write(rows, strip, _strip_prediction(model, left, strip, crew, slot))

    crew.team.run(strip_prediction, spans(model.n_targets, STRIP))


def _strip_prediction(
    model: LinearModel, left: np.ndarray, strip: slice, crew: Crew, slot: int
) -> np.ndarray:
    prediction = crew.slots[slot].array("prediction", (len(left), width(strip)))
    blas.gemm(left, model.coef[strip].T, prediction)
    return prediction


def check_out(out: np.ndarray, shape: tuple[int, ...]) -> None:
    """Refuse what predictions of a shape cannot be written to."""
    fits = isinstance(out, np.ndarray) and out.shape == shape and out.dtype in _REAL
    if not fits or not out.flags.writeable:
        raise InputError(
            f"out must be a writable array of shape {shape}, float32 or float64, not "
            f"{getattr(out, 'dtype', type(out).__name__)} {getattr(out, 'shape', '')}."
        )
