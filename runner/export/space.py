"""Whether the disk has room for an export: better said at once than after half an hour."""

import math
import shutil
from collections.abc import Iterable
from pathlib import Path

from runner.export.errors import DiskFull
from runner.export.weights import NotSafetensors, read_header

_FLOAT32 = 4
_COPIES = 2
"""The traced graphs and the bundle's. While a graph is traced it lies there twice, but then there is no bundle yet."""


def require_space(place: Path, weight_files: Iterable[Path]) -> None:
    """Refuse to begin if an export of these weights will not fit.

    Args:
        place: folder of the bundle to be; it need not exist yet.
        weight_files: .safetensors files; what cannot be read counts as nothing, and is refused when it is loaded.

    Raises:
        DiskFull: there is less room than the export takes on its way.
    """
    needed = _COPIES * _FLOAT32 * sum(map(_parameters, weight_files))
    there = next(folder for folder in (place, *place.absolute().parents) if folder.exists())
    if shutil.disk_usage(there).free < needed:
        raise DiskFull(place, needed)


def _parameters(file: Path) -> int:
    """How many numbers a .safetensors file holds, by its header."""
    try:
        return sum(math.prod(entry["shape"]) for entry in read_header(file).values())
    except (OSError, NotSafetensors, KeyError, TypeError):
        return 0
