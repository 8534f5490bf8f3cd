"""Sockets of a real runner as an attacker has them: byte by byte, and from whatever address the test likes."""

import itertools
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import msgpack
from gevent import socket
from websockets.frames import Frame, Opcode

from tests.runner.doors.websocket.raw import RawClient, masked
from tests.stack import Stack

APP = "fal-ai/fast-lcm-diffusion"
PATH = f"/{APP}/realtime"
_addresses = (f"198.51.{high}.{low}" for high in itertools.count() for low in range(1, 255))


def new_address() -> str:
    """An address (RFC 5737) that no other test comes from, for a runner that trusts this machine as a proxy."""
    return next(_addresses)


@dataclass
class Attacker:
    """Somebody at one address, with a token or without."""

    stack: Stack
    address: str = field(default_factory=new_address)
    clients: list[RawClient] = field(default_factory=list)

    def connect(self) -> RawClient:
        """TCP only."""
        parts = urlsplit(self.stack.runner_url)
        client = RawClient(socket.create_connection((parts.hostname, parts.port)))
        self.clients.append(client)
        return client

    def knock(self, token: str | None = None, path: str = PATH, then: bytes = b"", **headers: str) -> Any:
        """A handshake: the client, and status, headers and body of the answer."""
        client = self.connect()
        query = "" if token is None else f"?fal_jwt_token={token}"
        return client, *client.handshake(path + query, then=then, X_Forwarded_For=self.address, **headers)

    def open(self, token: str | None = None, then: bytes = b"", **headers: str) -> RawClient:
        """An open socket."""
        client, status, _, body = self.knock(token or self.stack.mint(APP), then=then, **headers)
        assert status == 101, body
        assert isinstance(client, RawClient)
        return client

    def leave(self) -> None:
        for client in self.clients:
            client.disconnect()


@contextmanager
def attacking(stack: Stack) -> Iterator[Attacker]:
    attacker = Attacker(stack)
    try:
        yield attacker
    finally:
        attacker.leave()


def error(client: RawClient) -> tuple[str, str]:
    """The next message, an error: its name and reason."""
    message = client.message()
    assert isinstance(message, str), message
    told = json.loads(message)
    assert told["type"] == "x-fal-error"
    return told["error"], told["reason"]


def packed(**fields: Any) -> bytes:
    return masked(Opcode.BINARY, msgpack.packb(fields))


def result(client: RawClient) -> dict[str, Any]:
    """The next message, a result."""
    message = client.message()
    assert isinstance(message, bytes), message
    unpacked: dict[str, Any] = msgpack.unpackb(message)
    return unpacked


def is_alive(client: RawClient) -> bool:
    """Whether the session still answers."""
    client.send(packed(prompt="x", request_id="alive"))
    return bool(result(client)["request_id"] == "alive")


def close_code(client: RawClient) -> int | None:
    """What the server closes with; messages before it are let pass."""
    close = client.closed_with()
    return None if close is None else close.code


def compressed(data: bytes) -> bytes:
    """A frame with RSV1, as permessage-deflate has it (RFC 7692 §6)."""
    frame = bytearray(masked(Opcode.BINARY, data))
    frame[0] |= 0x40
    return bytes(frame)


def unmasked(data: bytes) -> bytes:
    return Frame(Opcode.BINARY, data).serialize(mask=False)


def raw_close(code: int) -> bytes:
    """A close frame of any code, allowed or not."""
    return masked(Opcode.CLOSE, code.to_bytes(2, "big"))


__all__ = [
    "APP",
    "PATH",
    "Attacker",
    "attacking",
    "close_code",
    "compressed",
    "error",
    "is_alive",
    "new_address",
    "packed",
    "raw_close",
    "result",
    "unmasked",
]
