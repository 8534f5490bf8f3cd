"""How often a worker says that it is still at a request, so that its silence means that it hangs."""

import time
from collections.abc import Callable
from typing import Final

HEARTBEAT_S: Final = 1.0


class Heartbeat:
    """Due every `HEARTBEAT_S` at most, the first time that long after it was made."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._last = clock()

    def is_due(self) -> bool:
        """Whether to say something now; then it is not due again for a while."""
        now = self._clock()
        if now - self._last < HEARTBEAT_S:
            return False
        self._last = now
        return True

    def due_in(self) -> float:
        """Seconds until it is due."""
        return max(self._last + HEARTBEAT_S - self._clock(), 0.0)
