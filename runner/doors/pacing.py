"""How fast one socket's messages are taken: a flood costs decoding, validating and places in queues.

Every message counts, and an answer gives one back: who waits for answers is never held up, however fast the engine is.
Beyond the pace a peer is held back by not reading, which TCP hands on to it. Where newest wins that would make each
picture older than the one before it, so there the surplus is replaced, unread, by what comes after it, as the mailbox
would do; and as nothing holds such a peer back, the grossest are told to go.
"""

import logging
import time
from collections.abc import Callable
from typing import Final

import gevent
from websockets.exceptions import ConnectionClosed

from runner.apps.serving import Socket
from runner.protocol import codec, failures
from runner.protocol.mailbox import Mailbox
from runner.protocol.pace import Pace
from schemas import limits
from schemas.errors import CloseCode

log = logging.getLogger(__name__)

MINUTE_S: Final = 60
GROSS: Final = 20
"""So many times the pace is no client that draws too fast, but one that draws nothing."""

_ERROR: Final = '{"type":"x-fal-error"'


class PacedSocket:
    """A socket whose messages come at a pace.

    Args:
        socket: The peer.
        per_minute: Messages that are not answered yet, a minute; as many may come at once.
        newest: As many of those that wait are kept, the newest; None: all are, and reading pauses.
        clock: Seconds, never going back.
    """

    # One for each open socket, most of which are idle.
    __slots__ = ("_clock", "_gross", "_held", "_newest", "_pace", "_per_minute", "_socket")

    def __init__(
        self, socket: Socket, per_minute: int, newest: int | None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._socket = socket
        self._newest = newest
        self._clock = clock
        self._pace = Pace(per_minute / MINUTE_S, per_minute)
        self._gross = None if newest is None else Pace(GROSS * per_minute / MINUTE_S, GROSS * per_minute)
        self._per_minute = per_minute
        self._held: Mailbox[bytes | str] | None = None

    @property
    def close_code(self) -> int | None:
        """The code that the peer closed with, 1006 if it vanished; None until then."""
        return self._socket.close_code

    def receive(self) -> bytes | str | None:
        """The next message, when it is its time; None once the socket is closed."""
        if not self._held:
            message = self._socket.receive()
            if message is None or not self._is_bearable():
                return None
            if not self._pace.delay_s(self._clock()):
                self._pace.take(self._clock())
                return message
            self._hold(message)
        return self._receive_held()

    def send(self, message: bytes | str) -> None:
        """Sends a message. Raises ConnectionClosed."""
        self._socket.send(message)
        self._count_answer(message)

    def offer(self, message: bytes | str) -> bool:
        """Sends a message if that waits for no other one; else False, and nothing is sent. Raises ConnectionClosed."""
        if not self._socket.offer(message):
            return False
        self._count_answer(message)
        return True

    def _count_answer(self, message: bytes | str) -> None:
        if not (isinstance(message, str) and message.startswith(_ERROR)):  # else a flood of bad input had no limit
            self._pace.give_back()
            if self._gross is not None:
                self._gross.give_back()

    def close(self, code: int = CloseCode.NORMAL, reason: str = "") -> None:
        """Closes; again does no harm."""
        self._socket.close(code, reason)

    def abort(self) -> None:
        """Cuts the connection without a word."""
        self._socket.abort()

    def _receive_held(self) -> bytes | str | None:
        while (delay_s := self._pace.delay_s(self._clock())) > 0:
            if not self._wait(delay_s):
                self._held = None
                return None
        self._pace.take(self._clock())
        assert self._held is not None
        return self._held.take()

    def _wait(self, delay_s: float) -> bool:
        """Whether the socket is still open after the wait, as far as that was looked at."""
        if self._newest is None:
            gevent.sleep(delay_s)
            return True
        received = gevent.with_timeout(delay_s, lambda: (self._socket.receive(),), timeout_value=None)
        if received is None:
            return True
        if received[0] is None or not self._is_bearable():
            return False
        self._hold(received[0])
        return True

    def _hold(self, message: bytes | str) -> None:
        if self._held is None:
            self._held = Mailbox(self._newest, max_items=1, max_bytes=limits.MESSAGE_MAX_BYTES)
        self._held.put(message, len(message))

    def _is_bearable(self) -> bool:
        """Counts a message that nothing holds back; False if it was one too many for anybody."""
        if self._gross is None:
            return True
        if self._gross.delay_s(self._clock()):
            self._dismiss()
            return False
        self._gross.take(self._clock())
        return True

    def _dismiss(self) -> None:
        reason = f"far more than {self._per_minute} messages a minute: wait for answers, or send fewer"
        log.info("socket ended for %s", reason)
        try:
            self._socket.send(codec.encode_control(failures.limit_exceeded(reason).message()))
        except ConnectionClosed:
            return
        self._socket.close(CloseCode.POLICY_VIOLATION, reason)
