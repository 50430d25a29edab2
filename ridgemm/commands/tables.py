"""Columns of text files: conditions and runs, a line for each sample."""

import csv
from pathlib import Path
from typing import TYPE_CHECKING

from ridgemm.errors import InputError, one_line

if TYPE_CHECKING:
    import numpy as np

_SEPARATORS = {".txt": None, ".csv": ",", ".tsv": "\t"}


def is_table(spec: str) -> bool:
    """Whether a text on the command line names a text file, with or without a column.

    Examples
    --------
    >>> is_table("runs.txt:1"), is_table("runs.csv"), is_table("runs.npy")
    (True, True, False)
    """
    return _split(spec)[0].suffix.lower() in _SEPARATORS


def read_column(spec: str, name: str) -> "np.ndarray":
    """A column of a text file, as integers where all of it are.

    Parameters
    ----------
    spec : str
        ``PATH:COLUMN``, with a number from 0, or a name that the first line holds. Only
        ``PATH`` where there is but one column. ``.txt`` is split at white space, ``.csv`` at
        commas, ``.tsv`` at tabulators.
    name : str
        What it is for, for messages.

    Returns
    -------
    (n_samples,) array of int64 or str

    Raises
    ------
    InputError
        There is no such file or column, or lines are of different lengths.
    """
    import numpy as np

    path, column = _split(spec)
    lines = _read(path, name)
    if not lines:
        raise InputError(f"{name}={str(path)!r} has no line; give one for each sample.")
    wrong = next((i for i, line in enumerate(lines) if len(line) != len(lines[0])), None)
    if wrong is not None:
        raise InputError(
            f"{name}={str(path)!r}: line {wrong + 1} has {len(lines[wrong])} columns, the first "
            f"has {len(lines[0])}."
        )
    if column is not None and not column.isdecimal():
        header, *lines = lines
        if column not in header:
            raise InputError(
                f"{name}={str(path)!r} has no column {column!r}; the first line has "
                f"{', '.join(map(repr, header))}."
            )
        column = header.index(column)
    width = len(lines[0]) if lines else 0
    if column is None and width != 1:
        raise InputError(
            f"{name}={str(path)!r} has {width} columns; say which, such as {path}:0 for the first."
        )
    column = int(column or 0)
    if column >= width:
        raise InputError(
            f"{name}={str(path)!r} has {width} columns, 0 to {width - 1}; {column} is not one."
        )
    values = np.array([line[column] for line in lines])
    try:
        return values.astype(np.int64)
    except ValueError:
        return values


def read_numbers(path: str, name: str) -> "np.ndarray":
    """All columns of a text file of numbers, (n_samples, n_columns) float64.

    A first line of names is left out.

    Raises
    ------
    InputError
        There is no such file, or it holds something else.
    """
    import numpy as np

    lines = _read(Path(path), name)
    try:
        if lines and not _is_number(lines[0][0]):
            lines = lines[1:]
        return np.array(lines, dtype=np.float64).reshape(len(lines), -1)
    except ValueError as error:
        raise InputError(
            f"{name}={path!r} is no table of numbers ({one_line(error)}); give the same number of "
            "columns in every line."
        ) from error


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _split(spec: str) -> tuple[Path, str | None]:
    path, colon, column = spec.rpartition(":")
    if colon and Path(path).suffix.lower() in _SEPARATORS:
        return Path(path), column
    return Path(spec), None


def _read(path: Path, name: str) -> list[list[str]]:
    separator = _SEPARATORS[path.suffix.lower()]
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            if separator is None:
                lines = [line.split() for line in file]
            else:
                lines = [
                    [cell.strip() for cell in line]
                    for line in csv.reader(file, delimiter=separator)
                ]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(
            f"{name}={str(path)!r} cannot be read as a text file ({one_line(error)})."
        ) from error
    return [line for line in lines if line]
