"""Counting: what a worker did, and all workers of one place together."""

from collections import Counter
from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any, Final

from runner.engine.request import EngineStatistics

if TYPE_CHECKING:
    from runner.engine.batcher import Tick
    from runner.engine.prompt_cache import CacheStatistics

GAUGES: Final = frozenset({"prompt_cache_bytes", "waiting_requests", "running_requests"})
_SIZES_MAX: Final = 32
_OTHER_SIZES: Final = "other"
"""Sizes are the callers' choice: past so many they are counted together, or they would fill whatever keeps them."""


def total(earlier: EngineStatistics, current: EngineStatistics) -> EngineStatistics:
    """The counts of both, and the gauges of `current`."""
    values = {entry.name: getattr(current, entry.name) for entry in fields(current)}
    for name in values.keys() - GAUGES:
        before = getattr(earlier, name)
        values[name] = _merged(values[name], before) if isinstance(before, dict) else values[name] + before
    return EngineStatistics(**values)


class Tally:
    """A worker's own count, kept by the engine's thread."""

    def __init__(self) -> None:
        self._counts = EngineStatistics()
        self.has_changed = False
        """Since the last report."""

    def stepped(self, tick: "Tick[Any]", seconds: float) -> None:
        """The step graph was run."""
        counts = self._counts
        _, height, width = tick.shape
        size = f"{width}x{height}"
        if size not in counts.steps_by_size and len(counts.steps_by_size) >= _SIZES_MAX:
            size = _OTHER_SIZES
        self._change(
            ticks=counts.ticks + 1,
            ticks_by_rows=_merged(counts.ticks_by_rows, {str(tick.rows): 1}),
            steps_by_size=_merged(counts.steps_by_size, {size: len(tick.samples)}),
            step_seconds=counts.step_seconds + seconds,
        )

    def drew(self, pictures: int) -> None:
        """A request's pictures have come out of the decoder."""
        self._change(pictures=self._counts.pictures + pictures)

    def answered(self, how: str) -> None:
        """A request has ended."""
        self._change(answers=_merged(self._counts.answers, {how: 1}))

    def report(self, cache: "CacheStatistics", waiting: int, running: int) -> EngineStatistics:
        """What to tell the gateway now."""
        self.has_changed = False
        return replace(
            self._counts,
            prompt_cache_hits=cache.hits,
            prompt_cache_misses=cache.misses,
            prompt_cache_bytes=cache.bytes,
            waiting_requests=waiting,
            running_requests=running,
        )

    def _change(self, **counts: Any) -> None:
        self._counts = replace(self._counts, **counts)
        self.has_changed = True


def _merged(one: dict[str, int], other: dict[str, int]) -> dict[str, int]:
    return dict(Counter(one) + Counter(other))
