"""From an input to a complete generation: sizes and pictures resolved, defaults filled in, the seed drawn."""

import secrets
from typing import Any, Final, NamedTuple

from runner.apps import pictures, sizes
from runner.apps.pictures import Fetch, Picture, fetch_nothing
from runner.engine.request import GenerationRequest, InvalidRequest, ModelCard
from schemas.images import FromPictureInput, Source, TextToImageInput

SEED_DRAWN_MAX: Final = 2**32
"""Seeds we draw stay below this: JavaScript's numbers hold them exactly, so a client can send one back."""


class Defaults(NamedTuple):
    """What an input that does not say gets."""

    num_inference_steps: int
    guidance_scale: float

    @classmethod
    def of(cls, card: ModelCard) -> "Defaults":
        """The served model's own."""
        return cls(card.default_num_inference_steps, card.default_guidance_scale)


def complete(
    received: TextToImageInput, card: ModelCard, defaults: Defaults | None = None, fetch: Fetch = fetch_nothing
) -> GenerationRequest:
    """The generation that an input asks for, with defaults, the model's own if none are given, and a seed.

    Raises:
        InvalidRequest: a size that the model cannot draw, a picture that cannot be read, a mask without a picture.
    """
    width, height = sizes.resolve(received.image_size, card)
    if received.mask is not None:
        want("image", received.image)
    image, mask = pictures.read(received.image, fetch), pictures.read(received.mask, fetch)
    otherwise = Defaults.of(card) if defaults is None else defaults
    steps, scale, seed = received.num_inference_steps, received.guidance_scale, received.seed
    return GenerationRequest(
        prompt=received.prompt,
        negative_prompt=received.negative_prompt,
        width=width,
        height=height,
        num_inference_steps=otherwise.num_inference_steps if steps is None else steps,
        guidance_scale=otherwise.guidance_scale if scale is None else scale,
        seed=secrets.randbelow(SEED_DRAWN_MAX) if seed is None else seed,
        num_images=received.num_images,
        strength=received.strength if image and isinstance(received, FromPictureInput) else 1.0,
        guidance_rescale=received.guidance_rescale,
        check_safety=received.enable_safety_checker,
        output_format=received.format,
        **_sent("image", image),
        **_sent("mask", mask),
    )


def want(name: str, source: Source | None) -> None:
    """Insists on a picture, the `image` or the `mask` of a realtime input.

    Raises:
        InvalidRequest: there is none.
    """
    if source is None:
        what = {"image": "picture", "mask": "mask"}[name]
        message = f"send the {what} as {name}_bytes, or as a data URI in {name}_url"
        raise InvalidRequest(f"{name}_bytes", message, "missing")


def _sent(name: str, picture: Picture | None) -> dict[str, Any]:
    return {} if picture is None else {name: picture.content, f"{name}_field": picture.field}
