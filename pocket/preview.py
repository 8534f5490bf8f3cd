"""``python -m pocket.preview BUNDLE``: fits the colours of the previews and writes them into the bundle's model.json.

The exporter fits them to patches of colour. This VAE has seen nothing but drawn pictures, so its own are the better
measure: what it makes of random captions.
"""

from __future__ import annotations

import random
import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pocket.vocabulary import COLOURS, SHAPES
from runner.engine import bundle
from runner.engine.pipeline import Pipeline
from runner.engine.request import GenerationRequest
from runner.export.preview import fit

PICTURES = 64


def fit_bundle(directory: Path) -> None:
    """Write `preview` into `model.json`."""
    description = bundle.read_description(directory)
    pipeline = Pipeline.load(directory, "cpu")
    chosen, colours = random.Random(0), list(COLOURS)
    latents, pictures = [], []
    for seed in range(PICTURES):
        prompt = f"a {chosen.choice(colours)} {chosen.choice(SHAPES)} on a {chosen.choice(colours)} background"
        made, picture = _draw(pipeline, prompt, seed)
        latents.append(made)
        pictures.append(picture / np.float32(127.5) - 1)
    found = fit(np.stack(latents), np.stack(pictures))
    bundle.write_description(directory, description.model_copy(update={"preview": found}))


def _draw(pipeline: Pipeline, prompt: str, seed: int) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """The latents [c, h, w] of a picture as a request without options gets it, and the picture [H, W, 3]."""
    card = pipeline.card
    size = card.default_width, card.default_height
    steps, guidance = card.default_num_inference_steps, card.default_guidance_scale
    request = GenerationRequest(prompt, *size, steps, guidance, seed, previews=True)
    sample = pipeline.start(pipeline.prepare(pipeline.read(request)), 0)
    while not sample.is_done:
        pipeline.denoise_step([sample])
        latents = pipeline.unfinished(sample).after
    decoding = pipeline.decoding(sample)
    pipeline.release(sample)
    while not decoding.is_done:
        decoding.advance()
    return latents, decoding.picture


if __name__ == "__main__":
    fit_bundle(Path(sys.argv[1]))
