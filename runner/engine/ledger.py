"""Who waits for what, and which worker has it: the gateway's book of the generations that are not answered yet.

Decisions only, no I/O. An entry leaves the book exactly once, by whoever takes it out, and only that one
answers its caller.

A worker runs many generations at once, so when it dies nobody knows over which. All that it had in hand come under
suspicion, and a suspect is run again with nothing beside it: the innocent are answered, and the culprit is
known by the workers that go on dying.
"""

import itertools
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

from runner.engine.request import GenerationRequest

Waiter = TypeVar("Waiter")

DEATHS_MAX: Final = 3
"""A request that was running in this many dying workers is taken for the cause. Once or twice is bad luck."""


@dataclass(eq=False, slots=True)
class Entry(Generic[Waiter]):
    """One generation. `waiter` is whatever the caller waits on."""

    id: int
    request: GenerationRequest
    flow: str
    waiter: Waiter
    worker: int | None = None
    """Who has it; None while it waits for one."""
    is_running: bool = False
    deaths: int = 0

    @property
    def is_suspect(self) -> bool:
        """A worker died while it had this one in hand."""
        return self.deaths > 0

    @property
    def cost(self) -> int:
        """How much work it is, see `cost_of`."""
        return cost_of(self.request)


def cost_of(request: GenerationRequest) -> int:
    """How much work a request is, in pixels times steps."""
    return request.width * request.height * request.num_images * request.num_inference_steps


class Ledger(Generic[Waiter]):
    """Unanswered generations in the order in which they came."""

    def __init__(self) -> None:
        self._ids = itertools.count(1)
        self._entries: dict[int, Entry[Waiter]] = {}

    def __len__(self) -> int:
        return len(self._entries)

    def __iter__(self) -> Iterator[Entry[Waiter]]:
        return iter(list(self._entries.values()))

    def __contains__(self, entry: Entry[Waiter]) -> bool:
        return entry.id in self._entries

    def in_hand(self, worker: int) -> list[Entry[Waiter]]:
        """What a worker was given and has not answered."""
        return [entry for entry in self._entries.values() if entry.worker == worker]

    def add(self, request: GenerationRequest, flow: str, waiter: Waiter) -> Entry[Waiter]:
        """Enter a generation."""
        entry = Entry(next(self._ids), request, flow, waiter)
        self._entries[entry.id] = entry
        return entry

    def assign(self, ready: Collection[int]) -> list[Entry[Waiter]]:
        """Give what waits to the workers that are ready, each to the one with least to do.

        Suspects go to one worker, one at a time, and until the last of them is cleared nothing else goes there.

        Returns:
            the entries to be sent now, in order; `worker` says where to.
        """
        waiting = [entry for entry in self._entries.values() if entry.worker is None]
        if not waiting or not ready:
            return []
        load = {worker: sum(entry.cost for entry in self.in_hand(worker)) for worker in ready}
        assigned = []
        if (isolation := self._isolation(load)) is not None:
            if not self.in_hand(isolation):
                suspect = next(entry for entry in waiting if entry.is_suspect)
                suspect.worker = isolation
                assigned.append(suspect)
            del load[isolation]
        for entry in waiting:
            if load and not entry.is_suspect:
                entry.worker = min(load, key=lambda worker: load[worker])
                load[entry.worker] += entry.cost
                assigned.append(entry)
        return assigned

    def _isolation(self, load: dict[int, int]) -> int | None:
        """Which of the workers is kept for suspects; None if there are none, or another has one in hand."""
        suspects = [entry for entry in self._entries.values() if entry.is_suspect]
        at_work = next((entry.worker for entry in suspects if entry.worker is not None), None)
        if at_work is not None or not suspects:
            return at_work if at_work in load else None
        return min(load, key=lambda worker: load[worker])

    def mark_running(self, id_: int) -> None:
        """Its worker has begun with it. Unknown ids are fine: the caller may have left."""
        if entry := self._entries.get(id_):
            entry.is_running = True

    def get(self, id_: int) -> Entry[Waiter] | None:
        """An entry; None if it was taken out."""
        return self._entries.get(id_)

    def take(self, id_: int) -> Entry[Waiter] | None:
        """Take an entry out in order to answer it; None if somebody else did or its caller has left."""
        return self._entries.pop(id_, None)

    def take_all(self) -> list[Entry[Waiter]]:
        """Take every entry out: none of them will be answered by a worker."""
        entries = list(self._entries.values())
        self._entries.clear()
        return entries

    def take_poisonous(self, worker: int) -> list[Entry[Waiter]]:
        """The worker died: blame what it was running and take out what was blamed `DEATHS_MAX` times.

        All else that it had in hand waits for a worker again.
        """
        for entry in self.in_hand(worker):
            entry.deaths += entry.is_running
            entry.worker, entry.is_running = None, False
        poisonous = [entry for entry in self._entries.values() if entry.deaths >= DEATHS_MAX]
        for entry in poisonous:
            del self._entries[entry.id]
        return poisonous
