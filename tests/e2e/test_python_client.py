"""The official fal_client over realtime and raw sockets; how it is run, `programs` says."""

import io
import json
from typing import Any

import pytest
from PIL import Image

from tests.e2e.programs import program
from tests.stack import Stack


def size(result: dict[str, Any]) -> tuple[int, int]:
    import base64

    return Image.open(io.BytesIO(base64.b64decode(result["images"][0]["content"]))).size


@pytest.mark.parametrize("use_jwt", [True, False])
def test_realtime(stack: Stack, use_jwt: bool) -> None:
    [result] = program(
        stack,
        f"""
        with fal_client.realtime(APP, use_jwt={use_jwt}) as connection:
            connection.send({{"prompt": "a red circle", "seed": 7, "request_id": "one"}})
            show(connection.recv())
        """,
    )
    assert (result["request_id"], result["seed"]) == ("one", 7)
    assert size(result) == (result["images"][0]["width"], result["images"][0]["height"])


@pytest.mark.parametrize("use_jwt", [True, False])
def test_realtime_async_answers_in_order(stack: Stack, use_jwt: bool) -> None:
    results = program(
        stack,
        f"""
        async def main():
            async with fal_client.realtime_async(APP, use_jwt={use_jwt}) as connection:
                for number in range(5):
                    await connection.send({{"prompt": f"picture {{number}}", "request_id": str(number)}})
                for _ in range(5):
                    show(await connection.recv())
        asyncio.run(main())
        """,
    )
    assert [result["request_id"] for result in results] == ["0", "1", "2", "3", "4"]


def test_the_same_seed_gives_the_same_picture_on_both_connections(stack: Stack) -> None:
    first, second = program(
        stack,
        """
        for use_jwt in (True, False):
            with fal_client.realtime(APP, use_jwt=use_jwt) as connection:
                connection.send({"prompt": "a red circle", "seed": 11})
                show(connection.recv())
        """,
    )
    assert first["images"] == second["images"]


def test_an_endpoint_id_that_ends_in_realtime_is_served_too(stack: Stack) -> None:
    """`realtime("x/realtime")` always appends its path: the socket goes to /x/realtime/realtime."""
    [result] = program(
        stack,
        """
        with fal_client.realtime(APP + "/realtime", use_jwt=False) as connection:
            connection.send({"prompt": "a red circle", "request_id": "twice"})
            show(connection.recv())
        """,
    )
    assert result["request_id"] == "twice"


def test_ws_connect_is_a_raw_socket_to_the_same_door(stack: Stack) -> None:
    [result] = program(
        stack,
        """
        import msgpack
        with fal_client.ws_connect(APP, path="/realtime") as socket:
            socket.send(msgpack.packb({"prompt": "a red circle", "request_id": "raw"}))
            show(msgpack.unpackb(socket.recv()))
        """,
    )
    assert result["request_id"] == "raw"


def test_a_field_error_is_raised_with_its_details_and_the_connection_goes_on(stack: Stack) -> None:
    error, result = program(
        stack,
        """
        with fal_client.realtime(APP, use_jwt=False) as connection:
            connection.send({"prompt": "a red circle", "num_inference_steps": 1000, "request_id": "bad"})
            try:
                connection.recv()
            except fal_client.client.RealtimeError as refused:
                print(json.dumps({"error": refused.error, "payload": refused.payload}))
            connection.send({"prompt": "a red circle", "request_id": "good"})
            show(connection.recv())
        """,
    )
    assert error["error"] == "VALIDATION_ERROR"
    assert error["payload"]["detail"][0]["loc"] == ["body", "num_inference_steps"]
    assert result["request_id"] == "good"


def test_a_wrong_key_is_refused_at_the_handshake(stack: Stack) -> None:
    [refused] = program(
        stack,
        """
        import websockets.exceptions
        client = fal_client.SyncClient(key="nobody:nothing")
        try:
            with client.realtime(APP, use_jwt=False) as connection:
                connection.send({"prompt": "a red circle"})
                connection.recv()
        except websockets.exceptions.InvalidStatus as refused:
            print(json.dumps({"status": refused.response.status_code, "body": refused.response.body.decode()}))
        """,
    )
    assert refused["status"] == 401
    assert json.loads(refused["body"])["detail"] == "No user found for Key ID and Secret"


def test_idle_is_fals_timeout_and_a_normal_close(impatient_stack: Stack) -> None:
    [end] = program(
        impatient_stack,
        """
        with fal_client.realtime(APP, use_jwt=False) as connection:
            connection.send({"prompt": "a red circle"})
            connection.recv()
            try:
                connection.recv()
            except fal_client.client.RealtimeError as idle:
                print(json.dumps({"error": idle.error, "reason": idle.reason, "then": connection.recv()}))
        """,
    )
    assert end == {"error": "TIMEOUT", "reason": "no inputs, reconnect when needed!", "then": None}
