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
from runner.doors.access import DECISION_KEY, Asks, Gate, KeyRefused, TokenSpent
from runner.doors.inline import InlineApp
from runner.doors.jwks import JwksCache, TokenVerifier
from runner.doors.realtime import RealtimeDoor
from runner.doors.reports import Reporter
from runner.doors.revocations import Revocations
from runner.doors.routes import Registry
from runner.doors.tally import Tally
from runner.doors.token_service import PublishedKeys
from runner.doors.tracing import Tracing
from runner.doors.websocket import WebSocketOptions, WebSocketServer
from runner.protocol.allowance import Allowances
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
    *apps: str,
    age_s: float = 0,
    duration_s: int = 60,
    key: SigningKey = KEY,
    one_time: bool = False,
    **limits: int,
) -> str:
    claims = new_claims(
        issuer="test-issuer",
        audience="test-runner",
        subject="key-1",
        apps=apps or ("fast-lcm-diffusion",),
        now=time.time() - age_s,
        duration_s=duration_s,
        limits=PinnedLimits(**limits),
        client_id="key-1",
        one_time=one_time,
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
    allowances: Allowances
    tally: Tally
    redeemed: set[str]
    """The one-time tokens that were used, as the token service would remember them."""
    revocations: Revocations
    realtime: RealtimeDoor

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
def running_door(
    engine: FakeEngine | None = None,
    rules: SessionRules | None = None,
    *,
    exchange: Callable[[str, str], str] = exchange,
    reporter: Reporter | None = None,
    registry: Registry | None = None,
    options: WebSocketOptions | None = None,
    tracing: Tracing | None = None,
) -> Iterator[Door]:
    """Serves until the block ends; a `registry` of its own instead of the engine's app."""
    engine = engine or FakeEngine()
    clock = WallClock()
    allowances, tally, redeemed = Allowances(), Tally(), set[str]()
    revocations = Revocations(is_known=True)
    door = RealtimeDoor(
        rules or SessionRules(),
        allowances,
        tally,
        reporter,
        revocations=revocations,
        tracing=tracing,
        wall_clock=clock,
    )
    jwks = JwksCache(lambda: PublishedKeys({KEY.kid: KEY.public}, None))

    def redeem(token: str) -> None:
        if token in redeemed:
            raise TokenSpent
        redeemed.add(token)

    asks = Asks(
        verify=revocations.checked(TokenVerifier(jwks, issuer="test-issuer", audience="test-runner", clock=clock)),
        exchange=exchange,
        redeem=redeem,
        obstacle=lambda claims, by_key: allowances.obstacle(claims, by_key=by_key, now=clock()),
    )
    gate = Gate(registry or Registry({APP_ID: InlineApp(FastLcmDiffusion(engine))}), asks, tally)

    def application(environ: dict[str, Any], _: object) -> list[bytes]:
        assert DECISION_KEY in environ
        door.serve(environ)
        return []

    server = WebSocketServer(("127.0.0.1", 0), application, gate=gate, options=options)
    server.start()
    try:
        yield Door(engine, server, clock, allowances, tally, redeemed, revocations, door)
    finally:
        server.stop(timeout=5)
