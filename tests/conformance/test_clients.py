"""The official clients with an app that was moved here by its import lines (contract §3, §8)."""

import json
import textwrap
from pathlib import Path
from typing import Any

import pytest

from tests.conformance.behaviours import Whose, behaviour
from tests.conformance.targets import APP
from tests.e2e.programs import program
from tests.e2e.test_javascript_client import client, play
from tests.e2e.test_javascript_client import pytestmark as without_npm
from tests.stack import Stack

__all__ = ["client"]


@pytest.mark.parametrize("use_jwt", [True, False])
@behaviour("3", "`fal_client.realtime` and `realtime_async` with an app of one's own", whose=Whose.CLIENT)
def test_realtime(stack: Stack, use_jwt: bool) -> None:
    seen = run(
        stack,
        f"""
        with fal_client.realtime(APP, use_jwt={use_jwt}) as connection:
            connection.send({{"prompt": "one"}})
            print(json.dumps(connection.recv()))
        async def main():
            async with fal_client.realtime_async(APP, use_jwt={use_jwt}) as connection:
                await connection.send({{"prompt": "two"}})
                print(json.dumps(await connection.recv()))
        asyncio.run(main())
        """,
    )
    assert [result["output"] for result in seen] == ["one", "two"]


@behaviour(
    "7", "streaming modes over the Python client (fal #832), its last word being fal's TIMEOUT", whose=Whose.CLIENT
)
def test_fal_832_streaming_modes(stack: Stack) -> None:
    seen = run(
        stack,
        """
        def until_the_end(connection):
            received = []
            try:
                while (message := connection.recv()) is not None:
                    received.append(message)
            except fal_client.client.RealtimeError as end:
                received.append(end.error)
            print(json.dumps(received))
        with fal_client.realtime(APP, path="/countdown/realtime", use_jwt=False) as connection:
            connection.send({"number": 3})
            until_the_end(connection)
        with fal_client.realtime(APP, path="/sum/realtime", use_jwt=False) as connection:
            for number in range(3):
                connection.send({"number": number})
            until_the_end(connection)
        with fal_client.realtime(APP, path="/burst/realtime", use_jwt=False) as connection:
            connection.send({"number": 3})
            until_the_end(connection)
        """,
    )
    assert seen == [
        [{"number": 2}, {"number": 1}, {"number": 0}, "TIMEOUT"],
        [{"numbers": [0, 1, 2]}, "TIMEOUT"],
        [{"number": 0}, {"number": 1}, {"number": 2}, "TIMEOUT"],
    ]


@without_npm
@behaviour("7", "streaming modes over the JavaScript client: TIMEOUT at the end is no error", whose=Whose.CLIENT)
def test_javascript_streaming(stack: Stack, client: Path) -> None:
    seen = play(client, stack, "streamed_results", app=APP, path="countdown/realtime", input={"number": 3})
    assert seen == {"results": [{"number": 2}, {"number": 1}, {"number": 0}], "errors": [], "code": 1000}


@behaviour("3", "`fal_client.ws_connect` and `ws_connect_async` open an app's raw sockets", whose=Whose.CLIENT)
def test_ws_connect(stack: Stack) -> None:
    seen = run(
        stack,
        """
        with fal_client.ws_connect(APP, path="/echo") as socket:
            socket.send("hello")
            print(json.dumps([socket.recv() for _ in range(3)]))
        async def main():
            async with fal_client.ws_connect_async(APP, path="/echo") as socket:
                await socket.send("hello")
                print(json.dumps([await socket.recv() for _ in range(3)]))
        asyncio.run(main())
        """,
    )
    assert seen == [["hello-0", "hello-1", "hello-2"]] * 2


@behaviour(
    "4", "`fal_client.run` and `stream`: results, server-sent events, and 422 as FalClientHTTPError", whose=Whose.CLIENT
)
def test_run_and_stream(stack: Stack) -> None:
    result, events, error = run(
        stack,
        """
        print(json.dumps(fal_client.run(APP, arguments={"prompt": "hello"})))
        print(json.dumps(list(fal_client.stream(APP, arguments={"prompt": "hello", "steps": 2}))))
        try:
            fal_client.run(APP, arguments={})
        except fal_client.FalClientHTTPError as refused:
            print(json.dumps({"status": refused.status_code, "headers": dict(refused.response_headers)}))
        """,
    )
    assert result["output"] == "hello"
    assert events == [{"step": 0}, {"step": 1}]
    assert error["status"] == 422
    assert error["headers"]["x-fal-billable-units"] == "0"


def run(stack: Stack, body: str) -> list[Any]:
    return program(stack, f"APP = {json.dumps(APP)}\n{textwrap.dedent(body)}")
