"""What an application may do with the connection that its HTTP request came on, besides WSGI."""

import select
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final, cast

import gevent
from gevent.pywsgi import Input
from gevent.socket import socket as GeventSocket

from httpbase.framing import FramingReader, TooMuchFraming

CONNECTION_KEY: Final = "lcm_realtime.connection"
"""Where in `environ` an application finds the `RequestConnection`."""

_READ_BYTES: Final = 64 * 1024
_READ_OF_CHUNKS_BYTES: Final = 512
"""pywsgi reads the framing of chunks a byte at a time, 10 us a chunk: many tiny ones must not hold up the hub."""
_FRAMING_MAX_BYTES: Final = 32 * 1024
"""Sizes and extensions of chunks before `_READ_OF_CHUNKS_BYTES` are there, or all trailers."""
_LOOK_EVERY_S: Final = 0.5

# Linux says with it that the peer has ended its half, whatever lies unread before that.
_PEER_ENDED: Final[int] = getattr(select, "POLLRDHUP", 0) | select.POLLHUP | select.POLLERR


def _let_others_in() -> None:
    gevent.sleep(1e-9)  # see connection._let_others_in


class BodyTooLarge(Exception):
    """The body is longer than allowed; what is left of it is unread."""


class BodyTooSlow(Exception):
    """The body did not come in time."""


class BodyMalformed(Exception):
    """Chunks that are none."""


class BodyCutShort(Exception):
    """The client left in the middle of it."""


class RequestConnection:
    """The connection of one request.

    Args:
        sock: The connection.
        body: pywsgi's reader.
        lift_deadline: Takes the deadline off the request.
        body_timeout_s: How long the body may take in all.
    """

    def __init__(
        self, sock: GeventSocket, body: Input, lift_deadline: Callable[[], None], body_timeout_s: float
    ) -> None:
        self._sock = sock
        self._body = body
        self._lift_deadline = lift_deadline
        self._body_timeout_s = body_timeout_s
        self._is_broken = False
        self._framing = FramingReader(body.rfile, _FRAMING_MAX_BYTES, _let_others_in)
        body.rfile = cast(Any, self._framing)

    @property
    def body_was_read(self) -> bool:
        """Whether the next byte on the connection is not of this request."""
        if self._body.chunked_input:
            return bool(self._body.chunk_length == 0 and not self._is_broken)
        return bool(self._body.position >= (self._body.content_length or 0))

    def read_body(self, max_bytes: int) -> bytes:
        """The whole body. From now on the request has no deadline of the server's; writes must only go on.

        Raises:
            BodyTooLarge: it is longer; if it says so itself nothing was read.
            BodyTooSlow: it took longer than it may.
            BodyMalformed: its framing is wrong.
            BodyCutShort: its end is missing.
        """
        self._lift_deadline()
        if (self._body.content_length or 0) > max_bytes:
            raise BodyTooLarge
        try:
            with gevent.Timeout(self._body_timeout_s, BodyTooSlow):
                return self._read(max_bytes)
        except OSError as error:
            # pywsgi's _InvalidClientInput, which is private, says what is wrong with chunks.
            self._is_broken = True
            is_malformed = isinstance(error, TooMuchFraming) or type(error).__name__ == "_InvalidClientInput"
            raise (BodyMalformed if is_malformed else BodyCutShort) from None

    def _read(self, max_bytes: int) -> bytes:
        body = bytearray()
        while piece := self._body.read(self._next_size()):
            self._framing.forget()
            body += piece
            if len(body) > max_bytes:
                raise BodyTooLarge
            _let_others_in()
        return bytes(body)

    def _next_size(self) -> int:
        if not self._body.chunked_input:
            return _READ_BYTES
        return min(max(self._body.chunk_length - self._body.position, _READ_OF_CHUNKS_BYTES), _READ_BYTES)

    @contextmanager
    def watched(self, left: Callable[[], None]) -> Iterator[None]:
        """Calls `left` on the hub if the client leaves while the block runs. Reads nothing: it may be pipelining."""
        watch = _Watch(self._sock.fileno(), left)
        try:
            yield
        finally:
            watch.stop()


class _Watch:
    """Waits for a socket to have something to read, and looks whether that is its end.

    Bytes of a next request keep it readable, so from then on it looks again every now and then.
    """

    def __init__(self, descriptor: int, left: Callable[[], None]) -> None:
        loop: Any = gevent.get_hub().loop
        self._left = left
        self._poll = select.poll()
        self._poll.register(descriptor, _PEER_ENDED)
        self._readable = loop.io(descriptor, 1)
        self._again = loop.timer(_LOOK_EVERY_S, _LOOK_EVERY_S)
        self._readable.start(self._look_first)

    def stop(self) -> None:
        """Looks no more."""
        self._readable.stop()
        self._readable.close()
        self._again.stop()
        self._again.close()

    def _look_first(self) -> None:
        self._readable.stop()
        self._look()
        self._again.start(self._look)

    def _look(self) -> None:
        if self._poll.poll(0):
            self._again.stop()
            self._left()
