"""Received messages that wait for the application, bounded in bytes."""

import sys
from collections import deque
from collections.abc import Iterable

from gevent.event import Event

from runner.doors.websocket.protocol import Message

# What a queued message costs besides itself, so that a flood of empty ones fills the inbox too.
_OVERHEAD_BYTES = 64


def _cost(message: Message) -> int:
    return sys.getsizeof(message) + _OVERHEAD_BYTES  # one emoji makes every character of a text cost four bytes


class Inbox:
    """A queue between the greenlet that reads the socket and the application's.

    It takes whatever it is given; whoever fills it calls `wait_for_room` first, which blocks while more
    than `capacity_bytes` lie in it. That way reading stops, and TCP slows the peer down.
    """

    def __init__(self, capacity_bytes: int) -> None:
        self._capacity_bytes = capacity_bytes
        self._messages: deque[Message] = deque()
        self._held_bytes = 0
        self._ended = False
        self._changed = Event()
        self._has_room = Event()
        self._has_room.set()

    def __len__(self) -> int:
        return len(self._messages)

    def put(self, messages: Iterable[Message]) -> None:
        """Append messages; after the end they are dropped."""
        if self._ended:
            return
        for message in messages:
            self._messages.append(message)
            self._held_bytes += _cost(message)
        if self._held_bytes >= self._capacity_bytes:
            self._has_room.clear()
        self._changed.set()

    def get(self) -> Message | None:
        """The oldest message; blocks for it. None once the inbox has ended and is empty."""
        while not self._messages:
            if self._ended:
                return None
            self._changed.clear()
            self._changed.wait()
        message = self._messages.popleft()
        self._held_bytes -= _cost(message)
        if self._held_bytes < self._capacity_bytes:
            self._has_room.set()
        return message

    def wait_for_room(self) -> None:
        """Block until the application has caught up, or the inbox has ended."""
        self._has_room.wait()

    def end(self, *, discard: bool = False) -> None:
        """Take no more messages; with `discard` forget those that wait, too."""
        self._ended = True
        if discard:
            self._messages.clear()
            self._held_bytes = 0
        self._has_room.set()
        self._changed.set()
