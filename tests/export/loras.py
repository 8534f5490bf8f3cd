"""Tiny LoRAs with random weights, in the forms that are found: diffusers with peft, and kohya's scripts."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from diffusers import StableDiffusionXLPipeline
from safetensors.torch import save_file
from torch import Tensor

RANK = 2
KOHYA_ALPHA = 1.0

Pairs = dict[str, tuple[Tensor, Tensor]]
"""The matrices B [out, rank] and A [rank, in] of each layer, by its component and its name in there."""


_LAYERS = {
    # What the LCM-LoRA of SDXL has: attention, feed-forward, projections, and the convolutions of the resnets.
    "unet": ("to_q", "to_v", "to_out.0", "ff.net.0.proj", "ff.net.2", "proj_in", "time_emb_proj", "conv1", "conv"),
    "text_encoder_2": ("q_proj", "out_proj", "fc1"),
}


def random_pairs(pipeline: StableDiffusionXLPipeline, seed: int = 0, strength: float = 0.2) -> Pairs:
    """For layers of every kind, of every block of the UNet and of the second text encoder."""
    generator = torch.Generator().manual_seed(seed)
    pairs: Pairs = {}
    for component, suffixes in _LAYERS.items():
        for name, layer in getattr(pipeline, component).named_modules():
            if name.endswith(suffixes):
                out, *in_ = layer.weight.shape
                b = torch.randn(out, RANK, *[1] * (len(in_) - 1), generator=generator)
                a = torch.randn(RANK, *in_, generator=generator)
                pairs[f"{component}.{name}"] = (b * strength, a * strength)
    return pairs


def fused_by_hand(pipeline: StableDiffusionXLPipeline, pairs: Pairs, scale: float) -> None:
    """What fusing has to come to: W + scale * B A."""
    with torch.no_grad():
        for name, (b, a) in pairs.items():
            component, _, layer = name.partition(".")
            getattr(pipeline, component).get_submodule(layer).weight += scale * (b.flatten(1) @ a.flatten(1)).view(
                b.shape[0], *a.shape[1:]
            )


def peft_form(pairs: Pairs) -> dict[str, Tensor]:
    """As diffusers' training scripts save it today. Without an alpha it is the rank."""
    weights = {}
    for name, (b, a) in pairs.items():
        weights[f"{name}.lora_B.weight"], weights[f"{name}.lora_A.weight"] = b, a
    return weights


def kohya_form(pairs: Pairs) -> dict[str, Tensor]:
    """As kohya's scripts save it, with an alpha of its own; LCM-LoRAs have this form, too."""
    prefixes = {"unet": "lora_unet", "text_encoder": "lora_te1", "text_encoder_2": "lora_te2"}
    weights = {}
    for name, (b, a) in pairs.items():
        component, _, layer = name.partition(".")
        key = f"{prefixes[component]}_{layer.replace('.', '_')}"
        weights[f"{key}.lora_up.weight"] = b * (RANK / KOHYA_ALPHA)
        weights[f"{key}.lora_down.weight"] = a
        weights[f"{key}.alpha"] = torch.tensor(KOHYA_ALPHA)
    return weights


FORMS: dict[str, Callable[[Pairs], dict[str, Tensor]]] = {"peft": peft_form, "kohya": kohya_form}


def save_lora(weights: dict[str, Tensor], path: Path, **changes: Any) -> Path:
    """Write a LoRA; `changes` replace tensors."""
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({name: tensor.clone().contiguous() for name, tensor in {**weights, **changes}.items()}, path)
    return path
