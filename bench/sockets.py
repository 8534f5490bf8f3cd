"""A load generator for one core: WebSockets that send a message when the last answer has come, on one selector.

Written on bare sockets, with the client's frames made beforehand, so that it takes a small part of the time that a
server takes for an answer.
"""

import os
import selectors
import socket
import struct
import time
from base64 import b64encode
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field

_BINARY = 2
_HEADER = struct.Struct("!H")
_READ_BYTES = 256 * 1024


class Unexpected(Exception):
    """A server did something else than to answer with a binary message."""


@dataclass(frozen=True)
class Run:
    """What a run measured."""

    seconds: float
    latencies_s: list[float]

    @property
    def per_second(self) -> float:
        """Answers a second."""
        return len(self.latencies_s) / self.seconds


@dataclass
class Client:
    """One connection, and how much of an answer is still to come."""

    connection: socket.socket
    sent_at: float = 0.0
    head: bytearray = field(default_factory=bytearray)
    left: int | None = None

    def has_answer(self) -> bool:
        """Reads what has come; True once it completes a binary message."""
        data = self.connection.recv(_READ_BYTES)
        if not data:
            raise Unexpected("the server hung up")
        if self.left is not None:
            self.left -= len(data)
        else:
            self.head += data
            self.left = self._missing()
        if self.left is None or self.left > 0:
            return False
        if self.left < 0:
            raise Unexpected("more than one message came for one")
        self.head.clear()
        self.left = None
        return True

    def _missing(self) -> int | None:
        """How much of the message that `head` begins has not come; None if not even its length is known."""
        if len(self.head) < 2:
            return None
        if self.head[0] != 0x80 | _BINARY:
            raise Unexpected(f"a frame that begins {bytes(self.head[:120])!r}")
        length, start = self.head[1] & 0x7F, 2
        if length >= 126:
            start = 4 if length == 126 else 10
            if len(self.head) < start:
                return None
            length = int.from_bytes(self.head[2:start], "big")
        return start + length - len(self.head)


def open_socket(host: str, port: int, path: str) -> socket.socket:
    """A WebSocket after its handshake, to be closed by the caller."""
    connection = socket.create_connection((host, port), timeout=60)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    try:
        _shake_hands(connection, f"{host}:{port}", path)
    except BaseException:
        connection.close()
        raise
    return connection


def _shake_hands(connection: socket.socket, host: str, path: str) -> None:
    key = b64encode(os.urandom(16)).decode()
    connection.sendall(
        f"GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n\r\n".encode()
    )
    head = b""
    while not head.endswith(b"\r\n\r\n"):  # byte by byte, once: a frame may follow at once
        byte = connection.recv(1)
        if not byte:
            raise Unexpected(head.decode("latin-1"))
        head += byte
    if b" 101 " not in head.split(b"\r\n", 1)[0]:
        raise Unexpected(head.decode("latin-1"))


def frame(payload: bytes) -> bytes:
    """A client's binary message. The mask is random as RFC 6455 §5.3 wants it, and the same for every message."""
    mask = os.urandom(4)
    repeated = (mask * (len(payload) // 4 + 1))[: len(payload)]
    masked = (int.from_bytes(payload, "big") ^ int.from_bytes(repeated, "big")).to_bytes(len(payload), "big")
    is_short = len(payload) < 126
    length = bytes([0x80 | len(payload)]) if is_short else bytes([0x80 | 126]) + _HEADER.pack(len(payload))
    return bytes([0x80 | _BINARY]) + length + mask + masked


def drive(host: str, port: int, paths: Sequence[str], message: bytes, *, seconds: float) -> Run:
    """Sends `message`, a whole frame, on one socket for each of `paths`, again whenever its answer has come.

    Raises:
        Unexpected: the server answered with anything but one binary message for each.
    """
    with ExitStack() as stack:
        selector = stack.enter_context(selectors.DefaultSelector())
        clients = [Client(stack.enter_context(open_socket(host, port, path))) for path in paths]
        for client in clients:
            selector.register(client.connection, selectors.EVENT_READ, client)
        latencies: list[float] = []
        started = time.perf_counter()
        ends = started + seconds
        for client in clients:
            _send(client, message)
        waiting = len(clients)
        while waiting:
            if not (ready := selector.select(timeout=60)):
                raise Unexpected("no answer for a minute")
            for key, _ in ready:
                client = key.data
                if not client.has_answer():
                    continue
                now = time.perf_counter()
                latencies.append(now - client.sent_at)
                if now < ends:
                    _send(client, message)
                else:
                    waiting -= 1
                    selector.unregister(client.connection)
        return Run(time.perf_counter() - started, latencies)


def ask_once(connection: socket.socket, message: bytes) -> None:
    """Sends a message and waits for its answer.

    Raises:
        Unexpected: see `drive`.
    """
    client = Client(connection)
    _send(client, message)
    while not client.has_answer():
        pass


def _send(client: Client, message: bytes) -> None:
    client.sent_at = time.perf_counter()
    client.connection.sendall(message)
