"""LoRA weights into the networks' own: W becomes W + scale * alpha / rank * B A. Imports torch."""

from typing import Final

from diffusers import StableDiffusionXLPipeline
from peft.tuners.tuners_utils import BaseTunerLayer
from safetensors import SafetensorError, safe_open

from runner.export.errors import UnsuitableLora
from runner.export.lora import Lora
from runner.export.weights import check_lora, is_b

_NETWORKS: Final = ("unet", "text_encoder", "text_encoder_2")


def fuse(pipeline: StableDiffusionXLPipeline, lora: Lora) -> None:
    """Change the weights of the UNet and of the text encoders as `lora` says.

    Raises:
        UnsuitableLora: it does not fit, or it would change nothing.
    """
    check_lora(lora.file, lora.source)
    _check_values(lora)
    found = _modules_of(pipeline, lora)
    try:
        pipeline.load_lora_weights(lora.file.parent, weight_name=lora.file.name, local_files_only=True)
    except (ValueError, RuntimeError, KeyError, TypeError, AssertionError) as error:
        raise _misfit(lora, _first_line(error)) from error
    fitted = sum(_adapted(getattr(pipeline, name)) for name in _NETWORKS)
    if fitted != found:
        raise _misfit(lora, f"of the {found} layers that it is for, {fitted} are here")
    pipeline.fuse_lora(components=list(_NETWORKS), lora_scale=lora.scale)
    pipeline.unload_lora_weights()


def _check_values(lora: Lora) -> None:
    try:
        with safe_open(lora.file, "pt") as file:
            changes = any(file.get_tensor(name).any() for name in file.keys() if is_b(name))  # noqa: SIM118  # no dict
    except (OSError, SafetensorError) as error:
        raise UnsuitableLora(
            f"the LoRA {lora.source} cannot be read: fetch it again (a clone with Git LFS needs `git lfs pull`)"
        ) from error
    if not changes:
        raise UnsuitableLora(f"the LoRA {lora.source} changes nothing: all its weights are 0")


def _modules_of(pipeline: StableDiffusionXLPipeline, lora: Lora) -> int:
    """How many layers it is for, by the names that diffusers gives them."""
    try:
        state, *_ = pipeline.lora_state_dict(
            lora.file.parent, weight_name=lora.file.name, unet_config=pipeline.unet.config, local_files_only=True
        )
    except (ValueError, RuntimeError, KeyError, IndexError) as error:
        raise _misfit(lora, "its layers have names that diffusers cannot read") from error
    return sum(map(is_b, state))


def _adapted(module: object) -> int:
    return sum(isinstance(layer, BaseTunerLayer) for layer in module.modules())  # type: ignore[attr-defined]


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0].rstrip(" .:")[:200]


def _misfit(lora: Lora, why: str) -> UnsuitableLora:
    return UnsuitableLora(f"the LoRA {lora.source} does not fit this checkpoint: {why}. It has to be made for SDXL")
