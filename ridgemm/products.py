r"""Products with targets in the precision of a run.

======  =====================================================================================
single  Products of float32 matrices, with the error of float32 (about 4e-7 of the largest).
mixed   Each operand as two bfloat16 parts, :math:`A B \approx A_1 B_1 + A_1 B_2 + A_2 B_1`,
        summed in float32 on the processor's matrix units (about 5e-6).
bf16    One bfloat16 part each (about 5e-3), on matrix or vector units: for data that a
        permutation has scrambled.
======  =====================================================================================

Parts are made of blocks, on the fly: the parts of a block cost as much as a few rows of its
product, and no operand is held twice. Products with pairs of eigenvalues (`ridgemm.quadratic`) stay
in float32: they amplify its rounding.
"""

import warnings

import numpy as np

from ridgemm import blas
from ridgemm.backends import bfloat16, has_amx, has_bfloat16
from ridgemm.errors import InputError, one_line
from ridgemm.kernels import round_parts, split_parts
from ridgemm.mapreduce import Crew
from ridgemm.tiles import spans, width
from ridgemm.workspace import Workspace

# bfloat16 parts of an operand
_PARTS = {"single": 0, "mixed": 2, "bf16": 1}
PRECISIONS = tuple(_PARTS)
_SIDE, _DEPTH = 1024, 2048


def usable_precision(precision: str, allowed: tuple[str, ...] = ("single", "mixed")) -> str:
    """`precision`, or "single" with a warning where there are no matrix units to use.

    Raises
    ------
    InputError
        Not one of those allowed.

    Examples
    --------
    >>> usable_precision("single")
    'single'
    """
    if not isinstance(precision, str) or precision not in allowed:
        names = ", ".join(map(repr, allowed))
        raise InputError(f"precision={one_line(precision)} is unknown; choose one of {names}.")
    lacking = lack_of(precision)
    if lacking is None:
        return precision
    warnings.warn(
        f"precision={precision!r} needs {lacking}; products are made in single precision.",
        RuntimeWarning,
        stacklevel=3,
    )
    return "single"


def lack_of(precision: str) -> str | None:
    """What a precision needs and this machine does not have; None if it has all.

    Examples
    --------
    >>> lack_of("single")
    """
    if precision == "single":
        return None
    found = bfloat16()
    emulated = found is not None and found.name == "emulated"
    if not (emulated or has_amx()):
        if precision == "mixed":
            # three products at twice the rate of one
            return "a processor with AMX"
        if not has_bfloat16():
            return "a processor with AMX or AVX512_BF16"
    if found is not None:
        return None
    library, extra = ("oneMKL", "mkl") if has_amx() else ("oneDNN", "onednn")
    return f"{library}, pip install 'ridgemm[{extra}]'"


def workspace_bytes(precision: str) -> int:
    """What a thread holds of parts, at most: a block of either operand.

    Examples
    --------
    >>> workspace_bytes("single"), workspace_bytes("mixed")
    (0, 16777216)
    """
    return 2 * 2 * _PARTS[precision] * _SIDE * _DEPTH


def multiply(
    A: np.ndarray,
    B: np.ndarray,
    out: np.ndarray,
    precision: str,
    workspace: Workspace,
    accumulate: bool = False,
) -> None:
    """``out = A @ B``, or ``out += A @ B``.

    Parameters
    ----------
    A : (m, k), B : (k, n) float32
        As in `ridgemm.blas.gemm`. For "bf16" either may be uint16: bfloat16 already.
    out : (m, n) float32
    precision : {"single", "mixed", "bf16"}
    workspace : Workspace
        Of the calling thread.
    accumulate : bool

    Examples
    --------
    >>> A, out = np.eye(2, dtype=np.float32), np.empty((2, 2), np.float32)
    >>> multiply(A, A, out, "single", Workspace())
    >>> out
    array([[1., 0.],
           [0., 1.]], dtype=float32)
    """
    if precision == "single":
        blas.gemm(A, B, out, accumulate)
        return
    (m, k), n = A.shape, B.shape[1]
    if k == 0:
        blas.gemm(A, B, out, accumulate)
    # blocks of a memory map are slow to take: each would be one, too
    A, B = np.asarray(A), np.asarray(B)
    for depth in spans(k, _DEPTH):
        for columns in spans(n, _SIDE):
            right = _parts(B[depth, columns], precision, workspace, "right parts")
            for rows in spans(m, _SIDE):
                left = _parts(A[rows, depth], precision, workspace, "left parts")
                _add(left, right, out[rows, columns], accumulate or depth.start > 0)


def add_gram(Y: np.ndarray, total: np.ndarray, precision: str, crew: Crew) -> None:
    """Lower triangle of ``total += Y @ Y.T``, its blocks shared out.

    Parameters
    ----------
    Y : (n, t) float32
        As in `multiply`.
    total : (n, n) float64
        Its strict upper triangle is left undefined.
    precision : as in `multiply`
    crew : Crew
    """
    blocks = spans(len(Y), gram_block(len(Y)))
    pairs = [
        (rows, columns) for rows in blocks for columns in blocks if columns.start <= rows.start
    ]

    def add(slot: int, pair: tuple[slice, slice]) -> None:
        (rows, columns), workspace = pair, crew.slots[slot]
        product = workspace.zeros("gram", (width(rows), width(columns)), np.float32)
        if rows == columns and precision == "single":
            blas.syrk(Y[rows].T, product)
        else:
            multiply(Y[rows], Y[columns].T, product, precision, workspace)
        total[rows, columns] += product

    crew.team.run(add, pairs)


def gram_block(n: int) -> int:
    """Rows and columns of a block of `add_gram`: work for some threads, whatever their number.

    Examples
    --------
    >>> gram_block(100), gram_block(5000), gram_block(20_000)
    (128, 625, 1024)
    """
    return min(max(-(-n // 8), 128), 1024)


def _parts(block: np.ndarray, precision: str, workspace: Workspace, name: str) -> list[np.ndarray]:
    """The bfloat16 parts of a block, in its own orientation."""
    if block.dtype == np.uint16:
        return [block]
    turned = block.strides[0] < block.strides[1]
    source = block.T if turned else block
    parts = workspace.array(name, (_PARTS[precision], *source.shape), np.uint16)
    (round_parts if precision == "bf16" else split_parts)(source, *parts)
    return [part.T if turned else part for part in parts]


def _add(
    left: list[np.ndarray], right: list[np.ndarray], out: np.ndarray, accumulate: bool
) -> None:
    # the product of the two low parts is below the rounding of the others
    blas.gemm_bfloat16(left[0], right[0], out, accumulate)
    for low, high in zip(left[1:], right[1:], strict=True):
        blas.gemm_bfloat16(left[0], high, out, True)
        blas.gemm_bfloat16(low, right[0], out, True)
