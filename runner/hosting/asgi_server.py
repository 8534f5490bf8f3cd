"""An ASGI server over one socket: the gateway's requests come in as frames, many streams at once.

It reads with one system call what many sockets sent, and writes in one what many handlers did since the loop last
turned. One task a stream; none for a message.
"""

import asyncio
import logging
import socket
import uuid
from collections.abc import Awaitable, Callable
from typing import Any, Final

from runner.hosting import frames
from runner.hosting.channels import Event, Post, RequestChannel, SocketChannel
from runner.hosting.frames import Frame
from runner.hosting.wire import Wire

_log = logging.getLogger(__name__)

Scope = dict[str, Any]
Application = Callable[[Scope, Callable[[], Awaitable[Event]], Callable[[Event], Awaitable[None]]], Awaitable[None]]

LEAVING_S: Final = 1.0
"""How long handlers may take to notice that their peers are gone, when the process ends."""
_SHUTTING_DOWN: Final = 1012

_ASGI: Final = {"version": "3.0", "spec_version": "2.3"}


class AsgiServer:
    """Serves `application` until the gateway's socket ends.

    Args:
        application: An ASGI 3 application.
        state: What its lifespan left for the requests.
        loop: The running loop.
    """

    def __init__(self, application: Application, state: dict[str, Any], loop: asyncio.AbstractEventLoop) -> None:
        self._application = application
        self._state = state
        self._loop = loop
        self._streams: dict[int, SocketChannel | RequestChannel] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._ended = asyncio.Event()
        self._post: Post

    async def serve(self, end: socket.socket) -> None:
        """Serves until the gateway is gone and the handlers have had a moment to notice."""
        self._post = Wire(self._loop, end, self._obey, self._lost).post
        self._post(frames.encode((frames.READY, 0)))
        await self._ended.wait()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=LEAVING_S)

    def _lost(self, error: Exception | None) -> None:
        """The gateway is gone: every peer with it."""
        if error is not None:
            _log.error("the gateway does not make sense", exc_info=error)
        for number in list(self._streams):
            self._end(number, _SHUTTING_DOWN, "")
        self._ended.set()

    # What the gateway says.

    def _obey(self, frame: Frame) -> None:
        kind, number = frame[0], frame[1]
        if kind == frames.OPEN:
            self._open(*frame[1:])
        elif kind == frames.REQUEST:
            self._request(*frame[1:])
        elif kind == frames.END:
            self._end(number, frame[2], frame[3])
        elif (stream := self._streams.get(number)) is None:
            return  # its application has returned
        elif kind == frames.DATA:
            stream.put(frame[2])
        elif kind == frames.CREDIT:
            stream.credit(frame[2])
        elif kind == frames.DRAIN:
            stream.put({"type": "runner.drain"})

    def _open(
        self, number: int, path: str, query: str, headers: frames.Headers, address: str, terms: dict[str, Any]
    ) -> None:
        scope = self._scope("websocket", "ws", path, query, headers, address)
        scope["subprotocols"] = []
        scope["extensions"] = {"runner": terms}
        self._start(SocketChannel(number, self._post, self._loop), scope)

    def _request(
        self,
        number: int,
        method: str,
        path: str,
        query: str,
        headers: frames.Headers,
        address: str,
        body: bytes,
        base_url: str,
    ) -> None:
        scope = self._scope("http", base_url.partition(":")[0] or "http", path, query, headers, address)
        scope["method"] = method
        scope["extensions"] = {"runner": {"base_url": base_url}}
        self._start(RequestChannel(number, self._post, self._loop, body), scope)

    def _scope(self, kind: str, scheme: str, path: str, query: str, headers: frames.Headers, address: str) -> Scope:
        return {
            "type": kind,
            "asgi": _ASGI,
            "http_version": "1.1",
            "scheme": scheme,
            "path": path,
            "raw_path": path.encode(),
            "root_path": "",
            "query_string": query.encode("latin-1", "replace"),
            "headers": [(name.encode("latin-1"), value.encode("latin-1", "replace")) for name, value in headers],
            "client": (address, 0) if address else None,  # the port is no business of an app's
            "server": None,
            "state": self._state.copy(),
        }

    def _start(self, stream: SocketChannel | RequestChannel, scope: Scope) -> None:
        self._streams[stream.number] = stream
        task = self._loop.create_task(self._run(stream, scope))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _end(self, number: int, code: int, reason: str) -> None:
        if (stream := self._streams.pop(number, None)) is not None:
            stream.leave(code, reason)

    async def _run(self, stream: SocketChannel | RequestChannel, scope: Scope) -> None:
        try:
            await self._application(scope, stream.receive, stream.send)
        # The application is anybody's code: what it raises costs one stream.
        except Exception as error:
            if not (stream.is_gone and isinstance(error, OSError)):  # `send` said so itself
                error_id = uuid.uuid4().hex
                _log.exception("the app failed at %s (%s)", scope["path"], error_id)
                stream.fail(error_id)
        finally:
            stream.finish()
            self._streams.pop(stream.number, None)
