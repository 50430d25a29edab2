r"""Genotypes: PLINK ``.bed`` files as sources, two bits a genotype until a tile is read.

.. math:: x_{ij} = g_{ij} \quad\text{or}\quad
   \frac{g_{ij} - 2 f_j}{\sqrt{2 f_j (1 - f_j)}}, \qquad g_{ij} \in \{0, 1, 2\},

the number of copies of the first allele that individual i has at marker j, and :math:`f_j` the
frequency of that allele among the genotypes that are known.
"""

import os
from pathlib import Path
from typing import Any

import numpy as np

from ridgemm.errors import InputError, as_path, one_line
from ridgemm.kernels import decode_dosages
from ridgemm.lazy import Lazy
from ridgemm.tiles import spans

# markers in one call of bed-reader: a few MB of bytes for thousands of individuals
_MARKERS = 1024


class Genotypes(Lazy):
    """The dosages of a ``.bed`` file, (n_individuals, n_markers) float32.

    Attributes
    ----------
    path : str
    missing : (n_markers,) int64
        Missing genotypes of each marker.
    frequency : (n_markers,) float64
        Of the counted allele among the known genotypes; 0 where none is known.
    standardize : bool
    """

    dtype = np.dtype(np.float32)

    def __init__(self, path: str, standardize: bool):
        self.path, self.standardize = os.path.abspath(path), standardize
        self._file = _open_file(self.path)
        self.shape = tuple(int(size) for size in self._file.shape)
        # a marker is one run of bytes: all individuals are read together
        self.chunks = self.shape[0], min(_MARKERS, self.shape[1])
        self.frequency, self.missing = self._count()
        self._table = _table(self.frequency, standardize)

    def _count(self) -> tuple[np.ndarray, np.ndarray]:
        """Allele frequencies and missing genotypes of all markers, from one reading."""
        n, m = self.shape
        frequency, missing = np.zeros(m), np.zeros(m, dtype=np.int64)
        for columns in spans(m, _MARKERS):
            codes = self._codes(slice(0, n), columns)
            missing[columns] = np.count_nonzero(codes < 0, axis=0)
            copies = np.maximum(codes, 0).sum(axis=0, dtype=np.int64)
            frequency[columns] = copies / np.maximum(2 * (n - missing[columns]), 1)
        return frequency, missing

    def _codes(self, rows: slice | np.ndarray, columns: slice) -> np.ndarray:
        """Copies of the allele (int8), negative where missing."""
        return self._file.read(index=(rows, columns), dtype="int8", order="C")

    def read(
        self, rows: slice | np.ndarray, columns: slice, shift: np.ndarray, out: np.ndarray
    ) -> None:
        for part in spans(columns.stop - columns.start, _MARKERS):
            here = slice(columns.start + part.start, columns.start + part.stop)
            codes = self._codes(rows, here)
            decode_dosages(codes, self._table[:, here], shift[part], out[:, part])

    def recipe(self) -> list[Any]:
        return [Path(self.path), self._table]

    @property
    def iid(self) -> np.ndarray:
        """Names of the individuals, from the ``.fam`` file."""
        return self._file.iid

    @property
    def sid(self) -> np.ndarray:
        """Names of the markers, from the ``.bim`` file."""
        return self._file.sid

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_file": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._file = _open_file(self.path)


def _open_file(path: str) -> Any:
    from bed_reader import open_bed as open_file

    return open_file(path)


def _table(frequency: np.ndarray, standardize: bool) -> np.ndarray:
    """Values (4, n_markers) float32 of no, one and two copies, and of a missing genotype."""
    mean = 2 * frequency
    table = np.stack([np.full_like(mean, copies) for copies in range(3)] + [mean])
    if standardize:
        scale = np.sqrt(mean * (1 - frequency))
        table = (table - mean) / np.where(scale > 0, scale, np.inf)
    return table.astype(np.float32)


def open_bed(path: str | Path, standardize: bool = False) -> Genotypes:
    r"""Genotypes of a PLINK ``.bed`` file as a source.

    .. math:: x_{ij} = g_{ij} \quad\text{or, standardised,}\quad
       \frac{g_{ij} - 2 f_j}{\sqrt{2 f_j (1 - f_j)}}

    with :math:`g_{ij}` the copies of the first allele of marker j (A1 of the ``.bim`` file) and
    :math:`f_j` its frequency. A missing genotype is the mean of its marker, :math:`2 f_j`; a
    marker of one allele, standardised, is 0. Frequencies are counted here, in one reading of the
    file, among all individuals.

    Parameters
    ----------
    path : str or Path
        With the ``.bim`` and the ``.fam`` file beside it.
    standardize : bool
        Divide by the standard deviation that a frequency gives under Hardy-Weinberg
        equilibrium, so that ``X @ X.T / n_markers`` is the genetic relationship matrix.
        ``RidgeCV(standardize=True)`` divides by the standard deviation of the training
        samples instead.

    Returns
    -------
    Genotypes
        (n_individuals, n_markers) float32, read by tiles. A tile of all individuals and some
        markers, which wide problems ask for, is read fast; one of few individuals costs as much
        as one of all.

    Raises
    ------
    InputError
        A file is missing or damaged, or bed-reader is not installed.

    Examples
    --------
    >>> import tempfile
    >>> from bed_reader import to_bed
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     to_bed(f"{folder}/g.bed", np.array([[0.0, 2], [1, np.nan], [2, 0]]))
    ...     open_bed(f"{folder}/g.bed")[:, :]
    array([[0., 2.],
           [1., 1.],
           [2., 0.]], dtype=float32)
    """
    return open_genotypes(path, standardize, "path")


def open_genotypes(path: str | Path, standardize: bool, argument: str) -> Genotypes:
    """As `open_bed`; errors name `argument`."""
    path = as_path(path, argument)
    said = f"{argument}={str(path)!r}"
    for file in (path, path.with_suffix(".bim"), path.with_suffix(".fam")):
        if not file.is_file():
            missing = said if file == path else f"{said}: {str(file)!r}"
            raise InputError(f"{missing} does not exist; check the path.")
    try:
        return Genotypes(str(path), bool(standardize))
    except ImportError as error:
        raise InputError(
            f"{said} needs bed-reader, which is not installed: pip install 'ridgemm[genetics]'."
        ) from error
    except Exception as error:
        raise InputError(
            f"{said} cannot be read as a PLINK .bed file ({one_line(error)}); check it and its "
            ".bim and .fam."
        ) from error
