"""The I/O around one session: what reads the socket, and what does as the session says."""

import logging
import uuid
from collections.abc import Callable
from typing import Any, Final, assert_never

import gevent
from pydantic import BaseModel

from runner.apps.serving import UNMETERED, Meter, Socket, Usage
from runner.doors.conversing import Conversing
from runner.engine.request import (
    FLOW,
    LIMITS,
    EngineBusy,
    EngineUnavailable,
    GenerationFailed,
    GenerationLimits,
    InvalidRequest,
)
from runner.protocol import failures
from runner.protocol.failures import Failure
from runner.protocol.session import Close, Send, Session, Wait, Work
from schemas.errors import CloseCode
from schemas.images import RealtimeOutput

log = logging.getLogger(__name__)


_UNLIMITED: Final = GenerationLimits()


class _Ended(BaseException):
    """Thrown into work that must stop. No `Exception`: an endpoint is anybody's code, and may catch those."""


class Driver(Conversing):
    """The I/O around one session.

    Args:
        socket: The peer.
        answer: From an input to its output; blocks its greenlet, and may raise `InvalidRequest` (a field to mend) and
            the other errors of `runner.engine.request`. Anything else is an internal error.
        session: What says which answer is whose turn.
        clock: Seconds, never going back.
        limits: What the socket's token allows of one generation.
        meter: Hears of each result that was sent.
    """

    def __init__(
        self,
        socket: Socket,
        answer: Callable[[Any], BaseModel],
        session: Session,
        clock: Callable[[], float],
        limits: GenerationLimits = _UNLIMITED,
        meter: Meter = UNMETERED,
    ) -> None:
        super().__init__(socket, session, clock)
        self._answer_input = answer
        self._session = session
        self._limits = limits
        self._meter = meter
        self._dropped_inputs = 0
        self.usage = Usage()
        self._drawn = Usage()
        self._is_working = False

    def end(self, failure: Failure, code: CloseCode) -> None:
        """Ends the session now, whatever it does: the work under way is given up. Does not block."""
        self._session.end(failure, code)
        self._end_soon()
        # On the hub, where it is certain whether the worker is inside the endpoint.
        gevent.get_hub().loop.run_callback(self._stop_working)

    def _stop_working(self) -> None:
        if self._is_working and self._worker is not None:
            self._worker.throw(_Ended)

    def _work(self) -> None:
        FLOW.set(uuid.uuid4().hex)  # this greenlet's alone: the engine's fairness is between sockets
        LIMITS.set(self._limits)
        while True:
            action = self._session.next(self._clock())
            self._has_room.set()
            match action:
                case Work():
                    self._run(action.input)
                case Send():
                    sent_from = self._clock()
                    self._socket.send(action.message)
                    if isinstance(action.message, bytes):  # a result
                        self._count(self._clock() - sent_from)
                case Wait():
                    self._wait(action.until)
                case Close():
                    self._close(action)
                    return
                case _:
                    assert_never(action)
            del action  # a picture that was sent is not held while the session waits

    def _count(self, seconds: float) -> None:
        self._meter.sent(seconds, self._dropped_inputs)
        self.usage.images += self._drawn.images
        self.usage.pixels += self._drawn.pixels
        self._drawn = Usage()

    def _run(self, received: BaseModel) -> None:
        try:
            output = self._answer(received)
            self._dropped_inputs = self._session.dropped_inputs
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
        case EngineBusy():
            return failures.busy(error.retry_after_s)
        case EngineUnavailable():
            return failures.unavailable()
        case GenerationFailed():
            return failures.internal(error.error_id)
    error_id = uuid.uuid4().hex
    log.error("endpoint failed (%s)", error_id, exc_info=error)
    return failures.internal(error_id)
