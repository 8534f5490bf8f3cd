"""The same request to diffusers, with the noise that our engine draws for its seed."""

from collections.abc import Iterator
from functools import partial
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from diffusers import AutoencoderKL, LCMScheduler, StableDiffusionXLPipeline
from diffusers.schedulers import scheduling_lcm
from numpy.typing import NDArray

from runner.engine.request import GenerationRequest
from runner.engine.sample import NOISE_BITS


def draws(seed: int, shape: tuple[int, ...]) -> Iterator[torch.Tensor]:
    """The engine's stream of noise for one picture, each with a batch axis."""
    generator = np.random.Generator(NOISE_BITS(seed))
    while True:
        yield torch.from_numpy(generator.standard_normal(shape, dtype=np.float32))[None]


def generate(
    pipeline: StableDiffusionXLPipeline, request: GenerationRequest, source: NDArray[np.uint8] | None = None
) -> NDArray[np.uint8]:
    """The picture [height, width, 3] that diffusers draws for `request`, from `source` (of that size) if given."""
    noise = draws(request.seed, (4, request.height // 8, request.width // 8))
    with patch.object(scheduling_lcm, "randn_tensor", lambda *_, **__: next(noise)), torch.no_grad():
        latents = next(noise) if source is None else _noisy_latents(pipeline, request, source, noise)
        options = {} if source is None else {"strength": request.strength}
        return _run(pipeline, request, latents, options)


def _noisy_latents(
    pipeline: StableDiffusionXLPipeline,
    request: GenerationRequest,
    source: NDArray[np.uint8],
    noise: Iterator[torch.Tensor],
) -> torch.Tensor:
    """The start of image-to-image, as LatentConsistencyModelImg2ImgPipeline has it; diffusers has none for SDXL."""
    pixels = pipeline.image_processor.preprocess(source[None] / np.float32(255))
    posterior = pipeline.vae.encode(pixels).latent_dist
    latents = scaled(pipeline.vae, posterior.mean + posterior.std * next(noise))
    pipeline.scheduler.set_timesteps(request.num_inference_steps, strength=request.strength)
    return pipeline.scheduler.add_noise(latents, next(noise), pipeline.scheduler.timesteps[:1])


def scaled(vae: AutoencoderKL, latents: torch.Tensor) -> torch.Tensor:
    """The VAE's latents as the UNet has them, as StableDiffusionXLImg2ImgPipeline.prepare_latents scales them."""
    config = vae.config
    mean, std = (
        1.0 * otherwise if given is None else torch.tensor(given).view(1, -1, 1, 1)
        for given, otherwise in ((config.latents_mean, 0), (config.latents_std, 1))
    )
    return (latents - mean) * config.scaling_factor / std


def _run(
    pipeline: StableDiffusionXLPipeline, request: GenerationRequest, latents: torch.Tensor, options: dict[str, Any]
) -> NDArray[np.uint8]:
    scheduler = LCMScheduler.from_config(pipeline.scheduler.config)
    scheduler.set_timesteps = partial(scheduler.set_timesteps, **options)
    with patch.object(pipeline, "scheduler", scheduler):
        (image,) = pipeline(
            request.prompt,
            negative_prompt=request.negative_prompt or None,
            width=request.width,
            height=request.height,
            num_inference_steps=request.num_inference_steps,
            guidance_scale=request.guidance_scale,
            latents=latents,
            output_type="np",
        ).images
    return (image * 255).round().astype(np.uint8)
