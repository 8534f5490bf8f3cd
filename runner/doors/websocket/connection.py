"""`environ["wsgi.websocket"]`: what an application holds of a connection."""

import logging
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final

import gevent
from gevent.event import Event
from gevent.lock import BoundedSemaphore
from websockets.exceptions import ConnectionClosed
from websockets.frames import Close, CloseCode
from websockets.protocol import SEND_EOF, State

from runner.doors.websocket.inbox import Inbox
from runner.doors.websocket.options import WebSocketOptions
from runner.doors.websocket.protocol import Message, MessageProtocol, header
from runner.doors.websocket.transport import Transport
from schemas.limits import CLOSE_REASON_MAX_BYTES

logger = logging.getLogger(__name__)

_READ_BYTES: Final = 4 * 1024
_READ_IN_MID_FRAME_BYTES: Final = 256 * 1024
_READ: Final = 1
"""libev's EV_READ."""
_NEXT_TURN_S: Final = 1e-9
"""libev takes a timer that is due as it is set for a poll of the sockets without a wait."""


def _let_others_in() -> None:
    """Turn the hub's loop once.

    A greenlet that finds its data ready never switches, so that one busy client would starve all others;
    one turn a message gives every connection the same share. `sleep(0)` is not enough: it lets other
    callbacks run, but sockets are polled only every 5 ms then: 2.6 us against 1 us.
    """
    gevent.sleep(_NEXT_TURN_S)


def _cut(reason: str) -> str:
    return reason.encode()[:CLOSE_REASON_MAX_BYTES].decode(errors="ignore")


class WebSocket:
    """One connection, from the 101 to the end of TCP.

    The hub itself reads, whenever there is something: so pings are answered, a lost peer is noticed and a close is
    seen while the application is busy, and no socket needs a greenlet for it (some 10 KB, and two switches a message).
    One read a turn of the loop gives every connection the same share. What needs to wait is left to a greenlet.

    `receive`, `send` and `close` may be called from any greenlet, and `send` from several at once: messages go out
    whole, one after the other.
    """

    __slots__ = (
        "__weakref__",
        "_again",
        "_ended",
        "_heard_at",
        "_inbox",
        "_is_ending",
        "_is_paused",
        "_is_pinged",
        "_options",
        "_protocol",
        "_readable",
        "_timer",
        "_transport",
        "_writing",
    )

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
        self._is_paused = False
        """Not reading: the inbox is full, or an answer waits for the writer."""
        self._is_ending = False
        self._heard_at = 0.0
        self._is_pinged = False
        loop = gevent.get_hub().loop
        self._readable: Any = loop.io(transport.fileno(), _READ)
        self._timer: Any = None
        """Keeps alive while the connection is open, and is the deadline of its end after."""
        self._again: Any = None

    def start(self) -> None:
        """Begin to read; called once, when the 101 is out."""
        self._readable.start(self._read)
        self._heard_at = gevent.get_hub().loop.now()
        if self._options.ping_interval_s is not None:
            self._set_timer(self._options.ping_interval_s, self._keep_alive)
        if self._transport.has_received:
            self._read_again()

    @property
    def closed(self) -> bool:
        """Whether no message can be sent any more: either side is closing, or the peer is lost."""
        return not self._protocol.is_open  # `_end` leaves it closed

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
        message = self._inbox.get()
        if self._is_paused:
            self._settle()
        return message

    def send(self, message: bytes | bytearray | memoryview | str) -> None:
        """Send one message: str as text, anything else as binary. Returns when the kernel has it all.

        If a `gevent.Timeout` or a kill interrupts a message on its way out, the connection is cut: nothing
        could follow half a frame.

        Raises:
            ConnectionClosed: The connection is closed or lost, or the peer stopped taking bytes.
        """
        payload = message.encode() if isinstance(message, str) else bytes(message)
        with self._writing:
            if self.closed:
                raise self._closed_error()
            try:
                self._write(header(message if isinstance(message, str) else payload, len(payload)), payload)
            except OSError as error:
                raise self._closed_error() from error
        if self._is_paused:
            self._settle()

    def offer(self, message: bytes | str) -> bool:
        """Send one message unless that would wait for another one: False, and nothing of it went out.

        Never blocks, so it is for callbacks of the hub. What the kernel does not take at once a greenlet sends on.

        Raises:
            ConnectionClosed: The connection is closed or lost.
        """
        if self._writing.locked():
            return False
        if self.closed:
            raise self._closed_error()
        payload = message.encode() if isinstance(message, str) else message
        try:
            self._write_now(header(message, len(payload)), payload)
        except OSError as error:
            raise self._closed_error() from error
        return True

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
            self._settle()
            self._ended.wait(self._options.close_timeout_s)
        self._finish()

    def abort(self) -> None:
        """Cut the connection without a word; does nothing when it has ended."""
        self._inbox.end(discard=True)
        self._cut_off()

    def _closed_error(self) -> ConnectionClosed:
        protocol = self._protocol
        return ConnectionClosed(protocol.close_rcvd, protocol.close_sent, protocol.close_rcvd_then_sent)

    # Writing: `_protocol` queues frames in the order in which they must go out. Whoever has the lock sends its message
    # and then all that was queued meanwhile; nobody else sends anything.

    def _flush(self) -> None:
        # On an error the connection has been cut, which ends all else.
        with self._writing, suppress(OSError):
            self._write()

    def _write(self, *frame: bytes) -> None:
        """Send a frame, and then what is queued; holding the lock."""
        try:
            if frame:
                self._write_all(*frame)
            while queued := self._protocol.data_to_send():
                self._write_all(*queued)
                if queued[-1] == SEND_EOF:
                    self._transport.half_close()
        except BaseException:
            # Whatever it was, a kill and a timeout of the caller's included: half a frame may be out.
            self._cut_off()
            raise

    def _write_all(self, *frames: bytes) -> None:
        if rest := self._transport.send_now(*frames):
            self._transport.send(rest)

    def _write_now(self, *frames: bytes, is_last: bool = False) -> None:
        """Send without waiting; the lock is free, and is taken by the greenlet that sends the rest if there is one."""
        try:
            rest = self._transport.send_now(*frames)
        except OSError:
            self._cut_off()
            raise
        if rest:
            self._writing.acquire()
            gevent.spawn(self._write_rest, rest, is_last)
        elif is_last:
            self._transport.half_close()

    def _write_rest(self, rest: bytes | memoryview, is_last: bool) -> None:
        try:
            self._transport.send(rest)
            if is_last:
                self._transport.half_close()
            self._write()
        except OSError:
            self._cut_off()
        finally:
            self._writing.release()
            self._settle()

    def _answer(self) -> None:
        """Send what reading has queued, unless somebody is writing and will do it."""
        if self._protocol.has_data_to_send and not self._writing.locked():
            queued = self._protocol.data_to_send()
            with suppress(OSError):
                self._write_now(*queued, is_last=queued[-1] == SEND_EOF)

    # Reading: callbacks of the hub, where nothing may wait.

    def _read(self) -> None:
        protocol = self._protocol
        try:
            data = self._transport.receive(_READ_IN_MID_FRAME_BYTES if protocol.in_mid_frame else _READ_BYTES)
            if data is None:
                return
            self._hear()
            self._feed(data)
            self._answer()  # first: a ping between the fragments of a message is answered before it
            if messages := protocol.messages_received():
                self._inbox.put(messages)
            if not protocol.is_open or protocol.has_data_to_send or self._inbox.is_full:
                self._settle()
            if self._transport.has_received:
                self._read_again()
        # The boundary of the callback: a bug of ours ends this socket, and no other.
        except Exception:
            logger.exception("reading failed")
            self.abort()

    def _hear(self) -> None:
        self._heard_at = gevent.get_hub().loop.now()
        if self._is_pinged and self._protocol.is_open and self._options.ping_interval_s is not None:
            self._is_pinged = False
            self._set_timer(self._options.ping_interval_s, self._keep_alive)

    def _feed(self, data: bytes) -> None:
        """Process what came (b"" for the end of the stream), or some of it and the rest in another turn of the loop."""
        protocol = self._protocol
        if not data:
            protocol.receive_eof()
        elif len(data) <= _READ_BYTES:
            protocol.receive_data(data)
        else:
            # A large read may be the rest of one frame, or a flood of tiny ones at 10 us each.
            frames = protocol.frames_received
            for start in range(0, len(data), _READ_BYTES):
                protocol.receive_data(data[start : start + _READ_BYTES])
                if protocol.frames_received > frames:
                    self._transport.unreceive(data[start + _READ_BYTES :])
                    return

    def _settle(self) -> None:
        """Go on reading, or stop, or end, as things are now."""
        protocol = self._protocol
        if self._ended.is_set():
            return
        if not protocol.is_open:
            self._inbox.end()
        if self._writing.locked() and (protocol.has_data_to_send or not protocol.is_open):
            self._pause()  # until the writer comes here: what is being sent now is to arrive, whatever the peer says
        elif protocol.state is State.CLOSED:
            self._finish()
        elif not protocol.is_open:
            # Closing TCP on unread bytes would reset it, and a reset can overtake our close frame: read on
            # until the peer has closed its half.
            if not self._is_ending:
                self._is_ending = True
                self._set_timer(self._options.close_timeout_s, self._finish)
            self._resume()
        elif self._inbox.is_full:
            self._pause()
        else:
            self._resume()

    def _pause(self) -> None:
        if not self._is_paused:
            self._is_paused = True
            self._readable.stop()

    def _resume(self) -> None:
        if self._is_paused:
            self._is_paused = False
            self._readable.start(self._read)
            if self._transport.has_received:
                self._read_again()

    def _read_again(self) -> None:
        """Bytes lie here that the kernel does not tell of: read when the loop has polled the other sockets."""
        if self._is_paused or self._ended.is_set():
            return
        if self._again is not None:
            self._again.close()
        self._again = gevent.get_hub().loop.timer(_NEXT_TURN_S)
        self._again.start(self._read_held)

    def _read_held(self) -> None:
        if not (self._is_paused or self._ended.is_set()):
            self._read()

    # The clock

    def _set_timer(self, seconds: float, callback: Callable[[], None]) -> None:
        if self._timer is not None:
            self._timer.close()
        self._timer = gevent.get_hub().loop.timer(seconds)
        self._timer.start(callback)

    def _keep_alive(self) -> None:
        """Ping a peer that is silent, and give up one that stays so. One timer all along: one for each read costs 3 us.

        Any byte is a sign of life, the pong or not.
        """
        now, options = gevent.get_hub().loop.now(), self._options
        if not self._protocol.is_open:
            return
        if self._is_pinged:
            self._protocol.fail(CloseCode.INTERNAL_ERROR, "keepalive ping timeout")
            self._answer()
            self._settle()
            return
        if self._is_paused or self._writing.locked():  # we do not listen, or it does not: a write that stalls ends it
            self._heard_at = now
        due_in_s = self._heard_at + (options.ping_interval_s or 0) - now
        if due_in_s <= 0:
            self._is_pinged, due_in_s = True, options.ping_timeout_s
            self._protocol.send_ping(b"")
            self._answer()
        self._set_timer(due_in_s, self._keep_alive)

    def _finish(self) -> None:
        """The end of TCP."""
        self._end(self._transport.close)

    def _cut_off(self) -> None:
        self._end(self._transport.abort)

    def _end(self, end_transport: Callable[[], None]) -> None:
        if self._ended.is_set():
            return
        # Before the descriptor is closed: gevent puts that off until the loop has told those that watch it.
        for watcher in (self._readable, self._timer, self._again):
            if watcher is not None:
                watcher.stop()
                watcher.close()
        self._timer = self._again = None
        end_transport()
        self._protocol.receive_eof()
        self._protocol.release()
        self._ended.set()
        self._inbox.put(self._protocol.messages_received())  # the end came while they were being answered
        self._inbox.end()
