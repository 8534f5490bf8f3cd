"""Tokens, from the mint to the socket (contract §1, §2b): fal's gateway does this, its SDK does not."""

from typing import Any

import httpx
import msgpack
import pytest
from websockets.sync.client import connect

from tests.conformance.behaviours import behaviour
from tests.conformance.targets import ANSWERED_WITHIN_S
from tests.stack import Stack

ALIAS = "fast-lcm-diffusion"
APP = f"fal-ai/{ALIAS}"
REALTIME = f"{APP}/realtime"

BODIES: list[dict[str, Any]] = [
    {"allowed_apps": [ALIAS], "token_expiration": 120},  # JavaScript, Python and Swift clients, by default
    {"allowed_apps": [REALTIME], "duration": 120},  # fal's documentation of tokenProvider
    {"app": REALTIME, "duration": 300},
    {"app": REALTIME, "token_expiration": 10},
    {"app": APP, "allowed_apps": [APP], "duration": 900},
    {"allowed_apps": [APP, REALTIME, ALIAS]},
    {"allowed_apps": [ALIAS], "token_experiation": 60},  # misspelt like this in public programs
]


@pytest.mark.parametrize("route", ["/tokens/", "/tokens/realtime"])
@pytest.mark.parametrize("body", BODIES, ids=lambda body: ",".join(body))
@behaviour("1b", "every form of the mint body that is seen in the wild, at both routes, opens the app")
def test_every_form_of_the_body_opens_the_app(stack: Stack, route: str, body: dict[str, Any]) -> None:
    answer = mint(stack, route, body)
    assert answer.is_success
    token = answer.json() if route == "/tokens/" else answer.json()["token"]
    with connect(f"{stack.runner_url}/{REALTIME}?fal_jwt_token={token}", max_size=None) as socket:
        socket.send(msgpack.packb({"prompt": "a red circle"}))
        assert isinstance(socket.recv(timeout=ANSWERED_WITHIN_S), bytes)


@behaviour("1a", "`POST /tokens/` answers the bare token as a JSON string, at once and not by a redirect")
def test_the_legacy_route(stack: Stack) -> None:
    answer = mint(stack, "/tokens/", BODIES[0])
    assert (answer.status_code, answer.headers["content-type"]) == (201, "application/json")
    assert isinstance(answer.json(), str)


@behaviour("1c", "401 for an unknown key and for one of another format, in fal's words")
@pytest.mark.parametrize(
    ("header", "detail"),
    [
        ("Key nobody:nothing", "No user found for Key ID and Secret"),
        (
            "Key nothing",
            "Invalid Key Authorization header format. Expected '<key_id>:<key_secret>'.",
        ),
    ],
)
def test_a_key_that_is_none(stack: Stack, header: str, detail: str) -> None:
    answer = httpx.post(f"{stack.authsvc_url}/tokens/", headers={"Authorization": header}, json=BODIES[0])
    assert answer.status_code == 401
    assert answer.json()["detail"].startswith(detail)


@behaviour("1c", "422 with FastAPI's list for a body that names no app")
def test_no_app(stack: Stack) -> None:
    answer = mint(stack, "/tokens/realtime", {"duration": 120})
    assert answer.status_code == 422
    assert answer.json()["detail"][0]["loc"][0] == "body"


def mint(stack: Stack, route: str, body: dict[str, Any]) -> httpx.Response:
    return httpx.post(f"{stack.authsvc_url}{route}", headers={"Authorization": f"Key {stack.key}"}, json=body)
