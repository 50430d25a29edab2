r"""Factors of a training fold's X: the square-matrix work that no target takes part in.

With the training rows centred (and standardised) as :math:`\tilde X`,

.. math:: \tilde X^T \tilde X = V\,\mathrm{diag}(w)\,V^T \quad\text{(primal)}, \qquad
          \tilde X \tilde X^T = U\,\mathrm{diag}(w)\,U^T \quad\text{(dual)},

a target y needs no more than :math:`Z = V^T \tilde X^T y` (or :math:`U^T y`): the coefficients
(or dual coefficients) of alpha are :math:`V D` (or :math:`U D`) with :math:`D = Z / (w + alpha)`,
and its held-out predictions :math:`P D` with :math:`P = \tilde X_{test} V` (or
:math:`\tilde X_{test} \tilde X^T U`). Centring and scaling are folded into these matrices, once.

Square matrices are made in float64: n p^2 flops of the whole are few, and float32 would
resolve no eigenvalue below 1e-7 of the largest. They are kept in float32 for the products.

An entry holds (see `Factors` for shapes): ``eigenvalues``, ``basis``, ``mean``, ``scale``,
``center`` and, as its kind requires, ``heldout``, ``quadratic``, ``test_sum``, ``rotated``.
"""

import itertools
import logging
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ridgemm import blas
from ridgemm.folds import Fold
from ridgemm.mapreduce import one_blas_thread
from ridgemm.sources import Source
from ridgemm.store import Store, create_array, key
from ridgemm.threads import Team
from ridgemm.tiles import row_pieces, spans, width
from ridgemm.workspace import Workspace

log = logging.getLogger("ridgemm")

FORMAT = 3
_CONCURRENT = 2048
_EPS = float(np.finfo(np.float64).eps)


@dataclass(frozen=True)
class Factors:
    """What `FactorMaker` leaves of a fold, as read-only memmaps.

    Attributes
    ----------
    eigenvalues : (k,) float64
        Of the training Gram, clamped at 0; squares of the singular values.
    basis : (n_features, k) or (n_train, k) float32
        V divided by the scale of the features (primal), or U (dual).
    mean, scale : (n_features,) float64, optional
        Of the training features, as shifted; 0 and 1 where unused. A dual fold has them only
        where they cost no second reading.
    center : (k,) float64
        ``V.T mean``; what centring takes from a projected feature row. Zero for dual.
    heldout : (n_test, k) float32, optional
        P.
    quadratic : (k, k) float32, optional
        Upper triangular L with ``L.T L = P.T P``.
    test_sum : (k,) float64, optional
        Column sums of P.
    rotated : (n_train, k) float32, optional
        ``Xtilde V``, so that ``Z = rotated.T y`` at full precision.
    drift : (n_train,) float64, optional
        What the float32 offset of X, by `above_mean`, adds to a prediction per dual coefficient.
    """

    eigenvalues: np.ndarray
    basis: np.ndarray
    center: np.ndarray
    mean: np.ndarray | None = None
    scale: np.ndarray | None = None
    heldout: np.ndarray | None = None
    quadratic: np.ndarray | None = None
    test_sum: np.ndarray | None = None
    rotated: np.ndarray | None = None
    drift: np.ndarray | None = None


@dataclass(frozen=True)
class Request:
    """A fold whose factors are wanted.

    Attributes
    ----------
    fold : Fold
        An empty test set asks for no held-out part.
    atoms : sequence of int arrays
        One sequence (the same object) shares one reading of X.
    in_train, in_test : (n_atoms,) bool
    quadratic : bool
        For the primal family: L (from statistics) instead of P (from the test rows).
    """

    fold: Fold
    atoms: Sequence[np.ndarray]
    in_train: np.ndarray
    in_test: np.ndarray
    quadratic: bool


class FactorMaker:
    """Makes the factors of folds of one X, or finds them in a store.

    Parameters
    ----------
    X : Source
    shift : (n_features,) float32
        Subtracted from X whenever it is read.
    store : Store
    fingerprint : str
        Of X; part of every key.
    centered, standardize : bool
        Remove training means; divide by training standard deviations.
    block : int
        Rows (primal) or columns (dual) of X that are read at once.
    scratch : Path
        Folder for what is needed only here.
    at_once : int
        Folds whose factors are made side by side, where they are small.
    """

    def __init__(
        self,
        X: Source,
        shift: np.ndarray,
        store: Store,
        fingerprint: str,
        centered: bool,
        standardize: bool,
        block: int,
        scratch: Path,
        at_once: int = 1,
    ):
        self.at_once = at_once
        self.X, self.shift, self.store = X, shift, store
        self.centered, self.standardize = centered, standardize
        self.block, self.scratch = block, scratch
        self._identity = [FORMAT, fingerprint, centered, standardize]
        self._statistics: dict[int, AtomStatistics] = {}
        self._lock = threading.Lock()

    def _fetch(self, kind: str, fold: Fold, build) -> Factors:
        return Factors(**self.store.fetch(self._name(kind, fold), build))

    def _name(self, kind: str, fold: Fold) -> str:
        return f"{kind}-{key(kind, self._identity, fold.train, fold.test)}"

    def make(self, family: str, requests: Sequence[Request]) -> list[Factors]:
        """Factors of all `requests` by one family: "primal", "svd" or "dual"."""
        if family == "dual":
            return self.dual([request.fold for request in requests])
        if family == "svd":
            return [self.svd(request.fold) for request in requests]
        made = []
        # one group of atoms after the other: the Grams of a group take disk
        for _, group in itertools.groupby(requests, key=lambda request: id(request.atoms)):
            folds = list(group)
            names = [self._name(_primal_kind(request), request.fold) for request in folds]
            if not all(map(self.store.has, names)):
                self._statistics_of(folds[0].atoms)
            made += self._each(self.primal, folds, self.X.shape[1])
        return made

    def _each(self, function: Callable[[Any], Factors], items: Sequence[Any], side: int):
        """Call `function` for every item, for several at once where their matrices are small.

        A small eigendecomposition gains more from a neighbour than from a second thread; and
        with one thread each, how many there are at once changes no bit.
        """
        at_once = self.at_once if side <= _CONCURRENT else 1
        results: list[Any] = [None] * len(items)

        def call(_: int, i: int) -> None:
            results[i] = function(items[i])

        with one_blas_thread(side <= _CONCURRENT), Team(at_once) as team:
            team.run(call, range(len(items)))
        return results

    # -- primal: eigh of the p x p Gram ------------------------------------------------------

    def primal(self, request: Request) -> Factors:
        """Factors by fold statistics: any training Gram is a sum of Grams of atoms."""

        def build(folder: Path) -> None:
            statistics = self._statistics_of(request.atoms)
            G, mean, scale = self._training_gram(statistics, request.in_train)
            eigenvalues, V = _eigenbasis(G)
            del G
            V /= scale[:, None]
            _save(folder, eigenvalues=eigenvalues, basis=V, mean=mean, scale=scale)
            _save(folder, center=V.T @ mean)
            if not len(request.fold.test):
                return
            if request.quadratic:
                n_test, total = statistics.totals(request.in_test)
                P_gram, _ = statistics.centered(request.in_test, total / n_test)
                P_sum = total - n_test * mean
                _save(folder, quadratic=_triangle(V, P_gram), test_sum=V.T @ P_sum)
            else:
                self._rotate(request.fold.test, V, mean, folder / "heldout.npy")

        return self._fetch(_primal_kind(request), request.fold, build)

    def _statistics_of(self, atoms: Sequence[np.ndarray]) -> "AtomStatistics":
        # keyed by identity: the caller holds the atoms of a group for as long as this maker
        with self._lock:
            if id(atoms) not in self._statistics:
                self._statistics.clear()
                path = self.scratch / "atoms.npy"
                self._statistics[id(atoms)] = AtomStatistics(
                    self.X, self.shift, atoms, self.block, path
                )
            return self._statistics[id(atoms)]

    def _training_gram(
        self, statistics: "AtomStatistics", in_train: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        n, total = statistics.totals(in_train)
        mean = total / n if self.centered else np.zeros_like(total)
        G, _ = statistics.centered(in_train, mean)
        scale = np.ones_like(mean)
        if self.standardize:
            scale = _usable_scale(np.sqrt(np.maximum(np.diag(G), 0) / n), mean)
            G /= scale
            G /= scale[:, None]
        return G, mean, scale

    def _rotate(self, rows: np.ndarray, V: np.ndarray, mean: np.ndarray, path: Path) -> None:
        """Write ``(X[rows] - mean) V`` to `path`, in float64 products of row blocks."""
        out = create_array(path, (len(rows), V.shape[1]), np.float32)
        for piece, values in self._row_blocks(rows):
            values -= mean
            out[piece] = values @ V
        out.flush()

    def _row_blocks(self, rows: np.ndarray):
        """Shifted float64 blocks of rows, in a workspace that is reused."""
        p = self.X.shape[1]
        workspace = np.empty((min(self.block, len(rows)), p))
        done = 0
        for piece in row_pieces(rows, self.block):
            size = width(piece) if isinstance(piece, slice) else len(piece)
            values = workspace[:size]
            self.X.read(piece, slice(0, p), self.shift, values)
            yield slice(done, done + size), values
            done += size

    # -- svd: tiled QR of the training rows, SVD of R ----------------------------------------

    def svd(self, fold: Fold) -> Factors:
        """Factors without squaring the condition number, for small alphas.

        ``X = Q R`` by blocks of rows (only R is kept), ``R = W diag(s) V.T``; then
        ``rotated = X V = Q W diag(s)``.
        """

        def build(folder: Path) -> None:
            mean, scale = self._row_moments(fold.train)
            R = np.empty((0, self.X.shape[1]))
            for _, values in self._row_blocks(fold.train):
                values -= mean
                values /= scale
                R = np.linalg.qr(np.concatenate([R, values]), mode="r")
            _, singular, Vt = np.linalg.svd(R, full_matrices=False)
            kept = singular > _EPS * max(R.shape) * singular[0]
            kept[0] = True  # features that are all constant still make a model: the mean
            V = Vt[kept].T / scale[:, None]
            _save(folder, eigenvalues=singular[kept] ** 2, basis=V, mean=mean, scale=scale)
            _save(folder, center=V.T @ mean)
            self._rotate(fold.train, V, mean, folder / "rotated.npy")
            if len(fold.test):
                self._rotate(fold.test, V, mean, folder / "heldout.npy")

        return self._fetch("svd", fold, build)

    def _row_moments(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        p = self.X.shape[1]
        mean, scale = np.zeros(p), np.ones(p)
        if self.centered:
            mean = sum(values.sum(axis=0) for _, values in self._row_blocks(rows)) / len(rows)
        if self.standardize:
            squares = np.zeros(p)
            for _, values in self._row_blocks(rows):
                values -= mean
                squares += np.einsum("ij,ij->j", values, values)
            scale = _usable_scale(np.sqrt(squares / len(rows)), mean)
        return mean, scale

    # -- dual: eigh of the n x n Gram --------------------------------------------------------

    def dual(self, folds: Sequence[Fold]) -> list[Factors]:
        """Factors of several folds from one reading of X: all are sub-blocks of one Gram.

        Standardised features differ from fold to fold, so that each fold then has a Gram of
        its own, made in the same reading.
        """
        grams: list[DualGram] = []
        lock = threading.Lock()

        def gram(i: int) -> DualGram:
            with lock:
                if not grams:
                    grams.extend(self._dual_grams(folds))
            return grams[i if self.standardize else 0]

        def one(i: int) -> Factors:
            return self._fetch(
                "dual", folds[i], lambda folder: self._build_dual(folder, gram(i), folds[i])
            )

        if not all(self.store.has(self._name("dual", fold)) for fold in folds):
            gram(0)  # on all cores, before the folds share them out
        return self._each(one, range(len(folds)), self.X.shape[0])

    def operator(self, fold: Fold, factors: Factors, basis: np.ndarray) -> np.ndarray:
        """Held-out operators ``P diag(basis[l]) U.T`` of all members, stacked, of a dual fold.

        Returns
        -------
        (q * n_test, n_train) float32
        """
        name = key("operator", self._identity, fold.train, fold.test, basis)

        def build(folder: Path) -> None:
            m, n = len(fold.test), len(fold.train)
            out = create_array(folder / "operator.npy", (len(basis) * m, n), np.float32)
            for i, member in enumerate(basis):
                blas.gemm(factors.heldout * member, factors.basis.T, out[i * m : (i + 1) * m])
            out.flush()

        return self.store.fetch(f"operator-{name}", build)["operator"]

    def _build_dual(self, folder: Path, gram: "DualGram", fold: Fold) -> None:
        inner = gram.K[np.ix_(fold.train, fold.train)]
        row_mean = inner.mean(axis=0) if self.centered else np.zeros(len(inner))
        inner -= row_mean
        inner -= row_mean[:, None] - row_mean.mean()
        eigenvalues, U = np.linalg.eigh(inner)
        del inner
        # the null space stays, at exactly 0: LOO and GCV need all of it
        null = eigenvalues <= _EPS * len(U) * max(eigenvalues[-1], 0)
        if self.centered:
            null[0] = True
            _constant_first(U, int(null.sum()))
        eigenvalues[null] = 0
        _save(folder, eigenvalues=eigenvalues, basis=U, center=np.zeros(len(U)))
        if self.standardize or len(fold.train) == len(gram.K):
            mean = gram.mean if self.centered else np.zeros_like(gram.mean)
            _save(folder, mean=mean, scale=gram.scale)
        if self.centered and len(fold.train) == len(gram.K):
            _save(folder, drift=gram.drift)
        if len(fold.test):
            outer = gram.K[np.ix_(fold.test, fold.train)]
            if self.centered:
                outer -= row_mean
                outer -= outer.mean(axis=1, keepdims=True)
            P = outer @ U
            P[:, null] = 0
            _save(folder, heldout=P)

    def _dual_grams(self, folds: Sequence[Fold]) -> list["DualGram"]:
        if self.standardize:
            return self._accumulate_grams([fold.train for fold in folds])
        name = f"gram-{key('gram', self._identity)}"

        def build(folder: Path) -> None:
            (gram,) = self._accumulate_grams([None])
            np.save(folder / "K.npy", gram.K)
            _save(folder, mean=gram.mean, scale=gram.scale, drift=gram.drift)

        return [DualGram(**self.store.fetch(name, build, counted=False))]

    def _accumulate_grams(self, sets: Sequence[np.ndarray | None]) -> list["DualGram"]:
        """``X X.T`` over column tiles, one for each training set that standardises it."""
        n, p = self.X.shape
        m = len(sets)
        grams = create_array(self.scratch / "grams.npy", (m, n, n), np.float64)
        # files: X may be very wide, and the sets many
        means = create_array(self.scratch / "means.npy", (m, p), np.float64)
        scales = create_array(self.scratch / "scales.npy", (m, p), np.float64)
        drifts = np.zeros((m, n))
        workspace = Workspace()
        for columns in spans(p, self.block):
            values = workspace.array("tile", (n, width(columns)), np.float64)
            shift = self.shift[columns]
            self.X.read(slice(0, n), columns, shift, values)
            parts = zip(grams, sets, means, scales, drifts, strict=True)
            for K, train, mean, scale, drift in parts:
                tile = values
                if train is None:
                    mean[columns], scale[columns] = values.mean(axis=0), 1
                else:
                    tile = workspace.array("scaled", values.shape, np.float64)
                    mean[columns] = values[train].mean(axis=0)
                    np.subtract(values, mean[columns], out=tile)
                    scale[columns] = _usable_scale(tile[train].std(axis=0), mean[columns])
                    tile /= scale[columns]
                blas.syrk(tile.T, K, accumulate=True)
                drift += tile @ (above_mean(shift, mean[columns]) / scale[columns])
        for K in grams:
            blas.symmetrise(K)
        return [DualGram(*parts) for parts in zip(grams, means, scales, drifts, strict=True)]


@dataclass(frozen=True)
class DualGram:
    """``X X.T`` (n_samples, n_samples) in float64, and the means and scales of its features.

    ``drift`` is X times what its float32 offset lies above the means.
    """

    K: np.ndarray
    mean: np.ndarray
    scale: np.ndarray
    drift: np.ndarray


class AtomStatistics:
    """Counts, sums and Grams of the atoms of a fold group, from one reading of X.

    The Grams (n_atoms, p, p) lie in a file: the sum over a training set is made in RAM, once
    for each fold.
    """

    def __init__(
        self,
        X: Source,
        shift: np.ndarray,
        atoms: Sequence[np.ndarray],
        block: int,
        path: Path,
    ):
        p = X.shape[1]
        self.counts = np.array([len(atom) for atom in atoms])
        self.sums = np.zeros((len(atoms), p))
        self.grams = create_array(path, (len(atoms), p, p), np.float64)
        workspace = np.empty((block, p))
        for a, atom in enumerate(atoms):
            for rows in row_pieces(atom, block):
                size = width(rows) if isinstance(rows, slice) else len(rows)
                values = workspace[:size]
                X.read(rows, slice(0, p), shift, values)
                self.sums[a] += values.sum(axis=0)
                blas.syrk(values, self.grams[a], accumulate=True)
            blas.symmetrise(self.grams[a])

    def totals(self, atoms: np.ndarray) -> tuple[int, np.ndarray]:
        """Number of samples and column sums over a set of atoms."""
        return int(self.counts[atoms].sum()), self.sums[atoms].sum(axis=0)

    def centered(self, atoms: np.ndarray, mean: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Gram and column sums of a set of atoms about `mean`."""
        n, total = self.totals(atoms)
        G = np.zeros(self.grams.shape[1:])
        for a in np.flatnonzero(atoms):
            G += self.grams[a]
        # sum (x - m)(x - m)' = G - (s - n m) m' - m s'
        residue = total - n * mean
        if mean.any():
            for rows in spans(len(G), 512):
                G[rows] -= np.multiply.outer(residue[rows], mean)
                G[rows] -= np.multiply.outer(mean[rows], total)
        return G, residue


def above_mean(shift: np.ndarray, mean: np.ndarray) -> np.ndarray:
    """What the float32 offset of X lies above its mean, itself relative to `shift`."""
    mean = shift + mean
    return mean.astype(np.float32) - mean


def _save(folder: Path, **arrays: np.ndarray) -> None:
    """Vectors and scalars stay float64, matrices become the float32 of the products."""
    for name, array in arrays.items():
        array = array if array.ndim < 2 else np.asarray(array, dtype=np.float32, order="C")
        np.save(folder / f"{name}.npy", array)


def _primal_kind(request: Request) -> str:
    return "primal-" + ("quadratic" if request.quadratic else "products")


def _usable_scale(sd: np.ndarray, mean: np.ndarray) -> np.ndarray:
    """1 for features that are constant but for rounding: centred they are zero already."""
    return np.where(sd > 1e-7 * np.abs(mean), sd, 1.0)


def _eigenbasis(G: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Eigenvalues and vectors of G above its numerical null space, which predicts nothing."""
    eigenvalues, V = np.linalg.eigh(G)
    kept = eigenvalues > _EPS * len(G) * max(eigenvalues[-1], 0)
    if not kept.any():
        # features that are all constant still make a model: the mean
        kept[-1] = True
    return np.maximum(eigenvalues[kept], 0), V[:, kept]


def _constant_first(U: np.ndarray, n_null: int) -> None:
    """Turn the first `n_null` columns of U among themselves so that the first is constant."""
    # centring puts the constant into the null space; a Householder reflection finds it there
    inside = U[:, :n_null].sum(axis=0) / np.sqrt(len(U))
    inside[0] += np.copysign(np.linalg.norm(inside), inside[0])
    inside /= np.linalg.norm(inside)
    U[:, :n_null] -= 2 * np.multiply.outer(U[:, :n_null] @ inside, inside)
    U[:, 0] = 1 / np.sqrt(len(U))


def _triangle(V: np.ndarray, P_gram: np.ndarray) -> np.ndarray:
    """Upper triangular L with ``L.T L = V.T P_gram V``."""
    T = V.T @ (P_gram @ V)
    diagonal = np.diag(T)
    floor = max(_EPS * diagonal.max(), np.finfo(np.float64).tiny)
    # a scale for each direction, so that small ones keep their digits
    scale = np.sqrt(np.maximum(diagonal, floor))
    T /= scale
    T /= scale[:, None]
    # fewer test rows than features make T singular: a shift, far less than the rounding of the
    # float32 products that follow, keeps most such pivots positive
    T[np.diag_indices_from(T)] += 100 * len(T) * _EPS
    try:
        return np.linalg.cholesky(T).T * scale
    except np.linalg.LinAlgError:
        # directions that the test rows hardly have: their rounding errors were scaled up
        eigenvalues, Q = np.linalg.eigh(T)
        root = np.sqrt(np.maximum(eigenvalues, 0))[:, None] * Q.T
        return np.linalg.qr(root, mode="r") * scale
