"""Who waits for what: the gateway's book of the generations that no worker has answered yet.

Decisions only, no I/O. An entry leaves the book exactly once, by whoever takes it out, and only that one
answers its caller.
"""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

from runner.engine.request import EngineUnavailable, GenerationRequest

Waiter = TypeVar("Waiter")

DEATHS_MAX: Final = 3
"""A request that was running in this many dying workers is taken for the cause. Once or twice is bad luck."""


@dataclass(eq=False, slots=True)
class Entry(Generic[Waiter]):
    """One generation. `waiter` is whatever the caller waits on."""

    id: int
    request: GenerationRequest
    waiter: Waiter
    is_running: bool = False
    deaths: int = 0


class Ledger(Generic[Waiter]):
    """Unanswered generations in the order in which they came."""

    def __init__(self, max_pending: int) -> None:
        self._max_pending = max_pending
        self._ids = itertools.count(1)
        self._entries: dict[int, Entry[Waiter]] = {}

    def __len__(self) -> int:
        return len(self._entries)

    def __iter__(self) -> Iterator[Entry[Waiter]]:
        return iter(list(self._entries.values()))

    def __contains__(self, entry: Entry[Waiter]) -> bool:
        return entry.id in self._entries

    def add(self, request: GenerationRequest, waiter: Waiter) -> Entry[Waiter]:
        """Enter a generation.

        Raises:
            EngineUnavailable: `max_pending` are waiting already.
        """
        if len(self._entries) >= self._max_pending:
            raise EngineUnavailable("busy")
        entry = Entry(next(self._ids), request, waiter)
        self._entries[entry.id] = entry
        return entry

    def mark_running(self, id_: int) -> None:
        """A worker has begun with it. Unknown ids are fine: the caller may have left."""
        if entry := self._entries.get(id_):
            entry.is_running = True

    def take(self, id_: int) -> Entry[Waiter] | None:
        """Take an entry out in order to answer it; None if somebody else did or its caller has left."""
        return self._entries.pop(id_, None)

    def take_all(self) -> list[Entry[Waiter]]:
        """Take every entry out: none of them will be answered by a worker."""
        entries = list(self._entries.values())
        self._entries.clear()
        return entries

    def take_poisonous(self) -> list[Entry[Waiter]]:
        """The worker died: blame what it was running and take out what was blamed `DEATHS_MAX` times.

        All that stays in the book is to be sent again, in order.
        """
        for entry in self._entries.values():
            entry.deaths += entry.is_running
            entry.is_running = False
        poisonous = [entry for entry in self._entries.values() if entry.deaths >= DEATHS_MAX]
        for entry in poisonous:
            del self._entries[entry.id]
        return poisonous
