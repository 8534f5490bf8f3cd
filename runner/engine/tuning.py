"""Measures what `batch_table` keeps: how long steps, decoder stages and encoders take on this device."""

import io
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
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
"""Seconds a size at most, once every number of rows had `ROUNDS_MIN` rounds."""
ROUNDS_MIN: Final = 3

Size = tuple[int, int]

Progress = Callable[[float], None]
"""Is told, again and again, which share of a size is done: 0 … 1."""

_STEPS_FROM: Final = 0.1
_DECODER_FROM: Final = 0.7
_ENCODER_FROM: Final = 0.9
"""Shares of a size's time that are over when these begin, about."""


def _silent(_: float) -> None:
    pass


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

    def measure(self, size: Size, cap_s: float | None = None, progress: Progress = _silent) -> SizeTiming:
        """Everything that depends on the size, (width, height) in pixels.

        Args:
            size: what is drawn.
            cap_s: choose no rows that make a step longer than that.
            progress: hears how far it is.

        Raises:
            InvalidRequest: the model cannot draw that size.
            OutOfMemory: not even one row fits.
        """
        fitting = self._fitting(size, _part(progress, 0, _STEPS_FROM))
        step = self._steps(size, fitting, _part(progress, _STEPS_FROM, _DECODER_FROM))
        return SizeTiming(
            width=size[0],
            height=size[1],
            step=step,
            decoder_stages=self._decoder(size, _part(progress, _DECODER_FROM, _ENCODER_FROM)),
            vae_encoder=self._encoder(size, _part(progress, _ENCODER_FROM, 1)),
            max_rows=choose_rows(step, cap_s),
        )

    def _steps(self, size: Size, fitting: Sequence[int], progress: Progress) -> dict[int, float]:
        seconds: dict[int, list[float]] = {rows: [] for rows in fitting}
        started = time.perf_counter()
        for number in range(self._rounds):
            for rows in fitting:
                seconds[rows].append(self._step(size, rows))
            spent = (time.perf_counter() - started) / BUDGET_S if BUDGET_S else 1.0
            progress(max((number + 1) / self._rounds, min(spent, (number + 1) / ROUNDS_MIN, 1)))
            if number + 1 >= ROUNDS_MIN and spent >= 1:
                break
        return {rows: statistics.median(values) for rows, values in seconds.items()}

    def _fitting(self, size: Size, progress: Progress) -> list[int]:
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
            progress(sum(fitting) / sum(self._rows))
        return fitting

    def _step(self, size: Size, rows: int) -> float:
        """The second step of a batch: the first has to put its prompts and initial latents in place."""
        samples = self._samples(size, rows)
        try:
            self._pipeline.denoise_step(samples)
            return _timed(lambda: self._pipeline.denoise_step(samples))
        finally:
            self._release(samples)

    def _decoder(self, size: Size, progress: Progress) -> list[float]:
        rounds = [self._decoding(size) for _ in self._each_round(progress)]
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

    def _encoder(self, size: Size, progress: Progress) -> float:
        image = io.BytesIO()
        Image.fromarray(np.zeros((size[1], size[0], 3), np.uint8)).save(image, "png")
        found = (self._prepared(size, "a picture", image.getvalue()) for _ in self._each_round(progress))
        return statistics.median(prepared.timings["encode_image"] for prepared in found)

    def _each_round(self, progress: Progress) -> Iterator[int]:
        for number in range(self._rounds):
            yield number
            progress((number + 1) / self._rounds)

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


def _part(progress: Progress, start: float, end: float) -> Progress:
    """A progress that makes up the part from `start` to `end` of `progress`."""
    return lambda share: progress(start + (end - start) * share)


def _timed(run: Callable[[], object]) -> float:
    started = time.perf_counter()
    run()
    return time.perf_counter() - started
