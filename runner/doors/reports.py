"""What happened on sockets, told to the token service: it writes the audit log and adds usage up.

A socket only leaves an event here and goes on. A greenlet sends them, many at once, again and again until they are
taken: an event has a name, so the service counts it once however often it comes. Usage is in the event of the
close, so a runner that is killed loses that of its open sockets.
"""

import logging
import random
import uuid
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Final

import gevent
from gevent.event import Event
from pydantic import ValidationError

from runner.apps.serving import Usage
from runner.doors.access import AccessUnavailable, Admission, KeyRefused
from runner.doors.token_service import ReportRefused
from schemas import limits
from schemas.events import EventKind, SessionEvent

log = logging.getLogger(__name__)

CAPACITY: Final = 10_000
"""Events that wait at most; beyond it the oldest give way."""

_RETRY_MAX_S: Final = 30.0

Send = Callable[[Sequence[SessionEvent]], None]
"""Sends events, blocking its greenlet. Raises KeyRefused, ReportRefused or AccessUnavailable."""


class Reporter:
    """Sends events in the background.

    Args:
        send: See `Send`.
        capacity: See `CAPACITY`.
        delay_s: How long an event waits for others to go with it.
        retry_s: How long to wait after the first failure; twice that after the next, and so on.
    """

    def __init__(self, send: Send, *, capacity: int = CAPACITY, delay_s: float = 0.2, retry_s: float = 1.0) -> None:
        self._send = send
        self._capacity = capacity
        self._delay_s = delay_s
        self._retry_s = retry_s
        self._waiting: deque[SessionEvent] = deque()
        self._in_hand: list[SessionEvent] = []
        self._has_events = Event()
        self._stopping = Event()
        self._greenlet: gevent.Greenlet[..., None] | None = None
        self._failures = 0
        self._lost_before = 0
        self.lost = 0
        """Events that gave way to newer ones, or that the service would not take."""

    @property
    def backlog(self) -> int:
        """Events that have not been taken yet."""
        return len(self._waiting) + len(self._in_hand)

    def add(self, event: SessionEvent) -> None:
        """Leaves an event to be sent. Never blocks."""
        self._waiting.append(event)
        self._make_room()
        self._has_events.set()

    def start(self) -> None:
        """Begins to send."""
        self._greenlet = gevent.spawn(self._run)

    def stop(self, timeout_s: float) -> None:
        """Sends what is left, as far as that can be done in time."""
        self._stopping.set()
        self._has_events.set()
        if self._greenlet is not None:
            self._greenlet.join(timeout_s)
            self._greenlet.kill()
        if self.backlog:
            log.error("the runner stops and %d session events could not be reported", self.backlog)

    def _run(self) -> None:
        while self._waiting or not self._stopping.is_set():
            self._has_events.wait()
            self._stopping.wait(self._delay_s)
            self._send_waiting()

    def _send_waiting(self) -> None:
        while self._waiting:
            count = min(len(self._waiting), limits.EVENTS_PER_REPORT_MAX)
            self._in_hand = [self._waiting.popleft() for _ in range(count)]
            if why := self._attempt():
                self._waiting.extendleft(reversed(self._in_hand))
                self._make_room()
                self._failed(why)
            self._in_hand = []
            if self._failures:
                self._wait_to_retry()
        self._has_events.clear()

    def _attempt(self) -> str | None:
        """Sends what is in hand; says why that must be tried again, or None."""
        try:
            self._send(self._in_hand)
        except AccessUnavailable as error:
            return str(error)
        except KeyRefused as error:
            return f"RUNNER_AUTHSVC_KEY is refused with {error.status}: it must be a key with the role runner"
        except ReportRefused as error:
            log.error("%d session events are lost: %s", len(self._in_hand), error)
            self.lost += len(self._in_hand)
        # The boundary of the greenlet: a defect of ours costs one report, not all that follow.
        except Exception:
            log.exception("%d session events are lost", len(self._in_hand))
            self.lost += len(self._in_hand)
        self._succeeded()
        return None

    def _failed(self, why: str) -> None:
        if not self._failures:
            self._lost_before = self.lost
            log.warning("session events cannot be reported just now; the newest %d are kept: %s", self._capacity, why)
        self._failures += 1

    def _succeeded(self) -> None:
        if self._failures:
            self._failures = 0
            log.warning("session events are reported again; %d were lost", self.lost - self._lost_before)

    def _wait_to_retry(self) -> None:
        longest = min(self._retry_s * 2 ** min(self._failures - 1, 16), _RETRY_MAX_S)
        pause_s = random.uniform(longest / 2, longest)  # noqa: S311 - runners must not all come back at once
        if self._stopping.is_set():
            gevent.sleep(min(pause_s, self._retry_s))
        else:
            self._stopping.wait(pause_s)

    def _make_room(self) -> None:
        while len(self._waiting) > self._capacity:
            self._waiting.popleft()
            self.lost += 1


def connected(admitted: Admission[Any], address: str | None, now: float) -> SessionEvent | None:
    """The event of a socket or request that was let in; None where the token says what no event can hold."""
    return _event(EventKind.CONNECTED, admitted, address, now)


def closed(
    admitted: Admission[Any], address: str | None, now: float, *, code: int | None, duration_s: float, usage: Usage
) -> SessionEvent | None:
    """The event of a socket or a request that has ended, with what was drawn for it; requests have no code."""
    return _event(
        EventKind.CLOSED,
        admitted,
        address,
        now,
        close_code=code,
        duration_s=round(duration_s, 3),
        images=usage.images,
        pixels=usage.pixels,
    )


def _event(
    kind: EventKind, admitted: Admission[Any], address: str | None, now: float, **details: float | None
) -> SessionEvent | None:
    claims = admitted.claims
    fields = {
        "event_id": uuid.uuid4(),
        "kind": kind,
        "at": int(now),
        "app": admitted.route.app,
        "key_id": claims.client_id,
        "subject": claims.sub,
        "jti": claims.jti,
        "address": address or None,
        **details,
    }
    try:
        return SessionEvent.model_validate(fields)
    except ValidationError as error:  # claims of another issuer's making; authsvc's fit
        names = sorted({str(entry["loc"][0]) for entry in error.errors()})
        log.error("an event of session jti=%s cannot be reported: %s", claims.jti, ", ".join(names))
        return None
