"""Peak anonymous memory of a block of code, worker processes included."""

from __future__ import annotations

import os
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

INTERVAL = 0.005
#: Of a long run: looking takes half a millisecond, which would be a tenth of one core.
SHARE, LONGEST = 0.001, 0.1


def anonymous_bytes(pid: int) -> int:
    """Return the resident memory of a process that no file backs; 0 if it is gone.

    Pages of a memmap can be dropped at any time and do not count. Where the kernel does
    not tell them apart (macOS, Windows) this is the whole resident memory.
    """
    try:
        found = re.search(r"RssAnon:\s*(\d+) kB", Path(f"/proc/{pid}/status").read_text())
        return int(found[1]) * 1024 if found else psutil.Process(pid).memory_info().rss
    except (OSError, psutil.NoSuchProcess):
        return 0


def family(pid: int) -> list[int]:
    """Return a process and all that it started, and those that they did."""
    if not Path(f"/proc/{pid}/task/{pid}/children").exists():
        try:
            return [pid, *(child.pid for child in psutil.Process(pid).children(recursive=True))]
        except psutil.NoSuchProcess:
            return [pid]
    found, ahead = [], [pid]
    while ahead:
        found.append(ahead.pop())
        for file in Path(f"/proc/{found[-1]}/task").glob("*/children"):
            # a thread may end between the two
            with suppress(OSError):
                ahead += map(int, file.read_text().split())
    return found


def family_bytes(pid: int) -> int:
    """Return the anonymous memory of a process and all its descendants together."""
    return sum(map(anonymous_bytes, family(pid)))


@dataclass
class PeakMemory:
    """Anonymous bytes of a process and its descendants: at first, and their largest sum."""

    pid: int
    baseline: int
    peak: int

    def sample(self) -> None:
        self.peak = max(self.peak, family_bytes(self.pid))


@contextmanager
def peak_memory(pid: int | None = None) -> Iterator[PeakMemory]:
    """Measure a process, by default this one, with a thread that samples every 5 ms.

    After 5 seconds it samples every thousandth of what has passed, after 100 every 0.1.
    """
    pid = os.getpid() if pid is None else pid
    now = family_bytes(pid)
    memory = PeakMemory(pid, baseline=now, peak=now)
    stop = threading.Event()

    def watch() -> None:
        start = time.perf_counter()
        while not stop.wait(min(max(INTERVAL, SHARE * (time.perf_counter() - start)), LONGEST)):
            memory.sample()

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield memory
    finally:
        stop.set()
        thread.join()
        memory.sample()
