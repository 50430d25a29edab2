from .backends import show_config
from .containers import open_h5, open_zarr
from .errors import InputError, MemoryLimitError, RidgemmError, StorageError, WorkerError
from .estimators import Ridge, RidgeCV
from .forecast import Forecast
from .genetics import open_bed
from .maintenance import Cleaning, Verification, clean, verify
from .permutation import permutation_test
from .planning import plan
from .results import PermutationResult, load
from .schemes import permutation_scheme
from .views import delayed, hstack, vstack, zscored

__version__: str

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
    "delayed",
    "hstack",
    "load",
    "open_bed",
    "open_h5",
    "open_zarr",
    "permutation_scheme",
    "permutation_test",
    "plan",
    "show_config",
    "verify",
    "vstack",
    "zscored",
]
