"""How the gallery runs the examples: in which order, and how long.

``RIDGEMM_GALLERY=full`` runs them as somebody would who starts them without options; otherwise
tests by permutation make do with fewer permutations.
"""

import os
import tempfile
from pathlib import Path
from typing import Any

ORDER = (
    "plot_fit_on_disk",
    "plot_whole_brain",
    "plot_from_other_libraries",
    "plot_haxby_encoding",
    "plot_haxby_permutation",
    "plot_haxby_nifti",
    "plot_permutation_schemes",
    "plot_gough_growth",
    "plot_gough_permutation",
    "plot_parcels_genetics",
    "plot_on_a_cluster",
)
QUICK = {
    "plot_haxby_permutation": ["--permutations", "199"],
    "plot_gough_permutation": ["--permutations", "199"],
    "plot_permutation_schemes": ["--permutations", "99", "--draws", "12"],
}


class Order:
    """Sort key of examples: as in `ORDER`, then by name."""

    def __init__(self, folder: str):
        self.folder = folder

    def __call__(self, name: str) -> tuple[int, str]:
        stem = Path(name).stem
        return (ORDER.index(stem) if stem in ORDER else len(ORDER), stem)


def arguments(gallery_conf: dict[str, Any], variables: dict[str, Any]) -> list[str]:
    """Command line of an example: pictures go where they are not taken for sources."""
    script = Path(variables["src_file"])
    options = [] if os.environ.get("RIDGEMM_GALLERY") == "full" else QUICK.get(script.stem, [])
    if '"--output"' in script.read_text():
        options = [*options, "--output", str(Path(tempfile.gettempdir()) / f"{script.stem}.png")]
    return options
