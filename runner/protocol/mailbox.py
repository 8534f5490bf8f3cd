"""The inputs of one session that wait their turn, bounded in number and in bytes."""

from collections import deque
from typing import Generic, TypeVar

T = TypeVar("T")


class Mailbox(Generic[T]):
    """Inputs in the order they came.

    With `max_buffering` n, at most n wait and a newer input replaces the oldest: `deque(maxlen=n)` of fal's
    SDK. Without it nothing is replaced; the owner stops reading from the peer while the mailbox is `full`.

    Args:
        max_buffering: at least 1, or None to answer every input.
        max_items: How many may wait without `max_buffering`.
        max_bytes: How large all that wait may be together. One input may always wait, whatever its size.
    """

    def __init__(self, max_buffering: int | None, *, max_items: int, max_bytes: int) -> None:
        self._newest_wins = max_buffering is not None
        self._max_items = max_buffering or max_items
        self._max_bytes = max_bytes
        self._waiting: deque[tuple[T, int]] = deque()
        self._bytes = 0
        self._dropped = 0

    def __len__(self) -> int:
        return len(self._waiting)

    @property
    def full(self) -> bool:
        """Whether the owner must not put more. Never true with `max_buffering`, which makes room itself."""
        return not self._newest_wins and self._over(self._max_items - 1, self._max_bytes - 1)

    def put(self, item: T, size_bytes: int) -> None:
        """Adds the newest input, dropping the oldest ones where newest wins and there is no room."""
        self._waiting.append((item, size_bytes))
        self._bytes += size_bytes
        while self._newest_wins and len(self._waiting) > 1 and self._over(self._max_items, self._max_bytes):
            self.take()
            self._dropped += 1

    def take(self) -> T:
        """Removes the oldest input and returns it.

        Raises:
            IndexError: Nothing waits.
        """
        item, size_bytes = self._waiting.popleft()
        self._bytes -= size_bytes
        return item

    @property
    def oldest(self) -> T:
        """What `take` would return.

        Raises:
            IndexError: Nothing waits.
        """
        return self._waiting[0][0]

    @property
    def dropped(self) -> int:
        """How many inputs were dropped since `take_dropped` was last asked."""
        return self._dropped

    def take_dropped(self) -> int:
        """How many inputs were dropped since this was last asked."""
        dropped, self._dropped = self._dropped, 0
        return dropped

    def clear(self) -> None:
        """Forgets everything that waits; not counted as dropped, for nobody is left to be told."""
        self._waiting.clear()
        self._bytes = 0

    def _over(self, items: int, size_bytes: int) -> bool:
        return len(self._waiting) > items or self._bytes > size_bytes
