"""What every answer says to browsers, caches and proxies, and what every request leaves in the log."""

import json
import logging
from collections.abc import Callable

import httpx
import pytest
from werkzeug.test import TestResponse

from tests.authsvc.conftest import APP, Authsvc, assert_problem, on_sqlite
from tests.processes import module, start_process
from tests.stores import Store

Make = Callable[..., Authsvc]
ORIGIN = "https://app.example"

pytestmark = on_sqlite


def cors(response: TestResponse) -> dict[str, str]:
    return {name: value for name, value in response.headers if name.lower().startswith("access-control")}


def ask_from(authsvc: Authsvc, origin: str | None, method: str = "GET", path: str = "/health/live") -> TestResponse:
    asked = {
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "authorization,content-type,x-evil",
    }
    headers = {} if origin is None else {"Origin": origin}
    return authsvc.client.open(path, method=method, headers=headers | (asked if method == "OPTIONS" else {}))


ANSWERS = [("GET", "/", 200), ("GET", "/docs", 200), ("GET", "/openapi.json", 200), ("GET", "/health/live", 200)]
REFUSALS = [("GET", "/zzz", 404), ("POST", "/tokens/", 401), ("GET", "/tokens/", 405)]


@pytest.mark.parametrize(("method", "path", "status"), [*ANSWERS, *REFUSALS, ("OPTIONS", "/tokens/", 200)])
def test_every_answer_has_the_headers(authsvc: Authsvc, method: str, path: str, status: int) -> None:
    response = authsvc.client.open(path, method=method)
    assert response.status_code == status
    assert response.headers["X-Content-Type-Options"] == "nosniff"
    assert response.headers["Referrer-Policy"] == "no-referrer"
    assert response.headers["Cache-Control"] == "no-store"
    assert "default-src 'none'" in response.headers["Content-Security-Policy"]
    assert "frame-ancestors 'none'" in response.headers["Content-Security-Policy"]
    assert "Strict-Transport-Security" not in response.headers
    assert "Server" not in response.headers


@pytest.mark.parametrize("path", ["/tokens/", "/tokens/realtime"])
def test_h4_nothing_with_a_token_may_be_kept(authsvc: Authsvc, path: str) -> None:
    assert authsvc.mint(authsvc.key(), {"app": APP}, path).headers.getlist("Cache-Control") == ["no-store"]


def test_what_may_be_kept_says_so(authsvc: Authsvc) -> None:
    for path in ("/.well-known/jwks.json", "/docs/swagger-ui.css", "/favicon.ico"):
        assert authsvc.client.get(path).headers["Cache-Control"].startswith("public, max-age=")


def test_only_the_page_may_run_its_own_scripts(authsvc: Authsvc) -> None:
    assert "script-src 'self'" in authsvc.client.get("/docs").headers["Content-Security-Policy"]
    assert "script-src" not in authsvc.client.get("/openapi.json").headers["Content-Security-Policy"]


@pytest.mark.parametrize(
    ("peer", "proto", "is_strict"),
    [("10.0.0.1", "https", True), ("10.0.0.1", "http", False), ("10.0.0.2", "https", False)],
)
def test_over_https_browsers_are_told_to_stay_there(make_authsvc: Make, peer: str, proto: str, is_strict: bool) -> None:
    authsvc = make_authsvc(trusted_proxies="10.0.0.1")
    response = authsvc.client.get("/", environ_base={"REMOTE_ADDR": peer}, headers={"X-Forwarded-Proto": proto})
    assert ("Strict-Transport-Security" in response.headers) == is_strict


def test_the_root_says_where_to_read_on(authsvc: Authsvc) -> None:
    answer = authsvc.client.get("/").json
    assert answer["service"] == "authsvc"
    for path in (answer["documentation"], answer["description"], answer["health"]):
        assert authsvc.client.get(path).status_code == 200


@pytest.mark.parametrize("origin", [ORIGIN, "null", "*", "https://evil.example"])
@pytest.mark.parametrize("method", ["GET", "OPTIONS"])
def test_h9_by_default_no_origin_is_let_in(authsvc: Authsvc, origin: str, method: str) -> None:
    assert cors(ask_from(authsvc, origin, method, "/tokens/")) == {}


@pytest.mark.parametrize(
    "origin",
    [
        None,
        "",
        "null",
        "*",
        "https://APP.example",
        "HTTPS://app.example",
        "http://app.example",
        "https://app.example:8443",
        "https://app.example.evil.example",
        "https://app.example@evil.example",
        "https://evil.example/https://app.example",
        "https://evilapp.example",
        "https://appXexample",
        "https://app.example/",
        " https://evil.example https://app.example",
        "http://::1:3000",
        "http://1:3000",
    ],
)
@pytest.mark.parametrize("method", ["GET", "OPTIONS"])
def test_h9_only_the_exact_origins_are_let_in(make_authsvc: Make, origin: str | None, method: str) -> None:
    authsvc = make_authsvc(cors_origins=f"{ORIGIN},http://[::1]:3000")
    response = ask_from(authsvc, origin, method, "/tokens/")
    assert cors(response) == {}
    assert "Origin" in response.headers["Vary"]


@pytest.mark.parametrize("origin", [ORIGIN, "http://[::1]:3000"])
def test_a_listed_origin_may_ask_and_read(make_authsvc: Make, origin: str) -> None:
    authsvc = make_authsvc(cors_origins=f"{ORIGIN},http://[::1]:3000")
    preflight = ask_from(authsvc, origin, "OPTIONS", "/tokens/")
    assert preflight.status_code == 200
    assert cors(preflight)["Access-Control-Allow-Origin"] == origin
    assert set(cors(preflight)["Access-Control-Allow-Headers"].split(", ")) == {"authorization", "content-type"}
    refused = ask_from(authsvc, origin, "POST", "/tokens/")
    assert_problem(refused, 401)
    for response in (preflight, refused):
        assert cors(response)["Access-Control-Allow-Origin"] == origin
        assert "Retry-After" in cors(response)["Access-Control-Expose-Headers"]
        assert "Access-Control-Allow-Credentials" not in cors(response)
        assert response.headers.getlist("Vary") == ["Origin"]


def test_a_page_is_not_let_into_the_private_network(make_authsvc: Make) -> None:
    """CVE-2024-6221: Flask-CORS once said yes for whoever asked."""
    authsvc = make_authsvc(cors_origins=ORIGIN)
    headers = {"Origin": ORIGIN, "Access-Control-Request-Private-Network": "true"}
    assert cors(authsvc.client.options("/tokens/", headers=headers))["Access-Control-Allow-Private-Network"] == "false"


@pytest.mark.parametrize("path", ["/tokens/", "/TOKENS/", "/tokens+", "/%74okens/", "/tokens%2F"])
def test_no_spelling_of_a_path_gets_round_the_origins(make_authsvc: Make, path: str) -> None:
    """CVE-2024-6844, CVE-2024-6866, CVE-2024-6839: paths were matched otherwise than Flask matches them."""
    authsvc = make_authsvc(cors_origins=ORIGIN)
    assert cors(ask_from(authsvc, "https://evil.example", "OPTIONS", path)) == {}


def test_an_error_and_its_log_lines_carry_the_requests_id(authsvc: Authsvc, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    response = authsvc.client.post("/tokens/")
    problem = assert_problem(response, 401)
    assert problem.instance == f"urn:uuid:{response.headers['X-Request-Id']}"
    assert response.headers["X-Request-Id"] in caplog.text


def test_a_strangers_id_gets_nowhere(authsvc: Authsvc, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    response = authsvc.client.post("/tokens/", headers={"X-Request-Id": "chosen-by-a-stranger"})
    assert "chosen-by-a-stranger" not in str(response.headers) + response.text + caplog.text


def test_a_json_line_of_a_request_has_its_parts_as_members(store: Store) -> None:
    """As a real process writes it: one line for the refusal and one for the request, under one id."""
    env = store.env | {"AUTHSVC_TRUSTED_PROXIES": "127.0.0.1", "AUTHSVC_LOG_FORMAT": "json"}
    headers = {"X-Forwarded-For": "203.0.113.9", "X-Request-Id": "0b5c1f0a9d3e4c5b8a7f6e5d4c3b2a10"}
    with start_process(module("authsvc", "serve", "--port", "0"), env) as process:
        assert httpx.post(f"{process.url}/tokens/?a=b", headers=headers).status_code == 401
        process.wait_for_line('"status": 401')
        lines = [json.loads(line) for line in process.lines if headers["X-Request-Id"] in line]
    assert {line["request_id"] for line in lines} == {headers["X-Request-Id"]}
    (line,) = [line for line in lines if "status" in line]
    assert (line["method"], line["path"], line["status"]) == ("POST", "/tokens/", 401)
    assert (line["key_id"], line["address"]) == (None, "203.0.113.9")
    assert line["duration_ms"] >= 0
    assert [other["message"] for other in lines if "refused" in other["message"]]
