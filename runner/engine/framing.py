"""Frames on the worker's socket: four bytes of length, most significant first, then that many of payload.

Sans-I/O: bytes in, payloads out.
"""

import struct
from collections.abc import Iterator
from typing import Final

FRAME_MAX_BYTES: Final = 128 * 1024 * 1024
"""Above the largest answer: `num_images` uncompressed-sized PNGs of the largest size that models take."""

_LENGTH: Final = struct.Struct("!I")


class FramingError(Exception):
    """The stream is not, or not any more, made of frames."""


def encode_frame(payload: bytes, max_bytes: int = FRAME_MAX_BYTES) -> bytes:
    """The frame of `payload`.

    Raises:
        FramingError: the payload is longer than `max_bytes`.
    """
    if len(payload) > max_bytes:
        raise FramingError(f"payload of {len(payload)} bytes, at most {max_bytes} allowed")
    return _LENGTH.pack(len(payload)) + payload


class FrameDecoder:
    """Cuts a stream of bytes back into payloads."""

    def __init__(self, max_bytes: int = FRAME_MAX_BYTES) -> None:
        self._max_bytes = max_bytes
        self._buffer = bytearray()

    def receive_data(self, data: bytes) -> Iterator[bytes]:
        """Take bytes off the stream; yields the payloads that they complete, in order.

        Raises:
            FramingError: in place of a payload of more than `max_bytes`. The stream ends there.
        """
        self._buffer += data
        return self._payloads()

    def receive_eof(self) -> None:
        """Say that the stream has ended.

        Raises:
            FramingError: it ended inside a frame.
        """
        if self._buffer:
            raise FramingError(f"stream ended inside a frame, {len(self._buffer)} bytes left over")

    def _payloads(self) -> Iterator[bytes]:
        while (payload := self._next_payload()) is not None:
            yield payload

    def _next_payload(self) -> bytes | None:
        if len(self._buffer) < _LENGTH.size:
            return None
        (length,) = _LENGTH.unpack_from(self._buffer)
        if length > self._max_bytes:
            raise FramingError(f"frame of {length} bytes, at most {self._max_bytes} allowed")
        end = _LENGTH.size + length
        if len(self._buffer) < end:
            return None
        payload = bytes(self._buffer[_LENGTH.size : end])
        del self._buffer[:end]
        return payload
