"""WebSockets on gevent's pywsgi, without monkey patching.

The contract is gevent-websocket's (`environ["wsgi.websocket"]` with receive, send and close), the protocol
is the sans-I/O core of `websockets`. From the bottom up: `protocol` (frames to messages), `transport` (a
socket whose writes end), `inbox` (what waits for the application), `connection` (what the application
holds), `handshake`, `handler` (one HTTP connection) and `server`.
"""

from websockets.exceptions import ConnectionClosed

from runner.doors.websocket.connection import WebSocket
from runner.doors.websocket.handler import WebSocketHandler
from runner.doors.websocket.options import Refusal, WebSocketOptions
from runner.doors.websocket.protocol import Message
from runner.doors.websocket.server import WebSocketServer

__all__ = [
    "ConnectionClosed",
    "Message",
    "Refusal",
    "WebSocket",
    "WebSocketHandler",
    "WebSocketOptions",
    "WebSocketServer",
]
