"""Which pictures take the next denoising step together. Decisions only: no I/O, no clock, no model.

A tick is one run of the step graph. It takes samples of one latent shape, each at whatever step of its own, and
as many rows as pay on this device. Who goes first is start-time fair queueing (Goyal, Vin, Cheng 1997) over flows,
a flow being one socket: the flow that has had least service leads the tick and so chooses its shape; the rest of
the batch is filled in the same order. Service is counted in cost: latent pixels times rows, a step at a time, and
latent pixels for each run of the VAE. A flow
that was away comes back at the least service of those present, or at its own if that is more: it neither waits for
others to catch up nor cashes in for the time it was away. Inside a flow it is first come, first served, across
shapes too, so a flow cannot starve its own oldest picture either. New flows without end could keep an older one
waiting for ever, being always at the least service: so one that is passed over for too long leads the next tick.
"""

import heapq
import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Final, Generic, Protocol, TypeVar

Shape = tuple[int, int, int]


class Batchable(Protocol):
    """What the batcher asks of a sample."""

    @property
    def latent_shape(self) -> Shape:
        """Channels, height and width of its latents."""

    @property
    def row_count(self) -> int:
        """Rows of the step graph's batch that it takes: 2 under classifier-free guidance, else 1."""


PATIENCE_TICKS: Final = 4
"""A flow that was passed over for more than this many ticks, for each flow there is, goes first."""
_PASSED_OVER, _NEW, _SERVED = range(3)

SampleT = TypeVar("SampleT", bound=Batchable)


@dataclass(frozen=True, slots=True)
class Tick(Generic[SampleT]):
    """One run of the step graph: samples of one shape."""

    shape: Shape
    samples: tuple[SampleT, ...]
    rows: int


@dataclass(eq=False, slots=True)
class _Item(Generic[SampleT]):
    sample: SampleT
    flow: "_Flow[SampleT]"
    number: int
    cost: int
    steps_alone: bool = False


@dataclass(eq=False, slots=True)
class _Flow(Generic[SampleT]):
    service: int
    items: list[_Item[SampleT]] = field(default_factory=list)
    is_new: bool = True
    ticks_waited: int = 0


class Batcher(Generic[SampleT]):
    """The samples that have steps left, and what each flow has had of the engine.

    Args:
        max_rows: Rows that one step of a latent shape should have at most. A sample of more runs by itself.
    """

    def __init__(self, max_rows: Callable[[Shape], int]) -> None:
        self._max_rows = max_rows
        self._lowered: dict[Shape, int] = {}
        self._flows: dict[str, _Flow[SampleT]] = {}
        self._items: dict[SampleT, _Item[SampleT]] = {}
        self._numbers = itertools.count()
        self._now = 0

    def __len__(self) -> int:
        """Samples that have steps left."""
        return len(self._items)

    def add(self, sample: SampleT, flow: str) -> None:
        """Take in a sample with steps left, behind the earlier ones of its flow."""
        owner = self._flows.setdefault(flow, _Flow(self._now))
        if not owner.items:
            owner.is_new, owner.ticks_waited = True, 0
            owner.service = max(owner.service, self._least_service())
        _, height, width = sample.latent_shape
        item = _Item(sample, owner, next(self._numbers), height * width * sample.row_count)
        owner.items.append(item)
        self._items[sample] = item

    def next_tick(self) -> Tick[SampleT] | None:
        """The next run of the step graph, or None if no sample can take a step.

        Nothing is booked yet: say `stepped` when it was run, or what went wrong with it.
        """
        chosen = self._choose()
        if not chosen:
            return None
        rows = sum(item.sample.row_count for item in chosen)
        return Tick(chosen[0].sample.latent_shape, tuple(item.sample for item in chosen), rows)

    def stepped(self, tick: Tick[SampleT]) -> None:
        """The tick was run: charge its flows."""
        for flow in self._flows.values():
            flow.ticks_waited += 1
        for sample in tick.samples:
            item = self._items[sample]
            item.steps_alone = False
            item.flow.service += item.cost
            item.flow.is_new, item.flow.ticks_waited = False, 0
        self._now = self._least_service()
        self._forget_flows()

    def charge(self, flow: str, shape: Shape) -> None:
        """The flow had a run of the VAE for one picture, which counts as a step: exported stages take no longer."""
        _, height, width = shape
        self._flows.setdefault(flow, _Flow(self._now)).service += height * width

    def remove(self, sample: SampleT) -> None:
        """The sample has no steps left, or nobody waits for it. Unknown ones are fine."""
        if item := self._items.pop(sample, None):
            item.flow.items.remove(item)

    def turn(self, flow: str) -> tuple[int, bool]:
        """A flow's turn for other work, the smallest first: what it has had, and then whether it has samples here."""
        known = self._flows.get(flow)
        return (self._now, False) if known is None else (known.service, bool(known.items))

    def limit(self, shape: Shape) -> int:
        """Rows that a step of this shape may have: as the device prefers, or what its memory has taught."""
        return self._lowered.get(shape, self._max_rows(shape))

    def lower_limit(self, tick: Tick[SampleT]) -> bool:
        """The tick did not fit into memory: have half its rows at most from now on.

        Returns:
            False if it cannot be made smaller, being of one sample.
        """
        if len(tick.samples) == 1:
            return False
        self._lowered[tick.shape] = max(1, tick.rows // 2)
        return True

    def separate(self, tick: Tick[SampleT]) -> bool:
        """The tick failed and nobody knows over which sample: each takes its next step alone.

        Returns:
            False if it is known, the tick being of one sample.
        """
        if len(tick.samples) == 1:
            return False
        for sample in tick.samples:
            self._items[sample].steps_alone = True
        return True

    def _choose(self) -> list[_Item[SampleT]]:
        chosen: list[_Item[SampleT]] = []
        held_back: set[_Flow[SampleT]] = set()  # what comes later in a flow does not overtake what came first
        for item in self._in_fair_order(held_back):
            if self._may_join(item, chosen):
                chosen.append(item)
            else:
                held_back.add(item.flow)
        return chosen

    def _may_join(self, item: _Item[SampleT], chosen: list[_Item[SampleT]]) -> bool:
        if not chosen:
            return True
        shape = chosen[0].sample.latent_shape
        rows = sum(other.sample.row_count for other in chosen) + item.sample.row_count
        is_shared = not (chosen[0].steps_alone or item.steps_alone)
        return is_shared and item.sample.latent_shape == shape and rows <= self.limit(shape)

    def _in_fair_order(self, held_back: set[_Flow[SampleT]]) -> Iterator[_Item[SampleT]]:
        """Samples in the order of their turns, each flow's next as if the one before had been served.

        A flow that is `held_back` when its next turn would be decided gets none.
        """
        present = [flow for flow in self._flows.values() if flow.items]
        patience = PATIENCE_TICKS * (len(present) + 1)
        heads = [(*_precedence(flow, patience), 0, flow) for flow in present]
        heapq.heapify(heads)
        while heads:
            _, service, _, _, position, flow = heapq.heappop(heads)
            item = flow.items[position]
            yield item
            if flow not in held_back and position + 1 < len(flow.items):
                number = flow.items[position + 1].number
                heapq.heappush(heads, (0, service + item.cost, _SERVED, number, position + 1, flow))

    def _least_service(self) -> int:
        return max(self._now, min((flow.service for flow in self._flows.values() if flow.items), default=0))

    def _forget_flows(self) -> None:
        # A flow that is away and has had no more than anybody present would come back like a new one.
        for name in [name for name, flow in self._flows.items() if not flow.items and flow.service <= self._now]:
            del self._flows[name]


def _precedence(flow: _Flow[SampleT], patience: int) -> tuple[int, int, int, int]:
    """The smallest goes first: who has waited too long, then who has had least; among equals who was passed over."""
    overdue = flow.ticks_waited if flow.ticks_waited > patience else 0
    rank = _PASSED_OVER if flow.ticks_waited else _NEW if flow.is_new else _SERVED
    return -overdue, flow.service, rank, flow.items[0].number
