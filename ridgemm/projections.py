"""A tile of targets: its rows, its cross-products with X, its projections Z.

Everything here is float32 products into workspaces. Phases that read are shared out by rows,
phases that multiply by strips of targets; a strip is the work of one thread.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ridgemm import blas
from ridgemm.factors import Factors
from ridgemm.kernels import column_moments, gather_rows, subtract_outer
from ridgemm.mapreduce import Crew
from ridgemm.scores import variation
from ridgemm.sources import Reader, Source
from ridgemm.tiles import row_pieces, width
from ridgemm.workspace import Workspace


@dataclass(frozen=True)
class Data:
    """The two sources and how they are read.

    Attributes
    ----------
    X, Y : Source
    x_shift, y_shift : float32 arrays
        Subtracted from every column while reading.
    intercept : bool
        Targets are centred by their training means.
    row_step : int
        Rows of X in one product.
    """

    X: Source
    Y: Source
    x_shift: np.ndarray
    y_shift: np.ndarray
    intercept: bool
    row_step: int


@dataclass(frozen=True)
class FoldView:
    """A fold as a tile sees it: rows, atoms and factors.

    Attributes
    ----------
    train, test : int arrays
    in_train, in_test : (n_atoms,) bool
    factors : Factors
    """

    train: np.ndarray
    test: np.ndarray
    in_train: np.ndarray
    in_test: np.ndarray
    factors: Factors


class TargetTile:
    """A tile of targets in the workspaces of a crew.

    Parameters
    ----------
    data : Data
    columns : slice
        The targets.
    crew : Crew
    resident : bool
        Hold all rows of the tile (routes that multiply by samples); otherwise rows pass
        through once, into cross-products.
    """

    def __init__(self, data: Data, columns: slice, crew: Crew, resident: bool):
        self.data, self.columns, self.crew = data, columns, crew
        self.size = width(columns)
        self._x = Reader(data.X, data.x_shift)
        self._y = Reader(data.Y, data.y_shift)
        self._all_x = slice(0, data.X.shape[1])
        self.products = False
        self.Y: np.ndarray | None = None
        if resident:
            n = data.Y.shape[0]
            self.Y = self._y.tile(slice(0, n), columns, crew.shared, "Y", crew.team)

    def load_atoms(self, atoms: Sequence[np.ndarray], strips: list[slice], products: bool) -> None:
        """Sums, sums of squares and, if asked for, ``X_a.T Y_a`` of every atom a."""
        shape = (len(atoms), self.size)
        self.products = products
        self.counts = np.array([len(atom) for atom in atoms])
        self.sums = self.crew.shared.zeros("sums", shape)
        self.squares = self.crew.shared.zeros("squares", shape)
        if products:
            p = self.data.X.shape[1]
            self.C = self.crew.shared.array("C", (len(atoms), p, self.size))
        for a, atom in enumerate(atoms):
            for i, rows in enumerate(row_pieces(atom, self.data.row_step)):
                x = self._features(rows) if products else None
                self._add_rows(a, i > 0, x, self._rows(rows), strips)

    def _add_rows(
        self,
        a: int,
        accumulate: bool,
        x: np.ndarray | None,
        y: np.ndarray,
        strips: list[slice],
    ) -> None:
        def add(_: int, strip: slice) -> None:
            column_moments(y[:, strip], self.sums[a, strip], self.squares[a, strip])
            if x is not None:
                blas.gemm(x.T, y[:, strip], self.C[a][:, strip], accumulate)

        self.crew.team.run(add, strips)

    def _features(self, rows: slice | np.ndarray) -> np.ndarray:
        return self._x.tile(rows, self._all_x, self.crew.shared, "x", self.crew.team)

    def _rows(self, rows: slice | np.ndarray) -> np.ndarray:
        if self.Y is None:
            return self._y.tile(rows, self.columns, self.crew.shared, "y", self.crew.team)
        if isinstance(rows, slice):
            return self.Y[rows]
        out = self.crew.shared.array("y", (len(rows), self.size))
        nothing = self.crew.shared.zeros("no shift", (self.size,), np.float32)
        gather_rows(self.Y, rows, nothing, out)
        return out

    # -- per strip ---------------------------------------------------------------------------

    def train_mean(self, fold: FoldView, strip: slice) -> np.ndarray:
        """Training means of the (shifted) targets, 0 without an intercept. float64."""
        if not self.data.intercept:
            return np.zeros(width(strip))
        return self._total(self.sums, fold.in_train, strip) / len(fold.train)

    def _total(self, moments: np.ndarray, atoms: np.ndarray, strip: slice) -> np.ndarray:
        return moments[:, strip][atoms].sum(axis=0)

    def centered_moments(
        self, fold: FoldView, atoms: np.ndarray, strip: slice
    ) -> tuple[int, np.ndarray, np.ndarray]:
        """Count, sums and sums of squares over `atoms` about the training means."""
        n = int(self.counts[atoms].sum())
        mean = self.train_mean(fold, strip)
        total = self._total(self.sums, atoms, strip)
        square = self._total(self.squares, atoms, strip)
        return n, total - n * mean, square - 2 * mean * total + n * mean**2

    def is_constant(self, fold: FoldView, strip: slice) -> np.ndarray:
        """Which targets do not vary over the training rows."""
        return variation(*self.centered_moments(fold, fold.in_train, strip)) == 0

    def gather(
        self, rows: np.ndarray, mean: np.ndarray, strip: slice, workspace: Workspace, name: str
    ) -> np.ndarray:
        """Rows of a resident tile about `mean`."""
        out = workspace.array(name, (len(rows), width(strip)))
        gather_rows(self.Y[:, strip], rows, mean.astype(np.float32), out)
        return out

    def project_products(
        self, fold: FoldView, atoms: np.ndarray, strip: slice, workspace: Workspace, name: str
    ) -> np.ndarray:
        """``V.T C`` over a set of atoms, features centred: the projections Z of a tall fold."""
        factors = fold.factors
        shape = (self.C.shape[1], width(strip))
        chosen = np.flatnonzero(atoms)
        C = self.C[chosen[0]][:, strip]
        if len(chosen) > 1:
            total = workspace.array("C", shape)
            np.add(C, self.C[chosen[1]][:, strip], out=total)
            for a in chosen[2:]:
                total += self.C[a][:, strip]
            C = total
        Z = workspace.array(name, (len(factors.eigenvalues), width(strip)))
        blas.gemm(factors.basis.T, C, Z)
        subtract_outer(factors.center, self._total(self.sums, atoms, strip), Z)
        return Z

    def project_all(self, fold: FoldView, strip: slice, workspace: Workspace) -> np.ndarray:
        """Z of a fold's training rows, from whatever the tile holds."""
        if self.products:
            return self.project_products(fold, fold.in_train, strip, workspace, "Z")
        return self.project_samples(fold, strip, workspace)

    def project_samples(self, fold: FoldView, strip: slice, workspace: Workspace) -> np.ndarray:
        """``U.T y`` (dual) or ``(X V).T y`` (svd) of the training rows: the projections Z."""
        factors = fold.factors
        left = factors.basis if factors.rotated is None else factors.rotated
        y = self.gather(fold.train, self.train_mean(fold, strip), strip, workspace, "train")
        Z = workspace.array("Z", (left.shape[1], width(strip)))
        blas.gemm(left.T, y, Z)
        return Z
