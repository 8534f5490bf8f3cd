"""One open socket, as a client that knows nothing of who serves it."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import msgpack
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection

from tests.conformance.targets import ANSWERED_WITHIN_S, Target

TIMEOUT = {"type": "x-fal-error", "error": "TIMEOUT", "reason": "no inputs, reconnect when needed!"}


@dataclass(frozen=True, slots=True)
class End:
    """The close frame that came."""

    code: int
    reason: str = ""


NORMAL = End(1000)


class Peer:
    """Sends msgpack maps. What it receives is bytes as unpacked maps, and text as the JSON that it is."""

    def __init__(self, socket: ClientConnection) -> None:
        self.socket = socket

    def send(self, **fields: Any) -> None:
        self.socket.send(msgpack.packb(fields))

    def result(self) -> dict[str, Any]:
        """The next message, which is a result: a binary msgpack map."""
        message = self.socket.recv(timeout=ANSWERED_WITHIN_S)
        assert isinstance(message, bytes), message
        return _map(message)

    def ask(self, **fields: Any) -> dict[str, Any]:
        self.send(**fields)
        return self.result()

    def control(self) -> dict[str, Any]:
        """The next message, which is a control message: JSON text."""
        message = self.socket.recv(timeout=ANSWERED_WITHIN_S)
        assert isinstance(message, str), message
        return json.loads(message)

    def rest(self) -> tuple[list[dict[str, Any]], list[dict[str, Any]], End]:
        """What comes until the socket is closed: results, control messages, and the close."""
        results: list[dict[str, Any]] = []
        controls: list[dict[str, Any]] = []
        try:
            while True:
                message = self.socket.recv(timeout=ANSWERED_WITHIN_S)
                if isinstance(message, bytes):
                    assert not controls, "a result after a control message"
                    results.append(_map(message))
                else:
                    controls.append(json.loads(message))
        except ConnectionClosed as closed:
            return results, controls, _end(closed)

    def end(self) -> End:
        """The close, which comes next."""
        results, controls, end = self.rest()
        assert (results, controls) == ([], [])
        return end


@contextmanager
def peer(target: Target, path: str, query: str = "", **options: Any) -> Iterator[Peer]:
    with target.socket(path, query, **options) as socket:
        yield Peer(socket)


@contextmanager
def control(target: Target) -> Iterator["Control"]:
    """What tells the app's handlers to go on, and learns how far they are."""
    with target.socket("/control") as socket:
        yield Control(socket)


class Control:
    def __init__(self, socket: ClientConnection) -> None:
        self._socket = socket

    def wait_for(self, name: str) -> None:
        self._ask(f"wait {name}")

    def announce(self, name: str) -> None:
        self._ask(f"announce {name}")

    def _ask(self, line: str) -> None:
        self._socket.send(line)
        assert self._socket.recv(timeout=ANSWERED_WITHIN_S) == line


def _map(message: bytes) -> dict[str, Any]:
    unpacked = msgpack.unpackb(message)
    assert isinstance(unpacked, dict), unpacked
    return unpacked


def _end(closed: ConnectionClosed) -> End:
    assert closed.rcvd is not None, "the connection was cut without a close"
    return End(closed.rcvd.code, closed.rcvd.reason)
