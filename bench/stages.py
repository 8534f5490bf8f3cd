"""What each stage of our engine takes by itself: prompt, step at each batch, decoder stages, JPEG, reading."""

import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from runner.engine.pipeline import Pipeline
from runner.engine.request import GenerationRequest


def measure(bundle: Path, device: str, side: int, batches: Sequence[int], repeats: int) -> dict[str, Any]:
    """Median milliseconds of each stage.

    A step's inputs are written and its latents stay on the device, as between the steps of a request; everything a
    stage starts on the device is over when it is taken for done, since runs are synchronous.
    """
    pipeline = Pipeline.load(bundle, device, check_hashes=False)
    requests = [_request(side, number) for number in range(max(batches) + repeats + 1)]
    reads = [pipeline.read(request) for request in requests]
    found: dict[str, Any] = {"read": _median([_timed(lambda r=r: pipeline.read(r)) for r in requests])}
    found["text"] = _median([_timed(lambda r=r: pipeline.prepare(r)) for r in reads[-repeats - 1 :]][1:])
    found["step"] = {str(batch): _step(pipeline, reads[:batch], repeats) for batch in sorted(batches)}
    found["decoder_stages"], picture = _decode(pipeline, reads[0], repeats)
    found["jpeg"] = _median([_timed(lambda: pipeline.encode(requests[0], [picture])) for _ in range(repeats)])
    return found


def _step(pipeline: Pipeline, reads: Sequence[Any], repeats: int) -> float:
    seconds = []
    while len(seconds) < repeats + 3:
        samples = [pipeline.start(pipeline.prepare(read), 0) for read in reads]
        while not samples[0].is_done:
            seconds.append(_timed(lambda some=samples: pipeline.denoise_step(some)))
        for sample in samples:
            pipeline.release(sample)
    return _median(seconds[3:])


def _decode(pipeline: Pipeline, read: Any, repeats: int) -> tuple[list[float], Any]:
    rounds = []
    for _ in range(repeats + 1):
        sample = pipeline.start(pipeline.prepare(read), 0)
        while not sample.is_done:
            pipeline.denoise_step([sample])
        decoding, seconds = pipeline.decoding(sample), []
        while not decoding.is_done:
            seconds.append(_timed(decoding.advance))
        pipeline.release(sample)
        rounds.append(seconds)
    return [_median(list(stage)) for stage in zip(*rounds[1:], strict=True)], decoding.picture


def _request(side: int, number: int) -> GenerationRequest:
    return GenerationRequest(f"picture {number}", side, side, 4, 1.5, seed=number)


def _timed(run: Callable[[], object]) -> float:
    started = time.perf_counter()
    run()
    return time.perf_counter() - started


def _median(seconds: list[float]) -> float:
    return round(1000 * statistics.median(seconds), 3)
