"""What a sample is drawn to: the prompt's embeddings, its size and its guidance."""

import functools
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from runner.engine.bundle import TIMESTEP_COND, ModelDescription
from runner.engine.graphs import Graph
from runner.engine.request import GenerationRequest
from runner.engine.scheduler import guidance_embedding
from runner.engine.text import PromptTokenizer

Floats = NDArray[np.float32]

_CACHED_PROMPTS: Final = 64
"""SDXL's embeddings take 0.6 MB a prompt. A client that sends camera frames repeats its prompt each time."""


@dataclass(frozen=True, slots=True)
class Conditioning:
    """The step graph's inputs that stay the same through all steps of a request, without the batch axis.

    `negative` is set if the request runs classifier-free guidance: a second run of the UNet a step, and the
    result goes `guidance_scale` times the way from that one to this.
    """

    inputs: dict[str, Floats]
    negative: dict[str, Floats] | None
    guidance_scale: float


class Conditioner:
    """Makes conditionings; keeps the embeddings of the last prompts."""

    def __init__(self, description: ModelDescription, tokenizer: PromptTokenizer, text: Graph) -> None:
        self._description = description
        self._tokenizer = tokenizer
        self._text = text
        self._embed = functools.lru_cache(maxsize=_CACHED_PROMPTS)(self._run_text_encoders)

    def __call__(self, request: GenerationRequest) -> Conditioning:
        """The conditioning of a request, the same for each of its pictures."""
        inputs = self._embed(request.prompt) | self._size(request) | self._guidance(request)
        negative = inputs | self._negative(request) if self._is_classifier_free(request) else None
        return Conditioning(inputs, negative, request.guidance_scale)

    def _is_classifier_free(self, request: GenerationRequest) -> bool:
        # diffusers' rule: a UNet that embeds the guidance scale was distilled with it.
        return request.guidance_scale > 1 and self._description.timestep_cond_dim is None

    def _run_text_encoders(self, prompt: str) -> dict[str, Floats]:
        prompt_embeds, text_embeds = self._text.run(self._tokenizer(prompt)._asdict())
        return {"encoder_hidden_states": prompt_embeds[0], "text_embeds": text_embeds[0]}

    def _negative(self, request: GenerationRequest) -> dict[str, Floats]:
        embeddings = self._embed(request.negative_prompt)
        if request.negative_prompt or not self._description.force_zeros_for_empty_prompt:
            return embeddings
        return {name: np.zeros_like(value) for name, value in embeddings.items()}

    def _size(self, request: GenerationRequest) -> dict[str, Floats]:
        # SDXL's micro-conditioning: original size, top-left corner of the crop, target size.
        size = (request.height, request.width)
        return {"time_ids": np.array([*size, 0, 0, *size], dtype=np.float32)}

    def _guidance(self, request: GenerationRequest) -> dict[str, Floats]:
        dim = self._description.timestep_cond_dim
        return {} if dim is None else {TIMESTEP_COND: guidance_embedding(request.guidance_scale, dim)}
