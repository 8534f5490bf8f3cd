"""What the gateway and the process of an app say to each other: msgpack arrays, one after the other.

`[kind, stream, …]`, where a stream is one WebSocket or one HTTP request. A busy socket costs `DATA` and little else,
so that frame is the leanest. Sans-I/O.

Flow control is per stream and direction: who sends may be `WINDOW_BYTES` ahead of who consumes, which says so with
`CREDIT`. A peer that does not read, or a handler that does not receive, stops its own stream and nobody else's.
"""

import struct
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

import msgpack

DATA: Final = 0
"""`stream, payload[, failed, dropped]`: a message or a piece of a body; bytes or text. So many inputs have this error
for an answer, and so many were replaced by newer ones: neither count against the token's max_requests."""
CREDIT: Final = 1
"""`stream, bytes`: so much of what was sent has been consumed."""
END: Final = 2
"""`stream, code, reason`: the sender has closed it. Of an HTTP answer: its body is complete."""

# From the gateway.
OPEN: Final = 3
"""`stream, path, query, headers, address, terms`: a WebSocket is open; `terms` is the ASGI extension `runner`."""
REQUEST: Final = 4
"""`stream, method, path, query, headers, address, body, base_url`: a whole HTTP request."""
DRAIN: Final = 5
"""`stream`: take no more input, deliver the answers, close."""

# From the process.
START: Final = 6
"""`stream, status, headers`: an HTTP answer begins."""
ENDPOINTS: Final = 7
"""`0, [[kind, path, session_timeout], …]`: the app is imported, and this is what it declares."""
READY: Final = 8
"""`0`: `setup` has run."""
CANNOT_START: Final = 9
"""`0, detail`: another process will get no further; `detail` is for the operator."""

WINDOW_BYTES: Final = 512 * 1024
CREDIT_BYTES: Final = WINDOW_BYTES // 4
"""Consumption is told in such portions: a frame for each message would cost as much as the message."""
FRAME_MAX_BYTES: Final = 256 * 1024 * 1024
"""Above the largest message and the largest body that the doors let in."""

READ_BYTES: Final = 256 * 1024

_OVERHEAD_BYTES: Final = 64
"""What a message costs besides itself, so that a flood of empty ones fills the window too."""
_LARGE_BYTES: Final = 8 * 1024

# msgpack's own words for what `encode_data` writes by hand.
_ARRAY_OF_3: Final = b"\x93"
_BIN_32: Final = b"\xc6"
_STR_32: Final = b"\xdb"
_LENGTH: Final = struct.Struct(">I")

Frame = tuple[Any, ...]
Headers = tuple[tuple[str, str], ...]

_pack_small: Final[Callable[[Frame | int], bytes]] = msgpack.Packer().pack


class FrameError(Exception):
    """The other side does not make sense."""


def encode(frame: Frame) -> bytes:
    """The bytes of a frame.

    Raises:
        UnicodeEncodeError: a text with lone surrogates.
    """
    return _pack_small(frame)


def encode_data(stream: int, payload: bytes | str, failed: int = 0, dropped: int = 0) -> Sequence[bytes]:
    """The bytes of a DATA frame, in one piece or several: a picture is not copied for its head.

    Raises:
        UnicodeEncodeError: a text with lone surrogates.
    """
    if failed or dropped:
        return (_pack_small((DATA, stream, payload, failed, dropped)),)
    if len(payload) < _LARGE_BYTES:
        return (_pack_small((DATA, stream, payload)),)
    content, kind = (payload.encode(), _STR_32) if isinstance(payload, str) else (payload, _BIN_32)
    return _ARRAY_OF_3 + _pack_small(DATA) + _pack_small(stream) + kind + _LENGTH.pack(len(content)), content


def cost(payload: bytes | str) -> int:
    """What a payload takes of the window; both sides reckon alike."""
    return len(payload) + _OVERHEAD_BYTES


class FrameReader:
    """Cuts a stream of bytes back into frames."""

    def __init__(self) -> None:
        self._unpacker = msgpack.Unpacker(use_list=False, max_buffer_size=FRAME_MAX_BYTES)

    def receive_data(self, data: bytes | bytearray | memoryview) -> Iterator[Frame]:
        """Takes bytes off the stream, at once; gives the frames that they complete, in order.

        Raises:
            FrameError: these are no frames. The stream ends there.
        """
        try:
            self._unpacker.feed(data)
            for frame in self._unpacker:
                if type(frame) is not tuple or len(frame) < 2:
                    raise FrameError("a frame is no array")
                yield frame
        # What msgpack raises has no common base: UnpackException, ValueError, BufferFull.
        except (msgpack.UnpackException, ValueError) as error:
            raise FrameError("not msgpack") from error
