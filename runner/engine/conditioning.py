"""What a sample is drawn to: the prompt's embeddings, its size and its guidance."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from runner.engine.bundle import TIMESTEP_COND, ModelDescription
from runner.engine.frame import Frame
from runner.engine.graphs import Graph
from runner.engine.prompt_cache import CacheStatistics, Embeddings, PromptCache
from runner.engine.reading import ReadRequest
from runner.engine.request import GenerationRequest
from runner.engine.scheduler import guidance_embedding
from runner.engine.text import TokenIds

Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class Conditioning:
    """The step graph's inputs that stay the same through all steps of a request, without the batch axis.

    `negative` is set if the request runs classifier-free guidance: a second row of the batch, and what the
    UNet gives for `inputs` goes `guidance_scale` times the way from that row's to this one's. `guidance` is
    empty for a UNet that takes the scale itself: that one heeds neither a negative prompt nor a rescaling.
    """

    inputs: dict[str, Floats]
    negative: dict[str, Floats] | None
    guidance: dict[str, Floats]


class Conditioner:
    """Makes conditionings; keeps the embeddings of the last prompts."""

    def __init__(self, description: ModelDescription, text: Graph) -> None:
        self._description = description
        self._text = text
        self._embed = PromptCache(self._run_text_encoders)

    @property
    def cache_statistics(self) -> CacheStatistics:
        """Of the prompts' embeddings; safe to read from any thread."""
        return self._embed.statistics

    def __call__(self, read: ReadRequest) -> Conditioning:
        """The conditioning of a request, the same for each of its pictures. Runs the text graph for new prompts."""
        inputs = self._embed(read.prompt) | _size(read.frame) | self._guidance_embedding(read.request)
        negative = inputs | self._negative(read, inputs) if read.is_guided else None
        return Conditioning(inputs, negative, self._guidance(read))

    def _run_text_encoders(self, tokens: TokenIds) -> Embeddings:
        return {name: value[0] for name, value in self._text.run_named(tokens._asdict()).items()}

    def _negative(self, read: ReadRequest, inputs: dict[str, Floats]) -> Embeddings:
        if read.negative_prompt is not None:
            return self._embed(read.negative_prompt)
        return {name: np.zeros_like(inputs[name]) for name in ("prompt_embeds", "text_embeds")}

    def _guidance_embedding(self, request: GenerationRequest) -> dict[str, Floats]:
        dim = self._description.timestep_cond_dim
        return {} if dim is None else {TIMESTEP_COND: guidance_embedding(request.guidance_scale, dim)}

    def _guidance(self, read: ReadRequest) -> dict[str, Floats]:
        if self._description.timestep_cond_dim is not None:
            return {}
        request = read.request
        scale, rescale = (request.guidance_scale, request.guidance_rescale) if read.is_guided else (1.0, 0.0)
        return {"guidance_scale": np.array(scale, np.float32), "guidance_rescale": np.array(rescale, np.float32)}


def _size(frame: Frame) -> dict[str, Floats]:
    # SDXL's micro-conditioning: original size, top-left corner of the crop, target size.
    size = (frame.drawn_height, frame.drawn_width)
    return {"time_ids": np.array([*size, 0, 0, *size], dtype=np.float32)}
