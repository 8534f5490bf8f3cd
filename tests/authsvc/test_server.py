"""The service as users run it: a process, real sockets, real signals."""

import asyncio
import contextlib
import json
import signal
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import fal_client
import fal_client.client
import httpx
import pytest

from authsvc.domain import api_keys, signing_keys
from authsvc.store.sqlite import SQLite
from schemas import defaults
from schemas.tokens import TokenClaims
from tests.authsvc.conftest import APP, Served
from tests.processes import module, run_module, start_process
from tokens import compact
from tokens.errors import TokenError
from tokens.keys import parse_jwks
from tokens.verify import verify

ALIAS = "fast-lcm-diffusion"


def mint(served: Served, path: str = "/tokens/realtime") -> httpx.Response:
    headers = {"Authorization": f"Key {served.key}"}
    return httpx.post(f"{served.url}{path}", json={"allowed_apps": [ALIAS]}, headers=headers)


def check(served: Served, token: str) -> TokenClaims:
    """Verifies as the runner does, with the system's clock."""
    keys = parse_jwks(httpx.get(f"{served.url}/.well-known/jwks.json").content)
    claims = verify(token, keys, issuer=defaults.ISSUER, audience=defaults.AUDIENCE, now=time.time())
    assert claims.apps == [APP]
    return claims


def test_it_serves_tokens_and_the_keys_to_verify_them(authsvc_server: Served) -> None:
    check(authsvc_server, mint(authsvc_server).json()["token"])
    check(authsvc_server, mint(authsvc_server, "/tokens/").json())
    assert httpx.get(f"{authsvc_server.url}/health/ready").json() == {"status": "ok"}


def test_it_refuses_a_chunked_body_over_the_limit(authsvc_server: Served) -> None:
    chunks = (b'{"app":"%s","padding":"' % ALIAS.encode() if index == 0 else b"a" * 10_000 for index in range(8))
    headers = {"Authorization": f"Key {authsvc_server.key}", "Content-Type": "application/json"}
    response = httpx.post(f"{authsvc_server.url}/tokens/", content=chunks, headers=headers)
    assert response.status_code == 413


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_stops_when_asked(own_server: Served, number: signal.Signals) -> None:
    check(own_server, mint(own_server, "/tokens/").json())
    own_server.process.send_signal(number)
    assert own_server.process.wait() == 0


def test_it_answers_the_request_in_hand_before_it_stops(own_server: Served) -> None:
    """A client is in the middle of its body when SIGTERM comes; it sends the rest and gets its token."""
    body = json.dumps({"app": ALIAS}).encode()
    head = (
        f"POST /tokens/ HTTP/1.1\r\nHost: a\r\nAuthorization: Key {own_server.key}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\nExpect: 100-continue\r\n\r\n"
    )
    with socket.create_connection(("127.0.0.1", own_server.process.port), timeout=30) as connection:
        connection.sendall(head.encode())
        # The service asks for the body: the view is running now.
        assert connection.recv(1000).startswith(b"HTTP/1.1 100 Continue")
        own_server.process.send_signal(signal.SIGTERM)
        connection.sendall(body)
        answer = b""
        while chunk := connection.recv(4096):
            answer += chunk
    assert answer.startswith(b"HTTP/1.1 201")
    assert own_server.process.wait() == 0


@pytest.mark.parametrize(
    "half",
    [
        b"",
        b"POST /tokens/ HTT",
        b"POST /tokens/ HTTP/1.1\r\nHost: a\r\nContent-",
        b"POST /tokens/ HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\nContent-Type: application/json\r\n\r\n{",
        b"GET /docs/swagger-ui-bundle.js HTTP/1.1\r\nHost: a\r\n\r\n",
    ],
    ids=["silent", "half a line", "half a head", "half a body", "never reads"],
)
def test_clients_that_stop_halfway_keep_nobody_waiting(authsvc_server: Served, half: bytes) -> None:
    with contextlib.ExitStack() as stalled:
        for _ in range(50):
            address = ("127.0.0.1", authsvc_server.process.port)
            connection = stalled.enter_context(socket.create_connection(address))
            connection.sendall(half)
        check(authsvc_server, mint(authsvc_server, "/tokens/").json())


def test_kill_9_while_minting_and_creating_keys_loses_no_key(own_server: Served) -> None:
    """Every key that was created and every token that was handed out is good after the crash."""
    dead, some_minted = threading.Event(), threading.Semaphore(0)

    def mint_until_dead() -> list[str]:
        tokens = []
        with contextlib.suppress(httpx.TransportError):
            while True:
                tokens.append(mint(own_server, "/tokens/").json())
                some_minted.release()
        return tokens

    def create_until_dead() -> list[str]:
        keys = [own_server.create_key()]
        while not dead.is_set():
            keys.append(own_server.create_key())
        return keys

    with ThreadPoolExecutor(3) as pool:
        minters = [pool.submit(mint_until_dead) for _ in range(2)]
        creator = pool.submit(create_until_dead)
        for _ in range(6):
            some_minted.acquire()
        own_server.process.kill_all()
        dead.set()
        tokens = [token for minter in minters for token in minter.result()]
        keys = creator.result()
    assert len(tokens) >= 6
    with start_process(module("authsvc", "serve", "--port", "0"), own_server.env) as process:
        for key in [*keys[:2], keys[-1], own_server.key]:
            check(Served(process, own_server.env, key), mint(Served(process, own_server.env, key), "/tokens/").json())
        for token in tokens:
            check(Served(process, own_server.env, own_server.key), token)


def test_many_processes_may_start_on_a_fresh_folder(tmp_path: Path) -> None:
    env = {"AUTHSVC_DATA_DIR": str(tmp_path / "fresh")}

    def create(_: int) -> dict[str, str]:
        done = run_module("authsvc", "keys", "create", "--apps", "*", "--json", env=env)
        assert done.returncode == 0, done.stderr
        return dict(json.loads(done.stdout))

    with ThreadPoolExecutor(3) as pool:
        created = list(pool.map(create, range(3)))
    database = SQLite(tmp_path / "fresh" / "authsvc.sqlite3")
    with database.reading() as session:
        assert {key.id for key in api_keys.listing(session)} == {key["id"] for key in created}
        assert sorted(row.state for row in signing_keys.listing(session)) == ["current", "next"]
    database.close()


def test_a_rotation_by_another_process_changes_the_signer_at_once(authsvc_server: Served) -> None:
    old = mint(authsvc_server, "/tokens/").json()
    with authsvc_server.writing() as session:
        kid = signing_keys.rotate(session, now=time.time()).kid
    new = mint(authsvc_server, "/tokens/").json()
    check(authsvc_server, old)
    check(authsvc_server, new)
    assert compact.parse(new).header["kid"] == kid != compact.parse(old).header["kid"]


def test_a_revocation_by_another_process_holds_at_once(authsvc_server: Served) -> None:
    key = authsvc_server.create_key()
    served = Served(authsvc_server.process, authsvc_server.env, key)
    assert mint(served).status_code == 201
    with authsvc_server.writing() as session:
        api_keys.revoke(session, key.split(":")[0], now=time.time())
    assert mint(served).status_code == 401


def test_no_secret_is_printed_or_logged(authsvc_server: Served) -> None:
    token = mint(authsvc_server, "/tokens/").json()
    httpx.get(f"{authsvc_server.url}/tokens/?fal_jwt_token={token}")
    httpx.get(f"{authsvc_server.url}/tokens/%3Ffal_jwt_token={token}")
    httpx.get(f"{authsvc_server.url}/docs/{authsvc_server.key}")
    authsvc_server.process.wait_for_line("GET '/docs/lcmk_…' 404")
    for secret in (token, authsvc_server.key.split(":")[1]):
        assert secret not in authsvc_server.process.text


def test_json_mode_prints_and_logs_objects_alone(tmp_path: Path) -> None:
    env = {"AUTHSVC_DATA_DIR": str(tmp_path)}
    with start_process(module("authsvc", "serve", "--port", "0", "--json"), env) as process:
        httpx.get(f"{process.url}/.well-known/jwks.json")
        process.wait_for_line("/.well-known/jwks.json")
        lines = [json.loads(line) for line in process.lines]
    assert lines[0] == {"url": process.url}
    assert {"time", "level", "logger", "message"} <= set(lines[1])


def test_a_taken_port_is_one_clear_line(authsvc_server: Served) -> None:
    done = run_module("authsvc", "serve", "--port", str(authsvc_server.process.port), env=authsvc_server.env)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("Error: ")
    assert str(authsvc_server.process.port) in done.stderr
    assert "Traceback" not in done.stderr


@pytest.fixture
def official(authsvc_server: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    """Points fal_client's token route at our service: a module global that it reads at call time."""
    monkeypatch.setattr(fal_client.client, "REST_URL", authsvc_server.url)


@pytest.mark.usefixtures("official")
@pytest.mark.parametrize("application", [APP, f"{APP}/image-to-image"])
def test_the_official_sync_client_mints(authsvc_server: Served, application: str) -> None:
    client = fal_client.SyncClient(key=authsvc_server.key)
    token = client._get_realtime_token(application, token_expiration=300)
    client._client.close()
    claims = check(authsvc_server, token)
    assert claims.exp - claims.iat == 300


@pytest.mark.usefixtures("official")
def test_the_official_async_client_mints_without_following_redirects(authsvc_server: Served) -> None:
    async def token() -> str:
        client = fal_client.AsyncClient(key=authsvc_server.key)
        try:
            return await client._get_realtime_token(APP)
        finally:
            await (await client._client).aclose()

    check(authsvc_server, asyncio.run(token()))


@pytest.mark.usefixtures("official")
def test_the_official_client_shows_our_words_when_it_is_refused(authsvc_server: Served) -> None:
    client = fal_client.SyncClient(key="lcmk_unknown:secret")
    with pytest.raises(fal_client.client.FalClientHTTPError, match="No user found for Key ID and Secret") as refused:
        client._get_realtime_token(APP)
    client._client.close()
    assert refused.value.error_type == "unauthorized"


def test_a_token_of_another_installation_is_refused(authsvc_server: Served) -> None:
    token = mint(authsvc_server, "/tokens/").json()
    with pytest.raises(TokenError):
        verify(token, {}, issuer=defaults.ISSUER, audience=defaults.AUDIENCE, now=time.time())
