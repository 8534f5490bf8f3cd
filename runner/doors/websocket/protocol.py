"""Frames in, whole messages out: the sans-I/O half of a connection.

`websockets` parses, unmasks and answers frames; this adds what it leaves to its I/O layers (assembling
messages, checking text) and the two places where its server is stricter than browsers can bear.
"""

import codecs
import logging
import struct
from typing import Any, Final

from websockets.frames import Close, CloseCode, Frame, Opcode
from websockets.protocol import Protocol, Side, State
from websockets.speedups import apply_mask
from websockets.streams import StreamReader

Message = bytes | str

# Below this level the base class says "connection closed", but not whose.
_logger = logging.getLogger(__name__)
_logger.setLevel(logging.WARNING)

_NORMAL_CLOSE = Close(CloseCode.NORMAL_CLOSURE, "")
_new_utf8_decoder = codecs.getincrementaldecoder("utf-8")

# RFC 6455 §5.2: FIN and an opcode; the mask bit and a length, longer ones in 16 or 64 bits after it.
_WHOLE_TEXT: Final = 0x81
_WHOLE_BINARY: Final = 0x82
_MASKED: Final = 0x80
_LENGTH_16: Final = 126
_LENGTH_64: Final = 127
_MASK_BYTES: Final = 4
_SHORT = struct.Struct("!BB")
_MEDIUM = struct.Struct("!BBH")
_LONG = struct.Struct("!BBQ")


def header(message: bytes | str, length: int) -> bytes:
    """What stands before a server's message of `length` bytes, sent as one frame.

    `Frame.serialize` copies the payload; this lets the kernel gather the two.
    """
    head = _WHOLE_TEXT if isinstance(message, str) else _WHOLE_BINARY
    if length < _LENGTH_16:
        return _SHORT.pack(head, length)
    if length < 1 << 16:
        return _MEDIUM.pack(head, _LENGTH_16, length)
    return _LONG.pack(head, _LENGTH_64, length)


_BETWEEN_FRAMES: Final = StreamReader.at_eof.__code__


class MessageProtocol(Protocol):
    """The server's end of an open connection, one step above frames.

    Feed it with `receive_data` and `receive_eof`; after each, send what `data_to_send` returns and take the
    finished messages with `messages_received`.
    """

    # With its own attributes and those of the base class there would be more than 30, and a dict of 1.2 KB for them.
    __slots__ = (
        "_fragments",
        "_max_fragments",
        "_messages",
        "_text_bytes",
        "_text_decoder",
        "_text_is_wide",
        "frames_received",
    )

    def __init__(self, *, max_message_bytes: int, max_frame_bytes: int, max_fragments: int) -> None:
        super().__init__(Side.SERVER, max_size=(max_message_bytes, max_frame_bytes), logger=_logger)
        self.debug = False  # whatever the level becomes: it would log every frame, prompts and pictures
        self.frames_received = 0
        """How many frames have come, control frames included."""
        self._max_fragments = max_fragments
        self._fragments: list[Message] = []
        self._text_decoder: codecs.IncrementalDecoder | None = None
        self._text_bytes = 0
        self._text_is_wide = False
        self._messages: list[Message] = []

    @property
    def is_open(self) -> bool:
        """Whether neither side has begun to close."""
        return self._state is State.OPEN

    @property
    def in_mid_frame(self) -> bool:
        """Whether more bytes of a frame are sure to come."""
        # Between frames the parser waits in `at_eof`. The reader's buffer does not say: a header is taken off it alone.
        parser: Any = self.parser
        return parser.gi_yieldfrom is None or parser.gi_yieldfrom.gi_code is not _BETWEEN_FRAMES

    @property
    def has_data_to_send(self) -> bool:
        """Whether frames are queued."""
        return bool(self.writes)

    def receive_data(self, data: bytes | bytearray) -> None:
        """Process bytes from the peer."""
        if not self._receive_whole(data):
            super().receive_data(data)

    def _receive_whole(self, data: bytes | bytearray) -> bool:
        """Take `data` if it is one whole lawful message and no more, as most are: 1.4 us, where the parser takes 7.7.

        Of anything else nothing is taken: what is wrong with it the parser says.
        """
        if len(data) < 2 + _MASK_BYTES or self._state is not State.OPEN or self.current_size is not None:
            return False
        head, length = data[0], data[1] ^ _MASKED
        start = 2
        if length == _LENGTH_16:
            length, start = int.from_bytes(data[2:4], "big"), 4
        if (length > _LENGTH_16 and start == 2) or len(data) != start + _MASK_BYTES + length or self.in_mid_frame:
            return False
        # What a text of so many bytes may cost is worked out where it comes in frames.
        if length > (self.max_fragment_size or 0) or 4 * length > (self.max_message_size or 0):
            return False
        payload = apply_mask(data[start + _MASK_BYTES :], data[start : start + _MASK_BYTES])
        message: Message = payload
        if head == _WHOLE_TEXT:
            try:
                message = payload.decode()
            except UnicodeDecodeError:
                return False
        elif head != _WHOLE_BINARY:
            return False
        self.frames_received += 1
        self._messages.append(message)
        return True

    def messages_received(self) -> list[Message]:
        """The messages finished since the last call: str for text, bytes for binary."""
        messages, self._messages = self._messages, []
        return messages

    def recv_frame(self, frame: Frame) -> None:
        """Process a frame: control frames are answered, data frames are put together.

        Raises:
            ProtocolError: The frame breaks RFC 6455; the caller closes with 1002.
            UnicodeDecodeError: Text is not UTF-8; the caller closes with 1007.
        """
        self.frames_received += 1
        if frame.opcode is Opcode.CLOSE:
            # A close between the fragments of a message is lawful (RFC 6455 §5.5, Autobahn case 7.1.5).
            self.current_size = None
        if frame.opcode is Opcode.PING and not self.is_open:
            return  # a pong after our close helps nobody and could block behind what the peer has not read
        super().recv_frame(frame)
        self.events.clear()
        if self.close_sent is not None and self.close_sent.code == CloseCode.NO_STATUS_RCVD:
            self.close_sent = _NORMAL_CLOSE  # what `send_frame` made of the echo
        if frame.opcode in (Opcode.TEXT, Opcode.BINARY, Opcode.CONT):
            self._receive_fragment(frame)

    def send_frame(self, frame: Frame) -> None:
        """Queue a frame. An echo of an empty close becomes 1000.

        The official JavaScript client reports the 1005 that an empty close stands for as an error.
        """
        if frame.opcode is Opcode.CLOSE and not frame.data:
            frame = Frame(Opcode.CLOSE, _NORMAL_CLOSE.serialize())
        super().send_frame(frame)

    def fail(self, code: CloseCode | int, reason: str = "") -> None:
        """Close at once because of what the peer did, and forget its half-sent message."""
        self._fragments.clear()
        super().fail(code, reason)

    def release(self) -> None:
        """Let go of what was received; nothing is fed any more. The parser and its errors lead back here, in cycles."""
        self.parser.close()
        self.parser_exc = None
        self._fragments.clear()
        self.reader.discard()

    def _receive_fragment(self, frame: Frame) -> None:
        if len(self._fragments) >= self._max_fragments:
            self.fail(CloseCode.MESSAGE_TOO_BIG, f"message exceeds limit of {self._max_fragments} frames")
            return
        if frame.opcode is not Opcode.CONT:
            self._text_decoder = _new_utf8_decoder() if frame.opcode is Opcode.TEXT else None
            self._text_bytes, self._text_is_wide = 0, False
        if self._text_decoder is not None and self._is_too_large_a_text(bytes(frame.data)):
            self.fail(CloseCode.MESSAGE_TOO_BIG, "text outside ASCII exceeds a quarter of the limit")
            return
        self._fragments.append(self._payload(frame))
        frame.data = b""  # the suspended parser keeps the frame while the connection is idle
        if frame.fin:
            self._messages.append(self._joined())

    def _is_too_large_a_text(self, data: bytes) -> bool:
        """Whether a text would cost more memory than a message may: one emoji makes each character four bytes."""
        self._text_bytes += len(data)
        self._text_is_wide = self._text_is_wide or not data.isascii()
        return self._text_is_wide and 4 * self._text_bytes > (self.max_message_size or 0)

    def _payload(self, frame: Frame) -> Message:
        if self._text_decoder is None:
            return bytes(frame.data)
        # Frame by frame, so that a long text that went wrong early is not waited for (RFC 6455 §8.1).
        return self._text_decoder.decode(bytes(frame.data), final=frame.fin)

    def _joined(self) -> Message:
        fragments, self._fragments = self._fragments, []
        if len(fragments) == 1:
            return fragments[0]
        empty: Message = b"" if self._text_decoder is None else ""
        return empty.join(fragments)  # type: ignore[arg-type]  # all of one kind
