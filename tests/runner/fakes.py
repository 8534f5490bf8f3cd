"""An engine without a model, for tests of what stands before it. The real one has its own tests."""

from collections.abc import Callable, Generator
from dataclasses import dataclass, field

from gevent.event import Event

from runner.engine.request import (
    LIMITS,
    EngineUnavailable,
    GeneratedImage,
    GenerationRequest,
    GenerationResult,
    ModelCard,
    StepPreview,
)

CARD = ModelCard(
    name="fake",
    family="lcm",
    default_width=128,
    default_height=128,
    default_num_inference_steps=4,
    default_guidance_scale=1.0,
    size_multiple=8,
    max_pixels=128 * 128,
    presets={"square": (64, 64), "square_hd": (128, 128), "portrait_16_9": (72, 128)},
)


def picture(request: GenerationRequest) -> GenerationResult:
    """A "picture" that tells what it was made from."""
    image = GeneratedImage(f"{request.prompt}#{request.seed}".encode(), "image/jpeg", request.width, request.height)
    return GenerationResult([image] * request.num_images, {"denoise": 0.5})


@dataclass
class FakeEngine:
    """Remembers its requests; `answer` can raise, and `hold` keeps every request until it is set."""

    answer: Callable[[GenerationRequest], GenerationResult] = picture
    loaded: bool = True
    requests: list[GenerationRequest] = field(default_factory=list)
    cancelled: list[GenerationRequest] = field(default_factory=list)
    hold: Event = field(default_factory=Event)
    started: Event = field(default_factory=Event)
    observe: Callable[[GenerationRequest, GenerationResult, float], None] = lambda request, result, seconds: None

    def __post_init__(self) -> None:
        self.hold.set()

    @property
    def card(self) -> ModelCard:
        if not self.loaded:
            raise EngineUnavailable("the engine is starting")
        return CARD

    def wait_ready(self, timeout: float | None = None) -> None:
        if not self.loaded:
            raise EngineUnavailable("/models/secret is broken")

    def generate(self, request: GenerationRequest) -> GenerationResult:
        LIMITS.get().check(request)  # as the real client does
        self.requests.append(request)
        self.started.set()
        answered = False
        try:
            self.hold.wait()
            answered = True
        finally:
            if not answered:
                self.cancelled.append(request)
        result = self.answer(request)
        self.observe(request, result, 0.1)
        return result

    def stream(self, request: GenerationRequest) -> Generator[StepPreview | GenerationResult]:
        """A preview after each step but the last, then the result; held requests are held before the first."""
        result = self.generate(request)
        for step in range(1, request.num_inference_steps):
            preview = GeneratedImage(f"{request.prompt}@{step}".encode(), "image/jpeg", 8, 8)
            yield StepPreview(step, request.num_inference_steps, preview)
        yield result
