"""The official fal_client 1.0.3, unmodified but for the host: its own environment variables and REST_URL.

It reads FAL_RUN_HOST when it is imported and speaks only TLS, so each test runs it as a user's program would:
a process of its own, with the development CA in SSL_CERT_FILE.
"""

import io
import json
import os
import subprocess
import sys
import textwrap
from typing import Any

import pytest
from PIL import Image

from tests.stack import Stack

APP = "fal-ai/fast-lcm-diffusion"

PRELUDE = f"""
import asyncio, base64, json, sys
import fal_client
import fal_client.client
fal_client.client.REST_URL = sys.argv[1]
APP = {APP!r}
def show(result):
    image = result["images"][0]
    print(json.dumps(dict(result, images=[dict(image, content=base64.b64encode(image["content"]).decode())])))
"""


def program(stack: Stack, body: str) -> list[dict[str, Any]]:
    """Run `body` after PRELUDE; each line it prints is one JSON object."""
    done = subprocess.run(
        [sys.executable, "-c", PRELUDE + textwrap.dedent(body), stack.authsvc_url],
        env={
            **{name: value for name, value in os.environ.items() if not name.startswith("FAL_")},
            "FAL_KEY": stack.key,
            "FAL_RUN_HOST": f"localhost:{stack.runner_tls_port}",
            "SSL_CERT_FILE": str(stack.ca),
        },
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


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
