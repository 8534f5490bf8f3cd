"""What a .safetensors file holds, by its header alone: known before anything is fetched, and before torch reads it.

The layout: https://github.com/huggingface/safetensors#format
"""

import json
import re
import struct
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

from runner.export.errors import UnsuitableLora, UnsupportedCheckpoint

_FETCH_AGAIN: Final = "fetch it again (a clone with Git LFS needs `git lfs pull`)"
_LORA: Final = re.compile(r"lora_(A|B|up|down|linear_layer|embedding_[AB])\b|lora\.(up|down)\.")
"""A LoRA's matrices, as peft, kohya and older and newer diffusers name them."""
_B: Final = re.compile(r"(lora_B|lora_up|lora\.up|lora_linear_layer\.up)(\.[\w]+)?\.weight$")
"""The second of the two."""
_NO_LORA: Final = ("dora_scale", "hada_w1_a", "lokr_w1", "lokr_w1_a")
"""What tells a DoRA, a LoHa and a LoKr from a LoRA. diffusers would drop a DoRA's scales and go on."""
_MODEL: Final = ("model.diffusion_model.", "first_stage_model.", "conditioner.")
"""How the names in a file with a whole SDXL model begin."""


class NotSafetensors(ValueError):
    """The file has no such header, or is shorter than the header says."""


def read_header(file: Path) -> dict[str, Mapping[str, Any]]:
    """The `shape`, the `dtype` and the `data_offsets` of each tensor, by its name.

    Raises:
        NotSafetensors: it is something else, or a part of a file.
        OSError: it cannot be read.
    """
    size = file.stat().st_size
    try:
        with file.open("rb") as content:
            (length,) = struct.unpack("<Q", content.read(8))
            header = json.loads(content.read(min(length, size)))
        tensors = {name: entry for name, entry in header.items() if name != "__metadata__"}
        end = max((entry["data_offsets"][1] for entry in tensors.values()), default=0)
    except (ValueError, RecursionError, KeyError, IndexError, TypeError, AttributeError, struct.error) as error:
        raise NotSafetensors(file) from error
    if size < 8 + length + end:
        raise NotSafetensors(file)
    return tensors


def check_model(file: Path, source: str) -> None:
    """Refuse a SOURCE that is no file of weights, or a LoRA's.

    Args:
        file: that SOURCE names.
        source: how the user calls it.

    Raises:
        UnsupportedCheckpoint: and why.
    """
    try:
        names = read_header(file)
    except (OSError, NotSafetensors) as error:
        raise UnsupportedCheckpoint(f"{source} is no safetensors file, or a part of one: {_FETCH_AGAIN}") from error
    if any(_LORA.search(name) for name in names) or _other_kinds(names):
        raise UnsupportedCheckpoint(f"{source} is a LoRA: give it with --lora, and as SOURCE the model that it is for")


def check_lora(file: Path, source: str) -> None:
    """Refuse a --lora that is no LoRA; whether it fits the checkpoint is seen when it is fused.

    Args:
        file: that --lora names.
        source: how the user calls it.

    Raises:
        UnsuitableLora: and why.
    """
    try:
        names = read_header(file)
    except (OSError, NotSafetensors) as error:
        raise UnsuitableLora(f"--lora {source} is no safetensors file, or a part of one: {_FETCH_AGAIN}") from error
    if kinds := _other_kinds(names):
        raise UnsuitableLora(f"{source} is no plain LoRA ({kinds[0]}): fuse it into the checkpoint by other means")
    if not any(map(is_b, names)):
        whole = ": it is a whole model, give it as SOURCE" if any(name.startswith(_MODEL) for name in names) else ""
        raise UnsuitableLora(f"--lora {source} holds no LoRA weights{whole}")


def is_b(name: str) -> bool:
    """Whether a tensor is the second of a LoRA's two matrices, B: if every B is 0, the LoRA changes nothing."""
    return _B.search(name) is not None


def _other_kinds(names: Iterable[str]) -> list[str]:
    return [kind for kind in _NO_LORA if any(name.endswith((kind, f"{kind}.weight")) for name in names)]
