"""Received messages that wait for the application, bounded in bytes."""

import sys
from collections import deque
from collections.abc import Iterable
from typing import Any

import gevent
from gevent.hub import Waiter

from runner.doors.websocket.protocol import Message

# What a queued message costs besides itself, so that a flood of empty ones fills the inbox too.
_OVERHEAD_BYTES = 64


def _cost(message: Message) -> int:
    return sys.getsizeof(message) + _OVERHEAD_BYTES  # one emoji makes every character of a text cost four bytes


class Inbox:
    """A queue between the hub, which reads the socket, and the application's greenlet.

    It takes whatever it is given; whoever fills it stops reading once it `is_full`, and TCP slows the peer down.
    """

    __slots__ = ("_capacity_bytes", "_ended", "_held_bytes", "_messages", "_waiting")

    def __init__(self, capacity_bytes: int) -> None:
        self._capacity_bytes = capacity_bytes
        self._messages: deque[Message] | None = None  # an empty one takes 600 bytes
        self._held_bytes = 0
        self._ended = False
        self._waiting: list[Any] = []

    def __len__(self) -> int:
        return len(self._messages) if self._messages is not None else 0

    @property
    def is_full(self) -> bool:
        """Whether as much as may lies in it."""
        return self._held_bytes >= self._capacity_bytes

    def put(self, messages: Iterable[Message]) -> None:
        """Append messages; after the end they are dropped. On the hub it runs at once whoever waits for them."""
        if self._ended:
            return
        if self._messages is None:
            self._messages = deque()
        for message in messages:
            self._messages.append(message)
            self._held_bytes += _cost(message)
        self._wake()

    def get(self) -> Message | None:
        """The oldest message; blocks for it. None once the inbox has ended and is empty."""
        while not self._messages:
            if self._ended:
                return None
            self._wait()
        message = self._messages.popleft()
        self._held_bytes -= _cost(message)
        if not self._messages:
            self._messages = None
        return message

    def end(self, *, discard: bool = False) -> None:
        """Take no more messages; with `discard` forget those that wait, too."""
        self._ended = True
        if discard:
            self._messages = None
            self._held_bytes = 0
        self._wake()

    def _wait(self) -> None:
        waiter: Any = Waiter()
        self._waiting.append(waiter)
        try:
            waiter.get()
        finally:
            if waiter in self._waiting:  # it was interrupted
                self._waiting.remove(waiter)

    def _wake(self) -> None:
        # An Event would tell the waiter a turn of the loop later.
        waiting, self._waiting = self._waiting, []
        hub = gevent.get_hub()
        for waiter in waiting:
            if gevent.getcurrent() is hub:
                waiter.switch(None)
            else:
                hub.loop.run_callback(waiter.switch, None)
