"""HTTP over WebSocket with fal's own client for it, `fal.apps.ws` of the `fal` SDK, as its documentation uses it.

The SDK lies in an environment of its own (`make test-conformance` makes it), and speaks only TLS: each test runs it
as a user's program would, with the development CA in SSL_CERT_FILE.
"""

import json
import os
import subprocess
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conformance.targets import FAL_PYTHON
from tests.e2e.openai_server import KEY, OpenAiServer, running_openai_server
from tests.stack import Stack, running

pytestmark = pytest.mark.conformance

LLM, LCM = "fal-ai/any-llm", "fal-ai/fast-lcm-diffusion"

PRELUDE = """
import json
import fal.apps

def data(message):  # as fal's documentation reads an event
    event = {}
    for line in message.decode().replace("\\r\\n", "\\n").split("\\n"):
        if line:
            key, value = line.split(":", 1)
            event[key] = value.strip()
    return json.loads(event["data"])
"""


@pytest.fixture(scope="module")
def upstream() -> Iterator[OpenAiServer]:
    with running_openai_server() as server:
        yield server


@pytest.fixture(scope="module")
def served(upstream: OpenAiServer, bundle: Path) -> Iterator[Stack]:
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("OPENAI_BASE_URL", upstream.url)
        environment.setenv("OPENAI_API_KEY", KEY)
        environment.setenv("OPENAI_MODEL", "small")
        with running(bundle, app=f"{LCM},{LLM}=examples.any_llm:AnyLLM") as stack:
            yield stack


def program(stack: Stack, body: str, **settings: str) -> list[Any]:
    """Run `body` after PRELUDE; each line it prints is JSON."""
    done = subprocess.run(
        [str(FAL_PYTHON), "-c", PRELUDE + textwrap.dedent(body)],
        env={
            **{name: value for name, value in os.environ.items() if not name.startswith("FAL_")},
            "FAL_KEY": stack.key,
            "FAL_WS_RUN_HOST": f"localhost:{stack.runner_tls_port}/ws",
            "SSL_CERT_FILE": str(stack.ca),
            **settings,
        },
        capture_output=True,
        text=True,
        timeout=90,
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_the_example_of_the_documentation(served: Stack) -> None:
    outputs = program(
        served,
        f"""
        with fal.apps.ws("{LLM}/stream") as connection:
            for number in range(3):
                connection.send({{"prompt": f"answer {{number}}", "model": "google/gemini-flash-1.5"}})
            for number in range(3):
                print(json.dumps([data(message)["output"] for message in connection.stream()]))
        """,
    )
    assert outputs == [["answer", f"answer {number}", f"answer {number}"] for number in range(3)]


def test_one_answer_after_the_other(served: Stack) -> None:
    outputs = program(
        served,
        f"""
        with fal.apps.ws("{LLM}") as connection:
            for number in range(3):
                print(json.dumps(json.loads(connection.run({{"prompt": f"answer {{number}}"}}))["output"]))
        with fal.apps.ws("{LLM}", path="/stream") as connection:
            print(json.dumps(connection.run({{"prompt": "joined up"}}).decode().count("event: ")))
        """,
    )
    assert outputs == ["answer 0", "answer 1", "answer 2", 3]


def test_a_picture(served: Stack) -> None:
    [answer] = program(
        served,
        f"""
        with fal.apps.ws("{LCM}") as connection:
            print(connection.run({{"prompt": "a red circle", "seed": 7, "sync_mode": True}}).decode())
        """,
    )
    assert answer["seed"] == 7
    assert answer["images"][0]["url"].startswith("data:image/jpeg;base64,")


def test_an_error_is_an_answer(served: Stack) -> None:
    answers = program(
        served,
        f"""
        with fal.apps.ws("{LLM}") as connection:
            connection.send({{}})
            connection.send({{"prompt": "go on"}})
            print(connection.recv().decode())
            print(connection.recv().decode())
        """,
    )
    assert answers[0]["detail"][0]["loc"] == ["body", "prompt"]
    assert answers[1]["output"] == "go on"


def test_a_key_that_is_not_good_is_refused_at_the_upgrade(served: Stack) -> None:
    [status] = program(
        served,
        f"""
        from websockets.exceptions import InvalidStatus
        try:
            with fal.apps.ws("{LLM}") as connection:
                pass
        except InvalidStatus as refused:
            print(refused.response.status_code)
        """,
        FAL_KEY="key-of:nobody",
    )
    assert status == 401
