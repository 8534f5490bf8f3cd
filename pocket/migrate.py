"""Brings the bundle in `models/pocket` from format 1 to the form that the exporter writes today.

    python -m pocket.migrate OLD NEW --golden PICTURE --prompt PROMPT --seed SEED

The checkpoint of those weights is gone; its graphs are left, and the exporter's own functions are run on them.
PICTURE is what the old graphs draw for the prompt and the seed: the new ones have to draw it too (`runner check`).
A bundle that is exported anew needs none of this.
"""

from __future__ import annotations

import argparse
import json
import math
import shutil
from pathlib import Path

import onnx
from onnx import ModelProto, helper

from runner.engine import bundle
from runner.export import affine, cost, cross_attention, fusion, networks, stages, storage, surgery

_OLD_TAIL = ("/lcm/", "prev", "denoised")
_COPIED = (bundle.TOKENIZER_JSON, bundle.TOKENIZER_2_JSON)


def migrate(old: Path, new: Path, golden: Path, prompt: str, seed: int) -> None:
    """Write the bundle `new` out of the bundle `old` of format 1."""
    for name in _COPIED:
        (new / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(old / name, new / name)
    shutil.copyfile(golden, new / bundle.GOLDEN_PNG)
    description = json.loads((old / bundle.MODEL_JSON).read_text(encoding="utf-8"))
    sizes = _sizes(description)
    step_cost = _write_step_and_text(old, new, sizes)
    _write_encoder(old, new)
    description |= {
        "format_version": bundle.FORMAT_VERSION,
        "decoder_stages": _write_decoder(old, new, sizes, step_cost),
        "golden": _golden(description, prompt, seed),
        "files": {name: entry.model_dump() for name, entry in bundle.file_entries(new).items()},
    }
    bundle.write_description(new, bundle.ModelDescription.model_validate(description))


def _write_step_and_text(old: Path, new: Path, sizes: dict[str, int]) -> int:
    unet = _load(old / bundle.STEP_ONNX)
    _drop_old_tail(unet)
    networks.drop_timestep_expansion(unet)
    step_cost = sum(cost.node_costs(unet, _input_shapes(unet, sizes)))
    unet = fusion.fuse(unet, "unet", "cpu")
    projections = cross_attention.take_projections(unet)
    assert projections is not None
    affine.fuse_affine(unet)
    storage.save(networks.step_graph(unet), new / bundle.STEP_ONNX, "fp16")
    text = _load(old / bundle.TEXT_ONNX)
    cross_attention.add_projections(text, projections)
    storage.save(text, new / bundle.TEXT_ONNX, "fp16")
    return step_cost


def _write_decoder(old: Path, new: Path, sizes: dict[str, int], step_cost: int) -> list[str]:
    decoder = _load(old / bundle.VAE_DECODER_ONNX)
    costs = cost.node_costs(decoder, _input_shapes(decoder, sizes))
    parts = stages.cut(decoder, math.ceil(sum(costs) / step_cost), costs)
    names = [stages.name(number) for number in range(1, len(parts) + 1)]
    for name, part in zip(names, parts, strict=True):
        affine.fuse_affine(part)
        storage.save(part, new / name, "fp16")
    return names


def _write_encoder(old: Path, new: Path) -> None:
    encoder = _load(old / bundle.VAE_ENCODER_ONNX)
    affine.fuse_affine(encoder)
    storage.save(encoder, new / bundle.VAE_ENCODER_ONNX, "fp16")


def _load(path: Path) -> ModelProto:
    model = onnx.load(path)
    storage.restore_weights(model)
    return model


def _drop_old_tail(step: ModelProto) -> None:
    """The UNet alone, out of a step graph of format 1."""
    surgery.replace(step.graph.output, [helper.make_tensor_value_info("out_sample", onnx.TensorProto.FLOAT, None)])
    surgery.replace(
        step.graph.input, [value for value in step.graph.input if value.name not in ("coefficients", "noise")]
    )
    surgery.prune(step)
    assert not [node.name for node in step.graph.node if node.output[0].startswith(_OLD_TAIL)]


def _sizes(description: dict[str, object]) -> dict[str, int]:
    width, height = description["default_size"]
    scale = description["vae_scale_factor"]
    return {
        "batch_size": 1,
        "sequence_length": bundle.TOKENS,
        "c": description["latent_channels"],
        "width": width // scale,
        "height": height // scale,
    }


def _input_shapes(model: ModelProto, sizes: dict[str, int]) -> dict[str, list[int]]:
    return {
        value.name: [size.dim_value or sizes[size.dim_param] for size in value.type.tensor_type.shape.dim]
        for value in model.graph.input
    }


def _golden(description: dict[str, object], prompt: str, seed: int) -> dict[str, object]:
    width, height = description["default_size"]
    return {
        "prompt": prompt,
        "width": width,
        "height": height,
        "num_inference_steps": description["default_num_inference_steps"],
        "guidance_scale": description["default_guidance_scale"],
        "seed": seed,
        "max_difference": 1,
        "max_share": 0.001,
    }


def main() -> None:
    """Read the arguments and migrate."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("old", type=Path)
    parser.add_argument("new", type=Path)
    parser.add_argument("--golden", type=Path, required=True)
    parser.add_argument("--prompt", required=True)
    parser.add_argument("--seed", type=int, required=True)
    migrate(**vars(parser.parse_args()))


if __name__ == "__main__":
    main()
