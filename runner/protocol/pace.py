"""How often something may happen: so many times a second on average, and so many at once.

The generic cell rate algorithm (ITU-T I.371, annex A): a token bucket that is one number, the time by which the bucket
will be full again.
"""

from typing import Final

KEYS_MAX: Final = 10_000
"""Whose pace is remembered. The one that was longest still is forgotten for the next: it could come again at once, so
nothing is gained by coming from many addresses but the use of those."""


class Pace:
    """The pace of one.

    Args:
        per_s: How often on average.
        burst: How often at once, at least 1.
    """

    __slots__ = ("_full_at", "_interval_s", "_tolerance_s")

    def __init__(self, per_s: float, burst: int) -> None:
        self._interval_s = 1 / per_s
        self._tolerance_s = (burst - 1) * self._interval_s
        self._full_at = float("-inf")

    def delay_s(self, now: float) -> float:
        """Seconds until the next is in time; 0 if it is now."""
        return max(self._full_at - self._tolerance_s - now, 0)

    def take(self, now: float) -> None:
        """Counts one, in time or not."""
        self._full_at = max(self._full_at, now) + self._interval_s

    def give_back(self) -> None:
        """Counts one less."""
        self._full_at -= self._interval_s

    def is_full(self, now: float) -> bool:
        """Whether it is as if nothing had ever happened."""
        return self._full_at <= now


class Paces:
    """The pace of each of many, which strangers name: what is remembered is bounded.

    Args:
        per_s: How often on average, each.
        burst: How often at once, each.
        max_keys: See `KEYS_MAX`.
    """

    def __init__(self, per_s: float, burst: int, max_keys: int = KEYS_MAX) -> None:
        self._per_s = per_s
        self._burst = burst
        self._max_keys = max_keys
        self._paces: dict[str, Pace] = {}  # the one that was longest still first

    def __len__(self) -> int:
        return len(self._paces)

    def delay_s(self, key: str, now: float) -> float:
        """Counts one of `key` and returns 0, or returns the seconds to wait and counts nothing."""
        pace = self._paces.pop(key, None)
        if pace is None:
            self._forget(now)
            pace = Pace(self._per_s, self._burst)
        self._paces[key] = pace
        delay_s = pace.delay_s(now)
        if not delay_s:
            pace.take(now)
        return delay_s

    def _forget(self, now: float) -> None:
        while self._paces:
            key, oldest = next(iter(self._paces.items()))
            if not oldest.is_full(now) and len(self._paces) < self._max_keys:
                return
            del self._paces[key]
