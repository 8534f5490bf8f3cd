"""How a refusal looks on the wire: in band for a token in the query, a status for a header."""

import json
from contextlib import suppress
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.http11 import Response
from websockets.sync.client import connect

from runner.apps.fast_lcm_diffusion import APP_ID
from tests.runner.doors.door import API_KEY, PATH, Door, in_thread, running_door, settle, token
from tests.runner.fakes import FakeEngine
from tokens.keys import SigningKey

UNKNOWN_PATH = f"/{APP_ID}/nothing/realtime"


def lasting_token(*apps: str) -> str:
    """For parameters: they are made when the suite is collected, minutes before their test."""
    return token(*apps, duration_s=3600)


def told(door: Door, path: str, credentials: str) -> tuple[list[Any], int, str]:
    """Everything that a browser sees of a refused token."""

    def talk() -> tuple[list[Any], int, str]:
        messages = []
        with door.client(path, fal_jwt_token=credentials) as client:
            with suppress(ConnectionClosed):  # the refusal may be here already
                client.send(prompt="let me in")
            with suppress(ConnectionClosed):
                while True:
                    messages.append(client.connection.recv())
            return messages, client.connection.close_code, client.connection.close_reason

    return in_thread(talk)


def refused(door: Door, path: str, authorization: str | None) -> Response:
    headers = {} if authorization is None else {"Authorization": authorization}

    def talk() -> Response:
        with pytest.raises(InvalidStatus) as caught:
            connect(door.url(path, fal_jwt_token=None), additional_headers=headers)
        return caught.value.response

    return in_thread(talk)


@pytest.mark.parametrize(
    ("path", "credentials", "error", "reason", "code"),
    [
        (PATH, token(age_s=100), "UNAUTHORIZED", "the token has expired; mint a new one", 4001),
        (PATH, token(age_s=-3000), "UNAUTHORIZED", "iat or nbf is still to come", 4001),
        (PATH, token(key=SigningKey.generate()), "UNAUTHORIZED", "no published key has this kid", 4001),
        (PATH, token()[:-8] + "AAAAAAAA", "UNAUTHORIZED", None, 4001),
        (PATH, "x", "UNAUTHORIZED", "not a token: a JWT has three base64url segments", 4001),
        (PATH, "", "UNAUTHORIZED", "not a token: a JWT has three base64url segments", 4001),
        (PATH, "x" * 5000, "UNAUTHORIZED", "the token is over 4096 bytes", 4001),
        (
            PATH,
            lasting_token("other/app"),
            "FORBIDDEN",
            f"the token's allowed_apps do not include {APP_ID}/realtime",
            4003,
        ),
        (UNKNOWN_PATH, lasting_token(), "NOT_FOUND", "there is no realtime endpoint at this path", 4004),
    ],
    ids=[
        "expired",
        "not yet valid",
        "other key",
        "forged",
        "no token",
        "empty",
        "huge",
        "other app",
        "unknown path",
    ],
)
def test_a_refused_token_is_told_in_band_and_closed(
    path: str, credentials: str, error: str, reason: str | None, code: int
) -> None:
    with running_door() as door:
        [message], close_code, close_reason = told(door, path, credentials)
        settle()
        assert door.engine.requests == []
    assert isinstance(message, str)
    body = json.loads(message)
    assert {**body, "reason": ""} == {"type": "x-fal-error", "error": error, "reason": ""}
    assert reason in (None, body["reason"])
    assert (close_code, close_reason) == (code, body["reason"])


@pytest.mark.parametrize(
    ("path", "authorization", "status", "detail", "challenge"),
    [
        (PATH, None, 401, "Send a token as ?fal_jwt_token=", "Key realm"),
        (PATH, "Basic aWQ6c2VjcmV0", 401, "Authorization must be Key", "Key realm"),
        (PATH, "Key nonsense", 401, "Invalid Key Authorization header format.", "Key realm"),
        (PATH, "Key key-1:wrong", 401, "No user found for Key ID and Secret", "Key realm"),
        (PATH, "Bearer x", 401, "not a token: a JWT has three base64url segments", "invalid_token"),
        (PATH, f"Bearer {lasting_token('other/app')}", 403, "the token's allowed_apps", "insufficient_scope"),
        (UNKNOWN_PATH, f"Key {API_KEY}", 404, "there is no realtime endpoint", ""),
        (UNKNOWN_PATH, f"Bearer {lasting_token()}", 404, "there is no realtime endpoint", ""),
    ],
)
def test_a_refused_header_gets_a_status_and_the_one_error_body(
    path: str, authorization: str | None, status: int, detail: str, challenge: str
) -> None:
    with running_door() as door:
        response = refused(door, path, authorization)
    assert response.status_code == status
    assert response.headers["Content-Type"] == "application/json"
    assert challenge in response.headers.get("WWW-Authenticate", "")
    body = json.loads(response.body)
    assert (body["status"], body["detail"].startswith(detail)) == (status, True)
    assert set(body) == {"type", "title", "status", "detail", "instance", "error_type"}


@pytest.mark.parametrize("authorization", [f"Key {API_KEY}", f"key {API_KEY}", "Bearer {token}", "BEARER {token}"])
def test_good_headers_enter(authorization: str) -> None:
    headers = {"Authorization": authorization.format(token=token())}

    def talk() -> bytes | str:
        with connect(door.url(fal_jwt_token=None), additional_headers=headers) as connection:
            connection.send('{"prompt": "a star"}')
            return connection.recv()

    with running_door(FakeEngine()) as door:
        assert isinstance(in_thread(talk), bytes)
