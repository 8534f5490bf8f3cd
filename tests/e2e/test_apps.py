"""Users' apps, served with `--app`: the seeds' own, through the official fal_client; and the runner's start and end.

fal_client reads FAL_RUN_HOST when it is imported, so each test runs it as a user's program would (programs).
"""

import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from tests.e2e import programs
from tests.processes import module, start_process
from tests.stack import Stack, running
from tests.tiny_bundle import make_tiny_bundle

APP = "your-username/your-app-name"
REALTIME_APP = f"{APP}=examples.realtime_app:RealtimeApp"
SAMPLES = "tests.runner.hosting.sample_apps"


@pytest.fixture(scope="module")
def stack() -> Iterator[Stack]:
    """There is no bundle at all: nothing that is served needs one."""
    with running("/nonexistent", app=f"{REALTIME_APP},acme/hog={SAMPLES}:Hog") as started:
        yield started


def program(stack: Stack, body: str) -> list[Any]:
    return programs.program(stack, body, APP)


def test_realtime_as_the_seeds_show(stack: Stack) -> None:
    [result] = program(
        stack,
        """
        with fal_client.realtime(APP) as connection:
            connection.send({"prompt": "Hello, world!"})
            print(json.dumps(connection.recv()))
        """,
    )
    assert result == {"output": "Hello, world!"}


def test_realtime_async_as_the_seeds_show(stack: Stack) -> None:
    [result] = program(
        stack,
        """
        async def main():
            async with fal_client.realtime_async(APP) as connection:
                await connection.send({"prompt": "Hello, world!"})
                print(json.dumps(await connection.recv()))
        asyncio.run(main())
        """,
    )
    assert result == {"output": "Hello, world!"}


def test_ws_connect_as_the_seeds_show(stack: Stack) -> None:
    heard = program(
        stack,
        """
        with fal_client.ws_connect(APP, path="/echo") as socket:
            socket.send("Hello")
            for _ in range(3):
                print(json.dumps(socket.recv()))
        """,
    )
    assert heard == ["Hello-0", "Hello-1", "Hello-2"]


def test_ws_connect_async_as_the_seeds_show(stack: Stack) -> None:
    heard = program(
        stack,
        """
        async def main():
            async with fal_client.ws_connect_async(APP, path="/echo") as socket:
                await socket.send("Hello")
                for _ in range(3):
                    print(json.dumps(await socket.recv()))
        asyncio.run(main())
        """,
    )
    assert heard == ["Hello-0", "Hello-1", "Hello-2"]


def test_http_reaches_the_apps_too(stack: Stack) -> None:
    url = f"{stack.runner_url.replace('ws', 'http', 1)}/{APP}"
    with httpx.Client(headers={"Authorization": f"Key {stack.key}"}) as client:
        assert client.post(url, json={"prompt": "Hello"}).json() == {"output": "Hello"}
        refused = client.post(url, json={"prompt": 7})
        assert (refused.status_code, refused.json()["detail"][0]["loc"]) == (422, ["body", "prompt"])
        assert "/realtime" in client.get(f"{url}/openapi.json").json()["paths"]


def test_health_and_other_apps_answer_while_one_hogs_its_process(stack: Stack) -> None:
    [spinning, result] = program(
        stack,
        """
        with fal_client.ws_connect("acme/hog", path="/spin") as hog:
            print(json.dumps(hog.recv()))
            with fal_client.realtime(APP) as connection:
                connection.send({"prompt": "still here"})
                print(json.dumps(connection.recv()))
        """,
    )
    assert (spinning, result) == ("spinning", {"output": "still here"})
    assert httpx.get(f"{stack.runner_url.replace('ws', 'http', 1)}/health/live").is_success


def test_what_is_not_listed_is_not_served(stack: Stack) -> None:
    [status] = program(
        stack,
        """
        import websockets.exceptions
        try:
            with fal_client.realtime("fal-ai/fast-lcm-diffusion", use_jwt=False) as connection:
                connection.recv()
        except websockets.exceptions.InvalidStatus as refused:
            print(refused.response.status_code)
        """,
    )
    assert status == 404


def test_the_model_and_an_app_side_by_side(tmp_path: Path) -> None:
    bundle = make_tiny_bundle(tmp_path / "tiny")
    with running(bundle, app=f"{REALTIME_APP},acme/painter") as both:
        assert re_search(both, "runner is ready: ") == f"apps: acme/painter, {APP}"
        children = psutil.Process(both.runner.pid).children()
        assert len(children) == 2
        results = program(
            both,
            """
            for app in (APP, "acme/painter"):
                with fal_client.realtime(app, use_jwt=False) as connection:
                    connection.send({"prompt": "a red circle"})
                    print(json.dumps(sorted(connection.recv())))
            """,
        )
        assert results[0] == ["output"]
        assert "images" in results[1]
        both.runner.send_signal(signal.SIGTERM)
        assert both.runner.wait() == 0
        assert psutil.wait_procs(children, timeout=30)[1] == []


def re_search(stack: Stack, pattern: str) -> str:
    return stack.runner.wait_for_line(pattern).string.rpartition("; ")[2]


@pytest.mark.parametrize(
    ("app", "words"),
    [
        ("acme/x=no_such_module:App", "--app acme/x=no_such_module:App: the module no_such_module cannot be imported"),
        (f"acme/x={SAMPLES}:NoApp", "has no class NoApp that is derived from runner.App"),
    ],
)
def test_an_app_that_cannot_be_served_ends_the_runner_with_a_word_and_status_1(app: str, words: str) -> None:
    with start_process(module("runner", "serve", "--port", "0", "--app", app)) as runner:
        assert words in runner.wait_for_line("Error: cannot serve").string
        assert runner.wait() == 1


@pytest.mark.parametrize("app", ["Echo", "Hog"])
def test_an_app_does_not_outlive_a_gateway_that_was_killed(app: str) -> None:
    with start_process(module("runner", "serve", "--port", "0", "--app", f"acme/x={SAMPLES}:{app}")) as runner:
        runner.wait_for_line("runner is ready")
        children = psutil.Process(runner.pid).children()
        runner.send_signal(signal.SIGKILL)
        assert psutil.wait_procs(children, timeout=30)[1] == []


def test_readiness_names_the_app_that_is_not_ready() -> None:
    with start_process(module("runner", "serve", "--port", "0", "--app", f"acme/broken={SAMPLES}:Broken")) as runner:
        ready = httpx.get(f"{runner.url}/health/ready")
        assert ready.status_code == 503
        assert "The app acme/broken is " in ready.json()["detail"]
