"""How long things took, for `GET /metrics`: the stages of a generation, from its request to its result on a socket."""

from collections.abc import Iterable
from typing import Final

from prometheus_client import Histogram
from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from runner.engine.request import GenerationRequest, GenerationResult

_DRAWN: Final = ("queue", "text", "encode_image", "denoise", "decode", "encode")
"""Of `GenerationResult.timings`. A fixed set: labels must not become more."""
_BOUNDS: Final = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30)
"""Seconds: from an encoded prompt to a large picture on a CPU."""


class Stages(Collector):
    """Histograms. What several workers do at once is counted for each request by itself."""

    def __init__(self) -> None:
        self._stages = Histogram(
            "runner_stage_seconds", "Time that a stage took, by stage.", ("stage",), registry=None, buckets=_BOUNDS
        )
        self._requests = Histogram(
            "runner_request_seconds",
            "From a request to the engine until its result was back.",
            registry=None,
            buckets=_BOUNDS,
        )

    def drew(self, request: GenerationRequest, result: GenerationResult, seconds: float) -> None:
        """A result came back so many seconds after its request."""
        self._requests.observe(seconds)
        for name in _DRAWN:
            if name in result.timings:
                self._stages.labels(name).observe(result.timings[name])
        if "denoise" in result.timings:
            # Image-to-image may make fewer steps than were asked for: then one took longer than it says here.
            self._stages.labels("step").observe(result.timings["denoise"] / request.num_inference_steps)

    def sent(self, seconds: float) -> None:
        """A result was put on a socket; a peer that reads slowly makes it wait."""
        self._stages.labels("send").observe(seconds)

    def collect(self) -> Iterable[Metric]:
        """Every histogram, without the times at which they were made."""
        for metric in (*self._stages.collect(), *self._requests.collect()):
            metric.samples = [sample for sample in metric.samples if not sample.name.endswith("_created")]
            yield metric
