"""Audit events that come by the hundred a second: kept in memory for a moment, written many at once by a thread.

A request neither waits for the database nor fails with it. What that costs: `kill -9` loses the events of the last
`DELAY_S` (and the counts of a running flood of refusals, up to a minute), and while the database is away the newest
`CAPACITY` events are kept and older ones dropped, which is counted and logged.
"""

import logging
import threading
import time
import uuid
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from authsvc.ledger import audit
from authsvc.ledger.audit import Event
from authsvc.ledger.refusals import Refusals
from authsvc.store.database import Database, is_down
from schemas.events import EventKind

logger = logging.getLogger(__name__)

CAPACITY: Final = 10_000
DELAY_S: Final = 0.1
CLOSE_TIMEOUT_S: Final = 5.0
_BATCH: Final = 1000
_RETRY_S: Final = 1.0
_PRUNE_EVERY_S: Final = 3600
_RETRY_PRUNE_S: Final = 60
_DAY_S: Final = 24 * 3600


class AuditBuffer:
    """Takes events at once and writes them soon. Its thread starts with the first event, after any fork.

    Args:
        database: Where the events go.
        clock: Gives unix time in seconds.
        retention_days: Events older than this are deleted, about once an hour; 0 keeps all.
        capacity: How many events wait at most.
        retry_s: How long to wait after a failure.
    """

    def __init__(
        self,
        database: Database,
        clock: Callable[[], float] = time.time,
        *,
        retention_days: int = 0,
        capacity: int = CAPACITY,
        retry_s: float = _RETRY_S,
    ) -> None:
        self._database = database
        self._clock = clock
        self._retention_days = retention_days
        self._capacity = capacity
        self._retry_s = retry_s
        self._refusals = Refusals()
        self._waiting: deque[Event] = deque()
        self._in_hand = 0
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._is_closing = threading.Event()
        self._is_failing = False
        self._prune_at = float("-inf")
        self._dropped_before = 0
        self.dropped = 0
        """How many events were lost because the database was away for too long, or refused them."""

    @property
    def backlog(self) -> int:
        """How many events are not written yet."""
        return len(self._waiting) + self._in_hand

    def add(
        self,
        kind: EventKind,
        *,
        now: float,
        actor: str | None = None,
        key_id: str | None = None,
        subject: str | None = None,
        jti: str | None = None,
        app: str | None = None,
        address: str | None = None,
        detail: Mapping[str, Any] | None = None,
        event_id: str | None = None,
    ) -> None:
        """Takes an event; see `authsvc.ledger.audit.record` for its parts. Never waits and never raises.

        A refusal says why in `detail["reason"]`, a machine's word; its `key_id` is a key that was authenticated,
        not one that somebody claimed. Refusals beyond a number a minute are counted instead; see
        `authsvc.ledger.refusals`.
        """
        event = Event(
            kind=kind,
            at=int(now),
            actor=actor,
            key_id=key_id,
            subject=subject,
            jti=jti,
            app=app,
            address=address,
            detail=detail or {},
            event_id=event_id or str(uuid.uuid4()),
        )
        with self._changed:
            if kind is not EventKind.REFUSED or self._refusals.admits(event, time.monotonic()):
                self._keep([event])
            self._start()
            self._changed.notify_all()

    def flush(self, timeout_s: float = CLOSE_TIMEOUT_S) -> bool:
        """Waits until all that was added is written; False if that took too long."""
        with self._changed:
            return self._changed.wait_for(lambda: not self.backlog, timeout_s)

    def close(self, timeout_s: float = CLOSE_TIMEOUT_S) -> None:
        """Writes what is left, counts of refusals too, and ends the thread. What then cannot be written is lost."""
        with self._changed:
            thread = self._thread
            self._is_closing.set()
            self._changed.notify_all()
        if thread is not None:
            thread.join(timeout_s)

    def _start(self) -> None:
        if self._thread is None or not self._thread.is_alive():
            self._is_closing.clear()
            self._thread = threading.Thread(target=self._run, name="audit", daemon=True)
            self._thread.start()

    def _keep(self, events: Iterable[Event]) -> None:
        self._waiting.extend(events)
        self._make_room()

    def _make_room(self) -> None:
        while len(self._waiting) > self._capacity:
            self._waiting.popleft()
            self.dropped += 1

    def _run(self) -> None:
        """The thread: until closed, and then once more."""
        while not self._is_closing.is_set():
            with self._changed:
                self._changed.wait_for(self._has_work, self._refusals.due_in(time.monotonic()))
            self._is_closing.wait(self._retry_s if self._is_failing else DELAY_S)
            with self._changed:
                if self._refusals.due_in(time.monotonic()) == 0:
                    self._keep(self._refusals.take())
            self._write_waiting()
        with self._changed:
            self._keep(self._refusals.take())
        self._write_waiting()
        if self._waiting:
            logger.error("the service stops and %d audit events could not be written", len(self._waiting))

    def _has_work(self) -> bool:
        return bool(self._waiting) or self._is_closing.is_set()

    def _write_waiting(self) -> None:
        while self._waiting:
            with self._changed:
                batch = [self._waiting.popleft() for _ in range(min(_BATCH, len(self._waiting)))]
                self._in_hand = len(batch)
            left = self._write(batch)
            with self._changed:
                self._waiting.extendleft(reversed(left))
                self._in_hand = 0
                self._make_room()
                self._changed.notify_all()
            if left:
                return
        self._prune()

    def _write(self, batch: list[Event]) -> list[Event]:
        """Writes events; gives back those to try again."""
        try:
            with self._database.counting() as session:
                audit.write(session, batch)
        except Exception as error:  # this thread must go on, whatever an event holds
            if is_down(error):
                self._failed(error)
                return batch
            return self._write_each(batch) if len(batch) > 1 else self._drop(error)
        self._succeeded()
        return []

    def _write_each(self, batch: list[Event]) -> list[Event]:
        """One bad event must not take the others of its batch with it."""
        for place, event in enumerate(batch):
            if self._write([event]):
                return batch[place:]
        return []

    def _drop(self, error: Exception) -> list[Event]:
        logger.error("an audit event could not be written and is lost", exc_info=error)
        self.dropped += 1
        return []

    def _failed(self, error: Exception) -> None:
        if not self._is_failing:
            self._is_failing, self._dropped_before = True, self.dropped
            logger.warning(
                "audit events cannot be written just now (%s); the newest %d are kept",
                type(error).__name__,
                self._capacity,
            )

    def _succeeded(self) -> None:
        if self._is_failing:
            self._is_failing = False
            logger.warning("audit events are written again; %d were lost", self.dropped - self._dropped_before)

    def _prune(self) -> None:
        """Deletes old events, as long as no new ones wait."""
        if not self._retention_days or time.monotonic() < self._prune_at:
            return
        before = int(self._clock()) - self._retention_days * _DAY_S
        try:
            while not self._waiting:
                with self._database.counting() as session:
                    if audit.prune(session, before=before) < audit.PRUNE_BATCH:
                        self._prune_at = time.monotonic() + _PRUNE_EVERY_S
                        return
                if self._is_closing.is_set():
                    return  # the database is about to be closed; what is left waits for the next start
        except Exception as error:
            if not is_down(error):
                raise
            self._prune_at = time.monotonic() + _RETRY_PRUNE_S
            logger.warning("old audit events cannot be deleted just now (%s)", type(error).__name__)
