"""Hypothesis profiles, and the real data that some tests read."""

import os
import signal
from pathlib import Path

import pytest
from hypothesis import settings

from ridgemm import mapreduce

# before any test imports matplotlib: a machine without a display draws too
os.environ.setdefault("MPLBACKEND", "Agg")

# what a shell starts in the background ignores interrupts, and hands that on: tests send some
signal.signal(signal.SIGINT, signal.default_int_handler)

# no deadline: the first example of a test also pays for compilation
settings.register_profile("dev", deadline=None, max_examples=25)
settings.register_profile("ci", deadline=None, max_examples=25, derandomize=True, print_blob=True)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "dev"))


@pytest.fixture(autouse=True)
def _no_worker_waits(monkeypatch):
    """Workers that other tests left waiting count in a limit: a test must not depend on them."""
    monkeypatch.setattr(mapreduce, "_n_waiting", 0)


@pytest.fixture(scope="session")
def shared_data():
    """The folder of real data: ``RIDGEMM_DATA``, or ``shared/data`` beside the repository."""
    beside = Path(__file__).resolve().parents[2] / "shared" / "data"
    folder = Path(os.environ.get("RIDGEMM_DATA", beside))
    if not folder.is_dir():
        pytest.skip(f"needs the real data in {folder} (set RIDGEMM_DATA)")
    return folder
