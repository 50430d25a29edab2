"""Results on stdout, as a short table or as JSON; notes on stderr; maps as files."""

import argparse
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np


def show(options: argparse.Namespace, result: Mapping[str, Any]) -> None:
    """Print a result: a row for each entry or, for ``--json``, one object.

    Names are as JSON has them, with underscores.
    """
    if options.json:
        print(json.dumps(_plain(result), indent=1))
        return
    for name, value in result.items():
        print(f"{name.replace('_', ' '):<17} {_text(value)}")


def show_report(options: argparse.Namespace, text: object, content: Mapping[str, Any]) -> None:
    """Print something that has a text of its own or, for ``--json``, its content."""
    print(json.dumps(_plain(content), indent=1) if options.json else text)


def spread(values: "np.ndarray") -> dict[str, float] | None:
    """Smallest, middle and largest of the values that are not NaN.

    Examples
    --------
    >>> import numpy as np
    >>> spread(np.array([3.0, 1.0, np.nan, 2.0]))
    {'min': 1.0, 'median': 2.0, 'max': 3.0}
    """
    import numpy as np

    finite = np.asarray(values)[np.isfinite(values)]
    if not finite.size:
        return None
    low, middle, high = np.percentile(finite, (0, 50, 100)).tolist()
    return {"min": low, "median": middle, "max": high}


def write_maps(
    folder: Path, maps: Mapping[str, "np.ndarray | None"], mask: str | None
) -> list[str]:
    """Write maps as NIfTI images if there is a mask; returns their paths."""
    if mask is None:
        return []
    from ridgemm.neuro import write_map

    return [
        str(write_map(values, mask, folder / f"{name}.nii.gz"))
        for name, values in maps.items()
        if values is not None
    ]


def _plain(value: Any) -> Any:
    """A value as JSON has it: NaN is null."""
    if isinstance(value, Mapping):
        return {str(name): _plain(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def _text(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name.replace('_', ' ')} {_text(item)}" for name, item in value.items())
    if isinstance(value, (list, tuple)):
        return ", ".join(map(_text, value))
    if value is None:
        return "none"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
