"""One run of one contender, in a fresh process: ``python -m bench._child TASK``.

The process starts, loads, warms up on a tenth of the problem, then times `fit` alone. The
memory baseline is taken after the warm-up: it holds imports, compiled code and, for a
contender that does not map its files, the data.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import numpy as np

from bench import contenders
from bench._memory import peak_memory


def main(task: dict) -> dict:
    """Run a task, write its maps and return its seconds and bytes."""
    folder = Path(task["folder"])
    contender = getattr(contenders, task["solver"])(**task["options"])
    contender.fit(*contender.load(folder / "warmup"))
    X, Y = contender.load(folder)
    with peak_memory() as memory:
        start = time.perf_counter()
        model = contender.fit(X, Y)
        seconds = time.perf_counter() - start
    np.savez(task["maps"], **contender.maps(model))
    return {"seconds": seconds, "baseline": memory.baseline, "peak": memory.peak}


if __name__ == "__main__":
    print(json.dumps(main(json.loads(sys.argv[1]))))
