"""A client that goes away while its HTTP request is answered: FastAPI would let the handler work on for nobody."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]


async def respond_until_hangup(
    application: Callable[[Any, Receive, Send], Awaitable[None]],
    scope: Any,
    receive: Receive,
    send: Send,
    *,
    cancels: bool,
) -> None:
    """Runs an ASGI application for one HTTP request, and cancels it when the client leaves before the answer is out.

    What runs after the answer, Starlette's background tasks, is left alone.

    Args:
        application: The application.
        scope: The request's.
        receive: ASGI's.
        send: ASGI's.
        cancels: False leaves it to the application to ask whether its client is there.

    Raises:
        Exception: the application failed in the middle of its answer. An exception that it answered is not raised,
            though Starlette does so, for servers to log it: it is in our log.
    """
    hangup = _Hangup(receive, send)
    try:
        if cancels:
            await hangup.watch()
        await application(scope, hangup.receive if cancels else receive, hangup.send)
    except asyncio.CancelledError:
        # Ours is to be undone as asyncio.timeout does it; the server's goes on.
        if not hangup.is_ours():
            raise
    except Exception:
        if not hangup.is_answered:
            raise
    finally:
        hangup.stop()


class _Hangup:
    """Watches for `http.disconnect`, which comes after the body: so it reads that, and hands it on when asked for it.

    FastAPI never asks on behalf of a handler that takes no body, and would learn of no disconnect.
    """

    def __init__(self, receive: Receive, send: Send) -> None:
        self._receive = receive
        self._send = send
        task = asyncio.current_task()
        assert task is not None
        self._task = task
        self._body: deque[Message] = deque()
        self._watcher: asyncio.Task[None] | None = None
        self._left = asyncio.Event()
        self._has_cancelled = False
        self.is_answered = False

    def is_ours(self) -> bool:
        """Whether the cancellation under way is this watch's, and nobody else's as well."""
        return self._has_cancelled and not self._task.uncancel()

    async def watch(self) -> None:
        """Reads the body, then watches. A client that left before it was complete is the application's to notice."""
        while True:
            message = await self._receive()
            self._body.append(message)
            if message["type"] == "http.disconnect":
                self._left.set()
                return
            if not message.get("more_body", False):
                self._watcher = asyncio.create_task(self._watch())
                return

    async def receive(self) -> Message:
        """ASGI's `receive` for the application."""
        if self._body:
            return self._body.popleft()
        await self._left.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        """ASGI's `send` for the application."""
        if message["type"] == "http.response.body" and not message.get("more_body", False):
            self.stop()
            self.is_answered = True
        await self._send(message)

    def stop(self) -> None:
        """The answer is out: whether the client stays is its own affair."""
        if self._watcher is not None:
            self._watcher.cancel()

    async def _watch(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self._left.set()
        self._has_cancelled = True
        self._task.cancel()
