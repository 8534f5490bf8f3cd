"""Runs the step graph over samples whose latents stay where the graph runs.

Samples of one latent shape share a pool of latents, a slot each. A step reads its rows from their slots and
writes them back in place, so nothing of a sample has to leave the device between its first step and its last.
All inputs have fixed buffers, and only what changed since the last step is written: a batch that stays together
costs a step little more than its noise.
"""

import math
from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from runner.engine import cuda
from runner.engine.buffers import Buffer, Place, Pool, Shape
from runner.engine.graphs import Graph, Run
from runner.engine.memory import out_of_memory_told
from runner.engine.sample import Row, Sample

Floats = NDArray[np.float32]

FIRST_SLOTS: Final = 64
FIRST_SLOTS_BYTES: Final = 16 * 2**20
FIRST_ROWS: Final = 8
"""A pool begins with so many slots or bytes, whichever are fewer, and its inputs with so many rows. They double
when they have to, so no number of samples is too many; but CUDA graphs are captured anew then."""
SCRATCH_SLOT: Final = 0
"""Belongs to no sample: rows write there what nobody reads."""
IDLE_SHAPES_MAX: Final = 8
"""Shapes without samples whose buffers are kept for the next."""
CAPTURED_SHAPES_MAX: Final = 16
"""Shapes that are captured as CUDA graphs, and keep their buffers for good: the warm-up's and the first few besides.
Were it any that comes, callers who ask for many sizes would use up `cuda.GRAPHS_MAX`, and have dropped what was
captured for the usual ones."""


class Stepper:
    """The step graph and its pools."""

    def __init__(self, graph: Graph, first_slots: int = FIRST_SLOTS) -> None:
        self._graph = graph
        self._first_slots = first_slots
        self._batches: dict[Shape, _Batch] = {}

    def step(self, samples: Sequence[Sample]) -> None:
        """One step for each of `samples`: unfinished, all of one latent shape, each at any step of its own.

        If it raises, nothing of any sample has changed: the graph writes latents last.

        Raises:
            OutOfMemory: the device has too little for so many rows.
        """
        with out_of_memory_told():
            self._batch(samples[0]).step(samples)
        for sample in samples:
            sample.advance()

    def latents(self, sample: Sample) -> Floats:
        """A copy of the sample's latents: [c, h, w]."""
        return self._batches[sample.latent_shape].latents(sample)

    def release(self, sample: Sample) -> None:
        """Forget a sample, finished or not. Unknown ones are fine."""
        if (batch := self._batches.get(sample.latent_shape)) is not None:
            batch.release(sample)

    def _batch(self, sample: Sample) -> "_Batch":
        shape = sample.latent_shape
        batch = self._batches.pop(shape, None)
        if batch is None:
            self._make_room()
            batch = _Batch(self._graph, sample, self._first_slots, captured=self._may_capture())
        self._batches[shape] = batch  # the last is the one used last
        return batch

    def _may_capture(self) -> bool:
        return sum(batch.captures for batch in self._batches.values()) < CAPTURED_SHAPES_MAX

    def _make_room(self) -> None:
        idle = [shape for shape, batch in self._batches.items() if batch.is_idle and not batch.captures]
        for shape in idle[: max(0, len(idle) - IDLE_SHAPES_MAX + 1)]:
            del self._batches[shape]


class _Batch:
    """The samples of one latent shape: a pool of their latents and the buffers of a step's other inputs."""

    def __init__(self, graph: Graph, sample: Sample, slots: int, *, captured: bool) -> None:
        self._graph = graph
        self._captured = captured
        slots = max(2, min(slots, FIRST_SLOTS_BYTES // (4 * math.prod(sample.latent_shape))))
        self._pool = Pool(slots, sample.latent_shape, graph.device)
        self._slots: dict[Sample, int] = {}
        self._free = _descending(SCRATCH_SLOT + 1, slots)
        self._inputs = _Inputs(graph, sample, FIRST_ROWS)
        self._runs: dict[int, Run] = {}

    @property
    def is_idle(self) -> bool:
        """Nobody has a slot."""
        return not self._slots

    @property
    def captures(self) -> bool:
        """Its runs are CUDA graphs."""
        return self._captured and self._graph.captures

    def step(self, samples: Sequence[Sample]) -> None:
        """One run of the graph."""
        rows = [sample.rows() for sample in samples]
        count = sum(len(of_sample) for of_sample in rows)
        padded = cuda.padded_rows(count) if self.captures else count
        self._make_room(samples, padded)
        run = self._run(padded)
        number = 0
        for sample, of_sample in zip(samples, rows, strict=True):
            slot, last = self._slots[sample], number + len(of_sample) - 1
            for position, row in enumerate(of_sample):
                # The first row's latents are the sample's; the last is the negative one, or the only one.
                writes = SCRATCH_SLOT if position else slot
                self._inputs.write(number + position, row, _Links(slot, writes, last))
            number = last + 1
        self._inputs.idle(range(count, padded))
        self._inputs.flush()
        self._graph.repeat(run)

    def latents(self, sample: Sample) -> Floats:
        """A copy of a sample's latents."""
        return self._pool.read(self._slots[sample])

    def release(self, sample: Sample) -> None:
        """Give the sample's slot to whoever comes next."""
        if (slot := self._slots.pop(sample, None)) is not None:
            self._free.append(slot)

    def _make_room(self, samples: Sequence[Sample], count: int) -> None:
        newcomers = [sample for sample in samples if sample not in self._slots]
        while len(self._free) < len(newcomers):
            self._grow_pool()
        for sample in newcomers:
            self._slots[sample] = self._free.pop()
        if count > self._inputs.capacity:
            self._inputs = _Inputs(self._graph, samples[0], cuda.padded_rows(count))
            self._runs.clear()

    def _grow_pool(self) -> None:
        slots = self._pool.slots
        shape = self._pool.place.shape[1:]
        self._pool = Pool(2 * slots, shape, self._graph.device, self._pool.values())
        self._free = _descending(slots, 2 * slots) + self._free
        self._runs.clear()

    def _run(self, rows: int) -> Run:
        if rows not in self._runs:
            self._runs[rows] = self._capture(rows) if self.captures else self._bound(rows)
        return self._runs[rows]

    def _bound(self, rows: int) -> Run:
        places = self._inputs.places(rows) | {"latents": self._pool.place}
        return self._graph.bind(places, {"latents_out": self._pool.place}, captured=self._captured)

    def _capture(self, rows: int) -> Run:
        run = self._bound(rows)
        self._inputs.idle(range(rows))  # capturing makes several steps: let nobody's latents be in them
        self._inputs.flush()
        if self._graph.capture(run):
            return run
        return self._bound(rows)


class _Links(NamedTuple):
    """Where a row of the batch gets its latents from and puts them, and the row that it is guided away from."""

    read_slots: int
    write_slots: int
    negative_row: int

    def row(self) -> Row:
        """As inputs of the graph."""
        return {name: np.array(link, np.int64) for name, link in self._asdict().items()}


class _Inputs:
    """The buffers of the step graph's inputs but `latents`, row by row."""

    def __init__(self, graph: Graph, sample: Sample, capacity: int) -> None:
        """Allocate them; `sample` is any of the shape, for the sizes of its inputs."""
        self.capacity = capacity
        layout = sample.rows()[0] | _Links(0, 0, 0).row()
        self._buffers = {
            name: Buffer(capacity, layout[name].shape, layout[name].dtype, graph.device)
            for name in graph.signature.inputs
            if name != "latents"
        }

    def write(self, number: int, row: Row, links: _Links) -> None:
        """Fill a row of the batch; what `row` leaves out stays as it is."""
        given = row | links.row()
        for name in self._buffers.keys() & given.keys():
            self._buffers[name].write(number, given[name])

    def idle(self, numbers: range) -> None:
        """Make rows count for nothing: they step whatever lies in their buffers, into the scratch slot."""
        for number in numbers:
            # Not from the scratch slot: what it holds would go on and on, out of all bounds in the end.
            self.write(number, {"is_fresh": np.array(True)}, _Links(SCRATCH_SLOT, SCRATCH_SLOT, number))

    def flush(self) -> None:
        """Let the device see what was written."""
        for buffer in self._buffers.values():
            buffer.flush()

    def places(self, rows: int) -> dict[str, Place]:
        """Where the graph finds its inputs for so many rows."""
        return {name: buffer.place(rows) for name, buffer in self._buffers.items()}


def _descending(first: int, end: int) -> list[int]:
    """Slots first … end - 1, so that `pop` takes the lowest."""
    return list(range(end - 1, first - 1, -1))
