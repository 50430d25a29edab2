"""Tile geometry: how a long axis is cut. No data, no I/O."""

from dataclasses import dataclass

import numpy as np


def spans(size: int, step: int) -> list[slice]:
    """Cut ``range(size)`` into slices of `step`, the last one shorter.

    Examples
    --------
    >>> spans(5, 2)
    [slice(0, 2, None), slice(2, 4, None), slice(4, 5, None)]
    """
    return [slice(start, min(start + step, size)) for start in range(0, size, step)]


def width(span: slice) -> int:
    """Number of elements of a slice of `spans`."""
    return span.stop - span.start


@dataclass(frozen=True)
class TileGrid:
    """Targets in tiles, tiles in strips: a tile is a task, a strip is what one thread does.

    Parameters
    ----------
    n_targets : int
    tile : int
        Targets per tile.
    strip : int
        Targets per strip.

    Examples
    --------
    >>> grid = TileGrid(n_targets=10, tile=6, strip=4)
    >>> grid.tiles()
    [slice(0, 6, None), slice(6, 10, None)]
    >>> grid.strips(grid.tiles()[0])
    [slice(0, 4, None), slice(4, 6, None)]
    """

    n_targets: int
    tile: int
    strip: int

    def tiles(self) -> list[slice]:
        """Slices of the targets, one per task."""
        return spans(self.n_targets, self.tile)

    def strips(self, tile: slice) -> list[slice]:
        """Slices of a tile, relative to its start."""
        return spans(width(tile), self.strip)


def row_pieces(rows: np.ndarray, step: int) -> list[slice | np.ndarray]:
    """Cut sorted row numbers into pieces of `step`; a gapless piece becomes a slice.

    A slice is read as one long run; an index array is gathered.

    Examples
    --------
    >>> row_pieces(np.array([0, 1, 2, 5, 7]), 3)
    [slice(0, 3, None), array([5, 7])]
    """
    pieces: list[slice | np.ndarray] = []
    for span in spans(len(rows), step):
        piece = rows[span]
        gapless = piece[-1] - piece[0] + 1 == len(piece)
        pieces.append(slice(int(piece[0]), int(piece[-1]) + 1) if gapless else piece)
    return pieces
