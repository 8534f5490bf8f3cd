"""The golden picture: what diffusers draws with the exported weights, for `runner check` to compare with."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any, Final

import numpy as np
import torch
from diffusers import EulerAncestralDiscreteScheduler, LCMScheduler, StableDiffusionXLPipeline
from diffusers.schedulers import scheduling_euler_ancestral_discrete, scheduling_lcm
from numpy.typing import NDArray
from PIL import Image
from transformers import CLIPTokenizerFast

from runner.engine.bundle import Golden
from runner.engine.sample import NOISE_BITS
from runner.export.defaults import Defaults
from runner.export.families import Family

PROMPT: Final = "a small red star on a white background"

_EXACT: Final = {"max_difference": 1, "max_share": 0.001}
"""float32 sums in another order end on the other side of a rounding now and then, never further away."""
_HALF: Final = {"max_difference": 24, "max_share": 1.0}
"""Half precision moves many values a little: on the tiny models of the tests by at most 1, in 3.6 % of the values.
Trained models have been given room for more; what is broken is further away than this somewhere in the picture."""


def planned(defaults: Defaults, *, is_half: bool) -> Golden:
    """The golden picture of a model with these (complete) defaults: one picture as a request without options gets it.

    Args:
        defaults: of the model.
        is_half: whether the bundle's weights or arithmetic are in half precision.
    """
    values = defaults.model_dump(include={"width", "height", "num_inference_steps", "guidance_scale"})
    return Golden(prompt=PROMPT, seed=0, **values, **(_HALF if is_half else _EXACT))


def draw(pipeline: StableDiffusionXLPipeline, family: Family, golden: Golden) -> NDArray[np.uint8]:
    """The picture [height, width, 3] that diffusers draws for `golden`, from the noise that the engine draws.

    Args:
        pipeline: float32, on the CPU.
        family: decides the scheduler.
        golden: the request.
    """
    scale = pipeline.vae_scale_factor
    shape = (pipeline.unet.config.in_channels, golden.height // scale, golden.width // scale)
    noise = draws(golden.seed, shape)
    latents = next(noise)
    pipeline.scheduler, module = scheduler_of(family, pipeline.scheduler.config)
    pipeline.set_progress_bar_config(disable=True)
    with noise_from(module, noise), torch.no_grad():
        (image,) = pipeline(
            golden.prompt,
            negative_prompt=golden.negative_prompt or None,
            width=golden.width,
            height=golden.height,
            num_inference_steps=golden.num_inference_steps,
            guidance_scale=golden.guidance_scale,
            latents=latents,
            output_type="np",
        ).images
    picture: NDArray[np.uint8] = (image * 255).round().astype(np.uint8)
    return picture


def write(picture: NDArray[np.uint8], path: Path) -> None:
    """Write it as a PNG, without the time or anything else that differs between two exports."""
    Image.fromarray(picture).save(path, "PNG", optimize=True)


def with_fast_tokenizers(pipeline: StableDiffusionXLPipeline, folder: Path) -> None:
    """Give `pipeline` the tokenizers that the bundle ships; `folder` is the checkpoint's."""
    for name in ("tokenizer", "tokenizer_2"):
        setattr(pipeline, name, CLIPTokenizerFast.from_pretrained(folder / name, local_files_only=True))


def draws(seed: int, shape: tuple[int, ...]) -> Iterator[torch.Tensor]:
    """The engine's stream of noise for one picture, each with a batch axis."""
    generator = np.random.Generator(NOISE_BITS(seed))
    while True:
        yield torch.from_numpy(generator.standard_normal(shape, dtype=np.float32))[None]


def scheduler_of(family: Family, config: Mapping[str, Any]) -> tuple[Any, ModuleType]:
    """The diffusers scheduler of a family, with the numbers of `config`, and the module that it draws noise in."""
    if family == "turbo":
        scheduler = EulerAncestralDiscreteScheduler.from_config(config, timestep_spacing="trailing")
        return scheduler, scheduling_euler_ancestral_discrete
    return LCMScheduler.from_config(config), scheduling_lcm


@contextmanager
def noise_from(module: ModuleType, noise: Iterator[torch.Tensor]) -> Iterator[None]:
    """Let the scheduler in `module` take its noise from `noise`: it asks a function of its module for it."""
    before = module.randn_tensor
    module.randn_tensor = lambda *_, **__: next(noise)  # type: ignore[attr-defined]
    try:
        yield
    finally:
        module.randn_tensor = before  # type: ignore[attr-defined]
