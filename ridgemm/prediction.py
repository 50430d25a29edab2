r"""Predictions and scores of a fitted model, a tile at a time.

.. math:: \hat y = (x - x_0)^T B + y_0

with the training means :math:`x_0, y_0`: x is centred while it is read, so that features with
mean 1000 and sd 1 lose no digit. On the dual route :math:`B = S^{-2} (X - x_0)^T \Delta`, and the
kernel of new with training samples takes the place of x; B itself is never needed. Where one matrix
makes the dual coefficients of all targets, :math:`\Delta = A\,Y`, neither are these: A goes to the
left, and Y is read again.
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
    coef : (n_targets, n_features) or (n_targets, n_train) float32, optional
        Primal, or dual if `train` is given; None where they are made on demand.
    x_offset : (n_features,) float32
    y_offset : (n_targets,) float64
    train : Source, optional
        Training X, for dual coefficients.
    scale : (n_features,) float64, optional
        Its standard deviations, where they were divided out.
    smoother : (n_train, n_train) float32, optional
        A, symmetric, of dual coefficients on demand.
    targets : Reader, optional
        Y of the same.
    """

    coef: np.ndarray | None
    x_offset: np.ndarray
    y_offset: np.ndarray
    train: Source | None = None
    scale: np.ndarray | None = None
    smoother: np.ndarray | None = None
    targets: Reader | None = None

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
        t, (n_train, p) = self.n_targets, (0, len(self.x_offset))
        if self.train is not None:
            n_train, p = self.train.shape
        on_demand = self.coef is None
        in_ram = 0 if on_demand or isinstance(self.coef, np.memmap) else self.coef.nbytes
        fixed = overhead(max(1, waiting_workers())) + in_ram + out_bytes
        fixed += PER_TARGET * t + PER_FEATURE * p
        n_threads, free = threads_per_worker(1), limit - fixed
        steps = plan_steps((n, p, t), n_train, n_threads, free, scored, on_demand)
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

    with Crew(threads_per_worker(1)) as crew:
        scan(X, crew.team)
        for rows, columns, left, right in _tiles(model, X, crew, steps):

            def write(_: int, part: slice, prediction: np.ndarray, rows=rows, columns=columns):
                strip = _inside(columns, part)
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
                here, strip = y[:, part], _inside(columns, part)
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


def primal_coefficients(model: LinearModel, path, limit: int) -> np.ndarray:
    """``coef`` (n_targets, n_features) of a dual model, in RAM or, if `path` is given, a file."""
    n, p = model.train.shape
    coef = _coefficients(path, (model.n_targets, p))
    step = max(64, min(p, limit // (16 * n)))
    with Crew(threads_per_worker(1)) as crew:
        reader = Reader(model.train, model.x_offset)
        for columns in spans(p, step):
            x = reader.tile(slice(0, n), columns, crew.shared, "x", crew.team)
            left = x if model.coef is not None else _smoothed(model, x.T, crew, "smoothed x").T

            def fill(targets: slice, right: np.ndarray, columns=columns, left=left) -> None:
                tile = coef[targets, columns]
                blas.gemm(right.T, left, tile)
                if model.scale is not None:
                    tile /= (model.scale[columns] ** 2).astype(np.float32)

            _fill(model, crew, limit, fill)
    return coef


def dual_coefficients(model: LinearModel, path, limit: int) -> np.ndarray:
    """Dual ``coef`` (n_targets, n_train) that are made on demand, in RAM or in a file."""
    coef = _coefficients(path, (model.n_targets, len(model.smoother)))
    with Crew(threads_per_worker(1)) as crew:
        _fill(
            model,
            crew,
            limit,
            lambda targets, right: blas.gemm(right.T, model.smoother, coef[targets]),
        )
    return coef


def _coefficients(path, shape: tuple[int, int]) -> np.ndarray:
    return np.empty(shape, np.float32) if path is None else create_array(path, shape, np.float32)


def _fill(model: LinearModel, crew: Crew, limit: int, fill) -> None:
    """Call `fill` with strips of targets and their right operands."""
    t = model.n_targets
    step = t if model.coef is not None else max(STRIP, limit // (16 * len(model.smoother)))
    for columns in spans(t, step):
        right = _right(model, columns, crew)

        def one(_: int, part: slice, right=right, columns=columns) -> None:
            fill(_inside(columns, part), right[:, part])

        crew.team.run(one, spans(width(columns), STRIP))


def _tiles(model: LinearModel, X: Source, crew: Crew, steps: Steps):
    """Blocks of rows and of targets, with the operands the product of which is the prediction."""
    for rows, left in _left_blocks(model, X, crew, steps):
        for columns in spans(model.n_targets, steps.targets):
            yield rows, columns, left, _right(model, columns, crew)


def _right(model: LinearModel, columns: slice, crew: Crew) -> np.ndarray:
    """Right operand of some targets: their coefficients, or their rows to make them of."""
    if model.coef is not None:
        return model.coef[columns].T
    rows = slice(0, len(model.smoother))
    return model.targets.tile(rows, columns, crew.shared, "right", crew.team)


def _smoothed(model: LinearModel, left: np.ndarray, crew: Crew, name: str) -> np.ndarray:
    """``left @ A``."""
    out = crew.shared.array(name, left.shape)
    # A is symmetric
    crew.team.run(
        lambda _, part: blas.gemm(left, model.smoother[part].T, out[:, part]),
        spans(left.shape[1], STRIP),
    )
    return out


def _inside(columns: slice, part: slice) -> slice:
    return slice(columns.start + part.start, columns.start + part.stop)


def _left_blocks(model: LinearModel, X: Source, crew: Crew, steps: Steps):
    """Blocks of rows of the left operand: centred features, or the kernel with training rows."""
    features = Reader(X, model.x_offset)
    for rows in spans(X.shape[0], steps.rows):
        if model.train is None:
            columns = slice(0, steps.p)
            yield rows, features.tile(rows, columns, crew.shared, "left", crew.team)
        else:
            kernel = _kernel(model, features, rows, crew, steps.columns)
            if model.coef is None:
                kernel = _smoothed(model, kernel, crew, "smoothed")
            yield rows, kernel


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
