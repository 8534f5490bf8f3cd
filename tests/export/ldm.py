"""A pipeline's weights under the names of Stability AI's own code: the layout of single .safetensors files.

The way back of diffusers' `loaders/single_file_utils.py`, for pipelines of the shape of `tiny_pipeline`.
"""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from diffusers import StableDiffusionXLPipeline
from diffusers.loaders.single_file_utils import DIFFUSERS_TO_LDM_MAPPING
from safetensors.torch import save_file
from torch import Tensor

_RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "time_emb_proj": "emb_layers.1",
    "conv_shortcut": "skip_connection",
}
_VAE = {
    "mid_block.resnets.0": "mid.block_1",
    "mid_block.resnets.1": "mid.block_2",
    "mid_block.attentions.0": "mid.attn_1",
    "downsamplers.0": "downsample",
    "upsamplers.0": "upsample",
    "conv_shortcut": "nin_shortcut",
    "conv_norm_out": "norm_out",
    "group_norm": "norm",
    "to_q": "q",
    "to_k": "k",
    "to_v": "v",
    "to_out.0": "proj_out",
}
_OPEN_CLIP = {"layer_norm1": "ln_1", "layer_norm2": "ln_2", "fc1": "c_fc", "fc2": "c_proj", "self_attn": "attn"}


def save_single_file(pipeline: StableDiffusionXLPipeline, path: Path) -> Path:
    """Write all weights into one file."""
    parts = {
        "model.diffusion_model.": _unet(pipeline),
        "first_stage_model.": _vae(pipeline),
        "conditioner.embedders.0.transformer.": pipeline.text_encoder.state_dict().items(),
        "conditioner.embedders.1.model.": _open_clip(pipeline.text_encoder_2.state_dict()),
    }
    weights = {prefix + name: value.clone().contiguous() for prefix, items in parts.items() for name, value in items}
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(weights, path)
    return path


def _unet(pipeline: StableDiffusionXLPipeline) -> Iterator[tuple[str, Tensor]]:
    layers = pipeline.unet.config.layers_per_block
    mapping = DIFFUSERS_TO_LDM_MAPPING["unet"]
    fixed = mapping["layers"] | mapping["addition_embed_type"]
    for name, value in pipeline.unet.state_dict().items():
        yield fixed.get(name) or _unet_block(name, layers, pipeline), value


def _unet_block(name: str, layers: int, pipeline: StableDiffusionXLPipeline) -> str:
    match = re.fullmatch(
        r"(down|mid|up)_blocks?(?:\.(\d+))?\.(resnets|attentions|downsamplers|upsamplers)\.(\d+)\.(.+)", name
    )
    assert match is not None, name
    side, block, kind, number, inside = match[1], int(match[2] or 0), match[3], int(match[4]), match[5]
    if kind == "resnets":
        inside = re.sub(r"^[a-z0-9_]+", lambda part: _RESNET[part[0]], inside)
    if side == "mid":
        return f"middle_block.{2 * number if kind == 'resnets' else 1}.{inside}"
    if kind == "downsamplers":
        return f"input_blocks.{1 + block * (layers + 1) + layers}.0.{inside.replace('conv', 'op')}"
    place = {"resnets": 0, "attentions": 1}.get(kind)
    if side == "down":
        return f"input_blocks.{1 + block * (layers + 1) + number}.{place}.{inside}"
    if kind == "upsamplers":
        has_attention = hasattr(pipeline.unet.up_blocks[block], "attentions")
        return f"output_blocks.{block * (layers + 1) + layers}.{1 + has_attention}.{inside}"
    return f"output_blocks.{block * (layers + 1) + number}.{place}.{inside}"


def _vae(pipeline: StableDiffusionXLPipeline) -> Iterator[tuple[str, Tensor]]:
    last = len(pipeline.vae.config.up_block_types) - 1
    for name, value in pipeline.vae.state_dict().items():
        name = re.sub(r"down_blocks\.(\d)\.resnets", r"down.\1.block", name)
        name = re.sub(r"down_blocks\.(\d)", r"down.\1", name)
        name = re.sub(r"up_blocks\.(\d)\.resnets", lambda match: f"up.{last - int(match[1])}.block", name)
        name = re.sub(r"up_blocks\.(\d)", lambda match: f"up.{last - int(match[1])}", name)
        for theirs, ldm in _VAE.items():
            name = name.replace(theirs, ldm)
        is_projection = "attn_1" in name and value.ndim == 2
        yield name, value[..., None, None] if is_projection else value


def _open_clip(state: Mapping[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    fixed = DIFFUSERS_TO_LDM_MAPPING["openclip"]["layers"]
    for name, value in state.items():
        if name in fixed:
            yield fixed[name], value.T if name == "text_projection.weight" else value
        elif "q_proj" in name:  # one matrix for queries, keys and values
            whole = torch.cat([state[name.replace("q_proj", part)] for part in ("q_proj", "k_proj", "v_proj")])
            yield _resblock(name.replace(".q_proj.", ".in_proj_")), whole
        elif "k_proj" not in name and "v_proj" not in name:
            yield _resblock(name), value


def _resblock(name: str) -> str:
    for theirs, ldm in _OPEN_CLIP.items():
        name = name.replace(theirs, ldm)
    return name.replace("text_model.encoder.layers.", "transformer.resblocks.")
