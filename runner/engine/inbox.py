"""What other threads have to say to the engine's thread, which looks in between two runs of the device."""

import threading
from typing import Generic, TypeVar

Event = TypeVar("Event")


class Inbox(Generic[Event]):
    """Events in the order in which they came. Any thread puts, one takes."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._events: list[Event] = []

    def put(self, event: Event) -> None:
        """Leave an event; wakes whoever waits."""
        with self._changed:
            self._events.append(event)
            self._changed.notify()

    def take(self) -> list[Event]:
        """Every event since the last call, at once; an empty list if there is none."""
        with self._changed:
            events, self._events = self._events, []
            return events

    def wait(self, timeout_s: float | None = None) -> None:
        """Block until there is an event to take, or for `timeout_s` seconds."""
        with self._changed:
            self._changed.wait_for(lambda: self._events, timeout_s)
