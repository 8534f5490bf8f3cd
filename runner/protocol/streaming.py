"""The state machine of one realtime session whose endpoint takes or gives a stream (contract §3).

The owner feeds `receive` from the socket, the endpoint pulls inputs with `take`, and what it gives is sent as it
comes: one sender, so nothing overtakes. There is no clock and no socket here.
"""

from dataclasses import dataclass
from typing import Any, Final

from runner.protocol import codec
from runner.protocol.failures import Failure
from runner.protocol.inputs import Input, InputReader
from runner.protocol.mailbox import Mailbox
from runner.protocol.session import DRAINED_REASON, SESSION_OVER_REASON, Close, Send, SessionRules, Wait
from schemas.errors import TIMEOUT_REASON, CloseCode, RealtimeErrorCode


@dataclass(frozen=True, slots=True)
class Taken:
    """An input for the endpoint."""

    input: Any


@dataclass(frozen=True, slots=True)
class Ended:
    """No input follows."""


Step = Taken | Send | Wait | Ended


class StreamSession:
    """One session of a streaming realtime endpoint.

    Args:
        inputs: What reads a message.
        rules: Its limits. With `max_buffering` newer inputs replace older ones that the endpoint has not taken.
        now: The time, in seconds of any clock that never goes back.
        inputs_max: After so many good inputs there is no further one; what the peer still sends is ignored.
    """

    def __init__(self, inputs: InputReader, rules: SessionRules, now: float, inputs_max: int | None = None) -> None:
        self._reader = inputs
        self._rules = rules
        self._mailbox: Mailbox[Input] = Mailbox(
            rules.max_buffering, max_items=rules.max_waiting_items, max_bytes=rules.max_waiting_bytes
        )
        self._inputs_left = inputs_max
        self._quiet_since = now
        self._is_waiting = False
        self._has_ended = False
        self._is_draining = False
        self.ends_at: Final = None if rules.max_session_s is None else now + rules.max_session_s
        """When the session is over, whatever is under way."""

    @property
    def wants_input(self) -> bool:
        """Whether to read on. False lets TCP hold the peer back until the endpoint takes an input."""
        return self._has_ended or not self._mailbox.full

    def receive(self, message: bytes | str, now: float) -> None:
        """Takes a message from the peer; one that nobody will ask for is ignored."""
        if self._has_ended:
            return
        self._quiet_since = now
        received = self._reader.read(message)
        self._mailbox.put(received, received.size_bytes)

    def take(self, now: float) -> Step:
        """The endpoint's next input, or an answer to send to a bad one before asking again, or when to ask again.

        The idle clock runs while the endpoint waits here and no input comes.
        """
        if self._mailbox:
            self._is_waiting = False
            return self._turn(self._mailbox.take())
        if not self._is_waiting:
            self._is_waiting, self._quiet_since = True, max(now, self._quiet_since)
        if (idle_at := self._idle_at()) is not None and now >= idle_at:
            self._has_ended = True
        return Ended() if self._has_ended else Wait(idle_at)

    def take_dropped(self) -> int:
        """How many inputs newer ones replaced since this was last asked."""
        return self._mailbox.take_dropped()

    def end_inputs(self) -> None:
        """No input follows those that wait: the peer left, or may send no more."""
        self._has_ended = True
        if self._inputs_left == 0:
            self._mailbox.clear()

    def drain(self) -> None:
        """Takes no more inputs; the close will be SERVICE_RESTART."""
        self._is_draining = True
        self.end_inputs()

    def discard(self) -> None:
        """Forgets all inputs: the peer is gone, and pictures are large."""
        self._has_ended = True
        self._mailbox.clear()

    def finish(self, failure: Failure | None = None, *, is_over: bool = False) -> tuple[Send | None, Close]:
        """The last words, after the endpoint returned, failed, or is `is_over` by `ends_at`.

        Every normal end is told as TIMEOUT, and even a failure is closed with 1000, as fal's template does
        (contract §2d, §3).
        """
        self.discard()
        if is_over:
            return None, Close(CloseCode.NORMAL, SESSION_OVER_REASON)
        if failure is None and self._is_draining:
            return None, Close(CloseCode.SERVICE_RESTART, DRAINED_REASON)
        failure = failure or Failure(RealtimeErrorCode.TIMEOUT, TIMEOUT_REASON)
        return Send(codec.encode_control(failure.message())), Close(CloseCode.NORMAL)

    def _turn(self, received: Input) -> Taken | Send:
        if isinstance(received.content, Failure):
            return Send(codec.encode_control(received.content.message(received.request_id)), failed_inputs=1)
        if self._inputs_left is not None:
            self._inputs_left -= 1
            if not self._inputs_left:
                self.end_inputs()
        return Taken(received.content)

    def _idle_at(self) -> float | None:
        timeout_s = self._rules.idle_timeout_s
        return None if timeout_s is None else self._quiet_since + timeout_s
