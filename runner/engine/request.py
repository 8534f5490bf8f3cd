"""What crosses the process border between the gateway (client) and a worker: nothing else does.

A generation is a pure function of its request, seed included, so a request whose worker died is run again.
"""

import math
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Final, Literal

OutputFormat = Literal["jpeg", "png", "webp"]

FLOW: Final[ContextVar[str]] = ContextVar("flow", default="")
"""Who a generation is for, in the sense of fair queueing: a socket sets it for its greenlet, and flows that
wait share the engine evenly, however much each of them asks for."""


@dataclass(frozen=True, slots=True)
class ModelCard:
    """What a worker says of its bundle once it is loaded: what the apps need to fill in defaults."""

    name: str
    family: str
    default_width: int
    default_height: int
    default_num_inference_steps: int
    default_guidance_scale: float
    size_multiple: int
    """Width and height are multiples of this many pixels."""
    max_pixels: int
    """Of what is drawn, see `drawn_multiple`."""
    presets: dict[str, tuple[int, int]]
    """fal's `image_size` presets as (width, height) in pixels, scaled to what the model was trained on."""
    has_negative_prompt: bool = False
    """Whether guidance runs against a negative prompt; else there is no use for one."""
    has_safety_checker: bool = False
    drawn_multiple: int = 1
    """What is drawn has multiples of this many pixels; what that is more than asked for is cut off at the edges."""


@dataclass(frozen=True, slots=True)
class Activity:
    """What somebody does now, in words that anybody may read: nothing of this machine is named."""

    words: str
    done: int = 0
    """Parts of it that are finished."""
    total: int = 0
    """All of its parts; 0 if it is not known how many there are."""

    def __str__(self) -> str:
        return f"{self.words} ({self.done + 1} of {self.total})" if self.total else self.words


@dataclass(frozen=True, slots=True)
class GenerationRequest:
    """One generation, complete: every default is filled in and the seed is drawn.

    `image` is an encoded picture (JPEG, PNG, WebP) for image-to-image, resized to width x height by the
    worker; `strength` in (0, 1] says how far the result may leave it. `mask`, another encoded picture, makes
    it inpainting: drawn anew is what is white in it, kept what is black. With `num_images` n, picture i is the
    one that a lone request with seed + i gives.
    """

    prompt: str
    width: int
    height: int
    num_inference_steps: int
    guidance_scale: float
    seed: int
    negative_prompt: str = ""
    num_images: int = 1
    image: bytes | None = None
    image_field: str = "image_bytes"
    """The input that `image` came in: what an InvalidRequest about it names."""
    mask: bytes | None = None
    mask_field: str = "mask_bytes"
    """The input that `mask` came in."""
    strength: float = 1.0
    guidance_rescale: float = 0.0
    """In [0, 1], how far guided latents get back the contrast of unguided ones (arXiv 2305.08891, 3.4)."""
    check_safety: bool = True
    """Whether the model's safety checker, if it has one, looks at the pictures."""
    output_format: OutputFormat = "jpeg"
    previews: bool = False
    """Whether whoever asks wants a `StepPreview` after each step but the last."""


@dataclass(frozen=True, slots=True)
class GenerationLimits:
    """What a token allows of one generation; None: whatever the model can do."""

    max_pixels: int | None = None
    """Width times height of a picture."""
    max_steps: int | None = None

    def check(self, request: GenerationRequest) -> None:
        """Lets a generation through or names what is too much.

        Raises:
            InvalidRequest: more pixels or steps than the token allows.
        """
        pixels, steps = request.width * request.height, request.num_inference_steps
        if self.max_pixels is not None and pixels > self.max_pixels:
            raise InvalidRequest(
                "image_size",
                f"{request.width}x{request.height} is {pixels} pixels and the token's max_pixels is "
                f"{self.max_pixels}: set a smaller image_size",
                "image_too_large",
            )
        if self.max_steps is not None and steps > self.max_steps:
            raise InvalidRequest(
                "num_inference_steps",
                f"{steps} steps are more than the token's max_steps, {self.max_steps}: set num_inference_steps to "
                "at most that",
                "less_than_equal",
            )


PREVIEW_SIDE_MAX_PX: Final = 256

LIMITS: Final[ContextVar[GenerationLimits]] = ContextVar("limits", default=GenerationLimits())  # noqa: B039 - frozen
"""What the token of a socket allows of each generation: a socket sets it for its greenlet, and the engine's client
asks it, so that no app can forget to. (An app that generates in greenlets of its own passes its context on.)"""


@dataclass(frozen=True, slots=True)
class GeneratedImage:
    """An encoded picture."""

    content: bytes
    content_type: str
    width: int
    height: int


@dataclass(frozen=True, slots=True)
class GenerationResult:
    """What a generation has come to.

    `timings` are seconds of wall time, by stage: `text` and `encode_image` (reading and encoding the prompt and the
    picture), `queue` (whatever else was waited before the first step), `denoise` (from the start of the first step to
    the end of the last), `decode` (from there until every picture is decoded and checked), `encode` (from there until
    they are compressed). A worker draws for others meanwhile, so a stage says how long it took, not how much work
    it was.

    `has_nsfw_concepts` has a value for each picture if a safety checker looked at them, else it is empty;
    a picture with such concepts is black.
    """

    images: list[GeneratedImage]
    timings: dict[str, float] = field(default_factory=dict)
    has_nsfw_concepts: list[bool] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class StepPreview:
    """About what the first picture will be, as a step leaves it: small, and of the model's estimate without noise."""

    step: int
    """Of the picture's steps, from 1. They rise; some may be left out, and the last always is: the result follows."""
    num_inference_steps: int
    """How many steps the picture takes: of image-to-image, those that its strength leaves."""
    image: GeneratedImage
    """JPEG, at most `PREVIEW_SIDE_MAX_PX` a side, in the proportions of the picture."""


@dataclass(frozen=True, slots=True)
class EngineStatistics:
    """What workers have counted since the engine's start; gauges are what is so now."""

    ticks: int = 0
    """Runs of the step graph."""
    ticks_by_rows: dict[str, int] = field(default_factory=dict)
    """Runs by the number of rows in their batch."""
    steps_by_size: dict[str, int] = field(default_factory=dict)
    """Steps of pictures by the size of their latents, WIDTHxHEIGHT."""
    step_seconds: float = 0.0
    """Time in the step graph."""
    answers: dict[str, int] = field(default_factory=dict)
    """How requests ended: finished, refused, failed, cancelled."""
    pictures: int = 0
    """Pictures drawn to the end."""
    prompt_cache_hits: int = 0
    prompt_cache_misses: int = 0
    prompt_cache_bytes: int = 0
    """Gauge."""
    waiting_requests: int = 0
    """Gauge: received, and no step of them was made."""
    running_requests: int = 0
    """Gauge: with a step made and no answer."""


class GenerationError(Exception):
    """Base of what a generation can end in besides a result."""


class InvalidRequest(GenerationError):
    """The request can never succeed: `field` names the input to mend, `message` the remedy.

    `kind` is fal's machine name, for example image_load_error or image_too_large (contract §4).
    """

    def __init__(self, field: str, message: str, kind: str = "value_error") -> None:
        super().__init__(f"{field}: {message}")
        self.field = field
        self.message = message
        self.kind = kind


class OutOfMemory(GenerationError):
    """The device has too little memory for a run; the model stays loaded, and a smaller run may succeed."""


class EngineUnavailable(GenerationError):
    """No worker can take the request now: still starting, shutting down, or restarting too often."""


class EngineBusy(EngineUnavailable):
    """More waits than should; after `retry_after_s` seconds there is likely room again."""

    def __init__(self, retry_after_s: float) -> None:
        super().__init__(f"busy: send the request again in {math.ceil(retry_after_s)} s")
        self.retry_after_s = retry_after_s


class GenerationCancelled(GenerationError):
    """Nobody waits for this generation any more. Stays inside the worker."""


class GenerationFailed(GenerationError):
    """The engine failed on this request; `error_id` links to the log. The cause stays in the log."""

    def __init__(self, error_id: str) -> None:
        super().__init__(f"generation failed ({error_id})")
        self.error_id = error_id
