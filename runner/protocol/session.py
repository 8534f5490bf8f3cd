"""The state machine of one realtime session: messages and results in, what to do next out.

The owner feeds `receive` from the socket, and one worker asks `next` what to do and does it: run the input,
send, close, or wait. One worker means one answer at a time, in the order of the inputs. The idle clock, the
answers' pairing and the closing all follow from what `next` returns; there is no clock and no socket here.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from pydantic import BaseModel

from runner.protocol import codec, failures
from runner.protocol.allowance import Allowance
from runner.protocol.failures import Failure
from runner.protocol.inputs import Input, InputReader
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
    """The peer's `max_buffering`, else the endpoint's. None: every input is answered, and reading pauses when full."""
    max_waiting_items: int = 256
    max_waiting_bytes: int = limits.MESSAGE_MAX_BYTES
    """Memory of the inputs that wait; the one that passes this mark still does, and one more is worked on. So a
    session holds at most this and two messages of `codec.DECODED_MAX_BYTES`."""


@dataclass(frozen=True, slots=True)
class Batching:
    """How many inputs that wait are given to one call of the endpoint, which has one answer for them (fal's)."""

    max_batch_size: int = 1
    may_join: Callable[[Any, Any, int], bool] | None = None
    """Whether the second input may join a batch that the first one begins and that has so many. None: always."""


@dataclass(frozen=True, slots=True)
class Work:
    """Run the endpoint on `input`, and the `others` of its batch, then call `succeed`, `answer` or `fail`."""

    input: Any
    others: tuple[Any, ...] = ()


@dataclass(frozen=True, slots=True)
class Send:
    """Send `message`: bytes as a binary message, a string as a text message."""

    message: bytes | str
    failed_inputs: int = 0
    """How many inputs this tells the failure of."""


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

UNBATCHED: Final = Batching()


class Session:
    """One session of a unary realtime endpoint.

    Args:
        inputs: What a message must be, or what reads one.
        rules: Its limits.
        now: The time, in seconds of any clock that never goes back.
        allowance: What the token's counted limits leave of requests; None: any number. Not with batches.
        batching: How inputs that wait are put together.
    """

    def __init__(
        self,
        inputs: type[BaseModel] | InputReader,
        rules: SessionRules,
        now: float,
        allowance: Allowance | None = None,
        batching: Batching = UNBATCHED,
    ) -> None:
        self._reader = inputs if isinstance(inputs, InputReader) else InputReader(inputs)
        self._rules = rules
        self._allowance = allowance
        self._batching = batching
        self._has_reserved = False
        self._mailbox: Mailbox[Input] = Mailbox(
            rules.max_buffering, max_items=rules.max_waiting_items, max_bytes=rules.max_waiting_bytes
        )
        # The input whose turn it is. An input that finds the worker waiting comes here at once, so that inputs
        # that follow before the worker looks cannot replace it (fal's SDK answers f0, f6, f7 of f0..f7).
        self._current: Input | None = None
        self._others: tuple[Input, ...] = ()  # of the current input's batch
        self._answer: Send | None = None
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
        received = self._reader.read(message)
        if self._current is None and isinstance(self._last, Wait):
            self._current = received
        else:
            self._mailbox.put(received, received.size_bytes)

    def next(self, now: float) -> Action:
        """What the worker does next. After `Work` it calls `succeed`, `answer` or `fail` before it asks again."""
        if isinstance(self._last, Send):
            self._quiet_since = now
        self._last = self._decide(now)
        return self._last

    def succeed(self, output: Mapping[str, Any]) -> None:
        """The work's result: the answer to the current input, with the drops since the previous result.

        Raises:
            TypeError: msgpack cannot say a value of it; then nothing is changed.
            ValueError: likewise, for it is too large or too deep.
        """
        message = codec.encode_result({**output, "dropped_inputs": self._mailbox.dropped})
        self.answer(message)

    def answer(self, message: bytes | str) -> None:
        """The work's result as a message, encoded by whoever ran the work; see `dropped_inputs`."""
        if self._closing:
            return
        self._mailbox.take_dropped()
        self._answer = Send(message)
        self._forget_current()
        self._has_reserved = False  # it counts from now on

    @property
    def dropped_inputs(self) -> int:
        """How many inputs newer ones replaced since the previous result."""
        return self._mailbox.dropped

    def fail(self, failure: Failure) -> None:
        """The work's failure: the answer to the current input. The session lives on."""
        if self._closing:
            return
        request_id = self._current.request_id if self._current else None
        failed = 1 + len(self._others) if self._current else 0
        self._answer = Send(codec.encode_control(failure.message(request_id)), failed)
        self._forget_current()
        self._release_request()

    def end(self, failure: Failure, code: CloseCode) -> None:
        """Ends the session now: `failure` is sent and the socket closed, whatever waits or is worked on."""
        if self._closing:
            return
        self._close(Close(code, failure.reason))
        self._answer = Send(codec.encode_control(failure.message()))

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
            return answer
        if self._closing:
            return self._closing
        if self._current is not None:
            return Work(self._current.content, tuple([other.content for other in self._others]))
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
            else:
                self._others = self._take_others(self._current.content)
        elif self._is_draining:
            self._close(Close(CloseCode.SERVICE_RESTART, DRAINED_REASON))
        elif (idle_at := self._idle_at()) is not None and now >= idle_at:
            self.fail(Failure(RealtimeErrorCode.TIMEOUT, TIMEOUT_REASON))
            self._close(Close(CloseCode.NORMAL))

    def _take_others(self, first: Any) -> tuple[Input, ...]:
        """What waits and may be worked on together with `first`. A bad input has its turn alone."""
        size, may_join = self._batching.max_batch_size, self._batching.may_join
        if size == 1 or not self._mailbox:
            return ()
        others: list[Input] = []
        while self._mailbox and len(others) + 1 < size:
            content = self._mailbox.oldest.content
            if isinstance(content, Failure) or (may_join and not may_join(first, content, len(others) + 1)):
                break
            others.append(self._mailbox.take())
        return tuple(others)

    def _forget_current(self) -> None:
        self._current, self._others = None, ()

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
        self._forget_current()
        self._mailbox.clear()
