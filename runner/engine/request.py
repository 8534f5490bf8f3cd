"""What crosses the process border between the gateway (client) and a worker: nothing else does.

A generation is a pure function of its request, seed included, so a request whose worker died is run again.
"""

from dataclasses import dataclass, field
from typing import Literal

OutputFormat = Literal["jpeg", "png"]


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
    presets: dict[str, tuple[int, int]]
    """fal's `image_size` presets as (width, height) in pixels, scaled to what the model was trained on."""


@dataclass(frozen=True, slots=True)
class GenerationRequest:
    """One generation, complete: every default is filled in and the seed is drawn.

    `image` is an encoded picture (JPEG, PNG, WebP) for image-to-image, resized to width x height by the
    worker; `strength` in (0, 1] says how far the result may leave it. With `num_images` n, picture i is the
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
    strength: float = 1.0
    output_format: OutputFormat = "jpeg"


@dataclass(frozen=True, slots=True)
class GeneratedImage:
    """An encoded picture."""

    content: bytes
    content_type: str
    width: int
    height: int


@dataclass(frozen=True, slots=True)
class GenerationResult:
    """`timings` are seconds a stage: queue, text, encode_image, denoise, decode, encode."""

    images: list[GeneratedImage]
    timings: dict[str, float] = field(default_factory=dict)


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


class EngineUnavailable(GenerationError):
    """No worker can take the request now: still starting, shutting down, or restarting too often."""


class GenerationCancelled(GenerationError):
    """Nobody waits for this generation any more. Stays inside the worker."""


class GenerationFailed(GenerationError):
    """The engine failed on this request; `error_id` links to the log. The cause stays in the log."""

    def __init__(self, error_id: str) -> None:
        super().__init__(f"generation failed ({error_id})")
        self.error_id = error_id
