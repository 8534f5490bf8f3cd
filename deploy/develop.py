"""`make run`: the demo site, authsvc and the runner on this machine, in the foreground.

What it makes lives in `.run/` and survives restarts: authsvc's database, a development API key, and a
development certificate authority for the clients that insist on TLS (fal_client speaks only wss).
"""

import json
import os
import secrets
import shlex
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import httpx
import trustme
from honcho import manager as honcho_manager
from honcho.manager import Manager
from rich.console import Console
from rich.text import Text

ROOT = Path(__file__).parent.parent
APP = "fal-ai/fast-lcm-diffusion"
READY_TIMEOUT_S = 120
STOP_TIMEOUT_S = 12
"""More than the runner's shutdown_timeout_s: what is in hand at Ctrl-C is delivered."""


@dataclass(frozen=True, slots=True)
class Workspace:
    """The files under `.run/`, each made on first use and readable by its owner alone."""

    folder: Path

    def prepare(self) -> None:
        """Make the folder."""
        self.folder.mkdir(mode=0o700, exist_ok=True)

    @property
    def environment(self) -> dict[str, str]:
        """The environment of the processes: ours, with authsvc's data kept in the workspace."""
        return {
            **os.environ,
            "PYTHONUNBUFFERED": "1",
            "AUTHSVC_DATA_DIR": os.environ.get("AUTHSVC_DATA_DIR", str(self.folder / "authsvc")),
        }

    def secret(self, name: str, entropy_bytes: int = 24) -> str:
        """A random secret, the same at every start."""
        return self._kept(name, lambda: secrets.token_urlsafe(entropy_bytes))

    def password(self) -> str:
        """The demo site's password: short enough to type, long enough against guessing (the site counts tries)."""
        return self.secret("password", entropy_bytes=9)

    def api_key(self) -> str:
        """A development API key for every app, made by authsvc's own command line."""
        return self._key("api-key", "--name", "development", "--apps", "*")

    def runner_key(self) -> str:
        """The key that the runner reports with."""
        return self._key("runner-key", "--name", "runner", "--role", "runner")

    def _key(self, name: str, *options: str) -> str:
        if not (self.folder / "authsvc" / "authsvc.sqlite3").exists():
            for stale in ("api-key", "runner-key"):  # their database is gone, and they with it
                (self.folder / stale).unlink(missing_ok=True)
        return self._kept(name, lambda: self._create_key(*options))

    def _create_key(self, *options: str) -> str:
        command = [sys.executable, "-m", "authsvc", "keys", "create", *options, "--json"]
        created = subprocess.run(  # noqa: S603 - our own module, fixed arguments
            command, env=self.environment, cwd=ROOT, check=True, capture_output=True, text=True
        )
        return str(json.loads(created.stdout)["key"])

    def certificate(self) -> tuple[Path, Path]:
        """Certificate chain and key for localhost; `ca.pem` beside them is what clients trust."""
        chain, key = self.folder / "localhost.pem", self.folder / "localhost.key"
        if not key.exists():
            authority = trustme.CA(organization_name="lcm-realtime development")
            leaf = authority.issue_cert("localhost", "127.0.0.1", "::1")
            authority.cert_pem.write_to_path(self.folder / "ca.pem")
            chain.write_bytes(b"".join(blob.bytes() for blob in leaf.cert_chain_pems))
            self._write(key, leaf.private_key_pem.bytes())
        return chain, key

    def _kept(self, name: str, make: Callable[[], str]) -> str:
        file = self.folder / name
        if not file.exists():
            self._write(file, make().encode())
        return file.read_text().strip()

    @staticmethod
    def _write(file: Path, content: bytes) -> None:
        with open(os.open(file, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600), "wb") as out:
            out.write(content)


@dataclass(frozen=True, slots=True)
class Service:
    """One process of `make run`."""

    name: str
    command: list[str]
    port: int
    environment: dict[str, str]

    @property
    def url(self) -> str:
        """Where it answers."""
        return f"http://127.0.0.1:{self.port}"

    def is_ready(self) -> bool:
        """Whether its readiness endpoint says yes."""
        try:
            return httpx.get(f"{self.url}/health/ready", timeout=2).is_success
        except httpx.HTTPError:
            return False


def services(workspace: Workspace) -> list[Service]:
    """authsvc, the runner (plain on :8002, TLS on :8443) and the demo site, ready to start."""
    chain, key = workspace.certificate()
    python = [sys.executable, "-m"]
    tls = ["--tls-cert", str(chain), "--tls-key", str(key), "--tls-port", "8443"]
    model = os.environ.get("RUNNER_MODEL", "models/pocket")
    return [
        Service("authsvc", [*python, "authsvc", "serve", "--port", "8001"], 8001, {}),
        Service(
            "runner",
            [*python, "runner", "serve", "--port", "8002", "--model", model, *tls],
            8002,
            {"RUNNER_AUTHSVC_KEY": workspace.runner_key()},
        ),
        Service(
            "web",
            [*python, "web", "serve", "--port", "8000"],
            8000,
            {
                "WEB_API_KEY": workspace.api_key(),
                "WEB_SECRET_KEY": workspace.secret("web-secret"),
                "WEB_PASSWORD": workspace.password(),
                "WEB_AUTHSVC_URL": "http://127.0.0.1:8001",
                "WEB_RUNNER_URL": "ws://127.0.0.1:8002",
            },
        ),
    ]


def refuse_taken_ports(ports: list[int]) -> None:
    """Exit with one clear line when something else listens where we would."""
    for port in ports:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                sys.exit(f"make run: port {port} is taken by another program; stop it and try again.")


def announce_when_ready(running: list[Service], workspace: Workspace) -> None:
    """Print the addresses, the login and a `curl` once every service is ready."""
    deadline = time.monotonic() + READY_TIMEOUT_S
    while not all(service.is_ready() for service in running):
        if time.monotonic() > deadline:
            waiting = ", ".join(service.name for service in running if not service.is_ready())
            print(f"make run: not ready after {READY_TIMEOUT_S} s: {waiting}; the lines above say why", flush=True)
            return
        time.sleep(0.3)
    # Written at once, so that no service's log line gets between its lines; long lines stay whole for copying.
    console = Console()
    with console.capture() as capture:
        console.print(welcome(workspace), soft_wrap=True)
    print("\n" + capture.get(), flush=True)


def welcome(workspace: Workspace) -> Text:
    """What a newcomer needs next."""
    key = workspace.api_key()
    body = json.dumps({"allowed_apps": [APP], "duration": 120})
    headers = f"-H 'Authorization: Key {key}' -H 'Content-Type: application/json'"
    lines = [
        ("demo site", "http://127.0.0.1:8000", f"log in as demo / {workspace.password()}"),
        ("authsvc", "http://127.0.0.1:8001", "reference at /docs"),
        ("runner", "ws://127.0.0.1:8002", "reference at http://127.0.0.1:8002/docs"),
        ("  over TLS", "wss://localhost:8443", f"with SSL_CERT_FILE={relative(workspace.folder / 'ca.pem')}"),
    ]
    text = Text().append("lcm-realtime is up. Ctrl-C stops everything.\n\n", "bold green")
    for name, address, note in lines:
        text.append(f"  {name:<12}", "bold").append(f"{address:<24}", "cyan").append(f"{note}\n")
    text.append(f"  {'API key':<12}", "bold").append(f"{key}\n\n")
    text.append("  Mint a token:\n", "bold")
    text.append(f"  curl -s http://127.0.0.1:8001/tokens/realtime {headers} -d {shlex.quote(body)}\n")
    return text


def relative(path: Path) -> Path:
    """The path as one types it from here."""
    return path.relative_to(ROOT) if path.is_relative_to(ROOT) else path


def main() -> None:
    """Prepare the workspace, start the services, wait for Ctrl-C."""
    refuse_taken_ports([8000, 8001, 8002, 8443])
    workspace = Workspace(ROOT / ".run")
    workspace.prepare()
    running = services(workspace)
    honcho_manager.KILL_WAIT = STOP_TIMEOUT_S
    manager = Manager()
    for service in running:
        manager.add_process(
            service.name,
            f"exec {shlex.join(service.command)}",
            env={**workspace.environment, **service.environment},
            cwd=str(ROOT),
        )
    threading.Thread(target=announce_when_ready, args=(running, workspace), daemon=True).start()
    manager.loop()
    # Ctrl-C is how it is meant to end: make would call any other status an error.
    sys.exit(0 if manager.returncode == 128 + signal.SIGINT else manager.returncode)


if __name__ == "__main__":
    main()
