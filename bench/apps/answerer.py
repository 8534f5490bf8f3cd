"""An app that says back what it was told, through every door that there is."""

from collections.abc import Iterator

from pydantic import BaseModel

import runner as fal
from runner import StreamingResponse, WebSocket


class Words(BaseModel):
    request_id: str
    text: str = ""


class Answerer(fal.App):
    @fal.endpoint("/")
    def answer(self, input: Words) -> Words:
        return input

    @fal.endpoint("/stream")
    def stream(self, input: Words) -> StreamingResponse:
        def events() -> Iterator[str]:
            for _ in range(3):
                yield f"data: {input.model_dump_json()}\n\n"

        return StreamingResponse(events(), media_type="text/event-stream")

    @fal.realtime("/realtime")
    def realtime(self, input: Words) -> Words:
        return input

    @fal.endpoint("/echo", is_websocket=True)
    async def echo(self, websocket: WebSocket) -> None:
        await websocket.accept()
        async for text in websocket.iter_text():
            await websocket.send_text(text)
