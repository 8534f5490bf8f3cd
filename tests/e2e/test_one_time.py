"""One-time tokens against real processes: two authsvc on one database, two runners, restarts, and no authsvc at all."""

import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import msgpack
import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from tests.processes import Process, module, start_process
from tests.stack import create_key
from tests.stores import Store, postgres, redis_database

APP = "fal-ai/fast-lcm-diffusion"
AT_ONCE = 50


@dataclass
class House:
    """authsvc processes and runners that can be started and stopped one by one."""

    store: Store
    bundle: Path
    stack: ExitStack
    key: str = ""

    def authsvc(self, port: int = 0) -> Process:
        serve = module("authsvc", "serve", "--port", str(port))
        authsvc = self.stack.enter_context(start_process(serve, self.store.env))
        self.key = self.key or create_key(self.store.env, "--apps", APP)
        return authsvc

    def runner(self, authsvc: Process) -> Process:
        env = {
            "RUNNER_PORT": "0",
            "RUNNER_MODEL": str(self.bundle),
            "RUNNER_DEVICE": "cpu",
            "RUNNER_AUTHSVC_URL": authsvc.url,
        }
        runner = self.stack.enter_context(start_process(module("runner", "serve"), env))
        runner.wait_for_line("runner is ready")
        return runner

    def token(self, authsvc: Process) -> str:
        answer = httpx.post(
            f"{authsvc.url}/tokens/realtime",
            headers={"Authorization": f"Key {self.key}"},
            json={"allowed_apps": [APP], "one_time": True},
        )
        return str(answer.raise_for_status().json()["token"])


@contextmanager
def building(store: Store, bundle: Path) -> Iterator[House]:
    with ExitStack() as stack:
        yield House(store, bundle, stack)


def attempt(runner: Process, token: str, start: threading.Barrier | None = None) -> dict[str, Any]:
    """What a socket with this token is told to its first input."""
    url = f"{runner.url.replace('http', 'ws', 1)}/{APP}/realtime?fal_jwt_token={token}"
    if start is not None:
        start.wait()
    with connect(url, compression=None, open_timeout=60) as socket:
        with suppress(ConnectionClosed):  # the refusal may be here already
            socket.send(json.dumps({"prompt": "a red circle"}))
        message = socket.recv(timeout=60)
        answer: dict[str, Any] = msgpack.unpackb(message) if isinstance(message, bytes) else json.loads(message)
        return answer


def outcomes(runners: list[Process], token: str) -> list[str]:
    """How many simultaneous handshakes end: `picture`, or the reason of the refusal."""
    start = threading.Barrier(AT_ONCE)
    with ThreadPoolExecutor(AT_ONCE) as threads:
        futures = [threads.submit(attempt, runners[n % len(runners)], token, start) for n in range(AT_ONCE)]
        answers = [future.result() for future in futures]
    return sorted("picture" if "images" in answer else answer["reason"] for answer in answers)


ONE_WINNER = ["picture"] + ["the token was used already; mint a new one"] * (AT_ONCE - 1)


def test_exactly_one_of_50_simultaneous_handshakes_wins_at_one_runner(bundle: Path, tmp_path: Path) -> None:
    with building(Store(tmp_path, {}), bundle) as house:
        authsvc = house.authsvc()
        runner = house.runner(authsvc)
        for _ in range(3):
            assert outcomes([runner], house.token(authsvc)) == ONE_WINNER


@pytest.fixture(params=["sqlite", "postgres"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    if request.param == "sqlite":
        yield Store(tmp_path, {})
        return
    with postgres() as server, server.database() as database_url, redis_database(tmp_path) as redis_url:
        yield Store(tmp_path, {"database_url": database_url, "redis_url": redis_url})


def test_exactly_one_wins_at_two_runners_that_ask_two_authsvc_and_restarts_revive_nothing(
    bundle: Path, store: Store
) -> None:
    with building(store, bundle) as house:
        services = [house.authsvc(), house.authsvc()]
        runners = [house.runner(service) for service in services]
        token = house.token(services[0])
        assert outcomes(runners, token) == ONE_WINNER
        for process in (services[0], runners[0]):
            process.kill_all()
        again = house.authsvc(services[0].port)
        runners[0] = house.runner(again)
        assert all(attempt(runner, token)["error"] == "UNAUTHORIZED" for runner in runners)


def test_while_authsvc_is_away_no_one_time_token_opens_or_is_used_up(bundle: Path, tmp_path: Path) -> None:
    with building(Store(tmp_path, {}), bundle) as house:
        authsvc = house.authsvc()
        runner = house.runner(authsvc)
        token = house.token(authsvc)
        with connect(f"{runner.url.replace('http', 'ws', 1)}/{APP}/realtime?fal_jwt_token={house.token(authsvc)}"):
            pass  # the runner has the keys
        authsvc.stop()
        told = attempt(runner, token)
        assert told["error"] == "UNAVAILABLE"
        assert told["reason"] == "one-time tokens cannot be redeemed now, try again later"
        house.authsvc(authsvc.port)
        assert "images" in attempt(runner, token)
        assert attempt(runner, token)["error"] == "UNAUTHORIZED"
        assert token not in runner.text
