"""A tile of targets: its rows, its cross-products with X, its projections Z.

Everything here is float32 products into workspaces. Phases that read are shared out by rows,
phases that multiply by strips of targets; a strip is the work of one thread.
"""

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from ridgemm.factors import FactorMaker, Factors, Request
from ridgemm.folds import Fold
from ridgemm.kernels import (
    column_moments,
    gather_rows,
    gather_signed_rows,
    round_columns,
    subtract_outer,
    take_rounded_rows,
)
from ridgemm.mapreduce import Crew
from ridgemm.nuisance import Nuisance
from ridgemm.products import multiply
from ridgemm.scores import ROUNDED, variation
from ridgemm.sources import Reader, Source
from ridgemm.tiles import row_pieces, spans, width
from ridgemm.workspace import Workspace

_ROWS_AT_ONCE = 16
_ROUNDED_AT_ONCE = 256  # columns
_SIGN = np.uint16(0x8000)


@dataclass(frozen=True)
class Data:
    """The two sources and how they are read.

    Attributes
    ----------
    X, Y : Source
    x_shift, y_shift : float32 arrays
        Subtracted from every column while reading.
    nuisance : Nuisance
        What is removed from the targets, fold by fold.
    row_step : int
        Rows of X in one product.
    skip : (n_targets,) bool, optional
        Targets with missing values; a resident tile has zeros in their place, so that they
        can stay in every product and harm none.
    in_place : (q, n_targets) float64, optional
        Y is read without N times this, which stays in place whatever is permuted; None where
        every training set takes all of it away again.
    precision : {"single", "mixed", "bf16"}
        Of products with targets, see `ridgemm.products`.
    """

    X: Source
    Y: Source
    x_shift: np.ndarray
    y_shift: np.ndarray
    nuisance: Nuisance
    row_step: int
    skip: np.ndarray | None = None
    in_place: np.ndarray | None = None
    precision: str = "single"


@dataclass(frozen=True)
class FoldView:
    """A fold as a tile sees it: rows, atoms and factors.

    Attributes
    ----------
    train, test : int arrays
    in_train, in_test : (n_atoms,) bool
    factors : Factors, optional
        None where operators hold all that is needed.
    weights : (q, q) float64
        W of the targets, see `ridgemm.nuisance`.
    """

    train: np.ndarray
    test: np.ndarray
    in_train: np.ndarray
    in_test: np.ndarray
    factors: Factors | None
    weights: np.ndarray


def make_views(maker: FactorMaker, family: str, requests: Sequence[Request]) -> list[FoldView]:
    """Views of the folds of `requests`, their factors made or found."""
    return [
        make_view(maker.nuisance, request.fold, request.in_train, request.in_test, factors)
        for request, factors in zip(requests, maker.make(family, requests), strict=True)
    ]


def make_view(
    nuisance: Nuisance,
    fold: Fold,
    in_train: np.ndarray,
    in_test: np.ndarray,
    factors: Factors | None = None,
) -> FoldView:
    """View of a fold, of the atoms that its sets are made of."""
    weights = nuisance.y_weights(nuisance.gram(fold.train))
    return FoldView(fold.train, fold.test, in_train, in_test, factors, weights)


@dataclass(frozen=True)
class Order:
    """A rearrangement of the samples: row i of the data is ``signs[i] * Y[rows[i]]``."""

    rows: np.ndarray
    signs: np.ndarray | None = None


class TargetTile:
    """A tile of targets in the workspaces of a crew.

    Under permutation the columns of a tile are those of its targets once for each order, so
    that many permutations of few targets make one product. Y itself is never rearranged: rows
    are gathered when they are wanted.

    Parameters
    ----------
    data : Data
    columns : slice
        The targets.
    crew : Crew
    resident : bool
        Hold all rows of the tile (routes that multiply by samples, permutations); otherwise
        rows pass through once, into cross-products.
    """

    def __init__(self, data: Data, columns: slice, crew: Crew, resident: bool):
        self.data, self.columns, self.crew = data, columns, crew
        self.size = self.n_targets = width(columns)
        self._x = Reader(data.X, data.x_shift)
        self._y = Reader(data.Y, data.y_shift)
        self._all_x = slice(0, data.X.shape[1])
        self.targets = np.arange(columns.start, columns.stop)
        self._orders: list[Order] = []
        self.products = False
        self.Y: np.ndarray | None = None
        self.residuals: np.ndarray | None = None
        self._rounded: np.ndarray | None = None
        if resident:
            n = data.Y.shape[0]
            self.Y = self._y.tile(slice(0, n), columns, crew.shared, "Y", crew.team, stays=True)
            if data.skip is not None and data.skip[columns].any():
                self.Y = np.where(data.skip[columns], np.float32(0), self.Y)

    def keep(self, some: np.ndarray) -> None:
        """Go on with some of the targets of a resident tile."""
        if len(some) < self.n_targets:
            self.Y = np.ascontiguousarray(self.Y[:, some])
            self._rounded = None
            self.targets = self.targets[some]
            self.n_targets = self.size = len(some)

    def permute(self, orders: list[Order]) -> None:
        """Let the columns be those of the targets in each of `orders`; none is the observed."""
        self._orders = orders
        self.size = max(1, len(orders)) * self.n_targets
        if orders and self.data.precision == "bf16" and self._rounded is None:
            # some may be the observed order, which fills a product up
            self._round(signed=any(order.signs is not None for order in orders))

    def _round(self, signed: bool) -> None:
        self._rounded = self.crew.shared.array("rounded Y", self.Y.shape, np.uint16)
        # what flips sign does so about zero
        centred = self.data.nuisance.n_plain > 0 and not signed

        def round_strip(_: int, strip: slice) -> None:
            sums = np.zeros((2, width(strip)))
            if centred:
                column_moments(self.Y[:, strip], *sums)
            mean = (sums[0] / len(self.Y)).astype(np.float32)
            round_columns(self.Y[:, strip], mean, self._rounded[:, strip])

        self.crew.team.run(round_strip, spans(self.n_targets, _ROUNDED_AT_ONCE))

    def load_atoms(self, atoms: Sequence[np.ndarray], strips: list[slice], products: bool) -> None:
        """``N_a.T Y_a``, sums of squares and, if asked for, ``X_a.T Y_a`` of every atom a."""
        nuisance = self.data.nuisance
        self.products = products
        self.grams = np.stack([nuisance.gram(atom) for atom in atoms])
        self.sums = self.crew.shared.zeros("sums", (len(atoms), nuisance.N.shape[1], self.size))
        self.squares = self.crew.shared.zeros("squares", (len(atoms), self.size))
        if products:
            p = self.data.X.shape[1]
            self.C = list(self.crew.shared.array("C", (len(atoms), p, self.size)))
            self._projected: set[int] = set()
        for a, atom in enumerate(atoms):
            for i, rows in enumerate(row_pieces(atom, self.data.row_step)):
                self._add_rows(a, i > 0, rows, strips)
        if products:
            self.C_total = self.C[0]
            if len(atoms) > 1:
                self.C_total = self.crew.shared.array("C total", self.C[0].shape)
                self._add_up(self.C, self.C_total)

    def load_residuals(self, whole: FoldView, operators: np.ndarray, strips: list[slice]) -> None:
        """Residuals of the fit to all samples, for every alpha.

        Parameters
        ----------
        whole : FoldView
            Trains on all samples.
        operators : (n_alphas, n_samples, n_samples) float32
            As of `ridgemm.downdates.residual_operators`.
        strips : list of slice
        """
        shape = (*operators.shape[:2], self.size)
        self.residuals = self.crew.shared.array("residuals", shape)
        stacked = operators.reshape(-1, operators.shape[2])
        out = self.residuals.reshape(-1, self.size)

        def add(slot: int, strip: slice) -> None:
            workspace = self.crew.slots[slot]
            effects = self.train_effects(whole, strip)
            y = self.gather(whole.train, effects, strip, workspace, "train")
            self.multiply(stacked, y, out[:, strip], workspace)

        self.crew.team.run(add, strips)

    def residuals_of(
        self, a: int, rows: slice | np.ndarray, strip: slice, workspace: Workspace
    ) -> np.ndarray:
        """Rows of the loaded residuals of one alpha."""
        residuals = self.residuals[a][:, strip]
        if isinstance(rows, slice):
            return residuals[rows]
        out = workspace.array("aside", (len(rows), width(strip)))
        gather_rows(residuals, rows, np.zeros(width(strip), np.float32), out)
        return out

    def joined(self, parts: Sequence[np.ndarray]) -> "TargetTile":
        """The same targets and orders, in atoms that are unions of those that are loaded.

        Good until the next call; what is loaded stays.

        Parameters
        ----------
        parts : sequence of int arrays
            The loaded atoms of each union.
        """
        tile = copy.copy(self)
        tile.grams, tile.sums, tile.squares = (
            np.stack([moments[part].sum(axis=0) for part in parts])
            for moments in (self.grams, self.sums, self.squares)
        )
        if not self.products:
            return tile
        n_unions = sum(len(part) > 1 for part in parts)
        shape = (n_unions, *self.C_total.shape)
        unions = iter(self.crew.shared.array("joined C", shape))
        tile.C = [next(unions) if len(part) > 1 else self.C[part[0]] for part in parts]
        for part, C in zip(parts, tile.C, strict=True):
            if len(part) > 1:
                self._add_up([self.C[i] for i in part], C)
        if sum(map(len, parts)) < len(self.C):
            tile.C_total = self.crew.shared.array("joined total", self.C_total.shape)
            self._add_up(tile.C, tile.C_total)
        return tile

    def _add_up(self, parts: Sequence[np.ndarray], out: np.ndarray) -> None:
        def add(_: int, rows: slice) -> None:
            # few rows at a time: their sum stays near the processor
            out[rows] = parts[0][rows]
            for part in parts[1:]:
                out[rows] += part[rows]

        self.crew.team.run(add, spans(len(out), _ROWS_AT_ONCE))

    def _add_rows(
        self, a: int, accumulate: bool, rows: slice | np.ndarray, strips: list[slice]
    ) -> None:
        crew = self.crew
        x = None
        if self.products:
            x = self._x.tile(rows, self._all_x, crew.shared, "x", crew.team)
        passing = None
        if self.Y is None:
            passing = self._y.tile(rows, self.columns, crew.shared, "y", crew.team)

        first, explicit = self.data.nuisance.n_plain, self.data.nuisance.explicit[rows]

        def add(slot: int, strip: slice) -> None:
            if passing is not None:
                y = passing[:, strip]
            else:
                nothing = np.zeros((1, width(strip)))
                y = self.gather(rows, nothing, strip, crew.slots[slot], "atom")
            plain = self.sums[a, 0, strip] if first else np.zeros(width(strip))
            column_moments(y, plain, self.squares[a, strip])
            if explicit.shape[1]:
                double = crew.slots[slot].array("double", y.shape, np.float64)
                double[...] = y
                self.sums[a, first:, strip] += explicit.T @ double
            if x is not None:
                # never strips side by side in one product: on some kernels the last bits of a
                # column depend on its place in the product
                self.multiply(x.T, y, self.C[a][:, strip], crew.slots[slot], accumulate)

        crew.team.run(add, strips)

    def multiply(
        self,
        A: np.ndarray,
        B: np.ndarray,
        out: np.ndarray,
        workspace: Workspace,
        accumulate: bool = False,
    ) -> None:
        """``out = A @ B``, or ``out += A @ B``, in the precision of the data."""
        multiply(A, B, out, self.data.precision, workspace, accumulate)

    # -- per strip ---------------------------------------------------------------------------

    def train_effects(self, fold: FoldView, strip: slice) -> np.ndarray:
        """(q, n_strip) float64 effects of the nuisance on the (shifted) targets in training.

        Directions of what stays in place that training does not show are kept: they have the
        negative effect on the values that the tile holds without it.
        """
        effects = fold.weights @ self._total(self.sums, fold.in_train, strip)
        if self.data.in_place is not None:
            gram = self.grams[fold.in_train].sum(axis=0)
            targets = self.targets[np.arange(strip.start, strip.stop) % self.n_targets]
            effects += (fold.weights @ gram - np.eye(len(gram))) @ self.data.in_place[:, targets]
        return effects

    def train_mean(self, fold: FoldView, strip: slice) -> np.ndarray:
        """Training means, at mean confounds, of the (shifted) targets; 0 without an intercept."""
        return self.train_effects(fold, strip)[0]

    def _total(self, moments: np.ndarray, atoms: np.ndarray, strip: slice) -> np.ndarray:
        return moments[..., strip][atoms].sum(axis=0)

    def centered_moments(
        self, fold: FoldView, atoms: np.ndarray, strip: slice
    ) -> tuple[float, np.ndarray, np.ndarray]:
        """Count, sums and sums of squares over `atoms` about the training effects, all weighted."""
        gram, effects = self.grams[atoms].sum(axis=0), self.train_effects(fold, strip)
        total = self._total(self.sums, atoms, strip)
        given = self._total(self.squares, atoms, strip)
        fitted = gram @ effects
        square = given + (effects * (fitted - 2 * total)).sum(axis=0)
        n = gram[0, 0]
        if self.data.nuisance.n_plain:
            n = int(n)
        else:
            # equal values are no longer equal once they were scaled and rounded
            square[square <= ROUNDED * given] = 0
        return n, total[0] - fitted[0], square

    def is_constant(self, fold: FoldView, strip: slice) -> np.ndarray:
        """Which targets do not vary over the training rows."""
        return variation(*self.centered_moments(fold, fold.in_train, strip)) == 0

    def gather(
        self,
        rows: slice | np.ndarray,
        effects: np.ndarray,
        strip: slice,
        workspace: Workspace,
        name: str,
    ) -> np.ndarray:
        """Rows of a resident tile about N times `effects`, in the order of each column."""
        if not self._orders and isinstance(rows, slice) and not effects.any():
            return self.Y[rows, strip]
        nuisance = self.data.nuisance
        mean = effects[0] if nuisance.n_plain else np.zeros(width(strip))
        out = self._gather(rows, mean, strip, workspace, name)
        others = effects[nuisance.n_plain :]
        if others.any():
            out -= nuisance.explicit[rows] @ others
        return out

    def operand(
        self,
        rows: np.ndarray,
        effects: np.ndarray,
        strip: slice,
        workspace: Workspace,
        name: str,
    ) -> np.ndarray:
        """The same for a product, in bfloat16 where it would be rounded to that.

        About one mean, not that of each fold: a constant does not show in any product with
        centred rows, and rounding is as small about either.
        """
        others = effects[self.data.nuisance.n_plain :]
        if self._rounded is None or not self._orders or others.any():
            return self.gather(rows, effects, strip, workspace, name)
        out = workspace.array(name, (len(rows), width(strip)), np.uint16)
        for order, targets, here in self._order_pieces(strip):
            flips = np.zeros(len(rows), np.uint16)
            if order.signs is not None:
                flips[order.signs[rows] < 0] = _SIGN
            take_rounded_rows(self._rounded[:, targets], order.rows[rows], flips, out[:, here])
        return out

    def _gather(
        self,
        rows: slice | np.ndarray,
        mean: np.ndarray,
        strip: slice,
        workspace: Workspace,
        name: str,
    ) -> np.ndarray:
        n_rows = width(rows) if isinstance(rows, slice) else len(rows)
        out = workspace.array(name, (n_rows, width(strip)))
        mean = mean.astype(np.float32)
        if not self._orders:
            index = np.arange(rows.start, rows.stop) if isinstance(rows, slice) else rows
            gather_rows(self.Y[:, strip], index, mean, out)
            return out
        for order, targets, here in self._order_pieces(strip):
            source, index = self.Y[:, targets], order.rows[rows]
            if order.signs is None:
                gather_rows(source, index, mean[here], out[:, here])
            else:
                gather_signed_rows(source, index, order.signs[rows], mean[here], out[:, here])
        return out

    def _order_pieces(self, strip: slice) -> Iterator[tuple[Order, slice, slice]]:
        """Orders in a strip: targets of each, and their place in the strip."""
        t = self.n_targets
        for i in range(strip.start // t, -(-strip.stop // t)):
            start, stop = max(strip.start, i * t), min(strip.stop, (i + 1) * t)
            yield (
                self._orders[i],
                slice(start - i * t, stop - i * t),
                slice(start - strip.start, stop - strip.start),
            )

    def project_products(
        self, fold: FoldView, atoms: np.ndarray, strip: slice, workspace: Workspace, name: str
    ) -> np.ndarray:
        """``V.T C`` over a set of atoms, features centred: the projections Z of a tall fold."""
        factors = fold.factors
        C = self._sum_products(atoms, strip, workspace)
        Z = workspace.array(name, (len(factors.eigenvalues), width(strip)))
        self.multiply(factors.basis.T, C, Z, workspace)
        for center, total in zip(factors.center, self._total(self.sums, atoms, strip), strict=True):
            subtract_outer(center, total, Z)
        return Z

    def project_split(
        self, fold: FoldView, strip: slice, workspace: Workspace
    ) -> tuple[np.ndarray, np.ndarray]:
        """Projections of the training and of the test rows of a tall fold."""
        test = self.project_products(fold, fold.in_test, strip, workspace, "test")
        complement = (fold.in_train != fold.in_test).all()
        if complement and fold.in_train.sum() > fold.in_test.sum():
            # what training leaves out is projected already: no products need be subtracted
            Z = self.project_products(fold, np.ones_like(fold.in_train), strip, workspace, "Z")
            np.subtract(Z, test, out=Z)
            return Z, test
        return self.project_products(fold, fold.in_train, strip, workspace, "Z"), test

    def _sum_products(self, atoms: np.ndarray, strip: slice, workspace: Workspace) -> np.ndarray:
        """``X.T Y`` over a set of atoms: by what is in it or, if that is less, by what is not."""
        chosen, others = np.flatnonzero(atoms), np.flatnonzero(~atoms)
        if len(chosen) == 1:
            return self.C[chosen[0]][:, strip]
        out = workspace.array("C", (len(self.C_total), width(strip)))
        by_rest = len(others) < len(chosen) - 1
        total, rest = (self.C_total, others) if by_rest else (self.C[chosen[0]], chosen[1:])
        total, add = total[:, strip], np.subtract if by_rest else np.add
        for a in rest:
            total = add(total, self.C[a][:, strip], out=out)
        return total

    def project_all(self, fold: FoldView, strip: slice, workspace: Workspace) -> np.ndarray:
        """Z of a fold's training rows, from whatever the tile holds.

        One atom has one fold, that of all samples: Z takes the place of the products it was made
        of, and the next call finds it there.
        """
        if not self.products:
            return self.project_samples(fold, strip, workspace)
        if len(self.C) > 1:
            return self.project_products(fold, fold.in_train, strip, workspace, "Z")
        kept = self.C[0][: len(fold.factors.eigenvalues), strip]
        if strip.start in self._projected:
            Z = workspace.array("Z", kept.shape)
            Z[...] = kept
            return Z
        Z = self.project_products(fold, fold.in_train, strip, workspace, "Z")
        kept[...] = Z
        self._projected.add(strip.start)
        return Z

    def project_samples(self, fold: FoldView, strip: slice, workspace: Workspace) -> np.ndarray:
        """``U.T y`` (dual) or ``(X V).T y`` (svd) of the training rows: the projections Z."""
        factors = fold.factors
        left = factors.basis if factors.rotated is None else factors.rotated
        y = self.operand(fold.train, self.train_effects(fold, strip), strip, workspace, "train")
        Z = workspace.array("Z", (left.shape[1], width(strip)))
        self.multiply(left.T, y, Z, workspace)
        return Z
