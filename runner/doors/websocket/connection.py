"""`environ["wsgi.websocket"]`: what an application holds of a connection."""

from contextlib import suppress

import gevent
from gevent.event import Event
from gevent.lock import BoundedSemaphore
from websockets.exceptions import ConnectionClosed
from websockets.frames import Close, CloseCode
from websockets.protocol import SEND_EOF, State

from runner.doors.websocket.inbox import Inbox
from runner.doors.websocket.options import WebSocketOptions
from runner.doors.websocket.protocol import Message, MessageProtocol
from runner.doors.websocket.transport import Transport
from schemas.limits import CLOSE_REASON_MAX_BYTES

_READ_BYTES = 4 * 1024
_READ_IN_MID_FRAME_BYTES = 256 * 1024


def _let_others_in() -> None:
    """Turn the hub's loop once.

    A greenlet that finds its data ready never switches, so that one busy client would starve all others;
    one turn a message gives every connection the same share. `sleep(0)` is not enough: it lets other
    callbacks run, but sockets are polled only every 5 ms then. libev takes a timer that is due as it is
    set for a poll without a wait: 2.6 us against 1 us.
    """
    gevent.sleep(1e-9)


def _cut(reason: str) -> str:
    return reason.encode()[:CLOSE_REASON_MAX_BYTES].decode(errors="ignore")


class WebSocket:
    """One connection, from the 101 to the end of TCP.

    A greenlet of its own reads all the while, so pings are answered, a lost peer is noticed and a close is
    seen while the application is busy. `receive`, `send` and `close` may be called from any greenlet, and
    `send` from several at once: messages go out whole, one after the other.
    """

    def __init__(self, transport: Transport, options: WebSocketOptions) -> None:
        self._transport = transport
        self._options = options
        self._protocol = MessageProtocol(
            max_message_bytes=options.max_message_bytes,
            max_frame_bytes=options.max_frame_bytes,
            max_fragments=options.max_fragments,
        )
        self._inbox = Inbox(options.receive_buffer_bytes)
        self._writing = BoundedSemaphore(1)
        self._ended = Event()
        self._reader = gevent.Greenlet(self._read)

    def start(self) -> None:
        """Begin to read; called once, when the 101 is out."""
        self._reader.start()

    @property
    def closed(self) -> bool:
        """Whether no message can be sent any more: either side is closing, or the peer is lost."""
        return not self._protocol.is_open or self._transport.closed

    @property
    def close_received(self) -> Close | None:
        """The peer's close frame; its code is 1005 where it carried none."""
        return self._protocol.close_rcvd

    @property
    def close_sent(self) -> Close | None:
        """Our close frame."""
        return self._protocol.close_sent

    @property
    def close_code(self) -> int | None:
        """The code that the peer closed with; 1006 if it vanished; None as long as that is open."""
        if self.close_received is not None:
            return self.close_received.code
        return CloseCode.ABNORMAL_CLOSURE if self._ended.is_set() else None

    @property
    def close_reason(self) -> str:
        """The reason that the peer gave, "" without one."""
        return self.close_received.reason if self.close_received is not None else ""

    def receive(self) -> Message | None:
        """Wait for the next message.

        Returns:
            str for a text message, bytes for a binary one, None once the connection is closed. What the
            peer sent before its close is delivered first; after our own close nothing is.
        """
        if len(self._inbox):
            _let_others_in()
        return self._inbox.get()

    def send(self, message: bytes | bytearray | memoryview | str) -> None:
        """Send one message: str as text, anything else as binary. Returns when the kernel has it all.

        If a `gevent.Timeout` or a kill interrupts a message on its way out, the connection is cut: nothing
        could follow half a frame.

        Raises:
            ConnectionClosed: The connection is closed or lost, or the peer stopped taking bytes.
        """
        data = message.encode() if isinstance(message, str) else bytes(message)
        with self._writing:
            if self.closed:
                raise self._closed_error()
            if isinstance(message, str):
                self._protocol.send_text(data)
            else:
                self._protocol.send_binary(data)
            try:
                self._write()
            except OSError as error:
                raise self._closed_error() from error

    def close(self, code: int = CloseCode.NORMAL_CLOSURE, reason: str = "") -> None:
        """Close with a code of RFC 6455 §7.4 and a reason, cut to 123 bytes; again does no harm.

        From the call on nothing is received or sent. It returns when TCP has ended: after the peer's
        answer, `close_timeout_s` without one, or when a write stalls (see `send_stall_timeout_s`).

        Raises:
            ProtocolError: The code may not be sent.
        """
        if not self.closed:
            self._protocol.send_close(code, _cut(reason))
        self._inbox.end(discard=True)
        if not self._ended.is_set():
            self._flush()
            self._ended.wait(self._options.close_timeout_s)
        self._transport.close()
        self._reader.join()

    def abort(self) -> None:
        """Cut the connection without a word; does nothing when it has ended."""
        self._inbox.end(discard=True)
        self._transport.abort()

    def _closed_error(self) -> ConnectionClosed:
        protocol = self._protocol
        return ConnectionClosed(protocol.close_rcvd, protocol.close_sent, protocol.close_rcvd_then_sent)

    # Writing: `_protocol` queues frames in the order in which they must go out, one greenlet at a time
    # sends them, and it sends all there are.

    def _flush(self) -> None:
        # On an error `_write` has cut the connection, which ends the reader and with it all else.
        with self._writing, suppress(OSError):
            self._write()

    def _write(self) -> None:
        try:
            writes = self._protocol.data_to_send()
            self._transport.send(b"".join(writes))
            if SEND_EOF in writes:  # if so the last
                self._transport.half_close()
        except BaseException:
            # Whatever it was, a kill and a timeout of the caller's included: half a frame may be out.
            self._transport.abort()
            raise

    # Reading

    def _read(self) -> None:
        try:
            self._read_while_open()
            self._inbox.end()
            # Closing TCP on unread bytes would reset it, and a reset can overtake our close frame: read on
            # until the peer has closed its half.
            gevent.with_timeout(self._options.close_timeout_s, self._read_to_the_end, timeout_value=None)
        finally:
            self._inbox.end()
            self._transport.close()
            self._protocol.release()
            self._ended.set()

    def _read_while_open(self) -> None:
        while self._protocol.is_open:
            self._feed_in_bits(self._next_bytes())
            if self._protocol.in_mid_frame:
                _let_others_in()

    def _feed_in_bits(self, data: bytes) -> None:
        # A large read may be the rest of one frame, or a flood of tiny ones at 10 us each.
        for start in range(0, len(data) or 1, _READ_BYTES):
            self._inbox.wait_for_room()
            self._feed(data[start : start + _READ_BYTES])

    def _read_to_the_end(self) -> None:
        while self._protocol.state is not State.CLOSED:
            self._feed(self._transport.receive(_READ_IN_MID_FRAME_BYTES))
            _let_others_in()  # or the deadline of this would never come while the peer floods us

    def _feed(self, data: bytes) -> None:
        """Process what came (b"" for the end of the stream) and answer it."""
        frames = self._protocol.frames_received
        if data:
            self._protocol.receive_data(data)
        else:
            self._protocol.receive_eof()
        self._flush()
        self._inbox.put(self._protocol.messages_received())
        if self._protocol.frames_received > frames:
            _let_others_in()

    def _next_bytes(self) -> bytes:
        """What the peer sends next, after a ping if it is slow to; b"" once it is gone."""
        data = self._receive_within(self._options.ping_interval_s)
        if data is not None:
            return data
        if self._protocol.is_open:
            self._protocol.send_ping(b"")
            self._flush()
        # Any byte is a sign of life, the pong or not.
        data = self._receive_within(self._options.ping_timeout_s)
        if data is None:
            self._protocol.fail(CloseCode.INTERNAL_ERROR, "keepalive ping timeout")
        return data or b""

    def _receive_within(self, seconds: float | None) -> bytes | None:
        in_mid_frame = self._protocol.in_mid_frame
        max_bytes = _READ_IN_MID_FRAME_BYTES if in_mid_frame else _READ_BYTES
        return gevent.with_timeout(seconds, self._transport.receive, max_bytes, timeout_value=None)
