"""The app that both targets serve: fal's SDK as it stands here, our runner after its import lines are replaced.

Handlers wait for each other through `/control`, never for a time, so that what a test sees does not hang on how fast
the machine is. See `tests/conformance/targets.py` for who serves it and how.
"""

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

import fal
from fal.exceptions import AppException, FieldException
from fastapi import WebSocket
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, Field

IDLE_S = 0.5
"""`session_timeout` of the endpoints whose end a test waits for after one input."""

STREAM_IDLE_S = 2.0
"""The same where several inputs follow each other: longer than a busy machine may let a client pause."""


class Switchboard:
    """Names that inputs and tests announce, and wait for."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._announced: set[str] = set()

    def announce(self, name: str) -> None:
        with self._changed:
            self._announced.add(name)
            self._changed.notify_all()

    def wait_for(self, name: str) -> None:
        with self._changed:
            assert self._changed.wait_for(lambda: name in self._announced, timeout=30), f"{name} was never announced"


switchboard = Switchboard()


class Prompt(BaseModel):
    prompt: str
    steps: int = Field(default=4, ge=1, le=8)
    request_id: str = ""


class Echo(BaseModel):
    output: str
    steps: int = 4
    request_id: str = ""


class Frame(BaseModel):
    """An input that announces its arrival; its handler waits for `until` where that is given."""

    name: str
    until: str = ""
    batch: str = ""

    def model_post_init(self, context: Any) -> None:
        switchboard.announce(f"{self.name} has arrived")

    def can_batch(self, other: "Frame", current_batch_size: int) -> bool:
        return self.batch == other.batch


class Number(BaseModel):
    number: int


class Numbers(BaseModel):
    numbers: list[int]


class Names(BaseModel):
    names: list[str]


class ConformanceApp(fal.App):
    keep_alive = 60

    def setup(self) -> None:
        self.greeting = "set up"

    @fal.endpoint("/")
    def generate(self, input: Prompt) -> Echo:
        return Echo(output=input.prompt, steps=input.steps, request_id=input.request_id)

    @fal.endpoint("/async")
    async def generate_async(self, input: Prompt) -> Echo:
        return Echo(output=f"{self.greeting}: {input.prompt}")

    @fal.endpoint("/fails")
    def fail(self, input: Prompt) -> Echo:
        match input.prompt:
            case "app":
                raise AppException(message="the model is on holiday", status_code=409)
            case "field":
                raise FieldException(field="prompt", message="must not be that")
            case _:
                raise RuntimeError("secret of the server")

    @fal.endpoint("/held")
    def hold(self, input: Frame) -> Names:
        switchboard.wait_for(input.until)
        return Names(names=[input.name])

    @fal.endpoint("/stream")
    def stream(self, input: Prompt) -> StreamingResponse:
        return StreamingResponse(
            (f'data: {{"step": {step}}}\n\n' for step in range(input.steps)), media_type="text/event-stream"
        )

    @fal.realtime("/realtime")
    def unary(self, input: Prompt) -> Echo:
        return Echo(output=input.prompt, steps=input.steps, request_id=input.request_id)

    @fal.realtime("/coroutine/realtime")
    async def unary_async(self, input: Prompt) -> Echo:
        return Echo(output=f"{self.greeting}: {input.prompt}")

    @fal.realtime("/untyped/realtime")
    def untyped(self, input: Any) -> dict[str, Any]:
        return {"received": input, "bytes": b"\x00\xff"}

    @fal.realtime("/newest/realtime", buffering=2)
    def newest(self, input: Frame) -> Names:
        if input.until:
            switchboard.wait_for(input.until)
        return Names(names=[input.name])

    @fal.realtime("/every/realtime")
    def every(self, input: Frame) -> Names:
        if input.until:
            switchboard.wait_for(input.until)
        return Names(names=[input.name])

    @fal.realtime("/batches/realtime", max_batch_size=4)
    def batches(self, input: Frame, *others: Frame) -> Names:
        if input.until:
            switchboard.wait_for(input.until)
        return Names(names=[input.name, *(other.name for other in others)])

    @fal.realtime("/impatient/realtime", session_timeout=IDLE_S)
    def impatient(self, input: Prompt) -> Echo:
        return Echo(output=input.prompt)

    @fal.realtime("/slow/realtime", session_timeout=IDLE_S)
    def slower_than_the_idle_clock(self, input: Prompt) -> Echo:
        time.sleep(3 * IDLE_S)
        return Echo(output=input.prompt)

    @fal.realtime("/fails/realtime")
    def unary_fails(self, input: Prompt) -> Echo:
        if input.prompt == "fail":
            raise RuntimeError("secret of the server")
        return Echo(output=input.prompt)

    @fal.realtime("/no-map/realtime")
    def no_map(self, input: Prompt) -> Any:
        return ["not", "a", "map"]

    @fal.realtime(
        "/codec/realtime",
        encode_message=lambda output: f"<{output['output']}>",
        decode_message=lambda message: {"prompt": message.decode()},
        content_type="text/plain",
    )
    def own_codec(self, input: Prompt) -> Echo:
        return Echo(output=input.prompt)

    @fal.realtime("/countdown/realtime")
    async def countdown(self, input: Number) -> AsyncIterator[Number]:
        for number in reversed(range(input.number)):
            yield Number(number=number)

    @fal.realtime("/sync-countdown/realtime")
    def sync_countdown(self, input: Number) -> Iterator[Number]:
        for number in reversed(range(input.number)):
            yield Number(number=number)

    @fal.realtime("/held/realtime")
    async def held(self, input: Frame) -> AsyncIterator[Names]:
        await asyncio.get_running_loop().run_in_executor(None, switchboard.wait_for, input.until)
        yield Names(names=[input.name])

    @fal.realtime("/sum/realtime", session_timeout=STREAM_IDLE_S)
    async def collect(self, inputs: AsyncIterator[Number]) -> Numbers:
        return Numbers(numbers=[input.number async for input in inputs])

    @fal.realtime("/double/realtime", session_timeout=STREAM_IDLE_S)
    async def double(self, inputs: AsyncIterator[Number]) -> AsyncIterator[Number]:
        async for input in inputs:
            yield Number(number=2 * input.number)

    @fal.realtime("/burst/realtime")
    async def burst(self, inputs: AsyncIterator[Number]) -> AsyncIterator[Number]:
        async for input in inputs:
            for number in range(input.number):
                yield Number(number=number)
            return

    @fal.endpoint("/echo", is_websocket=True)
    async def raw_echo(self, websocket: WebSocket) -> None:
        await websocket.accept()
        message = await websocket.receive_text()
        for number in range(3):
            await websocket.send_text(f"{message}-{number}")
        await websocket.send_bytes(b"\x00" + await websocket.receive_bytes())
        await websocket.send_json({"done": True})
        await websocket.close(4321, "as the app likes")

    @fal.endpoint("/control", is_websocket=True)
    async def control(self, websocket: WebSocket) -> None:
        """`wait NAME` is answered once NAME was announced; `announce NAME` announces it."""
        await websocket.accept()
        async for line in websocket.iter_text():
            verb, _, name = line.partition(" ")
            if verb == "wait":
                await asyncio.get_running_loop().run_in_executor(None, switchboard.wait_for, name)
            else:
                switchboard.announce(name)
            await websocket.send_text(line)
