"""`fal-ai/fast-lcm-diffusion`: text-to-image, image-to-image and inpainting, on one socket or on paths of their own."""

import secrets
from typing import Any, Final

from runner.apps import pictures, sizes
from runner.apps.engine import Engine
from runner.apps.framework import App, realtime
from runner.engine.request import (
    EngineUnavailable,
    GenerationRequest,
    GenerationResult,
    InvalidRequest,
    ModelCard,
)
from schemas.images import RealtimeImage, RealtimeInput, RealtimeOutput

APP_ID: Final = "fal-ai/fast-lcm-diffusion"

SEED_DRAWN_MAX: Final = 2**32
"""Seeds we draw stay below this: JavaScript's numbers hold them exactly, so a client can send one back."""


class FastLcmDiffusion(App):
    """The app, on an engine that serves an LCM.

    Args:
        engine: What generates.
        ready_timeout_s: How long an input waits for a model that is still loading.
    """

    def __init__(self, engine: Engine, ready_timeout_s: float = 90.0) -> None:
        self._engine = engine
        self._ready_timeout_s = ready_timeout_s

    @realtime("/realtime")
    def generate(self, received: RealtimeInput) -> RealtimeOutput:
        """One result: inpainting where a mask came along, image-to-image where a picture did, else text-to-image.

        Raises:
            InvalidRequest: a field of the input to mend.
            GenerationError: the engine cannot, see its subclasses.
        """
        request = complete(received, self._card())
        return _output(received, request, self._engine.generate(request))

    @realtime("/image-to-image/realtime")
    def image_to_image(self, received: RealtimeInput) -> RealtimeOutput:
        """As `generate`, for an input that must bring a picture."""
        _want("image", received.image_bytes, received.image_url)
        return self.generate(received)

    @realtime("/inpainting/realtime")
    def inpainting(self, received: RealtimeInput) -> RealtimeOutput:
        """As `generate`, for an input that must bring a picture and a mask."""
        _want("mask", received.mask_bytes, received.mask_url)
        return self.image_to_image(received)

    def _card(self) -> ModelCard:
        try:
            return self._engine.card
        except EngineUnavailable:
            self._engine.wait_ready(self._ready_timeout_s)
            return self._engine.card


def complete(received: RealtimeInput, card: ModelCard) -> GenerationRequest:
    """The generation that an input asks for, with the model's defaults and, where none is given, a new seed.

    Raises:
        InvalidRequest: a size that the model cannot draw, a picture that cannot be read, a mask without a picture.
    """
    width, height = sizes.resolve(received.image_size, card)
    image, mask = pictures.picture_of(received), pictures.mask_of(received)
    if mask is not None:
        _want("image", received.image_bytes, received.image_url)
    steps, scale, seed = received.num_inference_steps, received.guidance_scale, received.seed
    return GenerationRequest(
        prompt=received.prompt,
        negative_prompt=received.negative_prompt,
        width=width,
        height=height,
        num_inference_steps=card.default_num_inference_steps if steps is None else steps,
        guidance_scale=card.default_guidance_scale if scale is None else scale,
        seed=secrets.randbelow(SEED_DRAWN_MAX) if seed is None else seed,
        num_images=received.num_images,
        strength=received.strength if image else 1.0,
        guidance_rescale=received.guidance_rescale,
        check_safety=received.enable_safety_checker,
        output_format=received.format,
        **_sent("image", image),
        **_sent("mask", mask),
    )


def _want(name: str, content: bytes | None, uri: str | None) -> None:
    if content is None and uri is None:
        what = {"image": "picture", "mask": "mask"}[name]
        message = f"send the {what} as {name}_bytes, or as a data URI in {name}_url"
        raise InvalidRequest(f"{name}_bytes", message, "missing")


def _sent(name: str, picture: pictures.Picture | None) -> dict[str, Any]:
    return {} if picture is None else {name: picture.content, f"{name}_field": picture.field}


def _output(received: RealtimeInput, request: GenerationRequest, result: GenerationResult) -> RealtimeOutput:
    images = [
        RealtimeImage(content=image.content, content_type=image.content_type, width=image.width, height=image.height)
        for image in result.images
    ]
    return RealtimeOutput(
        images=images,
        timings=result.timings,
        seed=request.seed,
        num_inference_steps=request.num_inference_steps,
        request_id=received.request_id,
        dropped_inputs=0,  # the session knows, and fills it in
        has_nsfw_concepts=result.has_nsfw_concepts,
        nsfw_content_detected=result.has_nsfw_concepts,
    )
