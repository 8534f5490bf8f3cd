"""A connected socket whose writes end: TCP, TLS or a Unix socket."""

import fcntl
import socket
import struct
import sys
import termios
from contextlib import suppress
from ssl import SSLWantReadError, SSLWantWriteError
from typing import Any, Final

import gevent
from gevent.socket import socket as GeventSocket
from gevent.ssl import SSLSocket

_WRITE: Final = 2
"""libev's EV_WRITE."""
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)  # struct linger {l_onoff = 1, l_linger = 0}


class SendStalled(ConnectionError):
    """The peer took no byte for as long as it was given."""


class Transport:
    """Reads and writes that do not wait, one write that does with a timeout on *progress*, and the three ways to end.

    Args:
        sock: The connection; it is made non-blocking, and the transport's own from now on.
        received: Bytes that were read from it already.
        stall_timeout_s: Seconds that the peer may go without taking a byte of what is being sent.
    """

    __slots__ = ("_is_tls", "_received", "_sock", "_stall_timeout_s")

    def __init__(self, sock: GeventSocket, received: bytes, stall_timeout_s: float) -> None:
        sock.setblocking(False)
        self._sock = sock
        self._received = received
        self._stall_timeout_s = stall_timeout_s
        self._is_tls = isinstance(sock, SSLSocket)
        if sock.family in (socket.AF_INET, socket.AF_INET6):
            # A result is one small write; Nagle would hold it back for the peer's delayed ACK.
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    @property
    def closed(self) -> bool:
        """Whether `close` or `abort` was called."""
        return self._sock.fileno() < 0

    @property
    def has_received(self) -> bool:
        """Whether bytes lie here that the kernel will not tell of any more."""
        if self._received:
            return True
        return isinstance(self._sock, SSLSocket) and not self.closed and self._sock.pending() > 0

    def fileno(self) -> int:
        """The descriptor, -1 once it is closed."""
        return int(self._sock.fileno())

    def receive(self, max_bytes: int) -> bytes | None:
        """The next bytes; None if there are none yet; b"" once the peer has ended its half or is lost."""
        if self._received:
            received, self._received = self._received[:max_bytes], self._received[max_bytes:]
            return received
        try:
            return bytes(self._sock.recv(max_bytes))
        except (BlockingIOError, SSLWantReadError, SSLWantWriteError):
            return None
        except OSError:
            return b""

    def unreceive(self, data: bytes) -> None:
        """Gives back what the next `receive` is to return."""
        self._received = data + self._received

    def send_now(self, *buffers: bytes) -> bytes | memoryview:
        """Send what the kernel takes at once; returns the rest.

        Raises:
            OSError: The connection is lost.
        """
        size = sum(map(len, buffers))
        if self._is_tls or not size:
            return self._send_on(b"".join(buffers))
        try:
            sent = self._sock.sendmsg(buffers)  # the kernel gathers them: a picture is not copied for its header
        except BlockingIOError:
            sent = 0
        return b"" if sent == size else memoryview(b"".join(buffers))[sent:]

    def send(self, *buffers: bytes | memoryview) -> None:
        """Send all of it, however long that takes, while the peer takes some of it.

        Raises:
            SendStalled: It took nothing for `stall_timeout_s`.
            OSError: The connection is lost.
        """
        unsent = self._send_on(b"".join(buffers))
        while unsent:
            self._await_room()
            unsent = self._send_on(unsent)

    def half_close(self) -> None:
        """Tell the peer that nothing more will come; what it still sends can be read."""
        if isinstance(self._sock, SSLSocket):
            # Non-blocking, it does not wait for the peer's own close_notify, which comes when it pleases.
            with suppress(OSError, ValueError):
                self._sock.unwrap()
        with suppress(OSError):
            self._sock.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        """Close; the kernel goes on delivering what was sent. A `send` under way fails: gevent wakes what waits."""
        self._sock.close()

    def abort(self) -> None:
        """Reset the connection: what the peer has not taken is dropped, in the kernel too."""
        with suppress(OSError):
            self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
        self.close()

    def _send_on(self, data: bytes | memoryview) -> memoryview:
        unsent = memoryview(data)
        with suppress(BlockingIOError):
            while unsent:
                sent = self._sock.send(unsent)
                if not sent:  # so gevent's TLS sockets say that they would block
                    break
                unsent = unsent[sent:]
        return unsent

    def _await_room(self) -> None:
        """Wait until the kernel may take more, for as long as the peer takes some of what it has."""
        waiting = self._bytes_in_flight()
        while not self._is_writable_in_time():
            # The kernel calls a socket writable only when a third of its buffer, up to megabytes, is free:
            # a slow peer may have taken bytes all the same.
            still_waiting = self._bytes_in_flight()
            if still_waiting >= waiting:
                raise SendStalled
            waiting = still_waiting

    def _is_writable_in_time(self) -> bool:
        hub = gevent.get_hub()
        writable = hub.loop.io(self._sock.fileno(), _WRITE)
        try:
            return bool(gevent.with_timeout(self._stall_timeout_s, _wait, hub, writable, timeout_value=False))
        finally:
            writable.close()

    def _bytes_in_flight(self) -> int:
        """How many bytes the peer has not acknowledged; 0 where the kernel does not say (macOS)."""
        try:
            answer = fcntl.ioctl(self._sock.fileno(), termios.TIOCOUTQ, b"\0\0\0\0")
        except (OSError, ValueError):  # ValueError: closed by another greenlet, as `send` will tell
            return 0
        return int.from_bytes(answer, sys.byteorder)


def _wait(hub: Any, watcher: Any) -> bool:
    hub.wait(watcher)
    return True
