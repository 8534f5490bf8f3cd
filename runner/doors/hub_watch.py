"""How late the hub is: whatever holds it, all sockets wait for. `runner_hub_lateness_seconds` in `GET /metrics`."""

import time
from bisect import bisect_left
from collections.abc import Iterator
from itertools import accumulate
from typing import Final

import gevent
from gevent import Greenlet
from prometheus_client.core import HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

_INTERVAL_S: Final = 0.01
_BOUNDS_S: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0)


class HubWatch(Collector):
    """A greenlet that is due every 10 ms, and how late it was each time."""

    def __init__(self) -> None:
        self._counts = [0] * (len(_BOUNDS_S) + 1)
        self._sum_s = 0.0
        self._greenlet: Greenlet[[], None] | None = None

    def start(self) -> None:
        """Watch the hub of this thread."""
        self._greenlet = gevent.spawn(self._watch)

    def stop(self) -> None:
        """Watch no more."""
        if self._greenlet is not None:
            self._greenlet.kill()

    def collect(self) -> Iterator[Metric]:
        """The histogram since the start."""
        *below, everything = accumulate(self._counts)
        bounds = [str(bound) for bound in _BOUNDS_S]
        family = HistogramMetricFamily("runner_hub_lateness_seconds", "How late the event loop runs its timers.")
        family.add_metric([], [*zip(bounds, below, strict=True), ("+Inf", everything)], self._sum_s)
        yield family

    def _watch(self) -> None:
        due = time.monotonic() + _INTERVAL_S
        while True:
            gevent.sleep(max(due - time.monotonic(), 0))
            now = time.monotonic()
            # Each moment that was missed counts, or a hub held for a second would look as one held for a moment.
            while due <= now:
                self._observe(now - due)
                due += _INTERVAL_S

    def _observe(self, lateness_s: float) -> None:
        self._counts[bisect_left(_BOUNDS_S, lateness_s)] += 1
        self._sum_s += lateness_s
