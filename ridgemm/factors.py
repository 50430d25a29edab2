r"""Factors of a training fold's X: the square-matrix work that no target takes part in.

With the training rows centred (and standardised) as :math:`\tilde X`,

.. math:: \tilde X^T \tilde X = V\,\mathrm{diag}(w)\,V^T \quad\text{(primal)}, \qquad
          \tilde X \tilde X^T = U\,\mathrm{diag}(w)\,U^T \quad\text{(dual)},

a target y needs no more than :math:`Z = V^T \tilde X^T y` (or :math:`U^T y`): the coefficients
(or dual coefficients) of alpha are :math:`V D` (or :math:`U D`) with :math:`D = Z / (w + alpha)`,
and its held-out predictions :math:`P D` with :math:`P = \tilde X_{test} V` (or
:math:`\tilde X_{test} \tilde X^T U`). Centring and scaling are folded into these matrices, once.

Square matrices are made in float64 (`ridgemm.grams`) and kept in float32 for the products.

An entry holds (see `Factors` for shapes): ``eigenvalues``, ``basis``, ``mean``, ``scale``,
``center`` and, as its kind requires, ``heldout``, ``apart`` and ``close`` or ``test_rows``,
``test_sum``, ``rotated``.
"""

import itertools
import logging
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ridgemm import blas, lapack
from ridgemm.eigen import EPS, eigenbasis, nothing, nuisance_first
from ridgemm.folds import Fold
from ridgemm.grams import AtomStatistics, DualGram, dual_grams, usable_scale
from ridgemm.lapack import Matrices
from ridgemm.mapreduce import Crew, one_blas_thread, threads_per_worker
from ridgemm.nuisance import Nuisance, project_gram
from ridgemm.quadratic import has_few_rows, write_pairs
from ridgemm.sources import Source
from ridgemm.store import Store, create_array, key, save_array
from ridgemm.threads import Team
from ridgemm.tiles import row_pieces, spans, width

log = logging.getLogger("ridgemm")

FORMAT = 8
# order up to which square matrices are small: folds side by side, BLAS on one thread
CONCURRENT = 2048
_STEP = 512


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
    center : (q, k) float64
        ``effects V``; times N, what centring takes from projected feature rows. Zero for dual.
    heldout : (n_test, k) float32, optional
        P.
    apart, close : float32, optional
        ``P.T P`` about the means of the test rows, as `ridgemm.quadratic` has it.
    test_rows : (n_test, k) float32, optional
        P about its means, where the test rows are few.
    test_sum : (q, k) float64, optional
        ``N.T P`` of the test rows: column sums of P, and with the confounds.
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
    apart: np.ndarray | None = None
    close: np.ndarray | None = None
    test_rows: np.ndarray | None = None
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
        For the primal family: what sums of squared predictions are made of, instead of P.
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
    nuisance : Nuisance
        What is removed from X, fold by fold.
    standardize : bool
        Divide by training standard deviations.
    block : int
        Rows (primal) or columns (dual) of X that are read at once.
    scratch : Path
        Folder for what is needed only here.
    at_once : int
        Folds whose factors are made side by side, where they are small.
    in_files : bool
        Keep square matrices in scratch files instead of RAM.
    """

    def __init__(
        self,
        X: Source,
        shift: np.ndarray,
        store: Store,
        fingerprint: str,
        nuisance: Nuisance,
        standardize: bool,
        block: int,
        scratch: Path,
        at_once: int = 1,
        in_files: bool = False,
    ):
        self.at_once = at_once
        self.matrices = Matrices(scratch if in_files else None)
        self.X, self.shift, self.store = X, shift, store
        self.nuisance, self.standardize = nuisance, standardize
        self.centered = nuisance.x_ones or nuisance.n_confounds > 0
        self.block, self.scratch = block, scratch
        self._identity = [FORMAT, fingerprint, nuisance.x_ones, standardize]
        if nuisance.n_confounds or nuisance.weights is not None:
            self._identity += [key(nuisance.N)]
        self._statistics: dict[int, AtomStatistics] = {}
        self._lock = threading.Lock()

    def _fetch(self, kind: str, fold: Fold, build) -> Factors:
        return Factors(**self.store.fetch(self._name(kind, fold), build))

    def entry(self, kind: str, *parts: Any) -> str:
        """Name of an entry of this X that `parts` tell from others of its kind."""
        return f"{kind}-{key(kind, self._identity, *parts)}"

    def _name(self, kind: str, fold: Fold) -> str:
        return self.entry(kind, fold.train, fold.test)

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
        at_once = self.at_once if side <= CONCURRENT else 1
        results: list[Any] = [None] * len(items)

        def call(_: int, i: int) -> None:
            results[i] = function(items[i])

        with one_blas_thread(side <= CONCURRENT), Team(at_once) as team:
            team.run(call, range(len(items)))
        return results

    # -- primal: eigh of the p x p Gram ------------------------------------------------------

    def primal(self, request: Request) -> Factors:
        """Factors by fold statistics: any training Gram is a sum of Grams of atoms."""

        def build(folder: Path) -> None:
            statistics = self._statistics_of(request.atoms)
            G, effects, scale, removed = self._training_gram(statistics, request.in_train)
            n_train = len(request.fold.train)
            # where weights are large, so is what centring took
            weight = np.sqrt(statistics.totals(request.in_train)[0][0, 0] / n_train)
            eigenvalues, V = eigenbasis(G, n_train, weight * removed / scale, self.matrices)
            V /= scale
            _save_vectors(folder, eigenvalues, effects, scale, V)
            _save_matrix(folder / "basis.npy", V.T)
            if not len(request.fold.test):
                return
            if not request.quadratic:
                self._rotate(request.fold.test, V.T, effects, folder / "heldout.npy")
                return
            gram, total = statistics.totals(request.in_test)
            total -= gram @ effects
            _save(folder, test_sum=total @ V.T)
            # about the means of the test rows
            about = effects.copy()
            about[0] += total[0] / gram[0, 0]
            if has_few_rows(len(request.fold.test), len(scale)):
                self._rotate(request.fold.test, V.T, about, folder / "test_rows.npy")
                return
            P_gram = self.matrices.empty((len(scale), len(scale)))
            statistics.centered(request.in_test, about, P_gram)
            write_pairs(folder, eigenvalues, V, P_gram, self.matrices)

        return self._fetch(_primal_kind(request), request.fold, build)

    def _statistics_of(self, atoms: Sequence[np.ndarray]) -> AtomStatistics:
        # keyed by identity: the caller holds the atoms of a group for as long as this maker
        with self._lock:
            if id(atoms) not in self._statistics:
                self._statistics.clear()
                path = self.scratch / "atoms.npy"
                with Crew(threads_per_worker(1)) as crew:
                    self._statistics[id(atoms)] = AtomStatistics(
                        self.X, self.shift, atoms, self.block, path, self.nuisance, crew.team
                    )
            return self._statistics[id(atoms)]

    def _training_gram(
        self, statistics: AtomStatistics, in_train: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        gram, total = statistics.totals(in_train)
        effects = self.nuisance.x_weights(gram) @ total
        removed = _root_mean_square(effects, gram)
        G = self.matrices.empty((len(removed), len(removed)))
        statistics.centered(in_train, effects, G)
        scale = np.ones_like(removed)
        if self.standardize:
            scale = usable_scale(np.sqrt(np.maximum(np.diag(G), 0) / gram[0, 0]), removed)
            G /= scale
            G /= scale[:, None]
        return G, effects, scale, removed

    def _rotate(self, rows: np.ndarray, V: np.ndarray, effects: np.ndarray, path: Path) -> None:
        """Write ``(X[rows] - N[rows] effects) V``, in float64 products of row blocks."""
        out = create_array(path, (len(rows), V.shape[1]), np.float32)
        for piece, values in self._row_blocks(rows):
            values -= self.nuisance.N[rows[piece]] @ effects
            out[piece] = values @ V

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
            effects, scale, removed = self._row_moments(fold.train)
            R = self._triangle(fold.train, effects, scale)
            singular, Vt = lapack.svd(R, self.matrices)
            total = self.nuisance.gram(fold.train)[0, 0]
            cancelled = np.sqrt(total) * np.max(removed / scale)
            kept = singular > EPS * max(R.shape) * max(singular[0], cancelled)
            # the largest come first
            eigenvalues, V = singular[kept] ** 2, Vt[: kept.sum()]
            if not kept.any():
                eigenvalues, V = nothing(R.shape[1])
            V /= scale
            _save_vectors(folder, eigenvalues, effects, scale, V)
            _save_matrix(folder / "basis.npy", V.T)
            V = V.T
            self._rotate(fold.train, V, effects, folder / "rotated.npy")
            if len(fold.test):
                self._rotate(fold.test, V, effects, folder / "heldout.npy")

        return self._fetch("svd", fold, build)

    def _triangle(self, rows: np.ndarray, effects: np.ndarray, scale: np.ndarray) -> np.ndarray:
        """R of the standardised rows, or the rows themselves where they are fewer than columns."""
        N, p, filled = self.nuisance.N[rows], self.X.shape[1], 0
        stack = self.matrices.empty((lapack.stack_rows(len(rows), p, self.block), p))
        for piece, values in self._row_blocks(rows):
            if filled + len(values) > len(stack):
                lapack.triangle_of(stack[:filled])
                filled = p
            values -= N[piece] @ effects
            values /= scale
            stack[filled : filled + len(values)] = values
            filled += len(values)
        if filled > p:
            lapack.triangle_of(stack[:filled])
        return stack[: min(filled, p)]

    def _row_moments(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        N, gram = self.nuisance.N[rows], self.nuisance.gram(rows)
        effects, scale = np.zeros((len(gram), self.X.shape[1])), np.ones(self.X.shape[1])
        if self.centered:
            total = sum(N[piece].T @ values for piece, values in self._row_blocks(rows))
            effects = self.nuisance.x_weights(gram) @ total
        removed = _root_mean_square(effects, gram)
        if self.standardize:
            squares = np.zeros_like(scale)
            for piece, values in self._row_blocks(rows):
                values -= N[piece] @ effects
                squares += np.einsum("ij,ij->j", values, values)
            scale = usable_scale(np.sqrt(squares / gram[0, 0]), removed)
        return effects, scale, removed

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

        def build(folder: Path) -> None:
            m, n = len(fold.test), len(fold.train)
            out = create_array(folder / "operator.npy", (len(basis) * m, n), np.float32)
            for i, member in enumerate(basis):
                blas.gemm(factors.heldout * member, factors.basis.T, out[i * m : (i + 1) * m])

        name = self.entry("operator", fold.train, fold.test, basis)
        return self.store.fetch(name, build)["operator"]

    def _build_dual(self, folder: Path, gram: DualGram, fold: Fold) -> None:
        train, m = fold.train, len(fold.train)
        inner = self.matrices.empty((m, m))
        for rows in spans(m, _STEP):
            inner[rows] = gram.K[train[rows]][:, train]
        largest = inner.diagonal().max() if self.centered else 0.0
        N = self.nuisance.N[train]
        W = self.nuisance.x_weights(N.T @ N)
        row_effects = W @ (N.T @ inner)
        if self.centered:
            # twice: what the first leaves of large means is their rounding, which is no feature
            project_gram(inner, N, np.arange(m), W)
            project_gram(inner, N, np.arange(m), W)
        eigenvalues = lapack.eigh(inner, self.matrices)
        U = inner
        # the null space stays, at exactly 0: LOO and GCV need all of it; what centring cancelled
        # leaves its rounding
        null = eigenvalues <= EPS * m * max(eigenvalues[-1], largest)
        if self.centered:
            directions = self.nuisance.directions(train)
            null[: len(directions)] = True
            nuisance_first(U, int(null.sum()), directions)
        eigenvalues[null] = 0
        _save(folder, eigenvalues=eigenvalues, center=np.zeros((1, m)))
        _save_matrix(folder / "basis.npy", U.T)
        if self.standardize or m == len(gram.K):
            mean = gram.mean if self.nuisance.x_ones else np.zeros_like(gram.mean)
            _save(folder, mean=mean, scale=gram.scale)
        if self.nuisance.x_ones and m == len(gram.K):
            _save(folder, drift=gram.drift)
        if not len(fold.test):
            return
        U[null] = 0
        P = create_array(folder / "heldout.npy", (len(fold.test), m), np.float32)
        for rows in spans(len(fold.test), _STEP):
            outer = gram.K[fold.test[rows]][:, train]
            if self.centered:
                outer -= self.nuisance.N[fold.test[rows]] @ row_effects
                outer -= ((outer @ N) @ W) @ N.T
            P[rows] = outer @ U.T

    def _dual_grams(self, folds: Sequence[Fold]) -> list[DualGram]:
        if self.standardize:
            return self._grams([fold.train for fold in folds])
        name = self.entry("gram")

        def build(folder: Path) -> None:
            (gram,) = self._grams([None])
            save_array(folder / "K.npy", gram.K)
            _save(folder, mean=gram.mean, scale=gram.scale, drift=gram.drift)

        return [DualGram(**self.store.fetch(name, build, counted=False))]

    def _grams(self, sets: Sequence[np.ndarray | None]) -> list[DualGram]:
        with Crew(threads_per_worker(1)) as crew:
            return dual_grams(
                self.X, self.shift, sets, self.block, self.scratch, self.nuisance, crew.team
            )


def _save(folder: Path, **vectors: np.ndarray) -> None:
    for name, vector in vectors.items():
        save_array(folder / f"{name}.npy", vector)


def _save_vectors(
    folder: Path, eigenvalues: np.ndarray, effects: np.ndarray, scale: np.ndarray, V: np.ndarray
) -> None:
    """What a primal or svd entry holds of its features; V (k, n_features) is scaled."""
    center = effects @ V.T
    _save(folder, eigenvalues=eigenvalues, mean=effects[0], scale=scale, center=center)


def _root_mean_square(effects: np.ndarray, gram: np.ndarray) -> np.ndarray:
    """Of what N times `effects` takes from each feature; of means alone, their magnitude."""
    squares = np.einsum("ij,ij->j", effects, gram @ effects)
    return np.sqrt(np.maximum(squares, 0) / gram[0, 0])


def _save_matrix(path: Path, matrix: np.ndarray) -> None:
    """Write a matrix as the row-major float32 of the products, by blocks."""
    out = create_array(path, matrix.shape, np.float32)
    for rows in spans(matrix.shape[0], _STEP):
        for columns in spans(matrix.shape[1], _STEP):
            out[rows, columns] = matrix[rows, columns]


def _primal_kind(request: Request) -> str:
    return "primal-" + ("quadratic" if request.quadratic else "products")
