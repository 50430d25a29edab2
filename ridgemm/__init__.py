"""ridgemm: memory-mapped, tiled, single-precision ridge regression of very many targets.

Public names are those of ``__init__.pyi``. Each is imported when it is first asked for, so that
``ridgemm --help`` does not wait for Numba and scikit-learn.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

__version__ = "0.1.0"
