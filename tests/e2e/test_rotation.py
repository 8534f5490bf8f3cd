"""Signing keys change while sockets are opened, while the token service is away, and when one has leaked."""

import http.client
import json
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from runner.doors.jwks import UNKNOWN_KEY_INTERVAL_S
from schemas import defaults
from tests.e2e.sessions import APP
from tests.processes import module, run_module, start_process
from tests.stack import Stack, create_key, running
from tokens import compact
from tokens.keys import SigningKey
from tokens.mint import mint, new_claims

ROTATIONS = 10
OPENERS = 3
UNKNOWN_KIDS = 1000


@pytest.fixture
def stack(bundle: Path) -> Iterator[Stack]:
    with running(bundle) as started:
        yield started


@contextmanager
def opened(stack: Stack, token: str) -> Iterator[ClientConnection]:
    """A socket that was admitted: with the token in a header, a refusal is an HTTP status and raises."""
    headers = {"Authorization": f"Bearer {token}"}
    with connect(f"{stack.runner_url}/{APP}/realtime", additional_headers=headers) as socket:
        yield socket


def handshake_status(stack: Stack, token: str) -> int:
    """How a handshake is answered."""
    url = urlsplit(stack.runner_url)
    connection = http.client.HTTPConnection(url.hostname or "", url.port, timeout=30)
    headers = {
        "Authorization": f"Bearer {token}",
        "Connection": "Upgrade",
        "Upgrade": "websocket",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
    }
    try:
        connection.request("GET", f"/{APP}/realtime", headers=headers)
        return connection.getresponse().status
    finally:
        connection.close()


def kid_of(token: str) -> str:
    return str(compact.parse(token).header["kid"])


def test_rotating_under_load_fails_no_connection(stack: Stack) -> None:
    """Ten rotations, one right after the other, while sockets are opened without a pause."""
    admin = {"Authorization": f"Key {create_key(stack.data, '--role', 'admin')}"}
    done = threading.Event()

    def open_until_done() -> list[str]:
        kids = []
        while not done.is_set():
            token = stack.mint(APP)
            with opened(stack, token):
                kids.append(kid_of(token))
        return kids

    with ThreadPoolExecutor(OPENERS) as pool:
        openers = [pool.submit(open_until_done) for _ in range(OPENERS)]
        try:
            current = [
                httpx.post(f"{stack.authsvc_url}/signing-keys/rotate", headers=admin, timeout=60)
                .raise_for_status()
                .json()["kid"]
                for _ in range(ROTATIONS)
            ]
            by_command = run_module("authsvc", "signing-keys", "rotate", "--json", env=stack.data)
            current.append(json.loads(by_command.stdout)["kid"])
            with opened(stack, last := stack.mint(APP)):
                assert kid_of(last) == current[-1]
        finally:
            done.set()
        kids = [kid for opener in openers for kid in opener.result()]
    assert len(set(current)) == ROTATIONS + 1
    # The last key may sign nothing more of theirs, and each of the others had two seconds to.
    assert set(current[:-1]) <= set(kids)


def test_sockets_open_while_the_token_service_is_away_and_after_it_came_back_with_other_keys(stack: Stack) -> None:
    before = stack.mint(APP)
    port = stack.authsvc.port
    stack.authsvc.kill_all()
    stack.authsvc.wait()
    with opened(stack, before):
        pass
    for _ in range(2):  # so that the key that signs now was not even the next one when the runner last looked
        assert run_module("authsvc", "signing-keys", "rotate", env=stack.data).returncode == 0
    with opened(stack, before), start_process(module("authsvc", "serve", "--port", str(port)), stack.data):
        after = stack.mint(APP)
        assert kid_of(after) != kid_of(before)
        for token in (after, before):
            with opened(stack, token):
                pass


def test_a_thousand_unknown_kids_make_one_fetch_an_interval(stack: Stack) -> None:
    claims = new_claims(
        issuer=defaults.ISSUER, audience=defaults.AUDIENCE, subject="x", apps=["*"], now=time.time(), duration_s=600
    )
    forged = [mint(SigningKey.generate(), claims) for _ in range(UNKNOWN_KIDS)]
    assert handshake_status(stack, stack.mint(APP)) == 101  # the keys are there
    fetched, started = fetches(stack), time.monotonic()
    with ThreadPoolExecutor(8) as pool:
        statuses = set(pool.map(lambda token: handshake_status(stack, token), forged))
    elapsed_s = time.monotonic() - started
    assert statuses == {401}
    assert 1 <= fetches(stack) - fetched <= 1 + elapsed_s / UNKNOWN_KEY_INTERVAL_S


def fetches(stack: Stack) -> int:
    """How often the key set has been asked for; counted in authsvc's log, up to a line made now."""
    marker = f"/marker-{time.monotonic_ns()}"
    httpx.get(stack.authsvc_url + marker)
    stack.authsvc.wait_for_line(marker)
    return sum("/.well-known/jwks.json" in line for line in stack.authsvc.lines)


def test_a_leaked_signing_key_opens_nothing_and_its_sockets_are_closed(stack: Stack) -> None:
    leaked = stack.mint(APP)
    with opened(stack, leaked) as socket:
        revoked = run_module("authsvc", "signing-keys", "revoke", "--json", "--", kid_of(leaked), env=stack.data)
        assert revoked.returncode == 0, revoked.stderr
        assert json.loads(socket.recv(timeout=30))["error"] == "UNAUTHORIZED"
        with pytest.raises(ConnectionClosed):
            socket.recv(timeout=30)
    assert socket.close_code == 4001
    assert handshake_status(stack, leaked) == 401
    with opened(stack, fresh := stack.mint(APP)):
        assert kid_of(fresh) in [key["kid"] for key in json.loads(revoked.stdout)["signing_keys"]]
        assert kid_of(fresh) != kid_of(leaked)
