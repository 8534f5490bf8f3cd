"""Apps whose annotations are strings (PEP 563) and name what only the function around the class knows."""

from __future__ import annotations

import httpx
from pydantic import BaseModel

import runner as fal
from tests.runner.hosting.serving import serving


def test_an_app_may_be_written_inside_a_function():
    from fastapi import WebSocket

    class Input(BaseModel):
        prompt: str

    class Output(BaseModel):
        output: str

    class Inside(fal.App):
        @fal.endpoint("/")
        def generate(self, input: Input) -> Output:
            return Output(output=input.prompt)

        @fal.realtime("/realtime")
        def generate_rt(self, input: Input) -> Output:
            return Output(output=input.prompt)

        @fal.endpoint("/ws", is_websocket=True)
        async def socket(self, websocket: WebSocket) -> None:
            await websocket.accept()
            await websocket.send_text(await websocket.receive_text())

    with serving(Inside) as served:
        assert httpx.post(served.url, json={"prompt": "cat"}).json() == {"output": "cat"}
        assert httpx.post(served.url, json={}).status_code == 422
        with served.socket() as peer:
            assert peer.ask(prompt="cat") == {"output": "cat"}
        with served.socket("/ws") as peer:
            peer.connection.send('"hi"')
            assert peer.rest() == (["hi"], 1000)
