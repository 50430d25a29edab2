"""Peak anonymous memory of a block of code."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

STATUS = Path("/proc/self/status")
INTERVAL = 0.005


def anonymous_bytes() -> int:
    """Return the resident memory of this process that no file backs.

    Pages of a memmap can be dropped at any time and do not count. Where the kernel does
    not tell them apart (macOS, Windows) this is the whole resident memory.
    """
    found = re.search(r"RssAnon:\s*(\d+) kB", STATUS.read_text()) if STATUS.exists() else None
    if found:
        return int(found[1]) * 1024
    import psutil  # only here: Linux does without it

    return psutil.Process().memory_info().rss


@dataclass
class PeakMemory:
    """Anonymous bytes before a block of code, and their peak while it ran."""

    baseline: int
    peak: int

    def sample(self) -> None:
        self.peak = max(self.peak, anonymous_bytes())


@contextmanager
def peak_memory() -> Iterator[PeakMemory]:
    """Measure the block inside, with a thread that samples every 5 ms."""
    now = anonymous_bytes()
    memory = PeakMemory(baseline=now, peak=now)
    stop = threading.Event()

    def watch() -> None:
        while not stop.wait(INTERVAL):
            memory.sample()

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield memory
    finally:
        stop.set()
        thread.join()
        memory.sample()
