"""A whole day of both services at their most talkative: no token and no secret in anything they print, show or keep.

What the processes print is searched when they stop, as in every test (tests/leaks); metrics, error bodies and tables
are searched here.
"""

import json
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import httpx
import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from authsvc.installation import open_database
from authsvc.settings import Settings
from tests.e2e.sessions import APP, session
from tests.leaks.kept import search_tables
from tests.leaks.plugin import HUNT
from tests.processes import run_module
from tests.stack import Stack, create_key, running

REFUSED = range(400, 600)


@pytest.fixture
def stack(bundle: Path) -> Iterator[Stack]:
    """Both services at level debug, with reports. Their output is searched when they stop."""
    talkative = {"log_level": "debug", "log_format": "json"}
    with running(bundle, reports=True, authsvc=talkative, log_level="debug") as started:
        yield started


class Day:
    """Calls of every kind. Whatever is refused must not say a secret back."""

    def __init__(self, stack: Stack) -> None:
        self.stack = stack
        self.admin = create_key(stack.data, "--role", "admin")
        self.statuses: set[int] = set()

    def call(self, method: str, path: str, key: str | None = None, **request: object) -> httpx.Response:
        headers = {"Authorization": f"Key {key}"} if key else {}
        headers |= request.pop("headers", {})
        response = httpx.request(method, self.stack.authsvc_url + path, headers=headers, **request)
        self.statuses.add(response.status_code)
        if response.status_code in REFUSED:
            HUNT.search(f"the body of {response.status_code}", response.text)
            HUNT.search(f"the headers of {response.status_code}", str(response.headers))
        return response

    def socket(self, path: str, **options: object) -> None:
        """Opens a socket, sends it a secret in an input that is no good, and reads what it is told."""
        try:
            with connect(f"{self.stack.runner_url}/{APP}{path}", compression=None, **options) as socket:
                with suppress(ConnectionClosed):
                    socket.send(json.dumps({"prompt": self.stack.key, "seed": "x"}))
                HUNT.search("a message on a socket", str(socket.recv(timeout=60)))
        except InvalidStatus as refused:
            HUNT.search("the answer to a handshake", refused.response.body.decode())
        except ConnectionClosed as closed:
            HUNT.search("the reason of a close", str(closed))


def minting(day: Day) -> str:
    key, body = day.stack.key, {"allowed_apps": [APP]}
    token = day.call("POST", "/tokens/realtime", key, json=body).json()["token"]
    bare = day.call("POST", "/tokens/", key, json=body).json()
    key_id, _, secret = key.partition(":")
    for wrong in (f"{key_id}:{secret[:-1]}", f"{key_id}:{secret}x", f"{secret}:{key_id}", secret, f"{key_id}{secret}"):
        assert day.call("POST", "/tokens/realtime", wrong, json=body).status_code == 401
    for scheme in (f"Bearer {token}", f"Basic {secret}", token, f"Key {token}"):
        day.call("POST", "/tokens/realtime", headers={"Authorization": scheme}, json=body)
    for bad in ({"app": token}, {"app": key}, {token: 1}, {"allowed_apps": [secret], "duration": token}, token, [key]):
        day.call("POST", "/tokens/realtime", key, json=bad)
    day.call("POST", "/tokens/realtime", key, content=token, headers={"Content-Type": "text/plain"})
    day.call("POST", "/tokens/realtime", key, content=token * 500, headers={"Content-Type": "application/json"})
    for path in (
        f"/tokens/{token}",
        f"/{key}",
        f"/zzz?fal_jwt_token={token}",
        f"/health/ready?key={key}",
        f"/x%2F{bare}",
    ):
        day.call("GET", path, key)
    return token


def administration(day: Day, token: str) -> None:
    made = day.call("POST", "/keys", day.admin, json={"name": "app", "apps": [APP]}).json()
    key_id = made["id"]
    for name in (made["key"], token):  # a secret where a name belongs is refused or kept as what it is: a mistake
        day.call("GET", f"/keys/{name}", day.admin)
        day.call("GET", "/audit", day.admin, params={"kind": name})
        day.call("GET", "/usage", day.admin, params={"from": name})
        day.call("POST", "/signing-keys/rotate", name)
    rotated = day.call("POST", f"/keys/{key_id}/rotate", day.admin, json={"grace_s": 60}).json()
    assert day.call("POST", "/tokens/", rotated["key"], json={"app": APP}).status_code == 201
    assert day.call("GET", "/audit", rotated["key"]).status_code == 403
    assert day.call("POST", "/signing-keys/rotate", day.admin).status_code == 200
    assert day.call("POST", f"/keys/{key_id}/revoke", day.admin).status_code == 200
    assert day.call("POST", "/tokens/", rotated["key"], json={"app": APP}).status_code == 401
    for way in ({"data": {"token": token}}, {"json": {"token": token}}):
        assert day.call("POST", "/tokens/introspect", day.admin, **way).json()["active"]
    assert day.call("POST", "/tokens/revoke", day.admin, data={"token": token}).status_code == 200
    assert not day.call("POST", "/tokens/introspect", day.admin, data={"token": token}).json()["active"]


def sockets(day: Day, revoked: str) -> None:
    with session(day.stack) as good:
        assert good.ask(prompt="a red circle", seed=1)["images"]
    token = day.stack.mint(APP)
    for credential in (revoked, token[:-4] + "AAAA", token.rpartition(".")[0] + ".", token + "x", day.stack.key, "x"):
        day.socket(f"/realtime?fal_jwt_token={credential}")
        for scheme in ("Bearer", "Key", "Basic"):
            day.socket("/realtime", additional_headers={"Authorization": f"{scheme} {credential}"})
    day.socket(f"/{token}/realtime?fal_jwt_token={token}")
    day.socket(f"/realtime?fal_jwt_token={day.stack.mint('other/app')}")
    once = day.stack.mint(APP, one_time=True)
    for _ in range(2):
        day.socket(f"/realtime?fal_jwt_token={once}&max_buffering=nonsense")
    http = day.stack.runner_url.replace("ws", "http", 1)
    for url in (f"{http}/{APP}?fal_jwt_token={token}", f"{http}/{token}", f"{http}/metrics?{day.stack.key}"):
        for method in ("GET", "POST"):
            headers = {"Authorization": f"Bearer {token}", "X-Key": day.stack.key}
            response = httpx.request(method, url, headers=headers, json={"prompt": token, "seed": day.stack.key})
            if response.status_code in REFUSED:
                HUNT.search("the body of a refusal at the runner", response.text)


def a_database_that_is_away(day: Day, token: str) -> None:
    file = Path(day.stack.data["AUTHSVC_DATA_DIR"]) / "authsvc.sqlite3"
    away = file.with_name("away")
    file.rename(away)
    try:
        for path in ("/tokens/realtime", "/tokens/revoke", "/keys"):
            day.call("POST", path, day.stack.key, json={"app": APP, "token": token})
        day.socket("/realtime", additional_headers={"Authorization": f"Key {day.admin}"})
    finally:
        away.rename(file)


def test_no_secret_gets_out_of_a_whole_day(stack: Stack) -> None:
    day = Day(stack)
    token = minting(day)
    administration(day, token)
    sockets(day, token)
    a_database_that_is_away(day, token)
    assert {200, 201, 401, 403, 404, 413, 415, 422} <= day.statuses
    for url in (stack.authsvc_url, stack.runner_url.replace("ws", "http", 1)):
        metrics = httpx.get(f"{url}/metrics")
        assert metrics.status_code == 200
        HUNT.search("the metrics", metrics.text)
    for command in (["keys", "list"], ["signing-keys", "list"], ["audit", "list"], ["usage"], ["check-config"]):
        for form in ([], ["--json"]):
            assert run_module("authsvc", *command, *form, env=stack.data).returncode == 0
    with open_database(Settings(data_dir=stack.data["AUTHSVC_DATA_DIR"])) as database:
        search_tables(database)
    for process in (stack.authsvc, stack.runner):
        assert "debug" in process.text.lower(), "it did not say all that it could"
        HUNT.search("its output", process.text)


def test_the_search_of_the_tables_can_fail(tmp_path: Path) -> None:
    env = {"AUTHSVC_DATA_DIR": str(tmp_path)}
    secret = create_key(env, "--apps", "*").partition(":")[2]
    run_module("authsvc", "keys", "create", "--apps", "*", "--name", f"the key {secret}", "--json", env=env)
    with (
        open_database(Settings(data_dir=tmp_path)) as database,
        pytest.raises(AssertionError, match="a row of api_keys"),
    ):
        search_tables(database)


def test_a_secret_where_a_name_belongs_is_not_said_back(tmp_path: Path) -> None:
    """A secret on the command line is in the shell's history anyway; it must not be in a log of our output too."""
    env = {"AUTHSVC_DATA_DIR": str(tmp_path)}
    key = create_key(env, "--apps", "*")
    for command in (["keys", "revoke"], ["keys", "show"], ["keys", "rotate"], ["tokens", "check"]):
        assert run_module("authsvc", *command, key, env=env).returncode != 0
