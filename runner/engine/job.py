"""One request on its way through a worker."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from runner.engine.reading import ReadRequest
from runner.engine.request import GeneratedImage, GenerationRequest, GenerationResult
from runner.engine.sample import PreparedRequest, Sample

Pixels = NDArray[np.uint8]


@dataclass(eq=False, slots=True)
class Job:
    """A request, and what has become of it so far. Times are those of the loop's clock, in seconds."""

    id: int
    request: GenerationRequest
    flow: str
    arrived_at: float
    read: ReadRequest | None = None
    prepared: PreparedRequest | None = None
    samples: list[Sample] = field(default_factory=list)
    pictures: dict[int, Pixels] = field(default_factory=dict)
    has_nsfw_concepts: list[bool] = field(default_factory=list)
    first_step_at: float | None = None
    denoised_at: float = 0.0
    decoded_at: float = 0.0
    has_progressed: bool = False
    """Since its last heartbeat."""

    @property
    def is_drawn(self) -> bool:
        """Every picture has gone through the decoder."""
        return len(self.pictures) == self.request.num_images

    @property
    def drawn(self) -> list[Pixels]:
        """The pictures in the order of their numbers."""
        return [self.pictures[number] for number in range(self.request.num_images)]

    def result(self, images: list[GeneratedImage], now: float) -> GenerationResult:
        """The answer; `timings` are as `GenerationResult` says, the queue being all that was waited for a start."""
        assert self.prepared is not None
        assert self.first_step_at is not None
        own: dict[str, Any] = self.prepared.timings
        timings = {
            "queue": max(self.first_step_at - self.arrived_at - sum(own.values()), 0.0),
            **own,
            "denoise": self.denoised_at - self.first_step_at,
            "decode": self.decoded_at - self.denoised_at,
            "encode": now - self.decoded_at,
        }
        return GenerationResult(images, timings, self.has_nsfw_concepts)
