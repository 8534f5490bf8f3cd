"""Measures what `batch_table` keeps: how long steps, decoder stages and encoders take on this device."""

import io
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Final

import numpy as np
from PIL import Image

from runner.engine.batch_table import SizeTiming, choose_rows
from runner.engine.pipeline import Pipeline
from runner.engine.request import GenerationRequest, OutOfMemory
from runner.engine.sample import PreparedRequest, Sample

ROWS: Final = (1, 2, 3, 4, 6, 8, 12, 16)
ROUNDS: Final = 15
BUDGET_S: Final = 30.0
"""Seconds a size at most, once every number of rows had three rounds."""

Size = tuple[int, int]


class Tuner:
    """Measures one loaded model. Rows take turns, so that what else the machine does falls on all alike."""

    def __init__(self, pipeline: Pipeline, rounds: int = ROUNDS, rows: Sequence[int] = ROWS) -> None:
        """Get ready to measure, in so many rounds, steps of so many rows."""
        self._pipeline = pipeline
        self._rounds = rounds
        self._rows = rows

    def text_seconds(self) -> float:
        """Encoding a prompt that was not seen before."""
        width, height = self._pipeline.card.default_width, self._pipeline.card.default_height
        prompts = (f"prompt {time.monotonic_ns()}" for _ in range(self._rounds))
        return statistics.median(self._prepared((width, height), prompt).timings["text"] for prompt in prompts)

    def measure(self, size: Size, cap_s: float | None = None) -> SizeTiming:
        """Everything that depends on the size, (width, height) in pixels.

        Args:
            size: what is drawn.
            cap_s: choose no rows that make a step longer than that.

        Raises:
            InvalidRequest: the model cannot draw that size.
            OutOfMemory: not even one row fits.
        """
        step = self._steps(size)
        return SizeTiming(
            width=size[0],
            height=size[1],
            step=step,
            decoder_stages=self._decoder(size),
            vae_encoder=self._encoder(size),
            max_rows=choose_rows(step, cap_s),
        )

    def _steps(self, size: Size) -> dict[int, float]:
        fitting = self._fitting(size)
        seconds: dict[int, list[float]] = {rows: [] for rows in fitting}
        started = time.perf_counter()
        for number in range(self._rounds):
            for rows in fitting:
                seconds[rows].append(self._step(size, rows))
            if number >= 2 and time.perf_counter() - started > BUDGET_S:
                break
        return {rows: statistics.median(values) for rows, values in seconds.items()}

    def _fitting(self, size: Size) -> list[int]:
        """The numbers of rows that the memory has room for; each is run, which warms it up."""
        fitting: list[int] = []
        for rows in self._rows:
            try:
                self._step(size, rows)
            except OutOfMemory:
                if not fitting:
                    raise
                break
            fitting.append(rows)
        return fitting

    def _step(self, size: Size, rows: int) -> float:
        """The second step of a batch: the first has to put its prompts and initial latents in place."""
        samples = self._samples(size, rows)
        try:
            self._pipeline.denoise_step(samples)
            return _timed(lambda: self._pipeline.denoise_step(samples))
        finally:
            self._release(samples)

    def _decoder(self, size: Size) -> list[float]:
        rounds = [self._decoding(size) for _ in range(self._rounds)]
        return [statistics.median(stage) for stage in zip(*rounds, strict=True)]

    def _decoding(self, size: Size) -> list[float]:
        samples = self._samples(size, 1)
        try:
            self._pipeline.denoise_step(samples)
            decoding = self._pipeline.decoding(samples[0])
            seconds = []
            while not decoding.is_done:
                seconds.append(_timed(decoding.advance))
            return seconds
        finally:
            self._release(samples)

    def _encoder(self, size: Size) -> float:
        image = io.BytesIO()
        Image.fromarray(np.zeros((size[1], size[0], 3), np.uint8)).save(image, "png")
        found = (self._prepared(size, "a picture", image.getvalue()) for _ in range(self._rounds))
        return statistics.median(prepared.timings["encode_image"] for prepared in found)

    def _samples(self, size: Size, rows: int) -> list[Sample]:
        # Without guidance every sample takes one row, whatever the model's family.
        prepared = self._prepared(size, "a picture")
        return [self._pipeline.start(prepared, number) for number in range(rows)]

    def _prepared(self, size: Size, prompt: str, image: bytes | None = None) -> PreparedRequest:
        request = GenerationRequest(prompt, *size, num_inference_steps=2, guidance_scale=1.0, seed=0, image=image)
        return self._pipeline.prepare(self._pipeline.read(request))

    def _release(self, samples: Sequence[Sample]) -> None:
        for sample in samples:
            self._pipeline.release(sample)


def _timed(run: Callable[[], object]) -> float:
    started = time.perf_counter()
    run()
    return time.perf_counter() - started
