"""How many refusals are worth an event each: whoever floods the service must not fill its disk.

Of each key, and of all callers without one together, so many refusals a minute become an event each. The others are
counted by key and reason, and each count becomes one event when the minute is over.
"""

from collections import Counter
from dataclasses import replace
from typing import Final

from authsvc.ledger.audit import Event
from schemas.events import EventKind

EACH_PER_MINUTE: Final = 60
TALLIES_MAX: Final = 1000
OTHER: Final = "other"
"""The reason of refusals that came when `TALLIES_MAX` counts were running."""

_MINUTE_S: Final = 60


class Refusals:
    """Decides which refusals become events. `now` is any clock in seconds that only goes forward."""

    def __init__(self, each_per_minute: int = EACH_PER_MINUTE) -> None:
        self._each_per_minute = each_per_minute
        self._minute_ends_at = float("-inf")
        self._admitted: Counter[str | None] = Counter()
        self._tallies: dict[tuple[str | None, str], Event] = {}
        self._tallies_end_at = float("inf")

    def admits(self, event: Event, now: float) -> bool:
        """Whether a refusal becomes an event of its own; if not, it is counted."""
        if now >= self._minute_ends_at:
            self._minute_ends_at = now + _MINUTE_S
            self._admitted.clear()
        self._admitted[event.key_id] += 1
        if self._admitted[event.key_id] <= self._each_per_minute:
            return True
        self._count(event)
        return False

    def due_in(self, now: float) -> float | None:
        """How many seconds the counts may still run; None if none does."""
        return max(0.0, self._tallies_end_at - now) if self._tallies else None

    def take(self) -> list[Event]:
        """Ends the counts: an event for each."""
        taken = list(self._tallies.values())
        self._tallies.clear()
        return taken

    def _count(self, event: Event) -> None:
        name = event.key_id, str(event.detail.get("reason", OTHER))
        if name not in self._tallies and len(self._tallies) >= TALLIES_MAX:
            name = None, OTHER
        if not self._tallies:  # a minute that begins before these were taken must not put them off
            self._tallies_end_at = self._minute_ends_at
        tally = self._tallies.get(name)
        if tally is not None:
            self._tallies[name] = replace(tally, count=tally.count + 1)
        else:
            key_id, reason = name
            self._tallies[name] = Event(
                kind=EventKind.REFUSED, at=event.at, actor=key_id, key_id=key_id, detail={"reason": reason}
            )
