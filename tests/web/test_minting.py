"""Asking a real authsvc, and servers that answer as none should."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import jwt
import pytest
from pydantic import SecretStr

from schemas.revocation import RevokedKind
from schemas.tokens import TokenResponse
from tests.processes import Process, module, run_module, start_process
from tokens.revocation import fingerprint
from web.minting import AuthsvcMint, MintError

APP = "fal-ai/fast-lcm-diffusion/realtime"
SECRET = "id-of-key:secret-of-key"
SUBJECT = "login-1"


@dataclass
class Authsvc:
    """A running authsvc and a key of its."""

    process: Process
    key: str

    def mint(self, app: str, duration_s: int) -> TokenResponse:
        return mint(self.process.url, self.key, app, duration_s)


@pytest.fixture(scope="module")
def authsvc(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Authsvc]:
    env = {"AUTHSVC_DATA_DIR": str(tmp_path_factory.mktemp("authsvc"))}
    created = run_module("authsvc", "keys", "create", "--apps", "fal-ai/fast-lcm-diffusion", "--json", env=env)
    assert created.returncode == 0, created.stderr
    with start_process(module("authsvc", "serve", "--port", "0"), env) as process:
        yield Authsvc(process, json.loads(created.stdout)["key"])


def mint(url: str, key: str = SECRET, app: str = APP, duration_s: int = 60) -> TokenResponse:
    with closing(AuthsvcMint(url, SecretStr(key))) as authsvc:
        return authsvc.mint(app, duration_s, SUBJECT)


def is_ready(url: str) -> bool:
    with closing(AuthsvcMint(url, SecretStr(SECRET))) as authsvc:
        return authsvc.is_ready()


def claims(token: str) -> dict[str, object]:
    return dict(jwt.decode(token, options={"verify_signature": False}))


def test_a_token_has_the_scope_and_the_duration_that_were_asked(authsvc: Authsvc) -> None:
    minted = authsvc.mint(APP, 77)
    assert claims(minted.token)["apps"] == [APP]
    assert minted.expires_in == 77


def test_a_token_is_for_whom_it_was_asked(authsvc: Authsvc) -> None:
    assert claims(authsvc.mint(APP, 60).token)["sub"] == SUBJECT


def test_each_token_is_another_one(authsvc: Authsvc) -> None:
    assert claims(authsvc.mint(APP, 60).token)["jti"] != claims(authsvc.mint(APP, 60).token)["jti"]


def test_an_app_outside_the_keys_scope_is_forbidden(authsvc: Authsvc) -> None:
    with pytest.raises(MintError) as refused:
        authsvc.mint("fal-ai/another/realtime", 60)
    assert refused.value.status == HTTPStatus.FORBIDDEN
    assert refused.value.detail


def test_an_app_that_is_none_is_a_field_error(authsvc: Authsvc) -> None:
    with pytest.raises(MintError) as refused:
        authsvc.mint("not an app!", 60)
    assert refused.value.status == HTTPStatus.UNPROCESSABLE_ENTITY
    assert isinstance(refused.value.detail, list)


def test_a_wrong_key_is_the_sites_fault_and_does_not_read_as_log_in(authsvc: Authsvc) -> None:
    with pytest.raises(MintError) as refused:
        mint(authsvc.process.url, SECRET)
    assert refused.value.status == HTTPStatus.BAD_GATEWAY
    assert "API key" in str(refused.value.detail)


def test_revoking_names_the_tokens_of_the_sites_key_for_that_subject_alone(authsvc: Authsvc) -> None:
    with closing(AuthsvcMint(authsvc.process.url, SecretStr(authsvc.key))) as mint:
        mint.revoke(SUBJECT)
        mint.revoke(SUBJECT)  # again is no error
    listed = httpx.get(f"{authsvc.process.url}/revocations").json()["revocations"]
    key_id = authsvc.key.split(":")[0]
    assert [entry["sha256"] for entry in listed] == [fingerprint(RevokedKind.KEY_SUBJECT, key_id, SUBJECT)]


def test_revoking_with_a_wrong_key_is_an_error(authsvc: Authsvc) -> None:
    with closing(AuthsvcMint(authsvc.process.url, SecretStr(SECRET))) as mint, pytest.raises(MintError) as refused:
        mint.revoke(SUBJECT)
    assert "API key" in str(refused.value.detail)


def test_ready_when_authsvc_is(authsvc: Authsvc) -> None:
    assert is_ready(authsvc.process.url)


def test_an_authsvc_that_is_gone_is_said_so(tmp_path: Path) -> None:
    with start_process(module("authsvc", "serve", "--port", "0"), {"AUTHSVC_DATA_DIR": str(tmp_path)}) as process:
        url = process.url
    assert not is_ready(url)
    with pytest.raises(MintError) as refused:
        mint(url)
    assert refused.value.status == HTTPStatus.SERVICE_UNAVAILABLE


@pytest.fixture
def answering() -> Iterator[Callable[[int, bytes], str]]:
    """Starts servers that give one answer to every POST; yields their URL."""
    servers: list[ThreadingHTTPServer] = []

    def serve(status: int, body: bytes) -> str:
        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                self.rfile.read(int(self.headers["Content-Length"]))
                self.send_response(status)
                self.send_header("Location", "http://127.0.0.1:9/")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        servers.append(server)
        threading.Thread(target=server.serve_forever).start()
        return f"http://127.0.0.1:{server.server_port}"

    yield serve
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize(
    ("status", "body", "passed_on"),
    [
        (200, b"", 502),
        (200, b'{"detail": "no token here"}', 502),
        (201, b'"a-bare-token"', 502),
        (302, b"", 502),
        (400, b"not json", 400),
        (402, b'{"detail": "out of credits"}', 402),
        (404, b'{"detail": 7}', 404),
        (429, b"[]", 429),
        (499, b"{}", 502),
        (500, b'{"detail": "Traceback (most recent call last)"}', 502),
        (503, b"", 502),
    ],
)
def test_every_answer_becomes_a_clear_error(
    answering: Callable[[int, bytes], str], caplog: pytest.LogCaptureFixture, status: int, body: bytes, passed_on: int
) -> None:
    with pytest.raises(MintError) as refused:
        mint(answering(status, body))
    assert refused.value.status == passed_on
    assert refused.value.detail
    assert "Traceback" not in str(refused.value.detail)
    assert "secret-of-key" not in caplog.text + repr(refused.value)
