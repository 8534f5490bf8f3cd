"""Sockets of a stack, as a program of one's own would use them."""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import msgpack
import numpy as np
from numpy.typing import NDArray
from PIL import Image
from websockets.sync.client import ClientConnection, connect

from tests.stack import Stack

APP = "fal-ai/fast-lcm-diffusion"
ANSWERED_WITHIN_S = 60


class Session:
    """One open socket."""

    def __init__(self, socket: ClientConnection) -> None:
        self.socket = socket

    def send(self, **fields: Any) -> None:
        self.socket.send(msgpack.packb(fields))

    def receive(self) -> dict[str, Any]:
        message = self.socket.recv(timeout=ANSWERED_WITHIN_S)
        assert isinstance(message, bytes), message
        result: dict[str, Any] = msgpack.unpackb(message)
        return result

    def ask(self, **fields: Any) -> dict[str, Any]:
        self.send(**fields)
        return self.receive()


@contextmanager
def session(stack: Stack, token: str | None = None, path: str = "/realtime") -> Iterator[Session]:
    url = f"{stack.runner_url}/{APP}{path}?fal_jwt_token={token or stack.mint(APP)}"
    with connect(url, max_size=None, compression=None) as socket:
        yield Session(socket)


def pixels(result: dict[str, Any]) -> NDArray[np.float64]:
    """The first picture of a result, float64 [height, width, 3]."""
    return np.asarray(Image.open(io.BytesIO(result["images"][0]["content"])), dtype=np.float64)
