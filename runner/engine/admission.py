"""Whether another request may wait, or had better come back later. Decisions only: times come in, no I/O.

Work is counted in pixels times steps, and how fast it is done is measured. Flows that wait share the engine evenly
(`request.FLOW`), so until a newcomer is done every other flow gets as much as the newcomer's own, or what little it
has: whoever floods the engine makes its own flow wait, and others hardly.
"""

from collections.abc import Hashable, Mapping
from typing import Final

from runner.engine.request import EngineBusy

MEMORY_S: Final = 10.0
"""Busy seconds after which what was measured counts half."""
LEARNING: Final = 3
"""Answers before which nothing is known: the first ones come with memory to allocate and caches to fill."""
RETRY_AFTER_MIN_S: Final = 1.0
"""HTTP's Retry-After has whole seconds."""


class Throughput:
    """Work done for each second in which there was some to do. Times are seconds, never going back."""

    def __init__(self) -> None:
        self._work = 0.0
        self._busy_s = 0.0
        self._busy_since: float | None = None
        self._answers = 0

    @property
    def rate(self) -> float | None:
        """Work a second; None while too little is known."""
        return self._work / self._busy_s if self._answers >= LEARNING and self._busy_s > 0 else None

    def began(self, now: float) -> None:
        """There is something to do."""
        if self._busy_since is None:
            self._busy_since = now

    def done(self, work: float, now: float, *, is_idle: bool) -> None:
        """Something was finished; `is_idle` says that nothing else is left."""
        self._pass_time(now)
        self._work += work
        self._answers += 1
        if is_idle:
            self._busy_since = None

    def gave_up(self, now: float, *, is_idle: bool) -> None:
        """Something was left unfinished; what was spent on it says nothing of the time that others take."""
        self._busy_since = None if is_idle else self._busy_since

    def _pass_time(self, now: float) -> None:
        passed = 0.0 if self._busy_since is None else now - self._busy_since
        fading = 0.5 ** (passed / MEMORY_S)
        self._work *= fading
        self._busy_s = self._busy_s * fading + passed
        self._busy_since = now


class Admission:
    """Lets a request wait, or refuses it.

    Args:
        max_pending: Requests that may be unanswered at once.
        max_wait_s: How long a request may be expected to wait; None: for as long as it takes.
    """

    def __init__(self, max_pending: int, max_wait_s: float | None = None) -> None:
        self._max_pending = max_pending
        self._max_wait_s = max_wait_s

    def check(
        self, flow: Hashable, cost: float, pending: int, work_by_flow: Mapping[Hashable, float], rate: float | None
    ) -> None:
        """Lets the request pass, or says when to come back.

        Args:
            flow: Whose it is.
            cost: How much work it is.
            pending: How many requests are unanswered.
            work_by_flow: Their work.
            rate: Work that is done in a second, None if nobody knows.

        Raises:
            EngineBusy: it would wait for too long, or too many wait already.
        """
        if pending >= self._max_pending:
            seconds = 0.0 if rate is None else sum(work_by_flow.values()) / pending / rate
            raise EngineBusy(max(seconds, RETRY_AFTER_MIN_S))
        if rate is None or self._max_wait_s is None:
            return
        wait_s = expected_wait(flow, cost, work_by_flow) / rate
        if wait_s > self._max_wait_s:
            raise EngineBusy(max(wait_s - self._max_wait_s, RETRY_AFTER_MIN_S))


def expected_wait(flow: Hashable, cost: float, work_by_flow: Mapping[Hashable, float]) -> float:
    """How much other work is done before a newcomer is, when the flows take turns."""
    before = work_by_flow.get(flow, 0.0)
    others = sum(min(work, before + cost) for other, work in work_by_flow.items() if other != flow)
    return before + others
