r"""Grams of X in float64: ``X.T X`` of sets of rows, or ``X X.T``, from one reading.

float32 would resolve no eigenvalue below 1e-7 of the largest; the flops of square matrices are
few beside those of the targets.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ridgemm import blas
from ridgemm.nuisance import Nuisance
from ridgemm.paging import Ahead
from ridgemm.sources import Source
from ridgemm.store import create_array
from ridgemm.threads import Team
from ridgemm.tiles import row_pieces, spans, width
from ridgemm.workspace import Workspace

# columns of a panel: few, for threads to share, up to an order; more waste less
_PANEL, _SMALL, _ROWS = 128, 2048, 256


class AtomStatistics:
    """Grams of the nuisance N, ``N.T X`` and Grams of the atoms of a group, from one reading.

    The Grams (n_atoms, p, p) lie in a file: the sum over a training set is made in RAM, once
    for each fold. Beside the `team` BLAS has one thread.
    """

    def __init__(
        self,
        X: Source,
        shift: np.ndarray,
        atoms: Sequence[np.ndarray],
        block: int,
        path: Path,
        nuisance: Nuisance,
        team: Team,
    ):
        p = X.shape[1]
        self.nuisance_grams = np.stack([nuisance.gram(atom) for atom in atoms])
        self.sums = np.zeros((len(atoms), nuisance.N.shape[1], p))
        file = create_array(path, (len(atoms) + 1, p, p), np.float64)
        self.grams, self.whole = file[:-1], file[-1]
        workspace = np.empty((block, p))
        for a, atom in enumerate(atoms):
            for rows in row_pieces(atom, block):
                size = width(rows) if isinstance(rows, slice) else len(rows)
                values = workspace[:size]
                _read(X, rows, slice(0, p), shift, values, team)
                self._add_sums(a, nuisance, rows, values, team)
                _add_gram(values, self.grams[a], team)
            blas.symmetrise(self.grams[a])
            self.whole += self.grams[a]

    def _add_sums(
        self,
        a: int,
        nuisance: Nuisance,
        rows: slice | np.ndarray,
        values: np.ndarray,
        team: Team,
    ) -> None:
        explicit = nuisance.explicit[rows].T

        def add(_: int, panel: slice) -> None:
            if nuisance.n_plain:
                self.sums[a, 0, panel] += values[:, panel].sum(axis=0)
            self.sums[a, nuisance.n_plain :, panel] += explicit @ values[:, panel]

        team.run(add, spans(values.shape[1], _PANEL))

    def totals(self, atoms: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """``N.T N`` and ``N.T X`` over a set of atoms."""
        return self.nuisance_grams[atoms].sum(axis=0), self.sums[atoms].sum(axis=0)

    def centered(self, atoms: np.ndarray, effects: np.ndarray, out: np.ndarray) -> None:
        """Gram of a set of atoms about N times `effects`, into `out` (p, p) float64."""
        gram, total = self.totals(atoms)
        chosen, others = np.flatnonzero(atoms), np.flatnonzero(~atoms)
        # by what is in the set or, if that is less, by what is not
        if len(others) + 1 < len(chosen):
            out[...] = self.whole
            for a in others:
                out -= self.grams[a]
        else:
            out[...] = self.grams[chosen[0]]
            for a in chosen[1:]:
                out += self.grams[a]
        if not effects.any():
            return
        # sum (x - E'n)(x - E'n)' = G - (S - A E)' E - E' S, with S = N'X and A = N'N
        rest = total - gram @ effects
        for rows in spans(len(out), 512):
            out[rows] -= rest[:, rows].T @ effects
            out[rows] -= effects[:, rows].T @ total


def _read(
    X: Source,
    rows: slice | np.ndarray,
    columns: slice,
    shift: np.ndarray,
    out: np.ndarray,
    team: Team,
) -> None:
    """As `Source.read`, the rows shared out."""
    if not X.concurrent:
        X.read(rows, columns, shift, out)
        return

    def read(_: int, part: slice) -> None:
        if isinstance(rows, slice):
            some: slice | np.ndarray = slice(rows.start + part.start, rows.start + part.stop)
        else:
            some = rows[part]
        X.read(some, columns, shift, out[part])

    team.run(read, spans(len(out), _ROWS))


def _add_gram(values: np.ndarray, out: np.ndarray, team: Team) -> None:
    """Lower triangle of ``out += values.T @ values``; what lies above the diagonal is spoilt.

    Panels, not a product on many threads: these have the same bits on any number of them.
    """

    def add(_: int, panel: slice) -> None:
        before, rows = slice(0, panel.start), values[:, panel]
        blas.syrk(rows, out[panel, panel], accumulate=True)
        if panel.start:
            blas.gemm(rows.T, values[:, before], out[panel, before], accumulate=True)

    # the largest first
    team.run(add, spans(len(out), _PANEL if len(out) <= _SMALL else 2 * _PANEL)[::-1])


@dataclass(frozen=True)
class DualGram:
    """``X X.T`` (n_samples, n_samples) in float64, and the means and scales of its features.

    ``drift`` is X times what its float32 offset lies above the means.
    """

    K: np.ndarray
    mean: np.ndarray
    scale: np.ndarray
    drift: np.ndarray


def dual_grams(
    X: Source,
    shift: np.ndarray,
    sets: Sequence[np.ndarray | None],
    block: int,
    scratch: Path,
    nuisance: Nuisance,
    team: Team,
) -> list[DualGram]:
    """``X X.T`` over column tiles, one for each training set that standardises it.

    Parameters
    ----------
    X : Source
    shift : (n_features,) float32
        Subtracted from X.
    sets : sequence of int arrays or None
        None standardises nothing.
    block : int
        Columns of a tile.
    scratch : Path
        Folder for what is too large for RAM.
    nuisance : Nuisance
    team : Team
        Beside it BLAS has one thread.
    """
    n, p = X.shape
    m = len(sets)
    grams = create_array(scratch / "grams.npy", (m, n, n), np.float64)
    # files: X may be very wide, and the sets many
    means = create_array(scratch / "means.npy", (m, p), np.float64)
    scales = create_array(scratch / "scales.npy", (m, p), np.float64)
    drifts = np.zeros((m, n))
    workspace = Workspace()
    tiles = spans(p, block)
    for i, columns in enumerate(tiles):
        values = workspace.array("tile", (n, width(columns)), np.float64)
        x_shift = shift[columns]
        with Ahead(X.data, columns) as ahead:
            if i == 0:
                ahead.need(range(n))
            _read(X, slice(0, n), columns, x_shift, values, team)
        for later in tiles[i + 1 : i + 2]:
            # on its way from the disk while this one is multiplied
            Ahead(X.data, later).need(range(n))
        parts = zip(grams, sets, means, scales, drifts, strict=True)
        for K, train, mean, scale, drift in parts:
            tile = values
            if train is None:
                mean[columns], scale[columns] = _mean(values, nuisance), 1
            else:
                tile = workspace.array("scaled", values.shape, np.float64)
                mean[columns], scale[columns] = _standardise(values, train, tile, nuisance)
            _add_gram(tile.T, K, team)
            drift += tile @ (above_mean(x_shift, mean[columns]) / scale[columns])
    for K in grams:
        blas.symmetrise(K)
    return [DualGram(*parts) for parts in zip(grams, means, scales, drifts, strict=True)]


def _mean(values: np.ndarray, nuisance: Nuisance) -> np.ndarray:
    if nuisance.weights is None:
        return values.mean(axis=0)
    return nuisance.N[:, 0] @ values / nuisance.total


def _standardise(
    values: np.ndarray, train: np.ndarray, out: np.ndarray, nuisance: Nuisance
) -> tuple[np.ndarray, np.ndarray]:
    """Means and scales over the rows `train`; `out` is what they make of `values`."""
    N, squares = nuisance.N, np.zeros(values.shape[1])
    total = np.zeros((N.shape[1], values.shape[1]))
    for rows in spans(len(train), 512):
        total += N[train[rows]].T @ values[train[rows]]
    gram = nuisance.gram(train)
    effects = nuisance.x_weights(gram) @ total
    mean = effects[0]
    np.matmul(N, effects, out=out)
    np.subtract(values, out, out=out)
    for rows in spans(len(train), 512):
        piece = out[train[rows]]
        squares += np.einsum("ij,ij->j", piece, piece)
    scale = usable_scale(np.sqrt(squares / gram[0, 0]), mean)
    out /= scale
    return mean, scale


def above_mean(shift: np.ndarray, mean: np.ndarray) -> np.ndarray:
    """What the float32 offset of X lies above its mean, itself relative to `shift`."""
    mean = shift + mean
    return mean.astype(np.float32) - mean


def usable_scale(sd: np.ndarray, mean: np.ndarray) -> np.ndarray:
    """1 for features that are constant but for rounding: centred they are zero already."""
    return np.where(sd > 1e-7 * np.abs(mean), sd, 1.0)
