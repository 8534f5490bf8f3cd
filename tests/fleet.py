"""Several authsvc processes on one store and several runners: real processes, each of which can be restarted."""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
from websockets.sync.client import ClientConnection, connect

from tests.processes import Process, module, start_process
from tests.stack import create_key

APP = "fal-ai/fast-lcm-diffusion"


@dataclass
class Fleet:
    """Runner `n` asks authsvc `n`, counted round."""

    env: Mapping[str, str]
    """The environment of an authsvc process, and of commands on its store."""
    model: Path
    key: str
    """An API key for every app, `id:secret`."""
    admin: str
    _exits: ExitStack
    authsvcs: list[Process] = field(default_factory=list)
    runners: list[Process] = field(default_factory=list)

    def start_authsvc(self, port: int = 0) -> Process:
        """One more authsvc process on the store."""
        return self._exits.enter_context(start_process(module("authsvc", "serve", "--port", str(port)), self.env))

    def start_runner(self, authsvc: Process, **settings: str) -> Process:
        """One more runner, with more of its environment. Its `url` is that of its sockets, `ws://…`."""
        env = {
            "RUNNER_PORT": "0",
            "RUNNER_MODEL": str(self.model),
            "RUNNER_DEVICE": "cpu",
            "RUNNER_WORKER_THREADS": "1",
            "RUNNER_AUTHSVC_URL": authsvc.url,
            **settings,
        }
        runner = self._exits.enter_context(start_process(module("runner", "serve"), env, "runner is ready"))
        runner.url = "ws://" + runner.wait_for_line(r"listening on http://(\S+)")[1]
        return runner

    def mint(self, **body: object) -> str:
        """A token for the app."""
        return str(self.post("/tokens/realtime", self.key, app=APP, **body)["token"])

    def post(self, path: str, key: str, at: int = 0, **body: object) -> Any:
        """Asks one of the services; its answer."""
        answer = httpx.post(f"{self.authsvcs[at].url}{path}", headers={"Authorization": f"Key {key}"}, json=body)
        return answer.raise_for_status().json()


@contextmanager
def running_fleet(env: Mapping[str, str], model: Path, size: int) -> Iterator[Fleet]:
    """Starts as many services as runners on one store, and stops them at the end."""
    with ExitStack() as exits:
        key, admin = create_key(env, "--apps", "*"), create_key(env, "--role", "admin")
        fleet = Fleet(env, model, key, admin, exits)
        fleet.authsvcs = [fleet.start_authsvc() for _ in range(size)]
        fleet.runners = [fleet.start_runner(authsvc) for authsvc in fleet.authsvcs]
        yield fleet


def knock(runner: Process, token: str) -> ClientConnection:
    """Opens a socket with a token in the query, as browsers do. A refusal comes as its first message."""
    return connect(f"{runner.url}/{APP}/realtime?fal_jwt_token={token}", max_size=None, compression=None)
