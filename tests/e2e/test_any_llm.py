"""examples/any_llm.py in a real runner, before a small OpenAI-compatible server, over every way in."""

import json
import signal
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from tests.e2e.openai_server import KEY, SECRET_WORDS, OpenAiServer, running_openai_server
from tests.stack import Stack, running

APP = "fal-ai/any-llm"


@pytest.fixture(scope="module")
def upstream() -> Iterator[OpenAiServer]:
    with running_openai_server() as server:
        yield server


@pytest.fixture(scope="module")
def settings(upstream: OpenAiServer) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("OPENAI_BASE_URL", upstream.url)
        environment.setenv("OPENAI_API_KEY", KEY)
        environment.setenv("OPENAI_MODEL", "small")
        yield


@pytest.fixture(scope="module")
def llm(settings: None, bundle: Path) -> Iterator[Stack]:
    with running(bundle, app=f"{APP}=examples.any_llm:AnyLLM") as stack:
        yield stack


def post(stack: Stack, path: str = "", **fields: Any) -> httpx.Response:
    url = f"http{stack.runner_url.removeprefix('ws')}/{APP}{path}"
    return httpx.post(url, json=fields, headers={"Authorization": f"Key {stack.key}"}, timeout=30, trust_env=False)


def events(body: bytes) -> list[dict[str, Any]]:
    """The data of each event; a comment is none."""
    fields = [line.split(": ", 1) for line in body.decode().splitlines() if line and not line.startswith(":")]
    return [json.loads(value) for name, value in fields if name == "data"]


def socket(stack: Stack, path: str = "", **options: Any) -> ClientConnection:
    headers = {"Authorization": f"Key {stack.key}"}
    return connect(f"{stack.runner_url}/ws/{APP}{path}", additional_headers=headers, proxy=None, **options)


def answer(connection: ClientConnection) -> tuple[int, list[bytes], int]:
    start = json.loads(connection.recv(timeout=30))
    assert start["type"] == "start"
    body = []
    while isinstance(message := connection.recv(timeout=30), bytes):
        body.append(message)
    end = json.loads(message)
    assert (end["type"], end["request_id"]) == ("end", start["request_id"])
    return start["status"], body, end["status"]


def test_http(llm: Stack, upstream: OpenAiServer) -> None:
    told = post(llm, prompt="hello big world", system_prompt="Be brief.", temperature=0.5)
    assert told.status_code == 200
    assert told.json() == {"output": "hello big world", "partial": False, "error": None}
    assert upstream.asked[-1] == {
        "model": "small",
        "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "hello big world"}],
        "stream": True,
        "temperature": 0.5,
    }


def test_events_over_http(llm: Stack) -> None:
    told = post(llm, "/stream", prompt="hello big world", model="large")
    assert told.headers["content-type"].startswith("text/event-stream")
    assert [(event["output"], event["partial"]) for event in events(told.content)] == [
        ("hello", True),
        ("hello big", True),
        ("hello big world", True),
        ("hello big world", False),
    ]


def test_an_event_is_there_before_the_next_is_written(llm: Stack, upstream: OpenAiServer) -> None:
    with socket(llm, "/stream") as connection:
        connection.send(json.dumps({"prompt": "wait for it"}))
        start, first = json.loads(connection.recv(timeout=30)), connection.recv(timeout=30)
        assert not upstream.may_go_on.is_set()
        upstream.may_go_on.set()
        assert start["headers"]["Content-Type"].startswith("text/event-stream")
        assert isinstance(first, bytes)
        assert [event["output"] for event in events(first)] == ["wait"]
        rest = [connection.recv(timeout=30) for _ in range(4)]
    assert [events(message)[0]["output"] for message in rest[:3] if isinstance(message, bytes)] == [
        "wait for",
        "wait for it",
        "wait for it",
    ]
    assert json.loads(rest[3])["type"] == "end"


def test_pipelined_over_websocket(llm: Stack) -> None:
    with socket(llm, "/stream") as connection:
        for number in range(5):
            connection.send(json.dumps({"prompt": f"number {number}"}))
        for number in range(5):
            status, body, _ = answer(connection)
            assert status == 200
            assert [len(events(message)) for message in body] == [1, 1, 1]
            assert events(body[-1])[0] == {"output": f"number {number}", "partial": False, "error": None}


def test_whole_answers_over_websocket(llm: Stack) -> None:
    with socket(llm) as connection:
        connection.send(json.dumps({"prompt": "hello world"}))
        status, [body], _ = answer(connection)
    assert (status, json.loads(body)["output"]) == (200, "hello world")


@pytest.mark.parametrize("path", ["", "/stream"])
@pytest.mark.parametrize(
    ("prompt", "status"), [("fail 404", 422), ("fail 400", 422), ("fail 429", 429), ("fail 500", 502), ("", 422)]
)
def test_what_the_server_refuses_is_a_status_and_no_word_of_its_own(
    llm: Stack, path: str, prompt: str, status: int
) -> None:
    told = post(llm, path, prompt=prompt)
    assert told.status_code == status
    assert told.json()["detail"]
    assert SECRET_WORDS not in told.text
    with socket(llm, path) as connection:
        connection.send(json.dumps({"prompt": prompt}))
        started, [body], ended = answer(connection)
    assert (started, ended) == (status, status)
    assert json.loads(body)["detail"] == told.json()["detail"]


def test_a_server_that_breaks_off_is_an_error(llm: Stack) -> None:
    assert post(llm, prompt="it breaks here").status_code == 502
    *before, last = events(post(llm, "/stream", prompt="it breaks here").content)
    assert [event["output"] for event in before] == ["it", "it breaks"]
    assert (last["output"], last["partial"]) == ("it breaks", True)
    assert "broke off" in last["error"]


def test_a_peer_that_leaves_ends_the_request_upstream(llm: Stack, upstream: OpenAiServer) -> None:
    # This client stops reading when it has enough unread, so it sees no end of the closing handshake.
    with socket(llm, "/stream", close_timeout=0.1) as connection:
        connection.send(json.dumps({"prompt": "endless words"}))
        connection.recv(timeout=30)
    assert upstream.left.wait(30)


def test_a_death_of_the_app_is_an_answer_and_a_stop_of_the_runner_waits_for_them(
    upstream: OpenAiServer, bundle: Path, settings: None
) -> None:
    with running(bundle, app=f"{APP}=examples.any_llm:AnyLLM") as stack:
        with socket(stack, "/stream") as stream, socket(stack) as whole:
            upstream.may_go_on.clear()
            for connection in (stream, whole):
                connection.send(json.dumps({"prompt": "wait for it"}))
            assert json.loads(stream.recv(timeout=30))["status"] == 200
            assert b"wait" in stream.recv(timeout=30, decode=False)
            kill_app(stack)
            assert stream.recv(timeout=30, decode=False).startswith(b"event: error\n")
            assert json.loads(stream.recv(timeout=30))["type"] == "end"
            assert answer(whole)[::2] == (503, 503)
        upstream.may_go_on.set()
        with socket(stack, "/stream") as stream:
            until_started(stream)
            upstream.may_go_on.clear()
            for prompt in ("wait for it", "the next one"):
                stream.send(json.dumps({"prompt": prompt}))
            stream.recv(timeout=30)
            stack.runner.send_signal(signal.SIGTERM)
            stack.runner.wait_for_line("stopping")
            upstream.may_go_on.set()
            messages = [*stream_to_the_end(stream)]
            assert [json.loads(message)["type"] for message in messages if isinstance(message, str)] == [
                "end",
                "start",
                "end",
            ]
            assert stream.close_code == 1012


def kill_app(stack: Stack) -> None:
    [process] = psutil.Process(stack.runner.pid).children()
    process.kill()


def until_started(connection: ClientConnection) -> None:
    """Asks until the app, which is being started again, answers."""
    status = 503
    while status == 503:
        connection.send(json.dumps({"prompt": "hello"}))
        status, _, _ = answer(connection)
    assert status == 200


def stream_to_the_end(connection: ClientConnection) -> Iterator[str | bytes]:
    with suppress(ConnectionClosed):
        while True:
            yield connection.recv(timeout=30)


def test_a_server_that_is_away_is_503(bundle: Path) -> None:
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("OPENAI_BASE_URL", "http://127.0.0.1:9/v1")
        environment.setenv("OPENAI_MODEL", "small")
        with running(bundle, app=f"{APP}=examples.any_llm:AnyLLM") as stack:
            told = post(stack, "/stream", prompt="hello")
    assert told.status_code == 503
    assert "cannot be reached" in told.text


def test_the_upstreams_key_is_never_printed(llm: Stack) -> None:
    post(llm, prompt="fail 401")
    assert KEY not in llm.runner.text
