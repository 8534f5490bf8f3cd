"""From the graphs that optimum traced to the graphs of a bundle, for a device and a precision."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto

from runner.engine import bundle
from runner.export import affine, attention, cost, cross_attention, fusion, graphs, half, networks, stages, storage

Config = Mapping[str, Any]

_MOST_PROJECTED: Final = 4 << 20
"""Bytes of one prompt's keys and values up to which they are made by the text graph. SDXL's are 51 MB: a cache of
prompts and the way to the GPU would cost more than the 3 % of a step's arithmetic that they save."""
_HALF_IS_FASTER: Final = 2
"""Times, at least: GPUs have twice the fp16 arithmetic, and half the bytes to move."""


@dataclass(frozen=True, slots=True)
class Target:
    """What a bundle's graphs are made for."""

    device: fusion.Device = "cpu"
    precision: Literal["fp32", "fp16"] = "fp32"
    """Of the arithmetic."""
    weights: storage.Weights = "fp32"
    """On disk, where the arithmetic is fp32."""
    projects_prompt: bool | None = None
    """Whether the text graph makes the keys and values of the UNet's cross-attention; None: if they are few."""


def write_graphs(
    traced: Mapping[str, Path],
    configs: Mapping[str, Config],
    folder: Path,
    target: Target,
    progress: Callable[[str], None],
) -> tuple[str, ...]:
    """Write the graphs of a bundle, one after the other: SDXL's UNet alone takes 10 GB of memory.

    Args:
        traced: the file of each of `graphs.GRAPH_NAMES`.
        configs: of `unet`, `vae` and both text encoders.
        folder: of the bundle.
        target: device and precision.
        progress: called with a few words before each graph.

    Returns:
        The stages of the VAE decoder.
    """
    writer = _Writer(traced, configs, folder, target, progress)
    # The UNet first: its projections of the prompt go into the text graph.
    projections, step_cost = writer.write_step()
    writer.write_text(projections)
    decoder_stages = writer.write_decoder(step_cost)
    writer.write_encoder()
    return decoder_stages


class _Writer:
    def __init__(
        self,
        traced: Mapping[str, Path],
        configs: Mapping[str, Config],
        folder: Path,
        target: Target,
        progress: Callable[[str], None],
    ) -> None:
        self._traced = traced
        self._configs = configs
        self._folder = folder
        self._target = target
        self._progress = progress
        self._halves = target.precision == "fp16"
        self._halves_vae = self._halves and not configs["vae"].get("force_upcast")

    def write_step(self) -> tuple[NDArray[np.float32] | None, int]:
        self._progress(f"writing {bundle.STEP_ONNX}")
        unet = self._load("unet")
        networks.drop_timestep_expansion(unet)
        step_cost = sum(cost.node_costs(unet, self._sizes(unet)))
        unet = fusion.fuse(unet, "unet", self._target.device)
        projections = self._take_projections(unet)
        if self._target.device == "cpu":
            affine.fuse_affine(unet)
        if self._halves:
            unet = half.to_half(unet)
        # What stands around the UNet comes last: it is never halved.
        self._save(networks.step_graph(unet), bundle.STEP_ONNX)
        return projections, step_cost

    def write_text(self, projections: NDArray[np.float32] | None) -> None:
        self._progress(f"writing {bundle.TEXT_ONNX}")
        names = ("text_encoder", "text_encoder_2")
        first, second = (self._configs[name]["num_hidden_layers"] for name in names)
        text = networks.text_graph(self._load(names[0]), self._load(names[1]), (first, second))
        if projections is not None:
            cross_attention.add_projections(text, projections)
        self._save(self._for_device(text, "clip", self._halves), bundle.TEXT_ONNX)

    def write_decoder(self, step_cost: int) -> tuple[str, ...]:
        decoder = self._load("vae_decoder")
        costs = cost.node_costs(decoder, self._sizes(decoder))
        # Half the arithmetic of a step takes as long as the step if it is not halved.
        slowness = _HALF_IS_FASTER if self._halves and not self._halves_vae else 1
        parts = stages.cut(decoder, math.ceil(slowness * sum(costs) / step_cost), costs)
        parts = [self._for_device(part, "vae", self._halves_vae) for part in parts]
        networks.vae_decoder_graphs(parts, self._configs["vae"])
        names = tuple(stages.name(number) for number in range(1, len(parts) + 1))
        for name, part in zip(names, parts, strict=True):
            self._progress(f"writing {name}")
            self._save(part, name)
        return names

    def write_encoder(self) -> None:
        self._progress(f"writing {bundle.VAE_ENCODER_ONNX}")
        encoder = self._for_device(self._load("vae_encoder"), "vae", self._halves_vae)
        self._save(networks.vae_encoder_graph(encoder, self._configs["vae"]), bundle.VAE_ENCODER_ONNX)

    def _take_projections(self, unet: ModelProto) -> NDArray[np.float32] | None:
        wanted = self._target.projects_prompt
        if wanted is None:
            values = cross_attention.projected_width(unet) * bundle.TOKENS
            wanted = values * np.dtype(np.float32).itemsize <= _MOST_PROJECTED
        return cross_attention.take_projections(unet) if wanted else None

    def _for_device(self, model: ModelProto, kind: fusion.Kind, halves: bool) -> ModelProto:
        if self._target.device == "cuda":
            attention.fuse_attention(model)
            model = fusion.fuse(model, kind, self._target.device)
        else:
            affine.fuse_affine(model)
        return half.to_half(model) if halves else model

    def _sizes(self, model: ModelProto) -> dict[str, list[int]]:
        """The shapes of the model's inputs for one picture of the size it was trained at."""
        side = self._configs["unet"]["sample_size"]
        named = {"sequence_length": bundle.TOKENS, "batch_size": 1}
        return {
            value.name: [
                size.dim_value or named.get(size.dim_param, side if axis > 1 else 0)
                for axis, size in enumerate(value.type.tensor_type.shape.dim)
            ]
            for value in model.graph.input
        }

    def _load(self, name: str) -> ModelProto:
        return graphs.load(self._traced[name])

    def _save(self, model: ModelProto, name: str) -> None:
        storage.save(model, self._folder / name, self._target.weights)
