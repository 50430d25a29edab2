"""Progress: a bar on a terminal, a line of the log now and then elsewhere."""

import io
import logging
import sys
from typing import Any

log = logging.getLogger("ridgemm")

_SECONDS = 60.0


def progress(show: bool | None, label: str, total: float) -> Any:
    """A bar, as tqdm has it, to be used in a ``with`` block.

    Parameters
    ----------
    show : bool, optional
        A bar or nothing; by default a bar if stderr is a terminal, and otherwise a line a
        minute to the logger "ridgemm" at INFO.
    label : str
    total : float
    """

    from tqdm import tqdm

    layout = "{desc}: {percentage:3.0f}%|{bar}| {n:.0f}/{total_fmt} [{elapsed}<{remaining}]"
    options = {"total": total, "desc": label}
    if show is not None or sys.stderr.isatty():
        return tqdm(disable=show is False, bar_format=f"{layout} {{rate_fmt}}", **options)

    class Lines(tqdm):
        def display(self, msg: str | None = None, pos: int | None = None) -> None:
            log.info("%s", self)

    plain = layout.replace("|{bar}|", ",")
    # what tqdm writes besides goes nowhere
    return Lines(bar_format=plain, mininterval=_SECONDS, miniters=0, file=io.StringIO(), **options)
