"""The worker's queue between the thread that reads requests and the one that draws them."""

import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from runner.engine.request import GenerationRequest


@dataclass(frozen=True, slots=True)
class Job:
    """A request taken off the queue, after `queued_s` seconds in it."""

    id: int
    request: GenerationRequest
    queued_s: float


class Inbox:
    """First in, first out; what is still queued can be cancelled, what is running can be told so."""

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock = clock
        self._changed = threading.Condition()
        self._queue: OrderedDict[int, tuple[GenerationRequest, float]] = OrderedDict()
        self._running: int | None = None
        self._running_is_cancelled = False

    def put(self, id_: int, request: GenerationRequest) -> None:
        """Queue a request."""
        with self._changed:
            self._queue[id_] = (request, self._clock())
            self._changed.notify()

    def cancel(self, id_: int) -> None:
        """Forget a queued request; have `is_cancelled` say so of the running one; ignore any other."""
        with self._changed:
            self._queue.pop(id_, None)
            self._running_is_cancelled |= id_ == self._running

    def get(self) -> Job:
        """Wait for the next request and take it: it is the running one until the next call."""
        with self._changed:
            self._changed.wait_for(lambda: self._queue)
            id_, (request, queued_at) = self._queue.popitem(last=False)
            self._running, self._running_is_cancelled = id_, False
            return Job(id_, request, self._clock() - queued_at)

    def is_cancelled(self, id_: int) -> bool:
        """Whether the running request `id_` was cancelled."""
        with self._changed:
            return id_ == self._running and self._running_is_cancelled
