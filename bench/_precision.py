"""Which precisions of products this machine has."""

from __future__ import annotations

import inspect
from collections.abc import Callable

from ridgemm.products import lack_of

NULL = ("single", "mixed", "bf16")
FIT = NULL[:2]


def usable(function: Callable, wanted: tuple[str, ...]) -> tuple[str, ...]:
    """Those of `wanted` that a function takes and this machine can make; "single" always."""
    if "precision" not in inspect.signature(function).parameters:
        return tuple(name for name in wanted if name == "single")
    return tuple(name for name in wanted if lack_of(name) is None)


def left_out(function: Callable, wanted: tuple[str, ...]) -> list[str]:
    """Why the others are missing."""
    absent = [name for name in wanted if name not in usable(function, wanted)]
    return [f"{name}: needs {lack_of(name) or 'a later version'}" for name in absent]
