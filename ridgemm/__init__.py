"""ridgemm: memory-mapped, tiled, single-precision ridge regression of very many targets."""

from ridgemm.errors import InputError, MemoryLimitError, RidgemmError, StorageError
from ridgemm.estimators import RidgeCV
from ridgemm.results import load

__version__ = "0.1.0"

__all__ = [
    "InputError",
    "MemoryLimitError",
    "RidgeCV",
    "RidgemmError",
    "StorageError",
    "load",
]
