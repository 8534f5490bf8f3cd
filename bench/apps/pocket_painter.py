"""The bundled model behind an app as a user would write it: loaded in `setup`, called in a sync method.

For fal's SDK in `bench.gateway`, against our own app of the model. It draws with our pipeline, so that what differs is
all that stands around it. A pipeline draws one request at a time.
"""

import threading
from pathlib import Path

from pydantic import BaseModel

import runner as fal
from runner.engine.pipeline import Pipeline
from runner.engine.request import GenerationRequest

MODEL = Path(__file__).parents[2] / "models" / "pocket"


class Input(BaseModel):
    prompt: str
    seed: int = 0


class Image(BaseModel):
    content: bytes
    content_type: str
    width: int
    height: int


class Output(BaseModel):
    images: list[Image]
    timings: dict[str, float]
    seed: int


class PocketPainter(fal.App):
    def setup(self) -> None:
        self._pipeline = Pipeline.load(MODEL, "cpu")
        self._card = self._pipeline.card
        self._drawing = threading.Lock()

    @fal.realtime("/realtime")
    def paint(self, input: Input) -> Output:
        card = self._card
        request = GenerationRequest(
            input.prompt,
            card.default_width,
            card.default_height,
            card.default_num_inference_steps,
            card.default_guidance_scale,
            input.seed,
        )
        with self._drawing:
            result = self._pipeline.generate(request)
        images = [
            Image(content=image.content, content_type=image.content_type, width=image.width, height=image.height)
            for image in result.images
        ]
        return Output(images=images, timings=result.timings, seed=input.seed)
