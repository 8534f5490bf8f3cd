"""The token service over real sockets: its answers, its failures, and the bounds on both."""

import json
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import gevent
import pytest
from gevent import socket
from gevent.event import Event
from gevent.pywsgi import WSGIServer
from gevent.server import StreamServer

from runner.doors.access import AccessUnavailable, KeyRefused, TokenNotRedeemed, TokenSpent
from runner.doors.token_service import ANSWER_MAX_BYTES, REDEMPTIONS_AT_ONCE, ReportRefused, TokenService
from schemas.events import SessionReport
from tests.runner.doors.events import session_event
from tokens.keys import SigningKey, public_jwks

KEY = SigningKey.generate()
JWKS = json.dumps(public_jwks([KEY.public])).encode()
MINTED = b'{"token":"t","expires_at":9,"expires_in":120,"allowed_apps":["p"],"jti":"j"}'


class Answering:
    """A token service that gives one answer to everything, and remembers what it was asked."""

    def __init__(self, body: bytes, status: str = "200 OK", headers: list[tuple[str, str]] | None = None) -> None:
        self.body, self.status, self.headers = body, status, headers or []
        self.asked: list[tuple[str, str, str, bytes]] = []

    def __call__(self, environ: dict[str, Any], start_response: Any) -> list[bytes]:
        body = environ["wsgi.input"].read()
        authorization = environ.get("HTTP_AUTHORIZATION", "")
        self.asked.append((environ["REQUEST_METHOD"], environ["PATH_INFO"], authorization, body))
        start_response(self.status, self.headers)
        return [self.body]


@contextmanager
def asking(application: Any, timeout_s: float = 5.0) -> Iterator[TokenService]:
    server = WSGIServer(("127.0.0.1", 0), application, log=None, error_log=None)
    server.start()
    base = f"http://127.0.0.1:{server.server_port}"
    service = TokenService(base + "/", base + "/.well-known/jwks.json", timeout_s)
    try:
        yield service
    finally:
        service.close()
        server.stop()


def unavailable(service: TokenService, call: str = "fetch_keys", *args: str) -> str:
    with pytest.raises(AccessUnavailable) as caught:
        getattr(service, call)(*args)
    assert caught.value.__cause__ is None
    return str(caught.value)


@pytest.mark.parametrize(
    ("header", "max_age_s"),
    [("public, max-age=300", 300), ("Max-Age=0", 0), ("no-cache", None), ("s-max-age=9", None), ("max-age=x", None)],
)
def test_keys_come_with_how_long_they_hold(header: str, max_age_s: int | None) -> None:
    application = Answering(JWKS, headers=[("Cache-Control", header)])
    with asking(application) as service:
        published = service.fetch_keys()
    assert (list(published.keys), published.max_age_s) == ([KEY.kid], max_age_s)
    assert application.asked == [("GET", "/.well-known/jwks.json", "", b"")]


@pytest.mark.parametrize(
    "application",
    [
        Answering(b"{}"),
        Answering(b"not json"),
        Answering(b'{"keys":[]}'),
        Answering(JWKS, "500 Oops"),
        Answering(JWKS, "302 Found", [("Location", "/elsewhere")]),
        Answering(b" " * (ANSWER_MAX_BYTES + 1) + JWKS),
    ],
    ids=["no key set", "no JSON", "no key", "failing", "redirecting", "too large"],
)
def test_keys_that_cannot_be_used(application: Answering) -> None:
    with asking(application) as service:
        unavailable(service)
    assert len(application.asked) == 1


@pytest.mark.parametrize("status", ["200 OK", "201 Created"])
def test_a_key_is_exchanged_for_a_token(status: str) -> None:
    application = Answering(MINTED, status)
    with asking(application) as service:
        minted = service.mint("id:S3CRET", "fal-ai/x/realtime")
    assert (minted.token, minted.expires_in) == ("t", 120)
    method, path, authorization, body = application.asked[0]
    assert (method, path, authorization) == ("POST", "/tokens/realtime", "Key id:S3CRET")
    assert json.loads(body) == {"allowed_apps": ["fal-ai/x/realtime"]}


@pytest.mark.parametrize(("status", "code"), [("401 Unauthorized", 401), ("403 Forbidden", 403)])
def test_a_key_is_refused(status: str, code: int) -> None:
    with asking(Answering(b"{}", status)) as service, pytest.raises(KeyRefused) as caught:
        service.mint("id:S3CRET", "p")
    assert caught.value.status == code
    assert "S3CRET" not in str(caught.value)


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"{}", "200 OK"),
        (b'"token"', "200 OK"),
        (MINTED.replace(b"120", b"1" + b"0" * 400), "200 OK"),
        (MINTED.replace(b"120", b"-1"), "200 OK"),
        (MINTED, "429 Slow"),
        (MINTED, "503 Down"),
    ],
)
def test_other_answers_to_a_key_say_nothing_about_it(body: bytes, status: str) -> None:
    with asking(Answering(body, status)) as service:
        assert "S3CRET" not in unavailable(service, "mint", "id:S3CRET", "p")


def test_a_one_time_token_is_redeemed() -> None:
    application = Answering(b"", "204 No Content")
    with asking(application) as service:
        service.redeem("t-0ken")
    assert application.asked == [("POST", "/tokens/redeem", "", b'{"token":"t-0ken"}')]


@pytest.mark.parametrize(
    ("status", "error"),
    [
        ("409 Conflict", TokenSpent),
        ("401 Unauthorized", TokenNotRedeemed),
        ("200 OK", AccessUnavailable),
        ("422 Unprocessable", AccessUnavailable),
        ("429 Slow", AccessUnavailable),
        ("503 Down", AccessUnavailable),
    ],
)
def test_a_one_time_token_opens_nothing_without_the_one_good_answer(status: str, error: type[Exception]) -> None:
    application = Answering(b"{}", status)
    with asking(application) as service, pytest.raises(error) as caught:
        service.redeem("t-0ken")
    assert "t-0ken" not in str(caught.value)
    assert len(application.asked) == 1  # it may have been used up: nobody asks again


def test_redemptions_leave_room_for_other_requests() -> None:
    waiting, released = 0, Event()

    def slow(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        nonlocal waiting
        if environ["PATH_INFO"] == "/tokens/redeem":
            waiting += 1
            released.wait()
        start_response("200 OK", [])
        return [JWKS]

    with asking(slow, timeout_s=5) as service:
        redeeming = [gevent.spawn(unavailable, service, "redeem", "t") for _ in range(3 * REDEMPTIONS_AT_ONCE)]
        while waiting < REDEMPTIONS_AT_ONCE:
            gevent.sleep(1e-9)
        assert service.fetch_keys().keys
        assert waiting == REDEMPTIONS_AT_ONCE
        released.set()
        gevent.joinall(redeeming, raise_error=True)
    assert waiting == 3 * REDEMPTIONS_AT_ONCE


def test_a_redemption_does_not_wait_for_ever_for_its_turn() -> None:
    released = Event()

    def silent(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        released.wait()
        start_response("200 OK", [])
        return []

    with asking(silent, timeout_s=0.05) as service:
        redeeming = [gevent.spawn(unavailable, service, "redeem", "t") for _ in range(REDEMPTIONS_AT_ONCE + 1)]
        said = {greenlet.get() for greenlet in redeeming}
        released.set()
    assert said <= {"the token service does not answer: ReadTimeout", "too many one-time tokens are being redeemed"}


def test_a_report_is_sent_with_the_key() -> None:
    application, event = Answering(b"", "204 No Content"), session_event(subject="u-1")
    with asking(application) as service:
        service.report("id:S3CRET", [event])
    [(method, path, authorization, body)] = application.asked
    assert (method, path, authorization) == ("POST", "/events", "Key id:S3CRET")
    assert SessionReport.model_validate_json(body).events == [event]
    assert "null" not in body.decode()


@pytest.mark.parametrize(
    ("status", "error"),
    [
        ("401 Unauthorized", KeyRefused),
        ("403 Forbidden", KeyRefused),
        ("422 Unprocessable", ReportRefused),
        ("413 Large", ReportRefused),
        ("404 Not Found", AccessUnavailable),
        ("429 Slow", AccessUnavailable),
        ("503 Down", AccessUnavailable),
    ],
)
def test_a_report_that_is_not_taken(status: str, error: type[Exception]) -> None:
    with asking(Answering(b"{}", status)) as service, pytest.raises(error) as caught:
        service.report("id:S3CRET", [session_event()])
    assert "S3CRET" not in str(caught.value)


def test_a_service_that_is_not_there() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        base = f"http://127.0.0.1:{unused.getsockname()[1]}"
        service = TokenService(base, base, timeout_s=5)
        assert unavailable(service) == "the token service does not answer: ConnectError"
        service.close()


def test_a_service_that_is_silent() -> None:
    released = Event()

    def silent(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        released.wait()
        start_response("200 OK", [])
        return []

    with asking(silent, timeout_s=0.05) as service:
        assert unavailable(service) == "the token service does not answer: ReadTimeout"
        released.set()


def test_a_service_that_drips() -> None:
    def dripping(environ: dict[str, Any], start_response: Any) -> Iterator[bytes]:
        start_response("200 OK", [])
        while True:
            yield b" "
            gevent.sleep(0.01)

    with asking(dripping, timeout_s=0.1) as service:
        assert unavailable(service) == "the token service's answer is too large or too slow"


def test_a_service_that_drips_its_head() -> None:
    """Every byte starts httpx's read timeout anew."""

    def dripping(connection: socket.socket, _: object) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\n")
        with suppress(OSError):
            while True:
                connection.sendall(b"A: b\r\n")
                gevent.sleep(0.01)

    server = StreamServer(("127.0.0.1", 0), dripping)
    server.start()
    base = f"http://127.0.0.1:{server.server_port}"
    service = TokenService(base, base, timeout_s=0.1)
    assert unavailable(service) == "the token service answers too slowly"
    service.close()
    server.stop()


def test_the_hub_goes_on_while_the_service_is_asked() -> None:
    went_on = Event()

    def answers_later(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        went_on.wait()
        start_response("200 OK", [])
        return [JWKS]

    with asking(answers_later) as service:
        asker = gevent.spawn(service.fetch_keys)
        gevent.spawn(went_on.set)
        assert list(asker.get().keys) == [KEY.kid]


def test_proxies_of_the_environment_are_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    with asking(Answering(JWKS)) as service:
        assert service.fetch_keys().keys
