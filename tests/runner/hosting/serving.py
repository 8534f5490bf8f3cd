"""An app under uvicorn on a free port, and its realtime peers."""

import asyncio
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import msgpack
import uvicorn
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from runner.apps.framework import App
from runner.hosting.application import AsgiApplication, build

TIMEOUT = {"type": "x-fal-error", "error": "TIMEOUT", "reason": "no inputs, reconnect when needed!"}


@dataclass
class Gateway:
    """Stands between uvicorn and the app, as the gateway does: brings the terms, and reads the marks."""

    application: AsgiApplication
    terms: dict[str, Any] = field(default_factory=dict)
    marks: list[dict[str, Any]] = field(default_factory=list)
    read: dict[str, int] = field(default_factory=dict)
    changed: threading.Condition = field(default_factory=threading.Condition)
    drains: list[Any] = field(default_factory=list)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        path = scope.get("path", "")
        scope.setdefault("extensions", {})["runner"] = self.terms
        drain = asyncio.Event()
        self.drains.append((asyncio.get_running_loop(), drain))
        pending: asyncio.Task[Any] | None = None

        async def counted() -> Any:
            """Counts what the app has read: it asks for a message when it has done with the one before."""
            nonlocal pending
            with self.changed:
                self.read[path] = self.read.get(path, -2) + 1
                self.changed.notify_all()
            pending = pending or asyncio.create_task(receive())
            told = asyncio.create_task(drain.wait())
            await asyncio.wait({pending, told}, return_when=asyncio.FIRST_COMPLETED)
            if told.done():
                drain.clear()
                return {"type": "runner.drain"}
            told.cancel()
            done, pending = pending, None
            return done.result()

        async def marked(event: Any) -> None:
            self.marks.append({key: event.pop(key) for key in list(event) if key.startswith("runner.")})
            await send(event)

        if scope["type"] != "websocket":
            return await self.application(scope, receive, send)
        try:
            await self.application(scope, counted, marked)
        finally:
            if pending is not None:
                pending.cancel()

    def wait_read(self, path: str, messages: int) -> None:
        """Waits until the app has taken so many messages of the one socket at `path`."""
        with self.changed:
            assert self.changed.wait_for(lambda: self.read.get(path, 0) >= messages, 20)

    def drain(self) -> None:
        for loop, event in self.drains:
            loop.call_soon_threadsafe(event.set)


@dataclass
class Served:
    server: uvicorn.Server
    gateway: Gateway

    @property
    def port(self) -> int:
        port: int = self.server.servers[0].sockets[0].getsockname()[1]
        return port

    def stop(self) -> None:
        self.server.should_exit = True

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @contextmanager
    def socket(self, path: str = "/realtime", **options: Any) -> Iterator["Peer"]:
        with connect(f"ws://127.0.0.1:{self.port}{path}", compression=None, max_size=None, **options) as connection:
            yield Peer(connection)

    @property
    def marks(self) -> list[dict[str, Any]]:
        return [mark for mark in self.gateway.marks if mark]


@dataclass
class Peer:
    connection: ClientConnection

    def send(self, **fields: Any) -> None:
        self.connection.send(msgpack.packb(fields))

    def receive(self) -> dict[str, Any]:
        message = self.connection.recv(20)
        return msgpack.unpackb(message) if isinstance(message, bytes) else json.loads(message)

    def ask(self, **fields: Any) -> dict[str, Any]:
        self.send(**fields)
        return self.receive()

    def rest(self) -> tuple[list[dict[str, Any]], int]:
        """All messages until the close, and its code."""
        messages = []
        with suppress(ConnectionClosed):
            while True:
                messages.append(self.receive())
        assert self.connection.close_code is not None
        return messages, self.connection.close_code


@contextmanager
def serving(app: type[App] | App, *, idle_timeout_s: float | None = 20.0, **terms: Any) -> Iterator[Served]:
    gateway = Gateway(build(app() if isinstance(app, type) else app, idle_timeout_s=idle_timeout_s), terms)
    config = uvicorn.Config(gateway, port=0, ws="websockets-sansio", lifespan="on", log_config=None)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        while not server.started and thread.is_alive():
            time.sleep(0.005)
        if not server.started:
            raise RuntimeError("the app did not start")
        yield Served(server, gateway)
    finally:
        server.should_exit = True
        thread.join(20)
