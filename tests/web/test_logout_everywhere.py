"""Logging out with nothing faked: the site, authsvc and the runner are processes, the sockets are real."""

import json
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx
import msgpack
import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from tests.processes import Process, module, start_process
from tests.stack import Stack, running
from tests.tiny_bundle import make_tiny_bundle

APP = "fal-ai/fast-lcm-diffusion/realtime"
PASSWORD = "open sesame"
WITHIN_S = 30
REVOKED = [("UNAUTHORIZED", "the token was revoked")], 4001


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with running(make_tiny_bundle(tmp_path_factory.mktemp("model") / "bundle")) as both:
        yield both


@pytest.fixture
def site(stack: Stack) -> Iterator[Process]:
    settings = {
        "WEB_AUTHSVC_URL": stack.authsvc_url,
        "WEB_RUNNER_URL": stack.runner_url,
        "WEB_API_KEY": stack.key,
        "WEB_PASSWORD": PASSWORD,
    }
    with start_process(module("web", "serve", "--port", "0"), settings) as process:
        yield process


@contextmanager
def visitor(site: Process) -> Iterator[httpx.Client]:
    """A browser that has logged in."""
    with httpx.Client(base_url=site.url) as client:
        answer = client.post("/login", data={"username": "demo", "password": PASSWORD})
        assert answer.headers["Location"] == "/"
        yield client


def token_of(client: httpx.Client) -> str:
    answer = client.get("/api/fal/token", params={"app": APP})
    return str(answer.raise_for_status().json()["token"])


def knock(stack: Stack, token: str) -> ClientConnection:
    return connect(f"{stack.runner_url}/{APP}?fal_jwt_token={token}", max_size=None)


def draws(socket: ClientConnection) -> bool:
    socket.send(msgpack.packb({"prompt": "x"}))
    return isinstance(socket.recv(timeout=WITHIN_S), bytes)


def last_words(socket: ClientConnection) -> tuple[list[tuple[str, str]], int | None]:
    """What a socket says until it is closed, and the code of the close."""
    said = []
    try:
        while True:
            error = json.loads(socket.recv(timeout=WITHIN_S))
            said.append((error["error"], error["reason"]))
    except ConnectionClosed:
        return said, socket.protocol.close_code


def test_logging_out_closes_the_sockets_of_that_login_and_no_others(stack: Stack, site: Process) -> None:
    with visitor(site) as here, visitor(site) as elsewhere, ExitStack() as sockets:
        token, other = token_of(here), token_of(elsewhere)
        first, second = (sockets.enter_context(knock(stack, each)) for each in (token, token_of(here)))
        another = sockets.enter_context(knock(stack, other))
        assert all(map(draws, (first, second, another)))
        assert here.post("/logout").headers["Location"] == "/login"
        assert last_words(first) == last_words(second) == REVOKED
        assert here.get("/api/fal/token", params={"app": APP}).status_code == 401
        assert last_words(sockets.enter_context(knock(stack, token))) == REVOKED
        assert draws(another)  # the same user on another device
        assert draws(sockets.enter_context(knock(stack, token_of(elsewhere))))


def test_logging_in_again_works_at_once_also_within_the_same_second(stack: Stack, site: Process) -> None:
    with visitor(site) as client, knock(stack, token_of(client)) as socket:
        client.post("/logout")
        client.post("/login", data={"username": "demo", "password": PASSWORD})
        fresh = token_of(client)
        assert last_words(socket) == REVOKED
        with knock(stack, fresh) as anew:
            assert draws(anew)


def test_a_logout_while_authsvc_is_away_is_made_up_for(tmp_path: Path) -> None:
    with running(make_tiny_bundle(tmp_path / "bundle")) as stack, ExitStack() as exits:
        settings = {"WEB_AUTHSVC_URL": stack.authsvc_url, "WEB_API_KEY": stack.key, "WEB_PASSWORD": PASSWORD}
        site = exits.enter_context(start_process(module("web", "serve", "--port", "0"), settings))
        client = exits.enter_context(visitor(site))
        socket = exits.enter_context(knock(stack, token_of(client)))
        assert draws(socket)
        port = stack.authsvc.port
        stack.authsvc.stop()
        assert client.post("/logout").status_code == 303
        assert client.get("/api/fal/token", params={"app": APP}).status_code == 401
        site.wait_for_line("the tokens of login-[0-9a-f]+ are not revoked yet: The token service does not answer")
        assert draws(socket)
        exits.enter_context(start_process(module("authsvc", "serve", "--port", str(port)), stack.data))
        assert last_words(socket) == REVOKED
        site.stop()
        assert "secret" not in site.text
        assert stack.key.split(":")[1] not in site.text
