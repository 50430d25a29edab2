from .backends import show_config
from .errors import InputError, MemoryLimitError, RidgemmError, StorageError, WorkerError
from .estimators import RidgeCV
from .forecast import Forecast
from .maintenance import Cleaning, Verification, clean, verify
from .permutation import permutation_test
from .planning import plan
from .results import PermutationResult, load
from .schemes import permutation_scheme

__version__: str

__all__ = [
    "Cleaning",
    "Forecast",
    "InputError",
    "MemoryLimitError",
    "PermutationResult",
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
