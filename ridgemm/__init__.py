"""ridgemm: memory-mapped, tiled, single-precision ridge regression of very many targets."""

from ridgemm.backends import show_config
from ridgemm.errors import InputError, MemoryLimitError, RidgemmError, StorageError, WorkerError
from ridgemm.estimators import Ridge, RidgeCV
from ridgemm.forecast import Forecast
from ridgemm.maintenance import Cleaning, Verification, clean, verify
from ridgemm.permutation import permutation_test
from ridgemm.planning import plan
from ridgemm.results import PermutationResult, load
from ridgemm.schemes import permutation_scheme

__version__ = "0.1.0"

__all__ = [
    "Cleaning",
    "Forecast",
    "InputError",
    "MemoryLimitError",
    "PermutationResult",
    "Ridge",
    "RidgeCV",
    "RidgemmError",
    "StorageError",
    "Verification",
    "WorkerError",
    "clean",
    "load",
    "permutation_scheme",
    "permutation_test",
    "plan",
    "show_config",
    "verify",
]
