"""A checkpoint on disk to a diffusers pipeline in memory, float32, with its replacements and LoRAs in it."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import torch
from diffusers import AutoencoderKL, AutoencoderTiny, StableDiffusionXLPipeline, UNet2DConditionModel
from diffusers.loaders.single_file_utils import SingleFileComponentError
from diffusers.utils.logging import disable_progress_bar
from safetensors import SafetensorError

from runner.export.errors import UnsupportedCheckpoint
from runner.export.fusing import fuse
from runner.export.lora import Lora
from runner.export.progress import Progress
from runner.export.source import Checkpoint, Component

_CLASSES: Final[Mapping[str, Any]] = {
    "UNet2DConditionModel": UNet2DConditionModel,
    "AutoencoderKL": AutoencoderKL,
    "AutoencoderTiny": AutoencoderTiny,
}
_OPTIONS: Final[Mapping[str, Any]] = {"torch_dtype": torch.float32, "local_files_only": True}


def load(
    checkpoint: Checkpoint, parts: Mapping[str, Component], loras: Sequence[Lora], progress: Progress
) -> StableDiffusionXLPipeline:
    """Load `checkpoint` with the UNet or the VAE of `parts` in place of its own, and fuse `loras` one after the other.

    Raises:
        UnsupportedCheckpoint: its weights cannot be read, or are not those of its configuration.
        UnsuitableLora: one of the LoRAs does not fit.
    """
    progress.stage("loading the checkpoint")
    disable_progress_bar()
    try:
        modules = {name: _component(part) for name, part in parts.items()}
        pipeline = _from_single_file(checkpoint, modules) if checkpoint.single_file else _whole(checkpoint, modules)
    except (OSError, SafetensorError) as error:
        raise UnsupportedCheckpoint(
            f"the weights of {checkpoint.source} cannot be read: fetch them again (a clone with Git LFS needs "
            "`git lfs pull`)"
        ) from error
    _check_complete(pipeline, checkpoint)
    for lora in loras:
        progress.stage(f"fusing {lora}")
        fuse(pipeline, lora)
    return pipeline


def _component(part: Component) -> Any:
    kind = _CLASSES[part.config()["_class_name"]]
    return kind.from_pretrained(part.folder, variant=part.variant, use_safetensors=True, **_OPTIONS)


def _whole(checkpoint: Checkpoint, modules: Mapping[str, Any]) -> StableDiffusionXLPipeline:
    return StableDiffusionXLPipeline.from_pretrained(
        checkpoint.folder, variant=checkpoint.variant, use_safetensors=True, **modules, **_OPTIONS
    )


def _from_single_file(checkpoint: Checkpoint, modules: Mapping[str, Any]) -> StableDiffusionXLPipeline:
    try:
        return StableDiffusionXLPipeline.from_single_file(
            str(checkpoint.single_file), config=str(checkpoint.folder), **modules, **_OPTIONS
        )
    except (SingleFileComponentError, ValueError, KeyError, RuntimeError) as error:
        raise _not_its_configuration(checkpoint) from error


def _check_complete(pipeline: StableDiffusionXLPipeline, checkpoint: Checkpoint) -> None:
    """Weights that a file did not have are left on torch's meta device, without a word."""
    networks = (pipeline.unet, pipeline.vae, pipeline.text_encoder, pipeline.text_encoder_2)
    if any(parameter.is_meta for network in networks for parameter in network.parameters()):
        raise _not_its_configuration(checkpoint)


def _not_its_configuration(checkpoint: Checkpoint) -> UnsupportedCheckpoint:
    return UnsupportedCheckpoint(
        f"the weights in {checkpoint.source} are not those of its configuration: give --config the folder or hub id "
        "of a pipeline of the same shape (stabilityai/sdxl-turbo for SDXL-Turbo)"
    )
