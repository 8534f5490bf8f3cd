"""A WebSocket client that says exactly what it is told to, right or wrong."""

import base64
import struct
from contextlib import suppress
from http.client import HTTPMessage, parse_headers
from typing import Never

from gevent.socket import SHUT_WR
from gevent.socket import socket as GeventSocket
from websockets.frames import Close, Frame, Opcode

KEY = base64.b64encode(bytes(range(16))).decode()
HANDSHAKE = {
    "Host": "localhost",
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec-WebSocket-Key": KEY,
    "Sec-WebSocket-Version": "13",
}


def masked(opcode: Opcode, data: bytes = b"", fin: bool = True) -> bytes:
    return Frame(opcode, data, fin).serialize(mask=True)


def text(message: str, fin: bool = True) -> bytes:
    return masked(Opcode.TEXT, message.encode(), fin)


def binary(message: bytes, fin: bool = True) -> bytes:
    return masked(Opcode.BINARY, message, fin)


def continuation(data: bytes, fin: bool = False) -> bytes:
    return masked(Opcode.CONT, data, fin)


def close(code: int | None = None, reason: str = "") -> bytes:
    return masked(Opcode.CLOSE, b"" if code is None else Close(code, reason).serialize())


def announced(length: int) -> bytes:
    """The head of a masked binary frame that never comes."""
    return b"\x82\xff" + struct.pack("!Q", length) + b"\0\0\0\0"


class RawClient:
    """A connected socket; every read fails the test rather than wait for ever."""

    def __init__(self, sock: GeventSocket) -> None:
        sock.settimeout(30)
        self.sock = sock
        self._file = sock.makefile("rb")

    def handshake(
        self, path: str = "/", *, method: str = "GET", version: str = "HTTP/1.1", then: bytes = b"", **headers: str
    ) -> tuple[int, HTTPMessage, bytes]:
        """Send a handshake; a header of "" is left out, `_` stands for `-`. Status, headers, body of the answer."""
        fields = HANDSHAKE | {name.replace("_", "-"): value for name, value in headers.items()}
        lines = [f"{method} {path} {version}", *(f"{name}: {value}" for name, value in fields.items() if value)]
        self.sock.sendall("\r\n".join([*lines, "", ""]).encode() + then)
        return self.response()

    def response(self) -> tuple[int, HTTPMessage, bytes]:
        status_line = self._file.readline()
        headers = parse_headers(self._file)
        body = self._file.read(int(headers.get("Content-Length", "0")))
        return int(status_line.split()[1]), headers, body

    def send(self, *frames: bytes) -> None:
        self.sock.sendall(b"".join(frames))

    def send_for_ever(self, data: bytes = bytes(1 << 16)) -> Never:
        """Until the connection breaks."""
        while True:
            self.sock.sendall(data)

    def read_for_ever(self) -> None:
        """Until the connection ends or breaks."""
        while self._file.read(1 << 16):
            pass

    def frame(self) -> Frame | None:
        """The next frame, None at EOF."""
        head = self._file.read(2)
        if len(head) < 2:
            return None
        assert not head[1] & 0x80, "a server never masks (RFC 6455 §5.1)"
        length = head[1]
        if length == 126:
            (length,) = struct.unpack("!H", self._file.read(2))
        elif length == 127:
            (length,) = struct.unpack("!Q", self._file.read(8))
        return Frame(Opcode(head[0] & 0x0F), self._file.read(length), bool(head[0] & 0x80))

    def message(self) -> bytes | str:
        """The next data frame's content."""
        frame = self.frame()
        assert frame is not None, "the server closed TCP"
        assert frame.opcode in (Opcode.TEXT, Opcode.BINARY), frame
        return frame.data.decode() if frame.opcode is Opcode.TEXT else bytes(frame.data)

    def closed_with(self) -> Close | None:
        """The server's close frame, answered; None if TCP ended without one."""
        received = None
        while (frame := self.frame()) is not None:
            if frame.opcode is Opcode.CLOSE:
                assert received is None, "a second close frame"
                received = Close.parse(frame.data)
                with suppress(OSError):
                    self.send(masked(Opcode.CLOSE, frame.data))
        with suppress(OSError):
            self.sock.shutdown(SHUT_WR)
        return received

    def at_eof(self) -> bool:
        return not self._file.read(1)

    def disconnect(self) -> None:
        self._file.close()
        self.sock.close()
