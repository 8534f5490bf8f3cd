"""One WebSocket of a hosted app, on the gateway's side.

The door's greenlet reads the peer and passes on what it sends; what the app sends is carried by a courier, so that an
idle socket has no greenlet for it. Either waits for the other side's window (`runner.hosting.frames`).
"""

import logging
import uuid
from collections import deque
from dataclasses import replace
from typing import Any, Final

import gevent
from gevent.event import Event
from websockets.exceptions import ConnectionClosed

from runner.apps.serving import AppUnavailable, Socket, SocketTerms, Usage
from runner.hosting import frames
from runner.hosting.courier import Couriers
from runner.hosting.frames import CREDIT_BYTES, WINDOW_BYTES, Frame
from runner.hosting.link import DeclaredSocket, Link
from runner.protocol import codec, failures
from runner.protocol.failures import Failure
from runner.protocol.session import DRAINED_REASON, MAX_REQUESTS_REASON, SESSION_OVER_REASON
from schemas.errors import CloseCode, RealtimeErrorCode

log = logging.getLogger(__name__)

END_GRACE_S: Final = 0.4
"""How long a peer may take to read what is on its way to it before a conversation that must end is cut off."""
OVERTIME_S: Final = 5.0
"""A realtime session ends itself at max_session_s; one whose process is stuck is ended here so much later."""

_COURIERS: Final = Couriers()

_GONE: Final = 1006
"""RFC 6455 §7.1.5: the peer vanished."""

# RFC 6455 §7.4.1 and the registry of IANA: what may stand in a close frame.
_SENDABLE: Final = frozenset({*range(1000, 1004), *range(1007, 1015)})


class HostedConversation:
    """One socket's life at an endpoint of a hosted app."""

    __slots__ = (
        "_close",
        "_declared",
        "_delivered",
        "_in_flight",
        "_is_closing",
        "_is_ended",
        "_is_exhausted",
        "_is_scheduled",
        "_link",
        "_number",
        "_outbox",
        "_room",
        "_socket",
        "_takes_input",
        "_terms",
        "_unacknowledged",
        "_unanswered",
        "usage",
    )

    def __init__(self, link: Link, declared: DeclaredSocket, socket: Socket, terms: SocketTerms) -> None:
        self._link = link
        self._declared = declared
        self._socket = socket
        self._terms = terms
        self.usage = Usage()
        self._number = 0
        self._outbox: deque[bytes | str] | None = None
        """None while nothing waits, as mostly: an empty one takes 600 bytes."""
        self._close: tuple[int, str] | None = None
        """The code and reason to close with once the outbox is empty."""
        self._is_scheduled = False
        self._is_closing = False
        self._is_ended = False
        """Ended on our side: nothing that the app says goes out any more."""
        self._takes_input = True
        self._in_flight = 0
        self._unacknowledged = 0
        self._unanswered = 0
        """Inputs that count as requests so far, and of which nothing has come."""
        self._is_exhausted = False
        self._room: Event | None = None
        self._delivered: Event | None = None

    # What the door calls.

    def run(self) -> None:
        """Serves until the socket is closed."""
        seconds = self._terms.rules.max_session_s
        if seconds is not None and self._declared.is_realtime:
            seconds += OVERTIME_S
        timer = None if seconds is None else gevent.get_hub().loop.timer(seconds)
        if timer is not None:
            timer.start(self._finish, CloseCode.NORMAL, SESSION_OVER_REASON)
        try:
            self._open()
            while (message := self._socket.receive()) is not None:
                if self._takes_input:
                    self._forward(message)
                del message  # an idle session must not hold its last picture
            self._leave()
            # `receive` ends as soon as our own close begins; the closing handshake is still the courier's.
            self._await_delivery()
        finally:
            if timer is not None:
                timer.stop()
                timer.close()
            self._leave()
            if self._declared.is_unary:  # elsewhere an input may be answered by many outputs, or many by one
                self._release(self._unanswered)

    def end(self, failure: Failure, code: CloseCode) -> None:
        """Ends now: `failure` is sent and the socket closed, whatever waits or is worked on."""
        if self._is_closing:
            return
        self._outbox = None
        self._enqueue(codec.encode_control(failure.message()))
        self._end_with(code, failure.reason)
        gevent.spawn_later(END_GRACE_S, self._give_up)

    def drain(self) -> None:
        """Takes no new input, delivers the answers to what was taken, then closes with SERVICE_RESTART."""
        if self._is_ended:
            return
        if self._declared.is_realtime:
            self._stop_input()
        else:  # what its handler is about nobody else knows
            gevent.spawn_later(self._link.drain_grace_s, self._finish, CloseCode.SERVICE_RESTART, DRAINED_REASON)

    # What the app's process says.

    def received(self, frame: Frame) -> None:
        """A frame of this stream."""
        kind = frame[0]
        if kind == frames.DATA:
            if not (self._is_ended or self._send_at_once(frame[2])):
                self._enqueue(frame[2])
                self._schedule()
            self._count_answer(*frame[3:])
        elif kind == frames.CREDIT:
            self._in_flight -= frame[2]
            if self._room is not None and self._in_flight < WINDOW_BYTES:
                self._room.set()
        elif kind == frames.END and not self._is_ended:
            self._is_ended = True
            self._set_close(self._last_words(frame[2], frame[3]))

    def lost(self) -> None:
        """The process died."""
        if self._is_ended:
            return
        error_id = uuid.uuid4().hex
        log.error("socket lost with the process of app %s (%s)", self._link.app_id, error_id)
        failure = failures.internal(error_id)
        self._enqueue(codec.encode_control(failure.message()))
        self._finish(CloseCode.INTERNAL_ERROR, failure.reason)

    def _send_at_once(self, payload: bytes | str) -> bool:
        """Spares most messages the way through a courier, which takes two switches of greenlets."""
        if self._is_scheduled or not isinstance(payload, bytes | str):
            return False
        try:
            if not self._socket.offer(payload):
                return False
            self._acknowledge(payload)
        except ConnectionClosed:
            self._give_way()  # the reader learns it from `receive`
        return True

    # The courier's part.

    def deliver(self) -> None:
        """Sends what waits, then closes if it is time to."""
        try:
            while self._outbox:
                payload = self._outbox.popleft()
                self._socket.send(payload)
                self._acknowledge(payload)
                del payload
            if self._close is not None and not self._is_closing:
                self._is_closing = True
                self._socket.close(*self._close)
        except ConnectionClosed:
            self._give_way()  # the reader learns it from `receive`
        # The boundary of the greenlet: a bug of ours ends this socket, and no other.
        except Exception:
            log.exception("a message of app %s cannot be delivered", self._link.app_id)
            self._socket.abort()
            self._give_way()
        finally:
            self._is_scheduled = False
            self._outbox = self._outbox or None
            if self._delivered is not None:
                self._delivered.set()

    def _enqueue(self, payload: bytes | str) -> None:
        if self._outbox is None:
            self._outbox = deque()
        self._outbox.append(payload)

    def _acknowledge(self, payload: bytes | str) -> None:
        self._unacknowledged += frames.cost(payload)
        if self._unacknowledged >= CREDIT_BYTES:
            self._link.post(frames.encode((frames.CREDIT, self._number, self._unacknowledged)))
            self._unacknowledged = 0

    def _give_way(self) -> None:
        self._is_ended = True
        self._outbox = None
        if self._room is not None:
            self._room.set()

    # The reader's part.

    def _open(self) -> None:
        if self._is_ended:  # revoked before it began
            return
        try:
            self._link.check_ready()
        except AppUnavailable as unavailable:  # it died since the path was looked up
            self.end(Failure(RealtimeErrorCode.UNAVAILABLE, unavailable.reason), CloseCode.TRY_AGAIN_LATER)
            return
        self._number = self._link.enter(self)
        terms = self._terms
        opening = (frames.OPEN, self._number, terms.path, terms.query, terms.headers, terms.address, self._extension())
        self._link.post(frames.encode(opening))
        self._terms = replace(terms, query="", headers=())  # half a KB, which is the app's now
        if not self._takes_input:  # drained before it began
            self._stop_input()

    def _extension(self) -> dict[str, Any]:
        rules, own_timeout = self._terms.rules, self._declared.session_timeout
        return {
            "max_buffering": rules.max_buffering,
            "max_session_s": rules.max_session_s,
            "idle_timeout_s": rules.idle_timeout_s if own_timeout is None else own_timeout,
        }

    def _forward(self, message: bytes | str) -> None:
        if self._declared.is_realtime and not self._reserve():
            return
        self._link.post(*frames.encode_data(self._number, message))
        self._in_flight += frames.cost(message)
        while self._in_flight >= WINDOW_BYTES and not self._is_ended:
            self._room = self._room or Event()
            self._room.clear()
            self._room.wait()

    def _reserve(self) -> bool:
        """Counts one request; if the token has none left, the session ends when what it took is answered."""
        if self._terms.allowance.reserve_request():
            self._unanswered += 1
            return True
        self._is_exhausted = True
        self._stop_input()
        return False

    def _count_answer(self, failed: int = 0, dropped: int = 0) -> None:
        """An answer came: the request that it answers counts, unless it failed; those that were dropped do not."""
        if failed or dropped:
            self._release(failed + dropped)
        if not failed and self._unanswered:
            self._unanswered -= 1

    def _release(self, count: int) -> None:
        for _ in range(min(count, self._unanswered)):
            self._unanswered -= 1
            self._terms.allowance.release_request()

    def _stop_input(self) -> None:
        self._takes_input = False
        self._link.post(frames.encode((frames.DRAIN, self._number)))

    def _leave(self) -> None:
        code = self._socket.close_code
        self._link.leave(self._number, _GONE if code is None else code)

    def _await_delivery(self) -> None:
        if self._is_scheduled:
            self._delivered = Event()
            self._delivered.wait()

    # The end.

    def _finish(self, code: int, reason: str) -> None:
        """Closes after what waits to be sent; the app is told at once."""
        if not self._is_ended:
            self._end_with(code, reason)

    def _end_with(self, code: int, reason: str) -> None:
        self._is_ended = True
        self._link.leave(self._number, code)
        self._set_close((code, reason))

    def _set_close(self, close: tuple[int, str]) -> None:
        self._close = close
        self._takes_input = False
        if self._room is not None:
            self._room.set()
        self._schedule()

    def _last_words(self, code: int, reason: str) -> tuple[int, str]:
        if self._is_exhausted:  # the app was asked to end because of it
            failure = failures.limit_exceeded(MAX_REQUESTS_REASON)
            self._enqueue(codec.encode_control(failure.message()))
            return CloseCode.LIMIT_EXCEEDED, MAX_REQUESTS_REASON
        if code in _SENDABLE or 3000 <= code <= 4999:
            return code, reason
        log.warning("app %s closed a socket with %d, which no close frame may carry", self._link.app_id, code)
        return CloseCode.INTERNAL_ERROR, ""

    def _schedule(self) -> None:
        if not self._is_scheduled:
            self._is_scheduled = True
            _COURIERS.send(self)

    def _give_up(self) -> None:
        """The peer does not read, so it cannot be told."""
        if not self._is_closing:
            self._socket.abort()
