from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from gevent import socket
from gevent.ssl import SSLContext

from runner.doors.websocket import Refusal, WebSocketOptions, WebSocketServer

from .raw import RawClient

PATIENT = WebSocketOptions(max_message_bytes=1 << 20, max_frame_bytes=1 << 20)


def echo(environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
    """Sends every message back; to plain HTTP says so."""
    websocket = environ.get("wsgi.websocket")
    if websocket is None:
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [b"plain"]
    while (message := websocket.receive()) is not None:
        websocket.send(message)
    return []


def anyone(environ: dict[str, Any]) -> Refusal | None:
    return None


@dataclass
class Served:
    """A running server and its raw clients."""

    server: WebSocketServer
    clients: list[RawClient] = field(default_factory=list)

    def connect(self) -> RawClient:
        """TCP only."""
        client = RawClient(socket.create_connection(("127.0.0.1", self.server.server_port)))
        self.clients.append(client)
        return client

    def open(self, path: str = "/", then: bytes = b"", **headers: str) -> RawClient:
        """An open WebSocket."""
        client = self.connect()
        status, _, body = client.handshake(path, then=then, **headers)
        assert status == 101, body
        return client

    def stop(self) -> None:
        for client in self.clients:
            client.disconnect()
        self.server.stop(10)


@pytest.fixture
def serve() -> Iterator[Callable[..., Served]]:
    """Starts servers on port 0 of this thread's hub, beside the test; stops them after it."""
    running: list[Served] = []

    def start(
        application: Callable[..., Any] = echo,
        *,
        gate: Callable[[dict[str, Any]], Refusal | None] = anyone,
        options: WebSocketOptions = PATIENT,
        listener: Any = ("127.0.0.1", 0),
        ssl_context: SSLContext | None = None,
    ) -> Served:
        server = WebSocketServer(listener, application, gate=gate, options=options, ssl_context=ssl_context)
        server.start()
        running.append(Served(server))
        return running[-1]

    yield start
    for served in running:
        served.stop()
