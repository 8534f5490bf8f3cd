"""Greenlets that carry what apps say to slow places: few for many, since most sockets say nothing most of the time."""

from typing import Final, Protocol

import gevent
from gevent.queue import SimpleQueue

SPARE: Final = 64
"""Greenlets that wait for the next errand; more are made as they are needed, and end when it is done."""


class Errand(Protocol):
    """What has something to deliver."""

    def deliver(self) -> None:
        """Delivers all there is. May block its greenlet, and must not raise."""


class Couriers:
    """Whatever is sent goes out at once, however many others are held up by their peers."""

    def __init__(self) -> None:
        self._errands: SimpleQueue[Errand] = SimpleQueue()
        self._free = 0

    def send(self, errand: Errand) -> None:
        """Has `errand` delivered by a greenlet. Does not block."""
        self._errands.put(errand)
        if self._errands.qsize() > self._free:
            self._free += 1
            gevent.spawn(self._run)

    def _run(self) -> None:
        while True:
            errand = self._errands.get()
            self._free -= 1
            errand.deliver()
            del errand  # a courier that waits must not hold the last socket
            if self._free >= SPARE:
                return
            self._free += 1
