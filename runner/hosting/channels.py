"""The process's end of one WebSocket or HTTP request: what `receive` and `send` of its ASGI application do."""

import asyncio
from collections import deque
from collections.abc import MutableMapping
from typing import Any, Final, Protocol

from runner.hosting import frames
from runner.hosting.frames import CREDIT_BYTES, WINDOW_BYTES
from schemas.problems import problem

Event = MutableMapping[str, Any]


class Post(Protocol):
    """Sends a frame, in one piece or several."""

    def __call__(self, *buffers: bytes) -> None:
        """Does not block."""


NORMAL: Final = 1000
INTERNAL_ERROR: Final = 1011
_COMPLETE: Final = 0


class PeerGone(OSError):
    """The other end is closed: what ASGI has `send` raise then (spec 2.4)."""


class Channel:
    """One stream; belongs to the loop's thread."""

    __slots__ = (
        "_in_flight",
        "_inbox",
        "_loop",
        "_post",
        "_receivers",
        "_senders",
        "_unacknowledged",
        "is_closed",
        "is_gone",
        "number",
    )

    def __init__(self, number: int, post: Post, loop: asyncio.AbstractEventLoop) -> None:
        self.number = number
        self.is_gone = False
        """Closed by the gateway."""
        self.is_closed = False
        """Closed by the application."""
        self._post = post
        self._loop = loop
        self._inbox: deque[bytes | str | Event] | None = None
        """None while nothing waits, as mostly: an empty one takes 600 bytes."""
        self._receivers: list[asyncio.Future[None]] = []
        self._senders: list[asyncio.Future[None]] = []
        self._in_flight = 0
        self._unacknowledged = 0

    # What the gateway says.

    def put(self, message: bytes | str | Event) -> None:
        """A message, or an event as ASGI has it."""
        if self._inbox is None:
            self._inbox = deque()
        self._inbox.append(message)
        _wake(self._receivers)

    def credit(self, size: int) -> None:
        """The gateway has consumed so much."""
        self._in_flight -= size
        if self._in_flight < WINDOW_BYTES:
            _wake(self._senders)

    def leave(self, code: int, reason: str) -> None:
        """The gateway has closed it."""
        self.is_gone = True
        _wake(self._senders)
        self.put(self.disconnect(code, reason))

    # What the application does.

    async def _next(self) -> bytes | str | Event:
        while not self._inbox:
            await self._wait(self._receivers)
        message = self._inbox.popleft()
        self._inbox = self._inbox or None
        if isinstance(message, bytes | str):
            self._acknowledge(message)
        return message

    def _acknowledge(self, message: bytes | str) -> None:
        self._unacknowledged += frames.cost(message)
        if self._unacknowledged >= CREDIT_BYTES and not self.is_gone:
            self._post(frames.encode((frames.CREDIT, self.number, self._unacknowledged)))
            self._unacknowledged = 0

    async def _send_payload(self, payload: bytes | str, failed: int = 0, dropped: int = 0) -> None:
        """Sends, then waits until it is on its way and there is room for more."""
        self._post(*frames.encode_data(self.number, payload, failed, dropped))
        self._in_flight += frames.cost(payload)
        # Frames go out when the loop turns: a handler that computes next, on the loop, would keep this one back.
        await asyncio.sleep(0)
        while self._in_flight >= WINDOW_BYTES and not self.is_gone:
            await self._wait(self._senders)

    async def _wait(self, waiters: list[asyncio.Future[None]]) -> None:
        woken: asyncio.Future[None] = self._loop.create_future()
        waiters.append(woken)
        await woken

    def _close(self, code: int, reason: str = "") -> None:
        if self.is_closed or self.is_gone:
            return
        self.is_closed = True
        self._post(frames.encode((frames.END, self.number, code, reason)))
        self.put(self.disconnect(code, reason))  # for whoever receives on

    def disconnect(self, code: int, reason: str) -> Event:
        """The last event that the application receives."""
        raise NotImplementedError


class SocketChannel(Channel):
    """A WebSocket."""

    __slots__ = ()

    def __init__(self, number: int, post: Post, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(number, post, loop)
        self.put({"type": "websocket.connect"})

    async def receive(self) -> Event:
        """The next event."""
        message = await self._next()
        if isinstance(message, bytes):
            return {"type": "websocket.receive", "bytes": message}
        if isinstance(message, str):
            return {"type": "websocket.receive", "text": message}
        return message

    async def send(self, event: Event) -> None:
        """Does what the event says.

        Raises:
            PeerGone: the socket is closed.
        """
        kind = event["type"]
        if kind == "websocket.send":
            if self.is_gone or self.is_closed:
                raise PeerGone("the WebSocket is closed")
            payload = event.get("bytes")
            payload = event["text"] if payload is None else payload
            await self._send_payload(payload, int(event.get("runner.failed", 0)), event.get("runner.dropped", 0))
        elif kind == "websocket.close":
            self._close(event.get("code", NORMAL), event.get("reason") or "")
        elif kind != "websocket.accept":  # the gateway has accepted it: what it has to refuse, it refuses before
            raise ValueError(f"{kind!r} is not for a WebSocket")

    def disconnect(self, code: int, reason: str) -> Event:
        """The last event that the application receives."""
        return {"type": "websocket.disconnect", "code": code, "reason": reason}

    def finish(self) -> None:
        """The application has returned."""
        self._close(NORMAL)

    def fail(self, error_id: str) -> None:
        """The application has raised; the log knows what, under `error_id`."""
        self._close(INTERNAL_ERROR, error_id)


class RequestChannel(Channel):
    """An HTTP request."""

    __slots__ = ("_has_started",)

    def __init__(self, number: int, post: Post, loop: asyncio.AbstractEventLoop, body: bytes) -> None:
        super().__init__(number, post, loop)
        self._has_started = False
        self.put({"type": "http.request", "body": body, "more_body": False})

    async def receive(self) -> Event:
        """The next event: the whole body, and then none until the peer leaves."""
        event = await self._next()
        assert not isinstance(event, bytes | str)
        return event

    async def send(self, event: Event) -> None:
        """Does what the event says. Once the peer has left, nothing: the application hears of it by `receive`."""
        if self.is_gone or self.is_closed:
            return
        kind = event["type"]
        if kind == "http.response.start":
            self._start(event["status"], [(_text(name).lower(), _text(value)) for name, value in event["headers"]])
        elif kind == "http.response.body":
            if body := event.get("body", b""):
                await self._send_payload(body)
            if not event.get("more_body", False):
                self._close(_COMPLETE)
        else:
            raise ValueError(f"{kind!r} is not for an HTTP request")

    def disconnect(self, code: int, reason: str) -> Event:
        """The last event that the application receives."""
        return {"type": "http.disconnect"}

    def finish(self) -> None:
        """The application has returned; an answer that is not complete will never be."""
        self._close(INTERNAL_ERROR)

    def fail(self, error_id: str) -> None:
        """The application has raised; the log knows what, under `error_id`."""
        if not (self._has_started or self.is_gone):
            body = problem(500, f"The app failed; its log has the cause under {error_id}.", error_id).model_dump_json()
            self._start(500, [("content-type", "application/json")])
            self._post(*frames.encode_data(self.number, body.encode()))
            self._close(_COMPLETE)
        self._close(INTERNAL_ERROR, error_id)

    def _start(self, status: int, headers: list[tuple[str, str]]) -> None:
        self._has_started = True
        self._post(frames.encode((frames.START, self.number, status, headers)))


def _text(header: bytes) -> str:
    return header.decode("latin-1")


def _wake(waiters: list[asyncio.Future[None]]) -> None:
    for woken in waiters:
        if not woken.done():  # its task was cancelled
            woken.set_result(None)
    waiters.clear()
