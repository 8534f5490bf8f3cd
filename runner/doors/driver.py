"""The I/O around one session: what reads the socket, and what does as the session says.

Two greenlets a socket: the handler's own reads, a worker does what the session says next. The worker alone
sends, so answers keep the order of their inputs, and a peer that reads slowly slows down its own work only.
"""

import logging
import uuid
from collections.abc import Callable
from typing import Any, Final, assert_never

import gevent
from gevent.event import Event
from pydantic import BaseModel
from websockets.exceptions import ConnectionClosed

from runner.apps.serving import Socket, Usage
from runner.engine.request import (
    FLOW,
    LIMITS,
    EngineUnavailable,
    GenerationFailed,
    GenerationLimits,
    InvalidRequest,
)
from runner.protocol import failures
from runner.protocol.failures import Failure
from runner.protocol.session import Close, Send, Session, Wait, Work
from schemas import limits
from schemas.errors import CloseCode
from schemas.images import RealtimeOutput

log = logging.getLogger(__name__)


def close_reason(reason: str) -> str:
    """As much of a reason as a close frame carries (RFC 6455 §5.5)."""
    return reason.encode()[: limits.CLOSE_REASON_MAX_BYTES].decode(errors="ignore")


_UNLIMITED: Final = GenerationLimits()

END_GRACE_S: Final = 0.4
"""How long a peer may take to read what is on its way to it before a session that must end is cut off."""


class _Ended(BaseException):
    """Thrown into work that must stop. No `Exception`: an endpoint is anybody's code, and may catch those."""


class Driver:
    """The I/O around one session.

    Args:
        socket: The peer.
        answer: From an input to its output; blocks its greenlet, and may raise `InvalidRequest` (a field to mend) and
            the other errors of `runner.engine.request`. Anything else is an internal error.
        session: What says which answer is whose turn.
        clock: Seconds, never going back.
        limits: What the socket's token allows of one generation.
    """

    def __init__(
        self,
        socket: Socket,
        answer: Callable[[Any], BaseModel],
        session: Session,
        clock: Callable[[], float],
        limits: GenerationLimits = _UNLIMITED,
    ) -> None:
        self._socket = socket
        self._answer_input = answer
        self._session = session
        self._clock = clock
        self._limits = limits
        self.usage = Usage()
        self._drawn = Usage()
        self._received = Event()
        self._has_room = Event()
        self._closing = False
        self._worker: gevent.Greenlet[..., None] | None = None
        self._is_working = False
        self._giving_up: gevent.Greenlet[..., None] | None = None

    def run(self) -> None:
        """Reads until the socket is closed. Work that is under way then is given up."""
        self._worker = worker = gevent.spawn(self._work)
        try:
            self._read()
        finally:
            # `receive` ends as soon as our own close begins; the closing handshake is still the worker's.
            if not self._closing:
                worker.kill()
            worker.join()
            self._worker = None  # it holds the frames that it was killed in, and they its input and this driver
            if self._giving_up is not None:
                self._giving_up.kill(block=False)
                self._giving_up = None
            self._session.discard()

    def end(self, failure: Failure, code: CloseCode) -> None:
        """Ends the session now, whatever it does: the work under way is given up. Does not block."""
        self._session.end(failure, code)
        self._received.set()
        # On the hub, where it is certain whether the worker is inside the endpoint.
        gevent.get_hub().loop.run_callback(self._stop_working)
        self._giving_up = gevent.spawn_later(END_GRACE_S, self._give_up)

    def drain(self) -> None:
        """Takes no new input and closes when what was taken is answered. Does not block."""
        self._session.drain()
        self._received.set()
        self._has_room.set()

    def _stop_working(self) -> None:
        if self._is_working and self._worker is not None:
            self._worker.throw(_Ended)

    def _give_up(self) -> None:
        """The peer does not read, so it cannot be told."""
        if not self._closing:
            self._socket.abort()

    def _read(self) -> None:
        while (message := self._socket.receive()) is not None:
            self._session.receive(message, self._clock())
            del message  # an idle session must not hold its last picture
            self._received.set()
            while not self._session.wants_input and not self._closing:
                self._has_room.clear()
                self._has_room.wait()

    def _work(self) -> None:
        FLOW.set(uuid.uuid4().hex)  # this greenlet's alone: the engine's fairness is between sockets
        LIMITS.set(self._limits)
        try:
            self._follow_session()
        except ConnectionClosed:
            self._end()  # the reader learns it from `receive`
        # The boundary of the greenlet: a bug of ours ends this socket with 1011, and no other.
        except Exception:
            error_id = uuid.uuid4().hex
            log.exception("session failed (%s)", error_id)
            self._end()
            self._socket.close(CloseCode.INTERNAL_ERROR, error_id)

    def _follow_session(self) -> None:
        while True:
            action = self._session.next(self._clock())
            self._has_room.set()
            match action:
                case Work():
                    self._run(action.input)
                case Send():
                    self._socket.send(action.message)
                    if isinstance(action.message, bytes):  # a result
                        self._count()
                case Wait():
                    self._wait(action.until)
                case Close():
                    self._end()
                    self._socket.close(action.code, close_reason(action.reason))
                    return
                case _:
                    assert_never(action)
            del action  # a picture that was sent is not held while the session waits

    def _count(self) -> None:
        self.usage.images += self._drawn.images
        self.usage.pixels += self._drawn.pixels
        self._drawn = Usage()

    def _end(self) -> None:
        self._closing = True
        self._has_room.set()

    def _wait(self, until: float | None) -> None:
        # No greenlet runs between `next` and here: an input that `next` has not seen sets the event later.
        self._received.clear()
        self._received.wait(None if until is None else max(until - self._clock(), 0))

    def _run(self, received: BaseModel) -> None:
        try:
            output = self._answer(received)
            self._session.succeed(output.model_dump())
            self._drawn = _drawn(output)
        # An endpoint is anybody's code: what it raises costs one answer.
        except Exception as error:
            self._session.fail(_failure(error))
            # gevent's `AsyncResult.get` makes a cycle of what it raises and its frames, `received` in one of them.
            error.__traceback__ = None
        except _Ended:
            pass  # the session has its last words already

    def _answer(self, received: BaseModel) -> BaseModel:
        self._is_working = True
        try:
            return self._answer_input(received)
        finally:
            self._is_working = False


def _drawn(output: BaseModel) -> Usage:
    images = output.images if isinstance(output, RealtimeOutput) else []
    return Usage(len(images), sum(image.width * image.height for image in images))


def _failure(error: Exception) -> Failure:
    """What the peer is told; an error that nobody foresaw is logged under the id that the peer gets."""
    match error:
        case InvalidRequest():
            return failures.invalid_field(error.field, error.message, error.kind)
        case EngineUnavailable():
            return failures.unavailable()
        case GenerationFailed():
            return failures.internal(error.error_id)
    error_id = uuid.uuid4().hex
    log.error("endpoint failed (%s)", error_id, exc_info=error)
    return failures.internal(error_id)
