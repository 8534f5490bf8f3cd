"""Hosted apps in real processes, behind a real door."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import gevent
import msgpack
from websockets.exceptions import ConnectionClosed

from runner.apps.serving import HttpAnswer, HttpRequest
from runner.doors.routes import Registry
from runner.hosting.bridge import HostedApp
from runner.protocol.allowance import Allowances
from runner.protocol.session import SessionRules
from schemas.tokens import TokenClaims
from tests.runner.doors.door import Client, Door, in_thread, running_door
from tests.runner.doors.door import token as mint

T = TypeVar("T")

SAMPLES = "tests.runner.hosting.sample_apps"


@dataclass
class Hosted:
    """Apps, and the door before them."""

    door: Door
    apps: dict[str, HostedApp]

    @contextmanager
    def client(self, path: str, token: str | None = None) -> Iterator[Client]:
        """A WebSocket; from a native thread."""
        owner_alias = "/".join(path.split("/")[:2])
        with self.door.client(f"/{path}", fal_jwt_token=token or mint(owner_alias)) as client:
            yield client

    def in_thread(self, talk: Callable[[], T]) -> T:
        return in_thread(talk)

    def post(self, app_id: str, path: str, body: bytes = b"", **headers: str) -> tuple[int, bytes]:
        """An HTTP request, past access."""
        answer = self.respond(app_id, path, body, **headers)
        return answer.status, b"".join(answer.body)

    def respond(self, app_id: str, path: str, body: bytes = b"", method: str = "POST", **headers: str) -> HttpAnswer:
        endpoint = self.apps[app_id].http(path)
        assert endpoint is not None, path
        return endpoint.respond(request(path, body, method, **headers))


def request(path: str, body: bytes = b"", method: str = "POST", **headers: str) -> HttpRequest:
    claims = TokenClaims(
        iss="i", aud="a", sub="s", jti="6f9619ff-8b86-4d01-b42d-00cf4fc964ff", iat=0, nbf=0, exp=1, apps=["*"]
    )
    allowance = Allowances().enter(claims, by_key=False, now=0)
    sent = (("content-type", "application/json"), *headers.items())
    return HttpRequest(
        method, path, body, "request-1", allowance, headers=sent, base_url="http://here", address="192.0.2.7"
    )


@contextmanager
def hosted(rules: SessionRules | None = None, drain_grace_s: float = 5.0, **classes: str) -> Iterator[Hosted]:
    """Serves `acme/<name>` with the class of each `name`, until the block ends."""
    with ExitStack() as stack:
        apps = {}
        for name, target in classes.items():
            app = HostedApp(
                f"acme/{name}", target if ":" in target else f"{SAMPLES}:{target}", drain_grace_s=drain_grace_s
            )
            app.start()
            stack.callback(app.stop, 10)
            apps[f"acme/{name}"] = app
        for app in apps.values():
            app.wait_settled(60)
        with running_door(rules=rules, registry=Registry(apps)) as door:
            yield Hosted(door, apps)


def end_of(client: Client) -> tuple[list[Any], int | None]:
    """Everything that comes until the close, and its code."""
    messages: list[Any] = []
    try:
        while True:
            messages.append(client.recv())
    except ConnectionClosed:
        return messages, client.connection.close_code


def pack(**fields: Any) -> bytes:
    packed: bytes = msgpack.packb(fields)
    return packed


def until(condition: Callable[[], bool]) -> None:
    """Turns the hub until it is so; the test's own timeout ends one that never is."""
    while not condition():
        gevent.sleep(0.005)
