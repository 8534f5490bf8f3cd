"""What the image apps have in common: every form of text-to-image, image-to-image and inpainting at every door."""

from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from typing import ClassVar

from runner.apps.completion import Defaults, complete, want
from runner.apps.engine import Engine
from runner.apps.framework import App, endpoint, realtime
from runner.apps.links import Links, RequestLinks
from runner.apps.pictures import Fetch, fetch_nothing
from runner.engine.request import (
    EngineUnavailable,
    GenerationRequest,
    GenerationResult,
    ModelCard,
    StepPreview,
)
from schemas.images import (
    ImagesOutput,
    ImageToImageInput,
    InpaintingInput,
    PreviewOutput,
    RealtimeImage,
    RealtimeInput,
    RealtimeOutput,
    TextToImageInput,
)


class Diffusion(App):
    """An image app on an engine. Handlers block their greenlet on it, and raise its `GenerationError`s.

    Args:
        engine: What generates.
        ready_timeout_s: How long an input waits for a model that is still loading.
        fetch: How URLs of pictures are fetched; by default they are refused.
        links: Where pictures of answers over HTTP go; by default into the answers.
    """

    defaults: ClassVar = staticmethod(Defaults.of)
    """From the model's card to what an input that does not say gets."""

    output_model: ClassVar[type[ImagesOutput]] = ImagesOutput
    """Of answers over HTTP."""

    preview_model: ClassVar[type[PreviewOutput]] = PreviewOutput
    """Of events before the last."""

    def __init__(
        self, engine: Engine, ready_timeout_s: float = 90.0, *, fetch: Fetch = fetch_nothing, links: Links | None = None
    ) -> None:
        self._engine = engine
        self._ready_timeout_s = ready_timeout_s
        self._fetch = fetch
        self._links = Links() if links is None else links

    # Over HTTP

    @endpoint("/")
    def text_to_image(self, received: TextToImageInput) -> ImagesOutput:
        """Pictures of a prompt."""
        return self._draw(received)

    @endpoint("/image-to-image")
    def image_to_image(self, received: ImageToImageInput) -> ImagesOutput:
        """Pictures of a prompt that begin with a picture."""
        return self._draw(received)

    @endpoint("/inpainting")
    def inpainting(self, received: InpaintingInput) -> ImagesOutput:
        """A picture with parts of it drawn anew."""
        return self._draw(received)

    # As server-sent events: a preview after each step, and last what the endpoint above answers.

    @endpoint("/stream")
    def text_to_image_stream(self, received: TextToImageInput) -> Iterator[ImagesOutput]:
        """Pictures of a prompt, with previews."""
        return self._stream(received)

    @endpoint("/image-to-image/stream")
    def image_to_image_stream(self, received: ImageToImageInput) -> Iterator[ImagesOutput]:
        """Pictures of a prompt that begin with a picture, with previews."""
        return self._stream(received)

    @endpoint("/inpainting/stream")
    def inpainting_stream(self, received: InpaintingInput) -> Iterator[ImagesOutput]:
        """A picture with parts of it drawn anew, with previews."""
        return self._stream(received)

    # Over WebSockets

    @realtime("/realtime")
    def generate(self, received: RealtimeInput) -> RealtimeOutput:
        """Inpainting where a mask came along, image-to-image where a picture did, else text-to-image."""
        request = self._complete(received)
        return _realtime_output(received, request, self._engine.generate(request))

    @realtime("/image-to-image/realtime")
    def image_to_image_realtime(self, received: RealtimeInput) -> RealtimeOutput:
        """As `generate`, for an input that must bring a picture."""
        want("image", received.image)
        return self.generate(received)

    @realtime("/inpainting/realtime")
    def inpainting_realtime(self, received: RealtimeInput) -> RealtimeOutput:
        """As `generate`, for an input that must bring a picture and a mask."""
        want("mask", received.mask)
        return self.image_to_image_realtime(received)

    def _draw(self, received: TextToImageInput) -> ImagesOutput:
        request, links = self._complete(received), self._links.for_request()
        return self._output(received, request, self._engine.generate(request), links)

    def _stream(self, received: TextToImageInput) -> Iterator[ImagesOutput]:
        # Not a generator itself: what is wrong with the input is known before there is a stream.
        return self._events(received, self._complete(received), self._links.for_request())

    def _events(
        self, received: TextToImageInput, request: GenerationRequest, links: RequestLinks
    ) -> Iterator[ImagesOutput]:
        with closing(self._engine.stream(replace(request, previews=True))) as events:
            for event in events:
                if isinstance(event, StepPreview):
                    yield self._preview(request, event, links)
                else:
                    yield self._output(received, request, event, links)

    def _complete(self, received: TextToImageInput) -> GenerationRequest:
        card = self._card()
        return complete(received, card, self.defaults(card), self._fetch)

    def _card(self) -> ModelCard:
        try:
            return self._engine.card
        except EngineUnavailable:
            self._engine.wait_ready(self._ready_timeout_s)
            return self._engine.card

    def _output(
        self, received: TextToImageInput, request: GenerationRequest, result: GenerationResult, links: RequestLinks
    ) -> ImagesOutput:
        images = [
            links.image(picture, str(request.seed + number), in_answer=received.sync_mode)
            for number, picture in enumerate(result.images)
        ]
        return self.output_model.model_validate(
            {
                "images": images,
                "timings": result.timings,
                "seed": request.seed,
                "has_nsfw_concepts": result.has_nsfw_concepts,
                "prompt": received.prompt,
            }
        )

    def _preview(self, request: GenerationRequest, event: StepPreview, links: RequestLinks) -> PreviewOutput:
        # Always in the event itself: it is small, and nobody comes back for it.
        return self.preview_model.model_validate(
            {
                "images": [links.image(event.image, str(request.seed), in_answer=True)],
                "timings": {},
                "seed": request.seed,
                "prompt": request.prompt,
                "step": event.step,
                "num_inference_steps": event.num_inference_steps,
            }
        )


def _realtime_output(received: RealtimeInput, request: GenerationRequest, result: GenerationResult) -> RealtimeOutput:
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
