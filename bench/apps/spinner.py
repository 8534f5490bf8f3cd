"""An app whose handler never comes back: it keeps its loop and a core, and says so first."""

import runner as fal
from runner import WebSocket


class Spinner(fal.App):
    @fal.endpoint("/spin", is_websocket=True)
    async def spin(self, websocket: WebSocket) -> None:
        await websocket.accept()
        await websocket.send_text("spinning")
        while True:
            pass
