"""The errors that ridgemm raises: each names the argument, the value and the remedy."""


class RidgemmError(Exception):
    """Base of every error that ridgemm raises on purpose."""


class InputError(RidgemmError, ValueError):
    """An argument or the data cannot be used; nothing has been computed."""


class MemoryLimitError(RidgemmError, ValueError):
    """The problem does not fit the memory limit; the smallest that would do is in the text."""


class StorageError(RidgemmError, OSError):
    """A folder or a file cannot be written, read or trusted."""


class WorkerError(RidgemmError, RuntimeError):
    """Worker processes were killed, again and again."""
