r"""A fitted linear model: its coefficients, or what makes them when they are wanted.

A prediction is the product of a left operand, made of features, with a right one of some targets:

.. math:: \hat y = (x - x_0)^T B + y_0, \qquad B = S^{-2} (X - x_0)^T \Delta, \qquad \Delta = A\,Y .

On the dual route the kernel of new with training samples takes the place of x, and
:math:`\Delta` that of B. Where one matrix makes the dual coefficients of all targets and they would
not fit the memory limit, neither are these made: A goes to the left, and Y is read again.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ridgemm import blas
from ridgemm.errors import InputError, MemoryLimitError
from ridgemm.fitplan import format_bytes, overhead
from ridgemm.mapreduce import Crew, threads_per_worker, waiting_workers
from ridgemm.predictplan import PER_FEATURE, PER_TARGET, STRIP, Steps, plan_steps
from ridgemm.sources import Reader, Source
from ridgemm.store import create_array
from ridgemm.tiles import spans, width

# rows of Y that are looked at again, so many columns at once
_MARKED, _COLUMNS = 8, 1 << 16


@dataclass(frozen=True)
class OnDemand:
    """Dual coefficients ``A (Y - shift)`` that are made when they are wanted.

    Attributes
    ----------
    smoother : (n_train, n_train) float32
        A, symmetric.
    targets : Reader
        Y and its shift.
    mark : str
        Of some rows of Y, by which it is known again.
    """

    smoother: np.ndarray
    targets: Reader
    mark: str

    @classmethod
    def of(cls, smoother: np.ndarray, targets: Reader) -> "OnDemand":
        """Of Y as it is now."""
        return cls(smoother, targets, _mark(targets.source))

    def check(self) -> None:
        """Refuse a Y that is another one than it was.

        Raises
        ------
        InputError
            Some rows have other values: Y was changed in place, or another file put there.
        """
        if _mark(self.targets.source) != self.mark:
            raise InputError(
                "Y has changed since the fit, and dual coefficients are made of it when they are "
                "wanted; fit again, or raise memory_limit for the fit to keep them."
            )


def _mark(source: Source) -> str:
    n, t = source.shape
    rows = np.unique(np.linspace(0, n - 1, _MARKED).astype(np.intp))
    found = hashlib.blake2b(digest_size=16)
    for columns in spans(t, _COLUMNS):
        block = np.empty((len(rows), width(columns)), np.float32)
        source.read(rows, columns, np.zeros(width(columns), np.float32), block)
        found.update(block)
    return found.hexdigest()


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
    on_demand : OnDemand, optional
        What makes dual coefficients where there are none.
    """

    coef: np.ndarray | None
    x_offset: np.ndarray
    y_offset: np.ndarray
    train: Source | None = None
    scale: np.ndarray | None = None
    on_demand: OnDemand | None = None

    @property
    def n_targets(self) -> int:
        """Number of targets."""
        return len(self.y_offset)

    @property
    def fixed_bytes(self) -> int:
        """What is taken of a limit, beside blocks: by the model in RAM and by workers that wait."""
        in_ram = 0
        if self.on_demand is None and not isinstance(self.coef, np.memmap):
            in_ram = self.coef.nbytes
        small = PER_TARGET * self.n_targets + PER_FEATURE * len(self.x_offset)
        return overhead(max(1, waiting_workers())) + in_ram + small

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
        on_demand = self.on_demand is not None
        fixed = self.fixed_bytes + out_bytes
        n_threads, free = threads_per_worker(1), limit - fixed
        steps = plan_steps((n, p, t), n_train, n_threads, free, scored, on_demand)
        if (needed := fixed + steps.n_bytes) > limit:
            raise MemoryLimitError(
                f"memory_limit={format_bytes(limit)} is too small: {n} samples x {t} targets need "
                f"at least {needed} bytes ({format_bytes(needed)}); raise the limit"
                + (", or give out=, a float32 memmap." if out_bytes else ".")
            )
        return steps

    def check(self) -> None:
        """Refuse a Y that has changed, if it is still needed."""
        if self.on_demand is not None:
            self.on_demand.check()

    def right(self, columns: slice, crew: Crew) -> np.ndarray:
        """Right operand of some targets: their coefficients, or their rows to make them of."""
        if self.on_demand is None:
            return self.coef[columns].T
        rows = slice(0, len(self.on_demand.smoother))
        return self.on_demand.targets.tile(rows, columns, crew.shared, "right", crew.team)

    def smoothed(self, left: np.ndarray, crew: Crew, name: str) -> np.ndarray:
        """``left @ A``, in a workspace of that name; `left` itself where coefficients are there."""
        if self.on_demand is None:
            return left
        smoother = self.on_demand.smoother
        out = crew.shared.array(name, left.shape)
        # A is symmetric
        crew.team.run(
            lambda _, part: blas.gemm(left, smoother[part].T, out[:, part]),
            spans(left.shape[1], STRIP),
        )
        return out


def primal_coefficients(model: LinearModel, path: Path | None, free: int) -> np.ndarray:
    """``coef`` (n_targets, n_features) of a dual model, in RAM or, if `path` is given, a file.

    Blocks take three quarters of `free` bytes, or as little as they can.
    """
    n, p = model.train.shape
    coef = _coefficients(model, p, path)
    step = max(64, min(p, free // (16 * n)))
    with Crew(threads_per_worker(1)) as crew:
        reader = Reader(model.train, model.x_offset)
        for columns in spans(p, step):
            x = reader.tile(slice(0, n), columns, crew.shared, "x", crew.team)
            left = model.smoothed(x.T, crew, "smoothed x").T

            def fill(targets: slice, right: np.ndarray, columns=columns, left=left) -> None:
                tile = coef[targets, columns]
                blas.gemm(right.T, left, tile)
                if model.scale is not None:
                    tile /= (model.scale[columns] ** 2).astype(np.float32)

            _fill(model, crew, free, fill)
    return coef


def dual_coefficients(model: LinearModel, path: Path | None, free: int) -> np.ndarray:
    """Dual ``coef`` (n_targets, n_train) that are made on demand, in RAM or in a file."""
    smoother = model.on_demand.smoother
    coef = _coefficients(model, len(smoother), path)
    with Crew(threads_per_worker(1)) as crew:
        _fill(
            model,
            crew,
            free,
            lambda targets, right: blas.gemm(right.T, smoother, coef[targets]),
        )
    return coef


def _coefficients(model: LinearModel, n_columns: int, path: Path | None) -> np.ndarray:
    model.check()
    shape = model.n_targets, n_columns
    return np.empty(shape, np.float32) if path is None else create_array(path, shape, np.float32)


def _fill(
    model: LinearModel, crew: Crew, free: int, fill: Callable[[slice, np.ndarray], None]
) -> None:
    """Call `fill` with strips of targets and their right operands."""
    t = step = model.n_targets
    if model.on_demand is not None:
        step = max(STRIP, free // (16 * len(model.on_demand.smoother)))
    for columns in spans(t, step):
        right = model.right(columns, crew)

        def one(_: int, part: slice, right=right, columns=columns) -> None:
            fill(inside(columns, part), right[:, part])

        crew.team.run(one, spans(width(columns), STRIP))


def inside(columns: slice, part: slice) -> slice:
    """The targets of a part of a tile."""
    return slice(columns.start + part.start, columns.start + part.stop)
