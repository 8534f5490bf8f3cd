"""Whether the disk has room for an export: better said at once than after half an hour."""

import json
import math
import shutil
import struct
from collections.abc import Iterable
from pathlib import Path

from runner.export.errors import DiskFull

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
    """How many numbers a .safetensors file holds, by its header (https://github.com/huggingface/safetensors#format)."""
    try:
        with file.open("rb") as content:
            (length,) = struct.unpack("<Q", content.read(8))
            header = json.loads(content.read(min(length, file.stat().st_size)))
        return sum(math.prod(entry["shape"]) for name, entry in header.items() if name != "__metadata__")
    except (OSError, ValueError, KeyError, TypeError, AttributeError, struct.error):
        return 0
