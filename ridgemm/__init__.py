"""ridgemm: memory-mapped, tiled, single-precision ridge regression of very many targets."""

from ridgemm.backends import show_config
from ridgemm.containers import open_h5, open_zarr
from ridgemm.errors import InputError, MemoryLimitError, RidgemmError, StorageError, WorkerError
from ridgemm.estimators import Ridge, RidgeCV
from ridgemm.forecast import Forecast
from ridgemm.genetics import open_bed
from ridgemm.maintenance import Cleaning, Verification, clean, verify
from ridgemm.permutation import permutation_test
from ridgemm.planning import plan
from ridgemm.results import PermutationResult, load
from ridgemm.schemes import permutation_scheme
from ridgemm.views import delayed, hstack, vstack, zscored

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
