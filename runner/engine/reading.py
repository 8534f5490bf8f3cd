"""What a request needs of the host alone, before the device sees it: checks, plan, tokens, pixels."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from runner.engine import inpainting, pictures
from runner.engine.bundle import ModelDescription
from runner.engine.frame import Frame
from runner.engine.request import GenerationRequest, InvalidRequest
from runner.engine.scheduler import Schedule, Scheduler
from runner.engine.text import PromptTokenizer, TokenIds

Pixels = NDArray[np.uint8]


@dataclass(frozen=True, slots=True, eq=False)
class ReadRequest:
    """A request that can be drawn, with everything of it in the form that the graphs take.

    `picture` is uint8 [H, W, 3] and `mask` bool [1, h, w], True where latents are kept, both of the size drawn
    (`frame`); None where the request has none. `negative_prompt` is None if nothing will look at it.
    """

    request: GenerationRequest
    frame: Frame
    latent_shape: tuple[int, int, int]
    schedule: Schedule
    is_guided: bool
    """Whether it runs classifier-free guidance: two rows a picture and step."""
    prompt: TokenIds
    negative_prompt: TokenIds | None
    picture: Pixels | None
    is_known: NDArray[np.bool_] | None
    timings: dict[str, float] = field(default_factory=dict)
    """Seconds so far, by the names of GenerationResult.timings."""


class Reader:
    """Reads requests for one model. Thread-safe: it only looks things up."""

    def __init__(self, description: ModelDescription, tokenizer: PromptTokenizer) -> None:
        self._description = description
        self._tokenizer = tokenizer
        self._scheduler = Scheduler(description.family, description.scheduler)

    def __call__(self, request: GenerationRequest) -> ReadRequest:
        """Read a request.

        Raises:
            InvalidRequest: this model cannot draw that.
        """
        frame = Frame.of(request, self._description)
        if request.mask is not None and request.image is None:
            raise InvalidRequest(request.image_field, "a mask needs a picture to keep parts of", "missing")
        strength = None if request.image is None else request.strength
        schedule = self._scheduler.plan(request.num_inference_steps, strength, is_inpainting=request.mask is not None)
        timings: dict[str, float] = {}
        with timed(timings, "encode_image"):
            picture, is_known = self._picture(request, frame), self._is_known(request, frame)
        with timed(timings, "text"):
            prompt, negative_prompt = self._tokenizer(request.prompt), self._negative_prompt(request)
        return ReadRequest(
            request=request,
            frame=frame,
            latent_shape=(self._description.latent_channels, *frame.latent_size),
            schedule=schedule,
            is_guided=self._is_guided(request),
            prompt=prompt,
            negative_prompt=negative_prompt,
            picture=picture,
            is_known=is_known,
            timings=timings,
        )

    def _is_guided(self, request: GenerationRequest) -> bool:
        # diffusers' rule: a UNet that embeds the guidance scale was distilled with it.
        return request.guidance_scale > 1 and self._description.timestep_cond_dim is None

    def _negative_prompt(self, request: GenerationRequest) -> TokenIds | None:
        is_zeros = not request.negative_prompt and self._description.force_zeros_for_empty_prompt
        return self._tokenizer(request.negative_prompt) if self._is_guided(request) and not is_zeros else None

    def _picture(self, request: GenerationRequest, frame: Frame) -> Pixels | None:
        if request.image is None:
            return None
        return frame.padded(pictures.decode(request.image, request.width, request.height, request.image_field))

    def _is_known(self, request: GenerationRequest, frame: Frame) -> NDArray[np.bool_] | None:
        if request.mask is None:
            return None
        mask = pictures.decode_mask(request.mask, request.width, request.height, request.mask_field)
        return inpainting.is_known(frame.padded(mask), self._description.vae_scale_factor)


@contextmanager
def timed(timings: dict[str, float], stage: str) -> Iterator[None]:
    """Add the seconds that the block takes to those of `stage`."""
    start = time.perf_counter()
    yield
    timings[stage] = timings.get(stage, 0.0) + time.perf_counter() - start
