"""A team of threads inside one process.

BLAS runs on one thread per call and Numba kernels are serial; the team runs many such calls
at once on disjoint strips whose borders the plan has fixed. So a result does not depend on
the number of threads, on any BLAS.
"""

import itertools
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any


class Team:
    """`size` threads that share out a list of items; each has a slot for its own workspace.

    Examples
    --------
    >>> done = []
    >>> with Team(2) as team:
    ...     team.run(lambda slot, item: done.append(item), [1, 2, 3])
    >>> sorted(done)
    [1, 2, 3]
    """

    def __init__(self, size: int):
        self.size = size
        # one thread is the caller itself: a team of one starts none
        self._pool = ThreadPoolExecutor(size - 1) if size > 1 else None

    def run(self, function: Callable[[int, Any], None], items: Sequence[Any]) -> None:
        """Call ``function(slot, item)`` for every item; no two calls share a slot at once."""
        turn = itertools.count()

        def work(slot: int) -> None:
            while (i := next(turn)) < len(items):
                function(slot, items[i])

        helpers = min(self.size, len(items)) - 1
        futures = [self._pool.submit(work, slot + 1) for slot in range(helpers)]
        try:
            work(0)
        finally:
            # an error in one slot must not leave the others writing to a workspace
            errors = [future.exception() for future in futures]
        for error in errors:
            if error is not None:
                raise error

    def __enter__(self) -> "Team":
        return self

    def __exit__(self, *exc: object) -> None:
        if self._pool is not None:
            self._pool.shutdown()
