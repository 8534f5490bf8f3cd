"""Apps that tests have hosted, good ones and bad."""

import asyncio
import os
import sys
import time
from collections.abc import Iterator

from pydantic import BaseModel

import runner as fal
from runner import Request, StreamingResponse, WebSocket

LARGE = b"x" * 64 * 1024
print("imported", file=sys.stderr)


class Prompt(BaseModel):
    prompt: str


class Answer(BaseModel):
    output: str


class Echo(fal.App):
    """What a user's app has."""

    def setup(self) -> None:
        self.sent = 0
        self.held = asyncio.Event()
        self.left: list[int] = []

    def teardown(self) -> None:
        print("echo: torn down", flush=True)

    @fal.endpoint("/")
    def answer(self, input: Prompt) -> Answer:
        return Answer(output=input.prompt)

    @fal.realtime("/realtime")
    def realtime(self, input: Prompt) -> Answer:
        return Answer(output=input.prompt)

    @fal.realtime("/hold")
    async def hold(self, input: Prompt) -> Answer:
        await self.held.wait()
        return Answer(output=input.prompt)

    @fal.endpoint("/release")
    async def release(self) -> dict[str, bool]:
        self.held.set()
        return {"released": True}

    @fal.endpoint("/echo", is_websocket=True)
    async def echo(self, websocket: WebSocket) -> None:
        await websocket.accept()
        async for text in websocket.iter_text():
            await websocket.send_text(text)

    @fal.endpoint("/close", is_websocket=True)
    async def close(self, websocket: WebSocket) -> None:
        await websocket.accept()
        await websocket.close(int(await websocket.receive_text()), "as asked")

    @fal.endpoint("/fail", is_websocket=True)
    async def fail(self, websocket: WebSocket) -> None:
        await websocket.accept()
        raise RuntimeError("the password is hunter2")

    @fal.endpoint("/flood", is_websocket=True)
    async def flood(self, websocket: WebSocket) -> None:
        await websocket.accept()
        while True:
            await websocket.send_bytes(LARGE)
            self.sent += 1

    @fal.endpoint("/sent")
    async def count(self) -> int:
        return self.sent

    @fal.endpoint("/deaf", is_websocket=True)
    async def deaf(self, websocket: WebSocket) -> None:
        await websocket.accept()
        await self.held.wait()
        await websocket.send_text("heard nothing")

    @fal.endpoint("/leaving", is_websocket=True)
    async def leaving(self, websocket: WebSocket) -> None:
        await websocket.accept()
        self.left.append((await websocket.receive())["code"])

    @fal.endpoint("/left")
    async def who_left(self) -> list[int]:
        return self.left

    @fal.endpoint("/lines")
    def lines(self) -> StreamingResponse:
        def numbers() -> Iterator[str]:
            for number in range(3):
                yield f"{number}\n"

        return StreamingResponse(numbers())

    @fal.endpoint("/breaking-off")
    def breaking_off(self) -> StreamingResponse:
        def parts() -> Iterator[str]:
            yield "a"
            raise RuntimeError("the password is hunter2")

        return StreamingResponse(parts())

    @fal.endpoint("/endless")
    async def endless(self, input: Prompt) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            self.left.append(0)

    @fal.endpoint("/environment")
    def environment(self) -> list[str]:
        return sorted(os.environ)

    @fal.endpoint("/caller")
    def caller(self, request: Request) -> str | None:
        return request.client and request.client.host

    @fal.endpoint("/caller-of-socket", is_websocket=True)
    async def caller_of_socket(self, websocket: WebSocket) -> None:
        await websocket.accept()
        await websocket.send_json(websocket.client and websocket.client.host)


class Hog(fal.App):
    """Keeps its loop, and as much of the interpreter's lock as Python lets it."""

    @fal.endpoint("/spin", is_websocket=True)
    async def spin(self, websocket: WebSocket) -> None:
        await websocket.accept()
        await websocket.send_text("spinning")
        while True:
            pass


class Slow(fal.App):
    def setup(self) -> None:
        time.sleep(1)

    @fal.endpoint("/")
    def answer(self) -> str:
        return "at last"


class Broken(fal.App):
    def setup(self) -> None:
        raise RuntimeError("no model")

    @fal.endpoint("/")
    def answer(self) -> str:
        return ""


class NoApp:
    """Not derived from App."""
