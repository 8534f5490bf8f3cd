"""Each family exported from tiny checkpoints in the form that users have, beside what diffusers makes of the same."""

from collections.abc import Callable, Mapping
from pathlib import Path

from diffusers import UNet2DConditionModel

from runner.export import export
from runner.export.golden import scheduler_of
from tests.export import loras
from tests.export.checkpoints import load_reference, tiny_pipeline
from tests.export.conftest import Exported

LORA_SCALE = 0.8


def lcm(base: Path, place: Path) -> Exported:
    """An LCM UNet with a guidance embedding takes the place of the base model's."""
    tiny_pipeline(place / "words", seed=5).unet.save_pretrained(place / "lcm-sdxl")
    export(str(base), place / "bundle", unet=str(place / "lcm-sdxl"))
    reference = load_reference(base)
    unet = UNet2DConditionModel.from_pretrained(place / "lcm-sdxl", low_cpu_mem_usage=False)
    reference.register_modules(unet=unet, scheduler=scheduler_of("lcm", reference.scheduler.config)[0])
    return Exported(reference, base, place / "bundle", "lcm")


def lcm_lora(base: Path, place: Path) -> Exported:
    """An LCM-LoRA is fused into the base model; its name gives the family away."""
    reference = load_reference(base)
    pairs = loras.random_pairs(reference, seed=6)
    file = loras.save_lora(loras.kohya_form(pairs), place / "lcm-lora-sdxl" / "pytorch_lora_weights.safetensors")
    export(str(base), place / "bundle", loras=[f"{file.parent}:{LORA_SCALE}"])
    loras.fused_by_hand(reference, pairs, LORA_SCALE)
    reference.register_modules(scheduler=scheduler_of("lcm-lora", reference.scheduler.config)[0])
    return Exported(reference, base, place / "bundle", "lcm-lora")


def turbo(_: Path, place: Path) -> Exported:
    """SDXL-Turbo is whole by itself."""
    checkpoint = place / "sdxl-turbo"
    pipeline = tiny_pipeline(place / "words", time_cond_proj_dim=None, scheduler="turbo", seed=7)
    pipeline.save_pretrained(checkpoint)
    export(str(checkpoint), place / "bundle")
    return Exported(load_reference(checkpoint), checkpoint, place / "bundle", "turbo")


MAKERS: Mapping[str, Callable[[Path, Path], Exported]] = {"lcm": lcm, "lcm-lora": lcm_lora, "turbo": turbo}
