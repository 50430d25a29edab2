"""The errors that ridgemm raises: each names the argument, the value and the remedy."""

from pathlib import Path


class RidgemmError(Exception):
    """Base of every error that ridgemm raises on purpose."""


class InputError(RidgemmError, ValueError):
    """An argument or the data cannot be used; nothing has been computed."""


class InputTypeError(InputError, TypeError):
    """The same of a thing that is of the wrong kind altogether."""


class MemoryLimitError(RidgemmError, ValueError):
    """The problem does not fit the memory limit; the smallest that would do is in the text."""


class StorageError(RidgemmError, OSError):
    """A folder or a file cannot be written, read or trusted."""


class WorkerError(RidgemmError, RuntimeError):
    """Worker processes were killed, again and again."""


def one_line(thing: object, length: int = 300) -> str:
    """An error or a value as one line of not too many characters."""
    text = " ".join((str(thing) if isinstance(thing, Exception) else repr(thing)).split())
    return text if len(text) <= length else f"{text[:length]}..."


def as_path(folder: object, argument: str) -> Path:
    """The path that an argument gives."""
    try:
        path = Path(folder)
    except TypeError:
        path = None
    if path is None or "\0" in str(path):
        raise InputError(f"{argument}={one_line(folder)} is not a path; give a text or a Path.")
    return path
