"""authsvc and a runner on free ports of this machine, for tests and benchmarks: real processes, real sockets."""

import json
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from deploy.develop import Workspace
from tests.processes import Process, module, run_module, start_process


@dataclass(frozen=True, slots=True)
class Stack:
    """Both services and what a client needs to reach them."""

    authsvc: Process
    runner: Process
    authsvc_url: str
    runner_url: str
    """ws://, without a path."""
    runner_tls_port: int
    """wss://localhost at this port, for clients that trust `ca`."""
    ca: Path
    key: str
    """An API key for every app, `id:secret`."""
    model: Path
    data: Mapping[str, str]
    """The environment of commands on authsvc's database."""

    def mint(self, *apps: str, duration_s: int = 120, **limits: int) -> str:
        """A token for `apps`; `limits` and `one_time` as the body has them."""
        answer = httpx.post(
            f"{self.authsvc_url}/tokens/realtime",
            headers={"Authorization": f"Key {self.key}"},
            json={"allowed_apps": apps, "duration": duration_s, **limits},
        )
        return str(answer.raise_for_status().json()["token"])


@contextmanager
def running(
    model: str | Path, *, reports: bool = False, authsvc: Mapping[str, str] | None = None, **runner_settings: str
) -> Iterator[Stack]:
    """Start both services on free ports with a fresh database, and stop them at the end.

    Args:
        model: Folder of the bundle to serve.
        reports: Whether the runner reports what happens on its sockets.
        authsvc: Environment of authsvc without the prefix.
        runner_settings: Environment of the runner without the prefix, for example `idle_timeout_s="1"`.
    """
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="lcm-realtime-")))
        chain, certificate_key = Workspace(folder).certificate()
        authsvc_settings = {"data_dir": str(folder / "authsvc"), **(authsvc or {})}
        data = {f"AUTHSVC_{name.upper()}": value for name, value in authsvc_settings.items()}
        issuer = stack.enter_context(start_process(module("authsvc", "serve", "--port", "0"), data))
        key = create_key(data, "--apps", "*")
        if reports:
            runner_settings["authsvc_key"] = create_key(data, "--role", "runner")
        settings = {
            "port": "0",
            "tls_port": "0",
            "tls_cert": str(chain),
            "tls_key": str(certificate_key),
            "model": str(model),
            "device": "cpu",
            "authsvc_url": issuer.url,
            **runner_settings,
        }
        runner = stack.enter_context(
            start_process(
                module("runner", "serve"),
                {f"RUNNER_{name.upper()}": value for name, value in settings.items()},
                ready_pattern="runner is ready",
            )
        )
        addresses = runner.wait_for_line(r"listening on http://(\S+) and https://\S+:(\d+)")
        yield Stack(
            authsvc=issuer,
            runner=runner,
            authsvc_url=issuer.url,
            runner_url=f"ws://{addresses[1]}",
            runner_tls_port=int(addresses[2]),
            ca=folder / "ca.pem",
            key=key,
            model=Path(model),
            data=data,
        )


def create_key(data: Mapping[str, str], *options: str) -> str:
    """A new API key, `id:secret`, in the database of this environment."""
    created = run_module("authsvc", "keys", "create", "--name", "stack", *options, "--json", env=data)
    assert created.returncode == 0, created.stderr
    return str(json.loads(created.stdout)["key"])
