"""Saying that a store is down: once, however many requests notice."""

import logging
import threading
import time
from collections.abc import Callable
from typing import Final

logger = logging.getLogger(__name__)
logger.addHandler(logging.NullHandler())  # a command, which configures no log, says in its own line what failed

SETTLED_S: Final = 1
"""A store is back when it has not failed for so long: one that goes serves some requests while others fail."""


class Outage:
    """The log lines of one store's failures.

    Args:
        store: Its name, without a password.
        clock: Seconds that only go forward.
    """

    def __init__(self, store: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._store = store
        self._clock = clock
        self._lock = threading.Lock()
        self._failures = 0
        self._failed_at = 0.0

    def noticed(self, cause: str) -> None:
        """A request failed because of the store."""
        with self._lock:
            self._failures += 1
            self._failed_at = self._clock()
            is_first = self._failures == 1
        if is_first:
            logger.error("%s cannot be used: %s. What needs it is answered with 503.", self._store, cause)

    def over(self) -> None:
        """A request was served with the store."""
        if not self._failures:  # on every request, so without the lock
            return
        with self._lock:
            if self._clock() - self._failed_at < SETTLED_S:
                return
            failures, self._failures = self._failures, 0
        if failures:  # another thread may have said so
            logger.warning("%s is back; requests that failed meanwhile: %d", self._store, failures)
