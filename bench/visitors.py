"""Whom a runner meets in `bench.soak`: callers who each want their own answer, and peers who want nothing good."""

import asyncio
import json
import os
import random
import socket
import struct
from base64 import b64encode
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final
from uuid import uuid4

import httpx
import msgpack
from websockets.asyncio.client import connect

from bench.sockets import frame

MODEL: Final = "fal-ai/fast-lcm-diffusion"
ANSWERER: Final = "bench/answerer"
_BIG: Final = "x" * 60_000


class Wrong(Exception):
    """A caller got something else than the answer to what it asked."""


@dataclass
class Place:
    """Where the runner is, and a token that opens it now."""

    host: str
    port: int
    token: str
    http: httpx.AsyncClient

    def path(self, path: str) -> str:
        """With the token in the query, as browsers have it."""
        return f"{path}?fal_jwt_token={self.token}"

    def url(self, path: str, scheme: str = "ws") -> str:
        """With the token in the query."""
        return f"{scheme}://{self.host}:{self.port}{self.path(path)}"


async def pause(mean_s: float) -> None:
    """As long as a person may take."""
    await asyncio.sleep(random.expovariate(1 / mean_s))


def check(asked: str, answered: object) -> None:
    """An answer belongs to its question.

    Raises:
        Wrong: it does not.
    """
    if answered != asked:
        raise Wrong(f"asked as {asked}, answered as {answered}")


async def talk(place: Place, app: str, fields: dict[str, Any]) -> int:
    """A realtime session of some questions, one after the other or several at once; gives how many were answered."""
    answered = 0
    async with connect(place.url(f"/{app}/realtime"), max_size=None) as websocket:
        for _ in range(random.randint(1, 6)):
            ids = [uuid4().hex for _ in range(random.choice((1, 1, 1, 3)))]
            for request_id in ids:
                await websocket.send(msgpack.packb({**fields, "request_id": request_id}))
            for request_id in ids:
                message = await websocket.recv()
                answer = msgpack.unpackb(message) if isinstance(message, bytes) else json.loads(message)
                check(request_id, answer.get("request_id"))
                if "error" in answer:
                    raise Wrong(f"an error: {answer['error']}")
                answered += 1
            await pause(1.0)
    return answered


async def draw(place: Place) -> int:
    """Pictures of the model."""
    return await talk(place, MODEL, {"prompt": f"a {random.choice(('red', 'blue'))} circle", "num_inference_steps": 2})


async def converse(place: Place) -> int:
    """A hosted app, realtime."""
    return await talk(place, ANSWERER, {"text": "hello" * random.choice((1, 1, 1, 10_000))})


async def echo(place: Place) -> int:
    """A hosted app's raw socket."""
    count = random.randint(1, 7)
    async with connect(place.url(f"/{ANSWERER}/echo"), max_size=None) as websocket:
        for _ in range(count):
            said = uuid4().hex
            await websocket.send(said)
            check(said, await websocket.recv())
            await pause(0.5)
    return count


async def post(place: Place) -> int:
    """A hosted app over HTTP."""
    request_id = uuid4().hex
    answer = await place.http.post(place.url(f"/{ANSWERER}", "http"), json={"request_id": request_id})
    check(request_id, answer.raise_for_status().json()["request_id"])
    return 1


async def draw_by_post(place: Place) -> int:
    """A picture over HTTP. Its answer has no `request_id` (contract §6), but the prompt."""
    prompt = f"a circle, {uuid4().hex}"
    body = {"prompt": prompt, "num_inference_steps": 2, "sync_mode": True}
    answer = await place.http.post(place.url(f"/{MODEL}", "http"), json=body)
    check(prompt, answer.raise_for_status().json()["prompt"])
    return 1


async def stream(place: Place) -> int:
    """Server-sent events of a hosted app."""
    request_id = uuid4().hex
    answered = 0
    url = place.url(f"/{ANSWERER}/stream", "http")
    async with place.http.stream("POST", url, json={"request_id": request_id}) as answer:
        answer.raise_for_status()
        async for line in answer.aiter_lines():
            if line.startswith("data:"):
                check(request_id, json.loads(line.removeprefix("data:"))["request_id"])
                answered += 1
    if answered != 3:
        raise Wrong(f"{answered} events of 3")
    return 1


async def tunnel(place: Place) -> int:
    """HTTP over WebSocket: start, body, end (contract §5)."""
    count = random.randint(1, 3)
    async with connect(place.url(f"/ws/{ANSWERER}"), max_size=None) as websocket:
        for _ in range(count):
            request_id = uuid4().hex
            await websocket.send(json.dumps({"request_id": request_id}))
            start = json.loads(await websocket.recv())
            body = b""
            while isinstance(part := await websocket.recv(), bytes):
                body += part
            check(start["request_id"], json.loads(part)["request_id"])
            check(request_id, json.loads(body)["request_id"])
    return count


CALLERS: Final[tuple[Callable[[Place], Awaitable[int]], ...]] = (
    draw,
    draw,
    converse,
    converse,
    echo,
    post,
    draw_by_post,
    stream,
    tunnel,
)


class Peer:
    """A connection without any manners of its own."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection

    async def send(self, data: bytes) -> None:
        """All of it."""
        await asyncio.get_running_loop().sock_sendall(self._connection, data)

    async def read(self, limit: int = 65536) -> bytes:
        """What there is; b"" at the end."""
        try:
            return await asyncio.get_running_loop().sock_recv(self._connection, limit)
        except ConnectionError:
            return b""

    async def upgrade(self, place: Place, path: str) -> bytes:
        """Asks for a WebSocket; gives the answer's head."""
        key = b64encode(os.urandom(16)).decode()
        await self.send(
            f"GET {path} HTTP/1.1\r\nHost: {place.host}:{place.port}\r\nConnection: Upgrade\r\n"
            f"Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n\r\n".encode()
        )
        head = b""
        while b"\r\n\r\n" not in head and (more := await self.read()):
            head += more
        return head

    async def read_all(self) -> bytes:
        """Until the server has closed."""
        whole = b""
        while more := await self.read():
            whole += more
        return whole


@asynccontextmanager
async def knocking(place: Place, *, reset: bool = False, receive_bytes: int = 0) -> AsyncIterator[Peer]:
    """A TCP connection.

    Args:
        place: The runner.
        reset: Whether to end with a reset, as a machine that has lost power or a killed process does.
        receive_bytes: Size of the receive buffer, if it matters.
    """
    with socket.socket() as connection:
        connection.setblocking(False)
        if receive_bytes:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
        if reset:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        await asyncio.get_running_loop().sock_connect(connection, (place.host, place.port))
        yield Peer(connection)


@asynccontextmanager
async def inside(place: Place, app: str, **options: Any) -> AsyncIterator[Peer]:
    """A WebSocket to an app, after its handshake."""
    async with knocking(place, **options) as peer:
        head = await peer.upgrade(place, place.path(f"/{app}/realtime"))
        if not head.startswith(b"HTTP/1.1 101"):
            raise Wrong(f"a good token was refused: {head[:100]!r}")
        yield peer


async def half_a_handshake(place: Place) -> None:
    """And then silence."""
    async with knocking(place) as peer:
        await peer.send(f"GET /{MODEL}/realtime HTTP/1.1\r\nHost: ".encode())
        await pause(3.0)


async def half_a_frame(place: Place) -> None:
    """Leaves in the middle of what it says."""
    async with inside(place, random.choice((MODEL, ANSWERER)), reset=random.random() < 0.5) as peer:
        whole = frame(msgpack.packb({"prompt": "a circle", "request_id": "x" * 30}))
        await peer.send(whole[: random.randrange(1, len(whole))])
        await pause(1.0)


async def half_an_answer(place: Place) -> None:
    """Leaves in the middle of what it is told."""
    async with inside(place, MODEL, reset=True) as peer:
        await peer.send(frame(msgpack.packb({"prompt": "a circle", "request_id": "half"})))
        await peer.read(random.randrange(1, 200))


async def never_reading(place: Place) -> None:
    """Asks and asks, and reads nothing."""
    async with inside(place, ANSWERER, receive_bytes=4096, reset=random.random() < 0.5) as peer:
        with_answer = frame(msgpack.packb({"request_id": "deaf", "text": _BIG}))
        try:
            async with asyncio.timeout(5):
                for _ in range(40):
                    await peer.send(with_answer)
                await asyncio.Event().wait()
        except (TimeoutError, ConnectionError):
            return


async def bad_input(place: Place) -> None:
    """Bytes that are no input have an error for an answer."""
    async with inside(place, random.choice((MODEL, ANSWERER))) as peer:
        junk = random.choice((os.urandom(40), b"\xc1", msgpack.packb([1, 2]), msgpack.packb({"prompt": 7})))
        await peer.send(frame(junk))
        answer = await peer.read()
        if b"error" not in answer:
            raise Wrong(f"bad input was answered with {answer[:100]!r}")


async def bad_frame(place: Place) -> None:
    """What is no WebSocket frame ends the connection."""
    async with inside(place, MODEL) as peer:
        unmasked, endless, reserved = b"\x82\x01x", b"\x82\xff" + b"\x7f" * 8 + b"mask", b"\xf3\x80mask"
        await peer.send(random.choice((unmasked, endless, reserved)))
        await peer.read_all()


async def bad_token(place: Place) -> None:
    """Nobody is let in with a token that was tampered with."""
    async with knocking(place) as peer:
        head, _, signature = place.token.rpartition(".")
        token = random.choice(("", "nonsense", f"{head}.{signature[::-1]}"))
        answer = await peer.upgrade(place, f"/{MODEL}/realtime?fal_jwt_token={token}")
        if b" 401 " not in answer:  # said in band, for browsers
            answer += await peer.read()
        if b" 401 " not in answer and b"UNAUTHORIZED" not in answer:
            raise Wrong(f"a bad token was answered with {answer[:100]!r}")


HOSTILE: Final[tuple[Callable[[Place], Awaitable[None]], ...]] = (
    half_a_handshake,
    half_a_frame,
    half_an_answer,
    never_reading,
    bad_input,
    bad_frame,
    bad_token,
)
