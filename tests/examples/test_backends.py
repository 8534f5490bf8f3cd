"""Every example of a user's own backend: real installs, real services, the official client."""

import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import jwt
import pytest
from PIL import Image
from websockets.exceptions import ConnectionClosed

from tests.e2e.sessions import session
from tests.examples.backends import (
    APP,
    FOLDER,
    PASSWORD,
    RECIPES,
    USER_ID,
    Backend,
    ask,
    log_in,
    logged_in,
    visitor,
)
from tests.processes import Process
from tests.stack import Stack, create_key

pytestmark = [pytest.mark.examples, pytest.mark.timeout(400)]


@pytest.mark.skipif(shutil.which("npm") is None, reason="Node.js and npm are not installed")
def test_the_official_client_draws(backend: Process, stack: Stack, node_client: Path, tmp_path: Path) -> None:
    environment = {**os.environ, "RUNNER_URL": stack.runner_url, "LOGIN_PASSWORD": PASSWORD}
    command = ["node", str(node_client / "backend.mjs"), backend.url, "a red circle"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout.strip()) == (0, "picture.jpg; logout: 204"), done.stderr
    with Image.open(tmp_path / "picture.jpg") as picture:
        assert picture.format == "JPEG"


def test_the_token_is_the_users_and_for_one_app(backend: Process) -> None:
    with logged_in(backend) as client:
        answer = ask(client)
    assert (answer.status_code, answer.headers["Cache-Control"]) == (200, "no-store")
    claims = jwt.decode(answer.json(), options={"verify_signature": False})
    assert (claims["sub"], claims["apps"]) == (USER_ID, [f"{APP}/realtime"])
    assert (claims["exp"] - claims["iat"], claims["max_session_s"]) == (120, 900)


def assert_no_token(answer: httpx.Response, status: int) -> None:
    assert answer.status_code == status, answer.text
    assert set(answer.json()) == {"detail"}
    assert "eyJ" not in answer.text
    assert "urn:uuid" not in answer.text  # authsvc's own body


def test_nobody_gets_a_token_without_a_login(backend: Process) -> None:
    with visitor(backend) as client:
        assert_no_token(ask(client), 401)
        assert_no_token(log_in(client, "wrong"), 401)
        assert_no_token(log_in(client, ""), 401)
        assert_no_token(ask(client), 401)
        assert client.post("/api/login", json=["ada"]).status_code in (400, 401, 422)


def test_a_changed_cookie_is_no_login(backend: Process) -> None:
    with logged_in(backend) as client:
        [(name, value)] = client.cookies.items()
    for forged in (value[:-2] + ("AA" if value[-2:] != "AA" else "BB"), value[4:], USER_ID, f"{USER_ID}.9999999999."):
        with visitor(backend) as client:
            assert_no_token(ask(client, Cookie=f"{name}={forged}"), 401)


@pytest.mark.parametrize("insecure", ["0", "1"])
def test_the_cookie_is_out_of_reach_for_scripts_and_other_sites(example: Backend, stack: Stack, insecure: str) -> None:
    with example.running(stack.authsvc_url, stack.key, COOKIE_INSECURE=insecure) as backend, visitor(backend) as client:
        # What a TLS proxy on this machine says; express-session sets no Secure cookie without it.
        answer = client.post(
            "/api/login",
            json={"username": "ada", "password": PASSWORD},
            headers={"X-Forwarded-Proto": "https"},
        )
    flags = {flag.strip().lower() for flag in answer.headers["Set-Cookie"].split(";")[1:]}
    assert {"httponly", "samesite=lax"} <= flags
    assert ("secure" in flags) == (insecure == "0")


@pytest.mark.parametrize(
    "app",
    [
        "fal-ai/fast-turbo-diffusion/realtime",
        "fast-lcm-diffusion",
        APP,
        "*",
        "",
        f"{APP}/realtime/",
        None,
        7,
        [APP],
        {},
    ],
)
def test_an_app_that_is_not_offered_is_refused(backend: Process, app: object) -> None:
    with logged_in(backend) as client:
        answer = ask(client, app)
    assert answer.status_code in ((403, 422) if not isinstance(app, str) else (403,)), answer.text
    assert "eyJ" not in answer.text


@pytest.mark.parametrize("site", ["cross-site", "same-site", "none"])
def test_a_foreign_page_gets_nothing_and_changes_nothing(backend: Process, site: str) -> None:
    with logged_in(backend) as client:
        assert_no_token(ask(client, Sec_Fetch_Site=site), 403)
        assert client.post("/api/logout", headers={"Sec-Fetch-Site": site}).status_code == 403
        assert client.post("/api/login", headers={"Sec-Fetch-Site": site}).status_code == 403
        answer = ask(client, Sec_Fetch_Site="same-origin", Origin="https://elsewhere.example")
        assert answer.status_code == 200
        assert "Access-Control-Allow-Origin" not in answer.headers


@pytest.mark.parametrize("content_type", ["text/plain", "application/x-www-form-urlencoded"])
def test_a_body_that_any_page_may_send_is_not_read(backend: Process, content_type: str) -> None:
    """A form or text/plain goes to another origin without a preflight (Fetch §2.2.2); JSON does not."""
    with logged_in(backend) as client:
        content = '{"app": "fal-ai/fast-lcm-diffusion/realtime"}'
        answer = client.post("/api/fal/token", content=content, headers={"Content-Type": content_type})
    assert answer.status_code in (403, 415, 422)
    assert "eyJ" not in answer.text


def test_logout_ends_the_session_the_tokens_and_the_open_sockets(backend: Process, stack: Stack) -> None:
    with logged_in(backend) as client:
        token = ask(client).json()
        with session(stack, token) as socket:
            socket.ask(prompt="a red circle")
            assert client.post("/api/logout").status_code == 204
            assert "UNAUTHORIZED" in socket.socket.recv(timeout=30)
            with pytest.raises(ConnectionClosed):
                socket.socket.recv(timeout=30)
        assert_no_token(ask(client), 401)
    with session(stack, token) as socket:
        assert "UNAUTHORIZED" in socket.socket.recv(timeout=30)


def assert_unavailable(answer: httpx.Response) -> None:
    assert_no_token(answer, 503)
    assert int(answer.headers["Retry-After"]) > 0


@contextmanager
def silent_address() -> Iterator[str]:
    """A server that takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


def closed_address() -> str:
    with silent_address() as address:
        return address


def test_authsvc_away_is_503(example: Backend, stack: Stack) -> None:
    address = closed_address()
    with example.running(address, stack.key) as backend, logged_in(backend) as client:
        answer = ask(client)
        assert_unavailable(answer)
        assert address not in answer.text
        assert_unavailable(client.post("/api/logout"))
        assert_no_token(ask(client), 401)  # logged out here all the same
    assert stack.key not in backend.text


def test_authsvc_silent_is_503(example: Backend, stack: Stack) -> None:
    with silent_address() as address, example.running(address, stack.key) as backend, logged_in(backend) as client:
        assert_unavailable(ask(client))


def test_a_busy_authsvc_is_503_with_its_own_time_to_wait(example: Backend, stack: Stack) -> None:
    key = create_key(stack.data, "--apps", "*", "--rate-per-minute", "1")
    with example.running(stack.authsvc_url, key) as backend, logged_in(backend) as client:
        assert ask(client).status_code == 200
        answer = ask(client)
        assert_unavailable(answer)
        assert int(answer.headers["Retry-After"]) > 10
        assert "tokens a minute" not in answer.text  # authsvc's words are for the backend


def test_a_key_that_authsvc_does_not_take_is_not_the_visitors_fault(example: Backend, stack: Stack) -> None:
    key = f"{stack.key.split(':')[0]}:wrong-secret"
    with example.running(stack.authsvc_url, key) as backend, logged_in(backend) as client:
        assert_no_token(ask(client), 502)
        backend.wait_for_line("authsvc /tokens/realtime: status 401")
    assert "wrong-secret" not in backend.text


@pytest.mark.parametrize("name", [name for name in RECIPES if (FOLDER / name / "package.json").exists()])
def test_a_lock_file_names_no_registry(name: str) -> None:
    assert '"resolved"' not in (FOLDER / name / "package-lock.json").read_text()


@pytest.mark.parametrize("name", RECIPES)
def test_the_readme_is_short_and_starts_what_the_tests_start(name: str) -> None:
    readme = (FOLDER / name / "README.md").read_text()
    assert len(readme.splitlines()) <= 30
    assert all(variable in readme for variable in ("AUTHSVC_URL", "AUTHSVC_KEY", "SESSION_SECRET", "LOGIN_PASSWORD"))
