"""What an operator may set about sockets, and what an application may answer instead of an upgrade."""

from collections.abc import Sequence
from dataclasses import dataclass
from http import HTTPStatus

from schemas.limits import MESSAGE_FRAGMENTS_MAX, MESSAGE_MAX_BYTES


@dataclass(frozen=True, slots=True)
class WebSocketOptions:
    """Limits and patience of every connection. Sizes are bytes, times are seconds.

    A connection holds at most `max_message_bytes` of an unfinished message, `receive_buffer_bytes` (and the
    message that passed that mark) of messages the application has not taken, and what is being sent. While
    the application has so much to take nothing is read: no ping is answered, no close noticed.
    """

    max_message_bytes: int = MESSAGE_MAX_BYTES
    max_frame_bytes: int = MESSAGE_MAX_BYTES
    max_fragments: int = MESSAGE_FRAGMENTS_MAX
    receive_buffer_bytes: int = 256 * 1024
    ping_interval_s: float | None = 20.0
    """A peer that is silent for so long is pinged; None switches pings off."""
    ping_timeout_s: float = 20.0
    """A peer that is silent for so long after a ping is dead."""
    send_stall_timeout_s: float = 30.0
    """A peer that takes no byte for so long is cut off; one that takes some may be as slow as it likes."""
    close_timeout_s: float = 5.0
    """How long the peer's half of the closing handshake is waited for."""
    header_timeout_s: float = 10.0
    """How long a client may take over the TLS handshake, over a request line, and over its headers."""
    request_timeout_s: float = 15.0
    """How long a request may take in all, the gate's decision and the last byte of the answer included. It does
    not count against a session: that begins with the 101. Where an application reads a body it ends there: the rest
    is bounded by `body_timeout_s`, by the application itself, and by `send_stall_timeout_s`."""
    body_timeout_s: float = 60.0
    """How long the body of a request may take to come."""
    linger_timeout_s: float = 2.0
    """How long is read on where an answer left a body unread, so that the answer is not lost."""
    max_connections: int = 1000
    """Connections beyond this wait in the kernel's accept queue."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """An HTTP answer that a gate gives instead of the upgrade."""

    status: int
    headers: Sequence[tuple[str, str]] = ()
    body: bytes = b""

    def serialize(self) -> bytes:
        """The answer as HTTP/1.1 has it, the connection's last."""
        status = HTTPStatus(self.status)
        headers = [*self.headers, ("Content-Length", str(len(self.body))), ("Connection", "close")]
        lines = [f"HTTP/1.1 {status.value} {status.phrase}", *(f"{name}: {value}" for name, value in headers)]
        return "\r\n".join([*lines, "", ""]).encode("latin-1") + self.body
