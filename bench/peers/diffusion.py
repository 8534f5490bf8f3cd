"""What diffusers on torch and optimum on ONNX Runtime have in common: the pipeline's interface, and its noise."""

from collections.abc import Sequence
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from diffusers.schedulers import scheduling_lcm

from bench.peers import Picture, Request
from runner.engine import pictures
from runner.engine.sample import NOISE_BITS


class DiffusersPipeline:
    """A diffusers pipeline, used as its documentation says."""

    def __init__(self, pipeline: Any) -> None:
        self._pipeline = pipeline
        pipeline.set_progress_bar_config(disable=True)

    def draw(self, requests: Sequence[Request]) -> list[bytes]:
        """JPEGs of requests that wait at the same time: one call with a list of prompts."""
        generators = [torch.Generator().manual_seed(request.seed) for request in requests]
        prompts = [request.prompt for request in requests]
        # A list of one would do too; one prompt is what a caller without a batch writes.
        alone = len(requests) == 1
        images = self._run(
            requests[0], prompts[0] if alone else prompts, "pil", generator=generators[0] if alone else generators
        )
        return [pictures.encode(np.asarray(image), "jpeg").content for image in images]

    def picture(self, request: Request) -> Picture:
        """The picture from the noise that our engine draws for this seed."""
        generator = np.random.Generator(NOISE_BITS(request.seed))

        def noise(*_: Any, **__: Any) -> torch.Tensor:
            shape = (4, request.side // 8, request.side // 8)
            return torch.from_numpy(generator.standard_normal(shape, dtype=np.float32))[None]

        with patch.object(scheduling_lcm, "randn_tensor", noise):
            (image,) = self._run(request, request.prompt, "pil", latents=noise())
        return np.asarray(image)

    def _run(self, request: Request, prompt: str | list[str], output_type: str, **options: Any) -> Any:
        return self._pipeline(
            prompt,
            width=request.side,
            height=request.side,
            num_inference_steps=request.steps,
            guidance_scale=request.guidance_scale,
            output_type=output_type,
            **options,
        ).images
