"""The same request to diffusers, with the noise that our engine draws for its seed."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import numpy as np
import torch
from diffusers import (
    AutoencoderKL,
    StableDiffusionXLImg2ImgPipeline,
    StableDiffusionXLInpaintPipeline,
    StableDiffusionXLPipeline,
)
from diffusers.models.autoencoders import vae as autoencoders
from diffusers.pipelines.stable_diffusion_xl import (
    pipeline_stable_diffusion_xl_img2img,
    pipeline_stable_diffusion_xl_inpaint,
)
from numpy.typing import NDArray
from PIL import Image

from runner.engine.request import GenerationRequest
from runner.export.families import Family
from runner.export.golden import draws, noise_from, scheduler_of

__all__ = ["draws", "generate", "scaled"]


def generate(
    pipeline: StableDiffusionXLPipeline,
    request: GenerationRequest,
    source: NDArray[np.uint8] | None = None,
    mask: NDArray[np.uint8] | None = None,
    family: Family = "lcm",
) -> NDArray[np.uint8]:
    """The picture [height, width, 3] that diffusers draws for `request`.

    Args:
        pipeline: text-to-image; its parts are what the other pipelines are made of.
        request: all but its pictures counts.
        source: [any, any, 3], for image-to-image.
        mask: [any, any], for inpainting of `source`.
        family: decides the scheduler.
    """
    scheduler, module = scheduler_of(family, pipeline.scheduler.config)
    if source is not None and family != "turbo":
        _shorten_range(scheduler, request.strength)
    noise = draws(request.seed, (4, request.height // 8, request.width // 8))
    with _noise(noise, module), torch.no_grad():
        if source is None:
            pipeline.scheduler = scheduler
            chosen, given = pipeline, _size(request) | {"latents": next(noise)}
        else:
            chosen, given = _from_picture(pipeline, scheduler, request, source, mask)
        (image,) = chosen(**_options(request), **given).images
    picture: NDArray[np.uint8] = (image * 255).round().astype(np.uint8)
    return picture


def scaled(vae: AutoencoderKL, latents: torch.Tensor) -> torch.Tensor:
    """The VAE's latents as the UNet has them, as StableDiffusionXLImg2ImgPipeline.prepare_latents scales them."""
    config = vae.config
    mean, std = (
        1.0 * otherwise if given is None else torch.tensor(given).view(1, -1, 1, 1)
        for given, otherwise in ((config.latents_mean, 0), (config.latents_std, 1))
    )
    return (latents - mean) * config.scaling_factor / std


class _Inpainting(StableDiffusionXLInpaintPipeline):
    """diffusers' own, but for VAEs with latent statistics: it applies them after the UNet and not before it."""

    def _encode_vae_image(self, image: torch.Tensor, generator: Any) -> torch.Tensor:
        return scaled(self.vae, self.vae.encode(image).latent_dist.sample(generator))


def _from_picture(
    pipeline: StableDiffusionXLPipeline,
    scheduler: Any,
    request: GenerationRequest,
    source: NDArray[np.uint8],
    mask: NDArray[np.uint8] | None,
) -> tuple[Any, dict[str, Any]]:
    """Image-to-image or inpainting, and what it is given besides the common options."""
    kind: Any = StableDiffusionXLImg2ImgPipeline if mask is None else _Inpainting
    zeros = pipeline.config.force_zeros_for_empty_prompt
    chosen = kind(**pipeline.components | {"scheduler": scheduler}, force_zeros_for_empty_prompt=zeros)
    chosen.set_progress_bar_config(disable=True)
    if hasattr(scheduler, "range_is_shortened"):
        # The SDXL pipelines would drop the first steps instead.
        chosen.get_timesteps = lambda count, *_, **__: (scheduler.timesteps, count)
    # Image-to-image draws pictures of the source's size.
    fitted = Image.fromarray(source).resize((request.width, request.height), Image.Resampling.LANCZOS)
    given: dict[str, Any] = {"image": fitted, "strength": request.strength}
    if mask is not None:
        # The latents of the masked picture are for UNets with nine channels; given, they are not drawn.
        unused = torch.zeros(1, 4, request.height // 8, request.width // 8)
        given |= _size(request) | {"mask_image": Image.fromarray(mask), "masked_image_latents": unused}
    return chosen, given


def _shorten_range(scheduler: Any, strength: float) -> None:
    """Strength as LatentConsistencyModelImg2ImgPipeline has it: a shorter range of timesteps, not fewer of them."""
    scheduler.set_timesteps = partial(scheduler.set_timesteps, strength=strength)
    scheduler.range_is_shortened = True


def _options(request: GenerationRequest) -> dict[str, Any]:
    return {
        "prompt": request.prompt,
        "negative_prompt": request.negative_prompt or None,
        "num_inference_steps": request.num_inference_steps,
        "guidance_scale": request.guidance_scale,
        "guidance_rescale": request.guidance_rescale,
        "output_type": "np",
    }


def _size(request: GenerationRequest) -> dict[str, Any]:
    return {"width": request.width, "height": request.height}


@contextmanager
def _noise(noise: Iterator[torch.Tensor], scheduler_module: Any) -> Iterator[None]:
    """Everything that diffusers draws, in the order in which it draws it."""
    drawing = (
        scheduler_module,
        autoencoders,
        pipeline_stable_diffusion_xl_img2img,
        pipeline_stable_diffusion_xl_inpaint,
    )
    with ExitStack() as stack:
        for module in drawing:
            stack.enter_context(noise_from(module, noise))
        yield
