"""The worker, with a log of when requests arrive and when steps begin and end: `python -m bench.observed_worker`.

The log goes to the file that BENCH_WORKER_LOG names, one JSON object a line. BENCH_ADMISSION=whole has it admit
new requests only once all those under way are drawn: batching of whole requests, to compare with.
"""

import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from runner.engine import loop, worker
from runner.engine.batcher import Tick
from runner.engine.decoding import Decoding
from runner.engine.pipeline import Pipeline
from runner.engine.reading import ReadRequest
from runner.engine.request import GenerationRequest
from runner.engine.sample import PreparedRequest, Sample


class WholeRequestsLoop(loop.EngineLoop):
    """Admits when nothing is under way, and then all who wait."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._has_stepped = False

    def admits_newcomer(self, tick: Tick[Sample] | None) -> bool:
        self._has_stepped &= self.is_drawing
        return not self._has_stepped

    def _step(self, tick: Any) -> None:
        self._has_stepped = True
        super()._step(tick)


def observe(log: Callable[[dict[str, Any]], None]) -> None:
    """Have every loop and pipeline of this process write to `log`."""
    put, denoise_step, prepare, advance = loop.EngineLoop.put, Pipeline.denoise_step, Pipeline.prepare, Decoding.advance

    @contextmanager
    def timed(event: str, *seeds: int) -> Iterator[None]:
        started_at = time.perf_counter()
        yield
        log({"event": event, "seeds": seeds, "at": started_at, "seconds": time.perf_counter() - started_at})

    def observed_put(self: loop.EngineLoop, id_: int, request: GenerationRequest, flow: str) -> None:
        log({"event": "arrival", "seeds": [request.seed], "at": time.perf_counter()})
        put(self, id_, request, flow)

    def observed_prepare(self: Pipeline, read: ReadRequest) -> PreparedRequest:
        with timed("prepare", read.request.seed):
            return prepare(self, read)

    def observed_step(self: Pipeline, samples: Sequence[Sample]) -> None:
        with timed("step", *(sample.prepared.request.seed for sample in samples)):
            denoise_step(self, samples)

    def observed_advance(self: Decoding) -> None:
        with timed("stage"):
            advance(self)

    loop.EngineLoop.put = observed_put  # type: ignore[method-assign]
    Pipeline.prepare = observed_prepare  # type: ignore[method-assign]
    Pipeline.denoise_step = observed_step  # type: ignore[method-assign]
    Decoding.advance = observed_advance  # type: ignore[method-assign]


if __name__ == "__main__":
    with open(os.environ["BENCH_WORKER_LOG"], "w", buffering=1) as file:
        observe(lambda entry: print(json.dumps(entry), file=file))
        if os.environ.get("BENCH_ADMISSION") == "whole":
            loop.EngineLoop = WholeRequestsLoop  # type: ignore[misc]
        sys.exit(worker.main())
