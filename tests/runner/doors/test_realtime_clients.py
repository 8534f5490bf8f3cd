"""The official Python client at the door, in plain ws:// (over TLS and with the real services: tests/e2e)."""

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import fal_client
import fal_client.client
import msgpack
import pytest
from fal_client.client import RealtimeError

from runner.apps.fast_lcm_diffusion import APP_ID
from runner.protocol.session import SessionRules
from tests.runner.doors import door as doors
from tests.runner.doors.door import API_KEY, Door, in_thread, running_door


@pytest.fixture
def door(monkeypatch: pytest.MonkeyPatch) -> Iterator[Door]:
    with running_door() as running:
        point_client_at(running, monkeypatch)
        yield running


def point_client_at(running: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fal_client.client, "REALTIME_URL_FORMAT", f"ws://127.0.0.1:{running.server.server_port}/")
    # The mint is the token service's; here the client finds its token at once.
    monkeypatch.setattr(fal_client.SyncClient, "_get_realtime_token", lambda self, app, token_expiration: doors.token())


CLIENT = fal_client.SyncClient(key=API_KEY)


@pytest.mark.parametrize("use_jwt", [True, False])
@pytest.mark.parametrize("app", [APP_ID, f"{APP_ID}/realtime", f"{APP_ID}/image-to-image"])
def test_realtime(door: Door, app: str, use_jwt: bool) -> None:
    def talk() -> dict[str, Any] | None:
        with CLIENT.realtime(app, use_jwt=use_jwt, max_buffering=2) as connection:
            connection.send({"prompt": "a star", "seed": 7, "request_id": "r1", "image_bytes": b"x"})
            return connection.recv()

    result = in_thread(talk)
    assert result is not None
    assert (result["request_id"], result["images"][0]["content"]) == ("r1", b"a star#7")


def test_realtime_async(door: Door) -> None:
    async def talk() -> list[str]:
        client = fal_client.AsyncClient(key=API_KEY)
        async with client.realtime(APP_ID, use_jwt=False) as connection:
            for number in range(5):
                await connection.send({"prompt": "a star", "request_id": str(number)})
            return [(await connection.recv())["request_id"] for _ in range(5)]

    assert in_thread(lambda: asyncio.run(talk())) == ["0", "1", "2", "3", "4"]


def test_ws_connect(door: Door) -> None:
    def talk() -> bytes | str:
        with CLIENT.ws_connect(APP_ID, path="/realtime") as connection:
            connection.send(msgpack.packb({"prompt": "a star", "seed": 7}))
            return connection.recv()

    assert msgpack.unpackb(in_thread(talk))["seed"] == 7


def test_a_bad_input_is_an_error_with_its_fields_and_the_next_one_works(door: Door) -> None:
    def talk() -> tuple[RealtimeError, Any]:
        with CLIENT.realtime(APP_ID) as connection:
            connection.send({"prompt": "a star", "num_inference_steps": 99})
            with pytest.raises(RealtimeError) as caught:
                connection.recv()
            connection.send({"prompt": "a star"})
            return caught.value, connection.recv()

    error, result = in_thread(talk)
    assert (error.error, error.payload["detail"][0]["loc"]) == ("VALIDATION_ERROR", ["body", "num_inference_steps"])
    assert error.reason == "num_inference_steps: Input should be less than or equal to 50"
    assert result["images"]


@pytest.mark.parametrize(
    ("credentials", "error"),
    [(lambda: doors.token(age_s=100), "UNAUTHORIZED"), (lambda: doors.token("other/app"), "FORBIDDEN")],
)
def test_a_refused_token_is_an_error_with_its_reason(
    door: Door, monkeypatch: pytest.MonkeyPatch, credentials: Callable[[], str], error: str
) -> None:
    def talk() -> list[str]:
        with CLIENT.realtime(APP_ID) as connection:
            errors = []
            for _ in range(2):
                with pytest.raises(RealtimeError) as caught:
                    connection.recv()
                errors.append(caught.value.error)
            return errors

    monkeypatch.setattr(fal_client.SyncClient, "_get_realtime_token", lambda self, app, token_expiration: credentials())
    assert in_thread(talk) == [error, "CONNECTION_CLOSED"]


def test_idle_is_timeout_and_then_a_normal_close(monkeypatch: pytest.MonkeyPatch) -> None:
    def talk() -> tuple[str, str, Any]:
        with CLIENT.realtime(APP_ID) as connection:
            with pytest.raises(RealtimeError) as caught:
                connection.recv()
            return caught.value.error, caught.value.reason, connection.recv()

    with running_door(rules=SessionRules(idle_timeout_s=0.02)) as running:
        point_client_at(running, monkeypatch)
        assert in_thread(talk) == ("TIMEOUT", "no inputs, reconnect when needed!", None)
