"""ASGI's lifespan protocol, the server's side: what an application does before its first request and after its last."""

import asyncio
from typing import Any

from runner.hosting.asgi_server import Application
from runner.hosting.channels import Event


class LifespanFailed(Exception):
    """The application failed before its first request or after its last; the text says when, and what it raised."""


class Lifespan:
    """One application's."""

    def __init__(self, application: Application) -> None:
        self.state: dict[str, Any] = {}
        """What the application wants every scope to carry."""
        self._application = application
        self._events: asyncio.Queue[Event] = asyncio.Queue()
        self._answers: asyncio.Queue[Event] = asyncio.Queue()
        self._task: asyncio.Task[None] | None = None

    async def startup(self) -> None:
        """Runs what comes before the first request.

        Raises:
            LifespanFailed: it did not work out.
        """
        self._task = asyncio.get_running_loop().create_task(self._run())
        await self._ask("startup")

    async def shutdown(self) -> None:
        """Runs what comes after the last request.

        Raises:
            LifespanFailed: it did not work out.
        """
        await self._ask("shutdown")

    async def _run(self) -> None:
        scope = {"type": "lifespan", "asgi": {"version": "3.0", "spec_version": "2.0"}, "state": self.state}
        await self._application(scope, self._events.get, self._answers.put)

    async def _ask(self, phase: str) -> None:
        assert self._task is not None
        await self._events.put({"type": f"lifespan.{phase}"})
        answer = asyncio.ensure_future(self._answers.get())
        await asyncio.wait({answer, self._task}, return_when=asyncio.FIRST_COMPLETED)
        if not answer.done():
            answer.cancel()
            raise LifespanFailed(f"{phase} was not answered") from self._task.exception()
        if answer.result()["type"] != f"lifespan.{phase}.complete":
            raise LifespanFailed(f"{phase} failed: {answer.result().get('message', '')}")
