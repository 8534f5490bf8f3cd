"""The first runs of everything, before somebody waits for them."""

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

import numpy as np

from runner.engine import cuda, pictures
from runner.engine.devices import Device
from runner.engine.request import Activity, GenerationRequest, OutOfMemory

if TYPE_CHECKING:
    from runner.engine.pipeline import Pipeline

Size = tuple[int, int]

ROWS_MAX: Final = 16
"""Batches above this are captured when they first come."""

_log = logging.getLogger(__name__)


def warm_up(pipeline: "Pipeline", device: str, progress: Callable[[Activity], None]) -> None:
    """Run every graph once, so that its memory is allocated; on CUDA, capture the steps that will be needed.

    On the CPU the default size is enough: others cost little the first time.

    Args:
        pipeline: loaded, and run by no one yet. CUDA graphs belong to the thread that calls this.
        device: "cpu" or "cuda:N".
        progress: is told what happens.
    """
    card = pipeline.card
    default = (card.default_width, card.default_height)
    progress(Activity("warming up"))
    _draw(pipeline, default)
    if Device.parse(device).kind == "cpu":
        return
    sizes = list(dict.fromkeys([default, *card.presets.values()]))
    for number, size in enumerate(sizes):
        progress(Activity(f"warming up {size[0]}x{size[1]}", number, len(sizes)))
        try:
            _draw(pipeline, size)
            _step(pipeline, size)
        except OutOfMemory as error:
            _log.warning("%dx%d is not warmed up any further: %s", *size, error)


def _draw(pipeline: "Pipeline", size: Size) -> None:
    """A picture from nothing and one from a picture."""
    card = pipeline.card
    blank = pictures.encode(np.zeros((size[1], size[0], 3), np.uint8), "png").content
    for image in (None, blank):
        request = GenerationRequest(
            "", *size, card.default_num_inference_steps, card.default_guidance_scale, seed=0, image=image
        )
        pipeline.generate(request)


def _step(pipeline: "Pipeline", size: Size) -> None:
    """A step of each number of rows that there may be, the largest first: it makes room for the others."""
    request = GenerationRequest("", *size, num_inference_steps=1, guidance_scale=1.0, seed=0)
    prepared = pipeline.prepare(pipeline.read(request))
    rows = cuda.padded_rows(min(ROWS_MAX, pipeline.max_rows(prepared.latent_shape)))
    while rows:
        samples = [pipeline.start(prepared, number) for number in range(rows)]
        try:
            pipeline.denoise_step(samples)
        finally:
            for sample in samples:
                pipeline.release(sample)
        rows //= 2
