"""Libraries of the extras, imported when they are wanted."""

import importlib
from typing import Any

from ridgemm.errors import InputError


def import_optional(module: str, extra: str, purpose: str) -> Any:
    """A module of a library that an extra installs.

    Parameters
    ----------
    module : str
        Dotted name, such as "matplotlib.figure".
    extra : str
        The extra that installs it.
    purpose : str
        What needs it, to begin the message with.

    Raises
    ------
    InputError
        It is not installed; names the extra.

    Examples
    --------
    >>> import_optional("math", "neuro", "this").floor(1.5)
    1
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise InputError(
            f"{purpose} needs {module.partition('.')[0]}, which is not installed: "
            f"pip install 'ridgemm[{extra}]'."
        ) from error
