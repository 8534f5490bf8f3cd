"""The two greenlets of a socket: the conversation's own reads, a worker does what is next and alone sends.

So answers keep the order of their inputs, and a peer that reads slowly slows down its own work only.
"""

import contextvars
import logging
import uuid
from collections.abc import Callable
from typing import Final, Protocol

import gevent
from gevent.event import Event
from websockets.exceptions import ConnectionClosed

from runner.apps.serving import Socket
from runner.protocol.session import Close
from schemas import limits
from schemas.errors import CloseCode

log = logging.getLogger(__name__)

END_GRACE_S: Final = 0.4
"""How long a peer may take to read what is on its way to it before a session that must end is cut off."""


def close_reason(reason: str) -> str:
    """As much of a reason as a close frame carries (RFC 6455 §5.5)."""
    return reason.encode()[: limits.CLOSE_REASON_MAX_BYTES].decode(errors="ignore")


class Inputs(Protocol):
    """What says whose turn it is: a session without I/O."""

    @property
    def wants_input(self) -> bool:
        """Whether to read on."""

    def receive(self, message: bytes | str, now: float) -> None:
        """Takes a message."""

    def drain(self) -> None:
        """Takes no more."""

    def discard(self) -> None:
        """Forgets everything: the peer is gone."""


class Conversing:
    """One socket's reading, and the frame of its work; what the work is, a subclass says.

    Args:
        socket: The peer.
        inputs: What takes its messages.
        clock: Seconds, never going back.
    """

    def __init__(self, socket: Socket, inputs: Inputs, clock: Callable[[], float]) -> None:
        self._socket = socket
        self._inputs = inputs
        self._clock = clock
        self._received = Event()
        self._has_room = Event()
        self._closing = False
        self._worker: gevent.Greenlet[..., None] | None = None
        self._giving_up: gevent.Greenlet[..., None] | None = None

    def run(self) -> None:
        """Reads until the socket is closed. Work that is under way then is given up."""
        self._worker = worker = gevent.Greenlet(self._work_to_the_end)
        worker.gr_context = contextvars.copy_context()  # it works for the same request and trace
        worker.start()
        try:
            self._read()
        finally:
            # `receive` ends as soon as our own close begins; the closing handshake is still the worker's.
            if not self._closing:
                worker.kill()
            worker.join()
            self._worker = None  # it holds the frames that it was killed in, and they its input and this object
            if self._giving_up is not None:
                self._giving_up.kill(block=False)
                self._giving_up = None
            self._inputs.discard()

    def drain(self) -> None:
        """Takes no new input and closes when what was taken is answered. Does not block."""
        self._inputs.drain()
        self._received.set()
        self._has_room.set()

    def _work(self) -> None:
        """Does what is next, to the last close. Raises ConnectionClosed."""
        raise NotImplementedError

    def _wait(self, until: float | None) -> None:
        # No greenlet runs between what said to wait and here: an input that it has not seen sets the event later.
        self._received.clear()
        self._received.wait(None if until is None else max(until - self._clock(), 0))

    def _close(self, close: Close) -> None:
        self._stop_reading()
        self._socket.close(close.code, close_reason(close.reason))

    def _end_soon(self) -> None:
        """Has the worker look at what is next, and cuts off a peer that does not read it: it cannot be told."""
        self._received.set()
        if self._giving_up is None:
            self._giving_up = gevent.spawn_later(END_GRACE_S, self._give_up)

    def _give_up(self) -> None:
        if not self._closing:
            self._socket.abort()

    def _read(self) -> None:
        while (message := self._socket.receive()) is not None:
            self._inputs.receive(message, self._clock())
            del message  # an idle session must not hold its last picture
            self._received.set()
            while not self._inputs.wants_input and not self._closing:
                self._has_room.clear()
                self._has_room.wait()

    def _work_to_the_end(self) -> None:
        try:
            self._work()
        except ConnectionClosed:
            self._stop_reading()  # the reader learns it from `receive`
        # The boundary of the greenlet: a bug of ours ends this socket with 1011, and no other.
        except Exception:
            error_id = uuid.uuid4().hex
            log.exception("session failed (%s)", error_id)
            self._close(Close(CloseCode.INTERNAL_ERROR, error_id))

    def _stop_reading(self) -> None:
        self._closing = True
        self._has_room.set()
