"""How a runner ends: readiness turns first, work in hand is finished and delivered, and everybody is told to reconnect.

Every test has a runner of its own, for it ends it.
"""

import itertools
import json
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import msgpack
import psutil
import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from runner.protocol.session import DRAINED_REASON
from tests.stack import Stack, running

APP = "fal-ai/fast-lcm-diffusion"
SOCKETS = 20
WITHIN_S = 60
RESTART = (1012, DRAINED_REASON)


@pytest.fixture
def stack(tiny_bundle: Path, request: pytest.FixtureRequest) -> Iterator[Stack]:
    settings: dict[str, str] = getattr(request, "param", {})
    with running(tiny_bundle, **{"shutdown_timeout_s": "30", **settings}) as started:
        yield started


def with_settings(**settings: str) -> Any:
    return pytest.mark.parametrize("stack", [settings], indirect=True)


def open_socket(stack: Stack, token: str) -> ClientConnection:
    url = f"{stack.runner_url}/{APP}/realtime?fal_jwt_token={token}"
    return connect(url, max_size=None, compression=None, open_timeout=WITHIN_S)


def ask(socket: ClientConnection, name: str, **fields: Any) -> None:
    socket.send(msgpack.packb({"prompt": "a red circle", "request_id": name, **fields}))


def answers(socket: ClientConnection) -> tuple[list[str], tuple[int | None, str | None]]:
    """The requests answered until the socket is closed, errors by their name, and how it was closed."""
    heard = []
    try:
        while True:
            message = socket.recv(timeout=WITHIN_S)
            is_result = isinstance(message, bytes)
            heard.append(msgpack.unpackb(message)["request_id"] if is_result else json.loads(message)["error"])
    except ConnectionClosed:
        return heard, (socket.protocol.close_code, socket.protocol.close_reason)


def http(stack: Stack) -> str:
    return stack.runner_url.replace("ws", "http", 1)


def in_hand(stack: Stack) -> float:
    """How many requests the engine has."""
    lines = httpx.get(f"{http(stack)}/metrics").text.splitlines()
    return float(next(line for line in lines if line.startswith("runner_engine_pending_requests ")).split()[1])


def until_in_hand(stack: Stack, count: int) -> None:
    for _ in itertools.count():
        if in_hand(stack) >= count:
            return


@pytest.mark.parametrize("send", [os.kill, os.killpg], ids=["to the runner", "to its process group"])
def test_sockets_with_work_in_hand_get_their_answers_and_then_1012(
    stack: Stack, send: Callable[[int, int], None]
) -> None:
    token = stack.mint(APP)
    with ExitStack() as exits:
        sockets = [exits.enter_context(open_socket(stack, token)) for _ in range(SOCKETS)]
        idle = exits.enter_context(open_socket(stack, token))
        for number, socket in enumerate(sockets):
            for part in "ab":  # one in the engine, one waiting for its turn
                ask(socket, f"{number}{part}", num_inference_steps=50, num_images=2)
        until_in_hand(stack, SOCKETS)
        send(stack.runner.pid, signal.SIGTERM)  # systemd and honcho signal all of a group
        assert answers(idle) == ([], RESTART)
        assert [answers(socket) for socket in sockets] == [
            ([f"{number}a", f"{number}b"], RESTART) for number in range(SOCKETS)
        ]
    assert stack.runner.wait() == 0


@with_settings(drain_delay_s="3")
def test_readiness_turns_before_the_door_closes_and_then_the_door_is_closed(stack: Stack) -> None:
    with open_socket(stack, stack.mint(APP)) as socket:
        ask(socket, "first")
        assert socket.recv(timeout=WITHIN_S)
        assert httpx.get(f"{http(stack)}/health/ready").status_code == 200
        stack.runner.send_signal(signal.SIGTERM)
        for _ in itertools.count():
            ready = httpx.get(f"{http(stack)}/health/ready")  # it is answered: the door is open
            if ready.status_code != 200:
                break
        assert (ready.status_code, "draining" in ready.json()["detail"]) == (503, True)
        assert int(ready.headers["Retry-After"]) > 0
        assert httpx.get(f"{http(stack)}/health/live").status_code == 200
        with open_socket(stack, stack.mint(APP)) as late:  # sent here before anybody noticed: served
            ask(late, "late")
            assert answers(late) == (["late"], RESTART)
        assert answers(socket) == ([], RESTART)
    assert stack.runner.wait() == 0
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{http(stack)}/health/ready")


@with_settings(shutdown_timeout_s="1")
def test_what_takes_longer_than_the_grace_is_ended_and_told(tiny_bundle: Path, stack: Stack) -> None:
    with open_socket(stack, stack.mint(APP)) as socket:
        for number in range(200):
            ask(socket, str(number), num_inference_steps=50, num_images=8)
        until_in_hand(stack, 1)
        stack.runner.send_signal(signal.SIGTERM)
        heard, close = answers(socket)
    assert heard[-1] == "UNAVAILABLE"
    assert len(heard) < 200
    assert close == RESTART
    assert stack.runner.wait() == 0


@with_settings(drain_delay_s="600", shutdown_timeout_s="600")
def test_a_second_signal_ends_it_at_once(stack: Stack) -> None:
    workers = psutil.Process(stack.runner.pid).children()
    with open_socket(stack, stack.mint(APP)) as socket:
        for number in range(200):
            ask(socket, str(number), num_inference_steps=50, num_images=8)
        until_in_hand(stack, 1)
        stack.runner.send_signal(signal.SIGTERM)
        stack.runner.wait_for_line("stopping")
        stack.runner.send_signal(signal.SIGINT)
        assert answers(socket)[1] == RESTART
    assert stack.runner.wait() == 0
    assert psutil.wait_procs(workers, timeout=30)[1] == []


@with_settings(shutdown_timeout_s="600")
def test_a_connection_that_is_only_kept_alive_does_not_hold_the_end_up(stack: Stack) -> None:
    asked = threading.Barrier(2)
    failures: list[Exception] = []

    def poll() -> None:
        with httpx.Client() as client:
            client.get(f"{http(stack)}/health/live")
            asked.wait()
            try:
                for _ in itertools.count():
                    client.get(f"{http(stack)}/health/live")
            except httpx.HTTPError as error:
                failures.append(error)

    poller = threading.Thread(target=poll)
    poller.start()
    asked.wait()
    stack.runner.send_signal(signal.SIGTERM)
    assert stack.runner.wait() == 0
    poller.join()
    assert failures
