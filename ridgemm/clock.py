"""Seconds of the stages of a run."""

import time


class Clock:
    """Laps since it was made.

    Examples
    --------
    >>> clock = Clock()
    >>> clock.lap("scan")
    >>> list(clock.laps)
    ['scan']
    """

    def __init__(self) -> None:
        self.laps: dict[str, float] = {}
        self._last = time.perf_counter()

    def lap(self, name: str) -> None:
        """Note the time since the last lap under `name`."""
        now = time.perf_counter()
        self.laps[name] = self.laps.get(name, 0.0) + now - self._last
        self._last = now
