"""A connected socket whose writes end: TCP, TLS or a Unix socket."""

import fcntl
import socket
import struct
import sys
import termios
from contextlib import suppress

import gevent
from gevent.socket import socket as GeventSocket
from gevent.ssl import SSLSocket

_RESET_ON_CLOSE = struct.pack("ii", 1, 0)  # struct linger {l_onoff = 1, l_linger = 0}


class SendStalled(ConnectionError):
    """The peer took no byte for as long as it was given."""


class Transport:
    """Reads, writes with a timeout on *progress*, and the three ways to end.

    Args:
        sock: The connection; the transport owns it from now on.
        received: Bytes that were read from it already.
        stall_timeout_s: Seconds that the peer may go without taking a byte of what is being sent.
    """

    def __init__(self, sock: GeventSocket, received: bytes, stall_timeout_s: float) -> None:
        self._sock = sock
        self._received = received
        self._stall_timeout_s = stall_timeout_s
        if sock.family in (socket.AF_INET, socket.AF_INET6):
            # A result is one small write; Nagle would hold it back for the peer's delayed ACK.
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    @property
    def closed(self) -> bool:
        """Whether `close` or `abort` was called."""
        return self._sock.fileno() < 0

    def receive(self, max_bytes: int) -> bytes:
        """The next bytes; b"" once the peer has ended its half or the connection is lost."""
        if self._received:
            received, self._received = self._received, b""
            return received
        try:
            return self._sock.recv(max_bytes)
        except OSError:
            return b""

    def send(self, data: bytes) -> None:
        """Send all of it, however long that takes, while the peer takes some of it.

        Raises:
            SendStalled: It took nothing for `stall_timeout_s`.
            OSError: The connection is lost.
        """
        unsent = memoryview(data)
        while unsent:
            unsent = unsent[self._send_some(unsent) :]

    def half_close(self) -> None:
        """Tell the peer that nothing more will come; what it still sends can be read."""
        with suppress(OSError):
            if isinstance(self._sock, SSLSocket):
                self._send_close_notify(self._sock)
            self._sock.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        """Close; the kernel goes on delivering what was sent."""
        self._sock.close()

    def abort(self) -> None:
        """Reset the connection: what the peer has not taken is dropped, in the kernel too."""
        with suppress(OSError):
            self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
        self._sock.close()

    def _send_some(self, data: memoryview) -> int:
        waiting = self._bytes_in_flight()
        while True:
            sent = gevent.with_timeout(self._stall_timeout_s, self._sock.send, data, timeout_value=None)
            if sent is not None:
                return sent
            # The kernel calls a socket writable only when a third of its buffer, up to megabytes, is free:
            # a slow peer may have taken bytes all the same.
            still_waiting = self._bytes_in_flight()
            if still_waiting >= waiting:
                raise SendStalled
            waiting = still_waiting

    def _bytes_in_flight(self) -> int:
        """How many bytes the peer has not acknowledged; 0 where the kernel does not say (macOS)."""
        try:
            answer = fcntl.ioctl(self._sock.fileno(), termios.TIOCOUTQ, b"\0\0\0\0")
        except (OSError, ValueError):  # ValueError: closed by another greenlet, as `send` will tell
            return 0
        return int.from_bytes(answer, sys.byteorder)

    def _send_close_notify(self, sock: SSLSocket) -> None:
        # Non-blocking: `unwrap` would wait for the peer's own close_notify, which comes when it pleases.
        sock.settimeout(0.0)
        with suppress(OSError, ValueError):
            sock.unwrap()
        sock.settimeout(None)
