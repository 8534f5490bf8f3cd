"""The state machine of one realtime session: messages and results in, what to do next out.

The owner feeds `receive` from the socket, and one worker asks `next` what to do and does it: run the input,
send, close, or wait. One worker means one answer at a time, in the order of the inputs. The idle clock, the
answers' pairing and the closing all follow from what `next` returns; there is no clock and no socket here.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from pydantic import BaseModel, ValidationError

from runner.protocol import codec, failures
from runner.protocol.allowance import Allowance
from runner.protocol.failures import Failure
from runner.protocol.mailbox import Mailbox
from schemas import limits
from schemas.errors import TIMEOUT_REASON, CloseCode, RealtimeErrorCode

MAX_REQUESTS_REASON: Final = "the token's max_requests is used up: mint a new token and reconnect"
SESSION_OVER_REASON: Final = "the session reached its longest duration, max_session_s: reconnect to go on"
DRAINED_REASON: Final = "the server restarts: reconnect"


@dataclass(frozen=True, slots=True)
class SessionRules:
    """How long a session lives and how much may wait in it."""

    idle_timeout_s: float | None = 60.0
    """Seconds without an input, and with no work left, until TIMEOUT. None: never."""
    max_session_s: float | None = limits.SESSION_DEFAULT_S
    max_buffering: int | None = None
    """The peer's `max_buffering`, 1 to 60. None: every input is answered, and reading pauses when full."""
    max_waiting_items: int = 256
    max_waiting_bytes: int = limits.MESSAGE_MAX_BYTES
    """Memory of the inputs that wait; the one that passes this mark still does, and one more is worked on. So a
    session holds at most this and two messages of `codec.DECODED_MAX_BYTES`."""


@dataclass(frozen=True, slots=True)
class Work:
    """Run the endpoint on `input`, then call `succeed` or `fail`."""

    input: BaseModel


@dataclass(frozen=True, slots=True)
class Send:
    """Send `message`: bytes as a binary message, a string as a text message."""

    message: bytes | str


@dataclass(frozen=True, slots=True)
class Close:
    """Close the socket. Nothing follows."""

    code: CloseCode
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Wait:
    """Ask again after the next `receive`, or at time `until` (None: only then)."""

    until: float | None


Action = Work | Send | Close | Wait


@dataclass(frozen=True, slots=True)
class _Input:
    """A message that was read: valid, or already known to fail. `request_id` pairs it with its answer."""

    content: BaseModel | Failure
    size_bytes: int
    request_id: str | None = None


class Session:
    """One session of a unary realtime endpoint.

    Args:
        input_model: What a message must be.
        rules: Its limits.
        now: The time, in seconds of any clock that never goes back.
        allowance: What the token's counted limits leave of requests; None: any number.
    """

    def __init__(
        self, input_model: type[BaseModel], rules: SessionRules, now: float, allowance: Allowance | None = None
    ) -> None:
        self._input_model = input_model
        self._rules = rules
        self._allowance = allowance
        self._has_reserved = False
        self._mailbox: Mailbox[_Input] = Mailbox(
            rules.max_buffering, max_items=rules.max_waiting_items, max_bytes=rules.max_waiting_bytes
        )
        # The input whose turn it is. An input that finds the worker waiting comes here at once, so that inputs
        # that follow before the worker looks cannot replace it (fal's SDK answers f0, f6, f7 of f0..f7).
        self._current: _Input | None = None
        self._answer: bytes | str | None = None
        self._last: Action = Wait(None)
        self._quiet_since = now
        self._ends_at = None if rules.max_session_s is None else now + rules.max_session_s
        self._is_draining = False
        self._closing: Close | None = None

    @property
    def wants_input(self) -> bool:
        """Whether to read on. False lets TCP hold the peer back until a waiting input had its turn."""
        return not self._mailbox.full

    def receive(self, message: bytes | str, now: float) -> None:
        """Takes a message from the peer; one that comes while the session drains or closes is ignored."""
        if self._closing or self._is_draining:
            return
        self._quiet_since = now
        received = self._read(message)
        if self._current is None and isinstance(self._last, Wait):
            self._current = received
        else:
            self._mailbox.put(received, received.size_bytes)

    def next(self, now: float) -> Action:
        """What the worker does next. After `Work` it calls `succeed` or `fail` before it asks again."""
        if isinstance(self._last, Send):
            self._quiet_since = now
        self._last = self._decide(now)
        return self._last

    def succeed(self, output: Mapping[str, Any]) -> None:
        """The work's result: the answer to the current input, with the drops since the previous result."""
        if self._closing:
            return
        self._answer = codec.encode_result({**output, "dropped_inputs": self._mailbox.take_dropped()})
        self._current = None
        self._has_reserved = False  # it counts from now on

    def fail(self, failure: Failure) -> None:
        """The work's failure: the answer to the current input. The session lives on."""
        if self._closing:
            return
        request_id = self._current.request_id if self._current else None
        self._answer = codec.encode_control(failure.message(request_id))
        self._current = None
        self._release_request()

    def end(self, failure: Failure, code: CloseCode) -> None:
        """Ends the session now: `failure` is sent and the socket closed, whatever waits or is worked on."""
        if self._closing:
            return
        self._close(Close(code, failure.reason))
        self._answer = codec.encode_control(failure.message())

    def drain(self) -> None:
        """Takes no more inputs; when the answers to those taken are out the session closes with SERVICE_RESTART."""
        self._is_draining = True

    def discard(self) -> None:
        """Forgets all inputs and answers: the peer is gone, and pictures are large."""
        self._release_request()
        self._close(Close(CloseCode.NORMAL))
        self._answer, self._last = None, Wait(None)

    def _decide(self, now: float) -> Action:
        if self._answer is None and not self._closing:
            self._take_turn(now)
        if self._answer is not None:
            answer, self._answer = self._answer, None
            return Send(answer)
        if self._closing:
            return self._closing
        if self._current is not None and isinstance(self._current.content, BaseModel):
            return Work(self._current.content)
        return Wait(self._wake_at())

    def _take_turn(self, now: float) -> None:
        """Makes an input current, or begins to close, or leaves things as they are."""
        if self._ends_at is not None and now >= self._ends_at:
            self._close(Close(CloseCode.NORMAL, SESSION_OVER_REASON))
            return
        if self._current is None and self._mailbox:
            self._current = self._mailbox.take()
        if self._current is not None:
            if isinstance(self._current.content, Failure):
                self.fail(self._current.content)
            elif not self._reserve_request():
                self.fail(failures.limit_exceeded(MAX_REQUESTS_REASON))
                self._close(Close(CloseCode.LIMIT_EXCEEDED, MAX_REQUESTS_REASON))
        elif self._is_draining:
            self._close(Close(CloseCode.SERVICE_RESTART, DRAINED_REASON))
        elif (idle_at := self._idle_at()) is not None and now >= idle_at:
            self.fail(Failure(RealtimeErrorCode.TIMEOUT, TIMEOUT_REASON))
            self._close(Close(CloseCode.NORMAL))

    def _reserve_request(self) -> bool:
        self._has_reserved = self._allowance is None or self._allowance.reserve_request()
        return self._has_reserved

    def _release_request(self) -> None:
        if self._has_reserved and self._allowance is not None:
            self._allowance.release_request()
        self._has_reserved = False

    def _idle_at(self) -> float | None:
        timeout_s = self._rules.idle_timeout_s
        return None if timeout_s is None else self._quiet_since + timeout_s

    def _wake_at(self) -> float | None:
        return min((at for at in (self._idle_at(), self._ends_at) if at is not None), default=None)

    def _close(self, close: Close) -> None:
        self._closing = close
        self._current = None
        self._mailbox.clear()

    def _read(self, message: bytes | str) -> _Input:
        try:
            fields = codec.decode(message)
        except codec.DecodeError as error:
            return _Input(failures.undecodable(str(error)), len(message))
        size_bytes, request_id = codec.size_bytes(fields), _request_id(fields)
        try:
            return _Input(self._input_model.model_validate(fields), size_bytes, request_id)
        except ValidationError as error:
            return _Input(failures.invalid_input(error, fields), size_bytes, request_id)


def _request_id(fields: Mapping[str, Any]) -> str | None:
    """What the peer calls its request, where that can be read; also of a message that is invalid otherwise."""
    request_id = fields.get("request_id")
    readable = isinstance(request_id, str) and 0 < len(request_id) <= limits.REQUEST_ID_MAX_CHARS
    return request_id if readable else None
