"""One request at its endpoint: in a greenlet of its own, in bounded time, counted, and every failure an answer.

This is what HTTP and HTTP over WebSocket have in common; how the request came and how the answer leaves is theirs.
"""

import contextvars
import logging
import math
import re
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Final, NoReturn

import gevent
from gevent.event import Event

from runner.apps.serving import Headers, HttpAnswer, HttpEndpoint, HttpRequest
from runner.doors import answer_head, refusals
from runner.doors.answer_head import AnswerHead, MalformedAnswer
from runner.doors.refusals import HttpRefusal
from runner.protocol import failures
from runner.protocol.failures import Failure
from schemas.errors import FieldError

log = logging.getLogger(__name__)

TIMEOUT_HEADER: Final = "x-fal-request-timeout"
TIMEOUT_MIN_S: Final = 0.1
"""The caller's own must be more (fal's common parameters, contract §4)."""

CLIENT_CLOSED_REQUEST: Final = 499
"""The caller's doing: what it had been sent counts."""

MAX_REQUESTS_REASON: Final = "the token's max_requests is used up: mint a new token"

_DECIMAL: Final = re.compile(r"[0-9]{1,9}(\.[0-9]{0,9})?", re.ASCII)

_EVENT_ENDS: Final = (b"\n\n", b"\r\n\r\n", b"\r\r")


class AnswerBroken(Exception):
    """A body that has begun cannot be completed: whoever is reading it must be able to see that."""


class _End:
    """Stands behind the last chunk."""


_END: Final = _End()


@dataclass(frozen=True, slots=True)
class _Patience:
    """How long the making of an answer may take, and who said so."""

    seconds: float
    is_the_callers: bool

    @property
    def refusal(self) -> HttpRefusal:
        """What is said when it is over."""
        if self.is_the_callers:
            detail = f"The answer took longer than the {self.seconds:g} seconds of {TIMEOUT_HEADER}: allow more."
            # The clients read this header, and never try such a request again.
            headers = {"x-fal-request-timeout-type": "user", "x-fal-retryable": "false"}
            return HttpRefusal(504, detail, refusals.TIMED_OUT, headers)
        detail = f"The answer took longer than the {self.seconds:g} seconds that this server allows: ask for less."
        return HttpRefusal(504, detail, refusals.TIMED_OUT)


class Exchange:
    """A request and its answer.

    Args:
        endpoint: What answers. It is called once, in a greenlet of its own, and its body is taken there too.
        request: What it is asked. Its `x-fal-request-timeout` is obeyed, and its allowance counts it.
        timeout_s: The most time that the answer may take to make; waiting for whoever reads it does not count.
        clock: Seconds, never going back.
    """

    def __init__(
        self,
        endpoint: HttpEndpoint,
        request: HttpRequest,
        *,
        timeout_s: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._endpoint = endpoint
        self._request = request
        self._patience = _Patience(timeout_s, is_the_callers=False)
        self._clock = clock
        self._left_s = timeout_s
        self._handover = _Handover()
        self._worker: gevent.Greenlet[..., None] | None = None
        self._head = answer_head.UNKNOWN
        self._is_between_events = True
        self._left_bytes: int | None = None
        """Of the body that the answer's head promises."""
        self._is_over = False
        self._is_reserved = False
        self._has_given = False

    @property
    def is_event_stream(self) -> bool:
        """Whether what is answered is a stream of events, between which others may stand."""
        return self._head.is_event_stream

    def answer(self) -> HttpAnswer:
        """The answer, failures too. Blocks until it begins; taking its body blocks again.

        It has `x-fal-request-id`, and no header that is about one connection. Close its body in any case, that gives
        up what is under way; so does an exception that is thrown in here. In an event stream what fails late is an
        `event: error`; any other body raises `AnswerBroken`.
        """
        if refusal := self._obstacle():
            return refusal.answer(self._request.request_id)
        self._worker = gevent.Greenlet(self._work)
        self._worker.gr_context = contextvars.copy_context()
        self._worker.start()
        try:
            begun = self._take()
        except BaseException:
            self.close()
            raise
        if isinstance(begun, HttpAnswer):
            return self._begin(begun)
        self.close()
        refusal = begun if isinstance(begun, HttpRefusal) else refusals.internal(self._request.request_id)
        return refusal.answer(self._request.request_id)

    def end(self, failure: Failure) -> None:
        """Ends now, because access was lost: the work is given up and `failure` is the answer, or its last event.

        Does not block.
        """
        self.abandon(refusals.of_failure(failure))

    def abandon(self, refusal: HttpRefusal) -> None:
        """As `end`, with any refusal in place of the answer."""
        self._handover.overrule(refusal)
        self._stop_working()

    def is_silent(self, seconds: float) -> bool:
        """Whether nothing comes for so many seconds, between two events and while there is patience left."""
        if self._is_over or not self._is_between_events:
            return False
        return not self._wait(seconds) and self._left_s > 0

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        if self._is_over:
            raise StopIteration
        taken = self._take()
        while isinstance(taken, bytes) and not self._head.has_content:
            taken = self._take()
        if isinstance(taken, bytes):
            self._count(taken)
            self._is_between_events = taken.endswith(_EVENT_ENDS)
            self._has_given = True
            return taken
        if isinstance(taken, HttpRefusal):
            return self._fail(taken)
        if self._left_bytes:
            self._break("its body is shorter than its Content-Length")
        self._is_over = True
        self._is_reserved = False  # it counts
        raise StopIteration

    def close(self) -> None:
        """Gives up what is under way; again does no harm."""
        self._is_over = True
        self._stop_working()
        if not self._has_given:  # who leaves after a preview has had something
            self._release()

    def _obstacle(self) -> HttpRefusal | None:
        try:
            self._patience = _patience(self._request.headers, self._patience)
        except ValueError as error:
            entry = FieldError(loc=["header", TIMEOUT_HEADER], msg=str(error), type="value_error")
            return HttpRefusal(422, (entry,))
        self._left_s = self._patience.seconds
        if not self._request.allowance.reserve_request():
            return refusals.of_failure(failures.limit_exceeded(MAX_REQUESTS_REASON))
        self._is_reserved = True
        return None

    def _begin(self, answer: HttpAnswer) -> HttpAnswer:
        try:
            return self._begin_with(answer_head.read(answer.status, answer.headers), answer)
        except MalformedAnswer as error:
            log.error("the answer to request %s is not HTTP: %s", self._request.request_id, error)
            self.close()
            return refusals.internal(self._request.request_id).answer(self._request.request_id)

    def _begin_with(self, head: AnswerHead, answer: HttpAnswer) -> HttpAnswer:
        headers = (*head.headers, ("x-fal-request-id", self._request.request_id))
        body = answer.body if head.has_content or not isinstance(answer.body, list | tuple) else []
        if isinstance(body, list | tuple) and head.content_length not in (None, sum(map(len, body))):
            raise MalformedAnswer("its body is not as long as its Content-Length")
        if answer.status >= 400:
            self._release()
        if isinstance(body, list | tuple):
            self._is_reserved = False
            return replace(answer, headers=headers, body=body)
        self._head, self._left_bytes = head, head.content_length
        return replace(answer, headers=headers, body=self)

    def _count(self, chunk: bytes) -> None:
        if self._left_bytes is None:
            return
        self._left_bytes -= len(chunk)
        if self._left_bytes < 0:
            self._break("its body is longer than its Content-Length")

    def _break(self, why: str) -> NoReturn:
        """Raises AnswerBroken."""
        log.error("the answer to request %s is not HTTP: %s", self._request.request_id, why)
        self._release()
        self.close()
        raise AnswerBroken

    def _release(self) -> None:
        if self._is_reserved:
            self._is_reserved = False
            self._request.allowance.release_request()

    def _fail(self, refusal: HttpRefusal) -> bytes:
        is_the_callers_doing = refusal.status == CLIENT_CLOSED_REQUEST or refusal.error_type == refusals.TIMED_OUT
        if not (self._has_given and is_the_callers_doing):
            self._release()
        self.close()
        if not self.is_event_stream:
            raise AnswerBroken
        event = refusal.event(self._request.request_id)
        return event if self._is_between_events else b"\n\n" + event

    def _take(self) -> "_Item":
        """What comes next, the end of patience included."""
        if not self._wait(math.inf):
            self._stop_working()
            return self._patience.refusal
        return self._handover.take()

    def _wait(self, seconds: float) -> bool:
        """False if nothing came in so many seconds, or in all that there are."""
        since = self._clock()
        came = self._handover.wait(max(0.0, min(seconds, self._left_s)))
        self._left_s -= self._clock() - since
        return came

    def _stop_working(self) -> None:
        if self._worker is not None:
            self._worker.kill(block=False)

    def _work(self) -> None:
        try:
            answer = self._endpoint.respond(self._request)
            self._handover.give(answer)
            if not isinstance(answer.body, list | tuple):
                self._send_on(answer.body)
            self._handover.give(_END)
        # The boundary of the greenlet: an endpoint is anybody's code, and what it raises costs one answer.
        except Exception as error:
            self._handover.give(refusals.of_error(error, self._request.request_id))
            # gevent's `AsyncResult.get` makes a cycle of what it raises and its frames, the input in one of them.
            error.__traceback__ = None

    def _send_on(self, body: Iterable[bytes]) -> None:
        try:
            for chunk in body:
                if chunk:
                    self._handover.give(chunk)
        finally:
            getattr(body, "close", bool)()  # PEP 3333: called if there is one, whatever happened


_Item = HttpAnswer | bytes | HttpRefusal | _End


class _Handover:
    """From one greenlet to another, an item at a time: who gives the next waits until the one before was taken."""

    def __init__(self) -> None:
        self._item: _Item | None = None
        self._verdict: HttpRefusal | None = None
        self._is_there = Event()
        self._has_room = Event()
        self._has_room.set()

    def give(self, item: _Item) -> None:
        self._has_room.wait()
        self._has_room.clear()
        self._item = item
        self._is_there.set()

    def overrule(self, refusal: HttpRefusal) -> None:
        """Whatever was given or will be, this is what is taken from now on."""
        self._verdict = refusal
        self._is_there.set()

    def wait(self, seconds: float) -> bool:
        return bool(self._is_there.wait(seconds))

    def take(self) -> _Item:
        if self._verdict is not None:
            return self._verdict
        item, self._item = self._item, None
        assert item is not None
        self._is_there.clear()
        self._has_room.set()
        return item


def _patience(headers: Headers, ceiling: _Patience) -> _Patience:
    """Raises ValueError; its text is for the caller."""
    values = [value.strip() for name, value in headers if name == TIMEOUT_HEADER]
    if not values:
        return ceiling
    if len(values) > 1 or not _DECIMAL.fullmatch(values[0]) or float(values[0]) <= TIMEOUT_MIN_S:
        raise ValueError(f"must be a number of seconds above {TIMEOUT_MIN_S:g}, such as 30")
    seconds = float(values[0])
    return _Patience(seconds, is_the_callers=True) if seconds <= ceiling.seconds else ceiling
