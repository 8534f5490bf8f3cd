"""What one task waits for and others bring about."""

import asyncio


class Bell:
    """Wakes the one task that waits: when it is rung, or at a time.

    A timer that is armed already and rings too early is kept, as arming one for each message costs more than being
    woken once in a while for nothing: whoever wakes looks again, and waits again.
    """

    __slots__ = ("_loop", "_timer", "_waiter")

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._waiter: asyncio.Future[None] | None = None
        self._timer: asyncio.TimerHandle | None = None

    async def wait(self, until: float | None = None) -> None:
        """Waits until it is rung, or the loop's time `until`; maybe for less."""
        if self._waiter is not None:
            raise RuntimeError("a task waits for this already")
        if until is not None and (self._timer is None or self._timer.when() > until):
            self.silence()
            self._timer = self._loop.call_at(until, self._on_time)
        self._waiter = self._loop.create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def ring(self) -> None:
        """Wakes whoever waits now; nobody, if nobody does."""
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def silence(self) -> None:
        """Forgets the time."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _on_time(self) -> None:
        self._timer = None
        self.ring()
