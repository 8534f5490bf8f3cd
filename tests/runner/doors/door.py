"""A realtime door on a real socket: the real gate, session and server, before an engine without a model."""

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import gevent
import msgpack
from websockets.sync.client import ClientConnection, connect

from runner.apps.fast_lcm_diffusion import APP_ID, FastLcmDiffusion
from runner.apps.framework import Registry
from runner.doors.access import DECISION_KEY, Gate, KeyRefused
from runner.doors.jwks import JwksCache, TokenVerifier
from runner.doors.realtime import RealtimeDoor
from runner.doors.token_service import PublishedKeys
from runner.doors.websocket import WebSocketServer
from runner.protocol.session import SessionRules
from schemas.tokens import PinnedLimits
from tests.runner.fakes import FakeEngine
from tokens.keys import SigningKey
from tokens.mint import mint, new_claims

KEY = SigningKey.generate()
API_KEY = "key-1:S3CRET"
PATH = f"/{APP_ID}/realtime"

T = TypeVar("T")


def in_thread(work: Callable[[], T]) -> T:
    """Runs a blocking client in a native thread, while the hub serves it."""
    return gevent.get_hub().threadpool.apply(work)


def settle() -> None:
    """Turns the hub's loop many times, so that every greenlet that can run does, and every socket is polled."""
    for _ in range(100):
        gevent.sleep(1e-9)  # sleep(0) would let other callbacks run, but poll no socket


def token(
    *apps: str, age_s: float = 0, duration_s: int = 60, max_session_s: int | None = None, key: SigningKey = KEY
) -> str:
    claims = new_claims(
        issuer="test-issuer",
        audience="test-runner",
        subject="key-1",
        apps=apps or ("fast-lcm-diffusion",),
        now=time.time() - age_s,
        duration_s=duration_s,
        limits=PinnedLimits(max_session_s=max_session_s),
    )
    return mint(key, claims)


def exchange(key: str, path: str) -> str:
    if key != API_KEY:
        raise KeyRefused(401)
    return token(path)


@dataclass
class WallClock:
    """Unix time, which a test can put forward."""

    ahead_s: float = 0

    def __call__(self) -> float:
        return time.time() + self.ahead_s


@dataclass
class Door:
    """Where the door is, and what stands behind it."""

    engine: FakeEngine
    server: WebSocketServer
    clock: WallClock

    def url(self, path: str = PATH, **query: object) -> str:
        query = {"fal_jwt_token": token()} | query
        fields = "&".join(f"{name}={value}" for name, value in query.items() if value is not None)
        return f"ws://127.0.0.1:{self.server.server_port}{path}?{fields}"

    @contextmanager
    def client(self, path: str = PATH, **query: object) -> Iterator["Client"]:
        """Call from a native thread."""
        with connect(self.url(path, **query), max_size=None, compression=None) as connection:
            yield Client(connection)


@dataclass
class Client:
    """The other end, as a program would write it."""

    connection: ClientConnection

    def send(self, **fields: Any) -> None:
        self.connection.send(msgpack.packb(fields))

    def recv(self) -> dict[str, Any]:
        message = self.connection.recv()
        return msgpack.unpackb(message) if isinstance(message, bytes) else json.loads(message)

    def ask(self, **fields: Any) -> dict[str, Any]:
        self.send(**fields)
        return self.recv()


@contextmanager
def running_door(engine: FakeEngine | None = None, rules: SessionRules | None = None) -> Iterator[Door]:
    """Serves until the block ends."""
    engine = engine or FakeEngine()
    door = RealtimeDoor(rules or SessionRules())
    clock = WallClock()
    jwks = JwksCache(lambda: PublishedKeys({KEY.kid: KEY.public}, None))
    gate = Gate(
        Registry({APP_ID: FastLcmDiffusion(engine)}),
        TokenVerifier(jwks, issuer="test-issuer", audience="test-runner", clock=clock),
        exchange,
    )

    def application(environ: dict[str, Any], _: object) -> list[bytes]:
        assert DECISION_KEY in environ
        door.serve(environ)
        return []

    server = WebSocketServer(("127.0.0.1", 0), application, gate=gate)
    server.start()
    try:
        yield Door(engine, server, clock)
    finally:
        server.stop(timeout=5)
