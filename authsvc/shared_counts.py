"""Numbers that a master and the workers it forks see alike, without files: each worker adds to a row of its own.

A row outlives its worker, and the next worker goes on with it: a counter never falls, whoever dies. All processes
come from one master, so the meaning of a place in a row is the same to all of them.
"""

import mmap
import threading
from typing import Final

NUMBERS: Final = 16_384
"""In a row. Pages that nobody touches take no memory."""

GAUGES: Final = 8
"""The first places of a row are for what goes up and down. They become 0 when the row's process ends."""

_BYTES: Final = 8


class SharedRows:
    """Rows of floats in memory that stays shared over a fork.

    Args:
        rows: How many processes may have one at the same time.
    """

    def __init__(self, rows: int) -> None:
        # A read or a write of eight aligned bytes is one access: no reader sees half a number.
        self._numbers = memoryview(mmap.mmap(-1, rows * NUMBERS * _BYTES)).cast("d")
        self._free = set(range(rows))
        self._rows = rows

    def claim(self) -> int:
        """A row that no living process has; the master asks, before it forks.

        When there is none, two processes share one, and may lose counts: nobody is refused a worker for that.
        """
        return self._free.pop() if self._free else 0

    def release(self, row: int) -> None:
        """Takes a row back when its process has ended; what it counted stays."""
        for place in range(GAUGES):
            self._numbers[row * NUMBERS + place] = 0
        self._free.add(row)

    def row(self, index: int) -> "Row":
        """One row, to add to."""
        return Row(self, self._numbers[index * NUMBERS : (index + 1) * NUMBERS])

    def total(self, place: int) -> float:
        """The sum of a place over all rows."""
        return sum(self._numbers[place + row * NUMBERS] for row in range(self._rows))


class Row:
    """What one process counts. Any of its threads may add."""

    def __init__(self, everyone: SharedRows, numbers: "memoryview[float]") -> None:
        self.everyone = everyone
        self._numbers = numbers
        self._lock = threading.Lock()

    def add(self, *places: int) -> None:
        """Adds one to each place."""
        with self._lock:
            for place in places:
                self._numbers[place] += 1

    def add_amount(self, place: int, amount: float) -> None:
        """Adds an amount to a place."""
        with self._lock:
            self._numbers[place] += amount

    def set(self, place: int, value: float) -> None:
        """Sets a place: for what goes up and down."""
        self._numbers[place] = value
