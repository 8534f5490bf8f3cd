"""Sockets in, pictures out: the gateway, the realtime protocol, the engine and the exporter.

An app takes the names of the framework from here, as from fal's package: `import runner as fal`.
"""

import importlib
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from fastapi import Request, Response, WebSocket, WebSocketDisconnect
    from fastapi.responses import StreamingResponse

    from runner import exceptions
    from runner.apps.framework import App, endpoint, realtime

__all__ = [
    "App",
    "Request",
    "Response",
    "StreamingResponse",
    "WebSocket",
    "WebSocketDisconnect",
    "endpoint",
    "exceptions",
    "realtime",
]

# Imported when asked for: the engine's workers import this package too, and FastAPI would slow their start.
_HOMES: Final = {
    "App": "runner.apps.framework",
    "Request": "fastapi",
    "Response": "fastapi",
    "StreamingResponse": "fastapi.responses",
    "WebSocket": "fastapi",
    "WebSocketDisconnect": "fastapi",
    "endpoint": "runner.apps.framework",
    "realtime": "runner.apps.framework",
}


def __getattr__(name: str) -> Any:
    if name == "exceptions":
        return importlib.import_module("runner.exceptions")
    if name not in _HOMES:
        raise AttributeError(f"module 'runner' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)
