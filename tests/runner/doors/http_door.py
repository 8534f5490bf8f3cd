"""The HTTP door on a real socket: the real server, access and exchange, before apps of the tests' own."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx
from gevent import socket
from gevent.event import Event
from pydantic import BaseModel, Field

from runner.apps.framework import App, endpoint, realtime
from runner.apps.serving import ServedApp
from runner.doors.access import Asks, TokenSpent
from runner.doors.http import HttpDoor, HttpOptions
from runner.doors.inline import InlineApp
from runner.doors.jwks import JwksCache, TokenVerifier
from runner.doors.reports import Reporter
from runner.doors.revocations import Revocations
from runner.doors.routes import Registry
from runner.doors.tally import Tally
from runner.doors.token_service import PublishedKeys
from runner.doors.websocket import WebSocketOptions, WebSocketServer
from runner.engine.request import LIMITS, EngineBusy, EngineUnavailable, GenerationFailed, InvalidRequest
from runner.protocol.allowance import Allowances
from tests.runner.doors.door import KEY, exchange, in_thread, token

APP = "owner/app"


class Input(BaseModel):
    prompt: str
    steps: int = Field(default=1, ge=1, le=50)


class Drawn(BaseModel):
    width: int = 4
    height: int = 3


class Output(BaseModel):
    prompt: str
    steps: int = 1
    images: list[Drawn] = []


class AppError(Exception):
    """As fal's AppException."""

    def __init__(self, message: str, status_code: int, field: str | None = None) -> None:
        self.message, self.status_code = message, status_code
        if field:
            self.field = field


ERRORS: dict[str, Callable[[], Exception]] = {
    "invalid": lambda: InvalidRequest("steps", "must be even", "multiple_of"),
    "starting": lambda: EngineUnavailable("/models/secret is broken"),
    "busy": lambda: EngineBusy(7.2),
    "failed": lambda: GenerationFailed("engine-id"),
    "bug": lambda: RuntimeError("/home/secret"),
    "teapot": lambda: AppError("no coffee here", 418),
    "own field": lambda: AppError("is not funny", 422, "prompt"),
}


@dataclass
class Probe(App):
    """An app that can fail, wait, and stream."""

    hold: Event = field(default_factory=Event)
    started: Event = field(default_factory=Event)
    given_up: Event = field(default_factory=Event)

    def __post_init__(self) -> None:
        self.hold.set()

    @endpoint("/")
    def echo(self, received: Input) -> Output:
        if received.prompt in ERRORS:
            raise ERRORS[received.prompt]()
        self._wait()
        return Output(prompt=received.prompt, steps=received.steps, images=[Drawn()])

    @endpoint("/limits")
    def limits(self, received: dict[str, Any]) -> dict[str, Any]:
        return {"max_pixels": LIMITS.get().max_pixels, "received": received}

    @endpoint("/stream")
    def stream(self, received: Input) -> Iterator[Output]:
        if received.prompt in ERRORS:
            raise ERRORS[received.prompt]()
        yield Output(prompt="first", images=[Drawn()])
        self._wait()
        if received.prompt.startswith("late "):
            raise ERRORS[received.prompt.removeprefix("late ")]()
        yield Output(prompt="second", images=[Drawn()])

    @realtime("/realtime")
    def session(self, received: Input) -> Output:
        return self.echo(received)

    def _wait(self) -> None:
        done = False
        self.started.set()
        try:
            self.hold.wait()
            done = True
        finally:
            if not done:
                self.given_up.set()


@dataclass
class Door:
    """Where the door is, and what stands behind it."""

    app: Probe
    server: WebSocketServer
    allowances: Allowances
    tally: Tally
    revocations: Revocations
    door: HttpDoor

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_port}"

    def request(self, method: str = "POST", path: str = f"/{APP}", **options: Any) -> httpx.Response:
        """As a program does it, with a good token unless `headers` say otherwise."""
        options.setdefault("headers", {})
        options["headers"] = bearer() | options["headers"]
        headers = {name: value for name, value in options.pop("headers").items() if value is not None}
        return in_thread(lambda: httpx.request(method, self.url + path, headers=headers, timeout=30, **options))

    def post(self, path: str = f"/{APP}", **options: Any) -> httpx.Response:
        return self.request("POST", path, **options)

    def connect(self) -> socket.socket:
        client = socket.create_connection(("127.0.0.1", self.server.server_port))
        client.settimeout(30)
        return client


def bearer(*apps: str, **claims: Any) -> dict[str, str]:
    return {"Authorization": f"Bearer {token(*(apps or (APP,)), **claims)}"}


@contextmanager
def running_http_door(
    options: HttpOptions | None = None,
    *,
    server_options: WebSocketOptions | None = None,
    reporter: Reporter | None = None,
    apps: dict[str, ServedApp] | None = None,
) -> Iterator[Door]:
    """Serves until the block ends; `apps` besides the probe."""
    probe, allowances, tally, revocations = Probe(), Allowances(), Tally(), Revocations(is_known=True)
    jwks = JwksCache(lambda: PublishedKeys({KEY.kid: KEY.public}, None))
    redeemed: set[str] = set()

    def redeem(one_time: str) -> None:
        if one_time in redeemed:
            raise TokenSpent
        redeemed.add(one_time)

    asks = Asks(
        verify=revocations.checked(TokenVerifier(jwks, issuer="test-issuer", audience="test-runner")),
        exchange=exchange,
        redeem=redeem,
        obstacle=lambda claims, by_key: allowances.obstacle(claims, by_key=by_key, now=0),
    )
    registry = Registry({APP: InlineApp(probe), **(apps or {})})
    door = HttpDoor(registry, asks, allowances, tally, reporter, revocations=revocations, options=options)
    server = WebSocketServer(("127.0.0.1", 0), door.serve, gate=lambda environ: None, options=server_options)
    server.start()
    try:
        yield Door(probe, server, allowances, tally, revocations, door)
    finally:
        probe.hold.set()
        server.stop(timeout=5)
