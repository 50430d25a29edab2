"""Which precisions of products this machine has."""

from __future__ import annotations

import inspect
from collections.abc import Callable

from ridgemm.backends import bfloat16

NULL = ("single", "mixed", "bf16")
FIT = NULL[:2]


def usable(function: Callable, wanted: tuple[str, ...]) -> tuple[str, ...]:
    """Those of `wanted` that a function takes and matrix units can make; "single" always."""
    if "precision" not in inspect.signature(function).parameters or bfloat16() is None:
        return tuple(name for name in wanted if name == "single")
    return wanted


def left_out(function: Callable, wanted: tuple[str, ...]) -> list[str]:
    """Why the others are missing."""
    absent = [name for name in wanted if name not in usable(function, wanted)]
    return [f"{name}: no oneMKL with matrix units (AMX)" for name in absent]
