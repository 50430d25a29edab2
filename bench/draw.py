"""Figures of reports: ``python -m bench.draw REPORT.json FIGURE.png``, of threads and growth."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot as plt

NAMES = {"n": "samples", "t": "targets", "r": "alphas"}


def draw_threads(report: dict, path: Path) -> None:
    """Efficiency against cores in use, a line for each number of workers."""
    lines: dict[int, list[tuple[int, float]]] = {}
    for name, value in report["figures"].items():
        workers, threads = map(int, name.removeprefix("efficiency_").split("x"))
        lines.setdefault(workers, []).append((workers * threads, value))
    figure, axes = plt.subplots(figsize=(5, 3.5), layout="constrained")
    for workers, points in sorted(lines.items()):
        axes.plot(*zip(*sorted(points), strict=True), "o-", label=f"{workers} worker(s)")
    axes.axhline(1, color="grey", linewidth=0.8)
    axes.set(xlabel="workers x threads", ylabel="parallel efficiency", ylim=(0, 1.3))
    axes.set_xscale("log", base=2)
    axes.legend(frameon=False)
    figure.savefig(path, dpi=120)
    plt.close(figure)


def draw_growth(report: dict, path: Path) -> None:
    """Speed over each peer, a panel for each size that grows."""
    lines: dict[str, dict[str, list[tuple[int, float]]]] = {name: {} for name in NAMES}
    for name, value in report["figures"].items():
        peer, label = name.removeprefix("speedup_over_").split()
        axis, size = label.split("=")
        lines[axis].setdefault(peer, []).append((int(size), value))
    figure, panels = plt.subplots(1, 3, figsize=(10, 3.2), sharey=True, layout="constrained")
    for panel, (axis, peers) in zip(panels, lines.items(), strict=True):
        for peer, points in peers.items():
            panel.loglog(*zip(*sorted(points), strict=True), "o-", label=peer)
        sizes = sorted({size for points in peers.values() for size, _ in points})
        panel.set_xticks(sizes, [str(size) for size in sizes])
        panel.minorticks_off()
        panel.axhline(1, color="grey", linewidth=0.8)
        panel.set_xlabel(NAMES[axis])
    panels[0].set_ylabel("times faster than the peer")
    panels[0].legend(frameon=False)
    figure.savefig(path, dpi=120)
    plt.close(figure)


DRAW = {"threads": draw_threads, "growth": draw_growth}


def main(source: str, target: str) -> None:
    report = json.loads(Path(source).read_text())
    DRAW[report["name"]](report, Path(target))


if __name__ == "__main__":
    main(*sys.argv[1:])
