"""The backends of examples/backends: each installed as its README says, and started as a process."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from tests.processes import ROOT, Process, start_process

FOLDER = ROOT / "examples" / "backends"
APP = "fal-ai/fast-lcm-diffusion"
NAME, PASSWORD, USER_ID = "ada", "correct horse", "user-1"
LEFT_OUT = shutil.ignore_patterns("node_modules", ".venv", ".next", "__pycache__", "next-env.d.ts")


@dataclass(frozen=True, slots=True)
class Recipe:
    """How an example is installed in its folder, and the command that starts it on a free port."""

    install: Callable[[Path], Sequence[Sequence[str]]]
    start: Callable[[Path], Sequence[str]]


def _pip(folder: Path) -> Sequence[Sequence[str]]:
    pip = [str(folder / ".venv" / "bin" / "pip"), "install", "--quiet", "--disable-pip-version-check"]
    return [[sys.executable, "-m", "venv", ".venv"], [*pip, "-r", "requirements.txt"]]


RECIPES: Mapping[str, Recipe] = {
    "flask": Recipe(
        _pip,
        lambda at: [f"{at}/.venv/bin/gunicorn", "app:app", "--chdir", str(at), "--bind", "127.0.0.1:0"],
    ),
    "fastapi": Recipe(
        _pip,
        lambda at: [f"{at}/.venv/bin/uvicorn", "app:app", "--app-dir", str(at), "--port", "0"],
    ),
    "express": Recipe(
        lambda at: [["npm", "ci"]],
        lambda at: ["node", str(at / "server.mjs")],
    ),
    "nextjs": Recipe(
        lambda at: [["npm", "ci"], ["npm", "run", "build"]],
        lambda at: [f"{at}/node_modules/.bin/next", "start", str(at), "-H", "127.0.0.1", "-p", "0"],
    ),
}


def install(source: Path, commands: Sequence[Sequence[str]], target: Path) -> Path:
    """Copies an example and installs it there: nothing of this checkout, or of an earlier run, takes part."""
    shutil.copytree(source, target, ignore=LEFT_OUT)
    # A build that writes to the terminal's width or asks for it would differ from one that does not.
    environment = {**os.environ, "NEXT_TELEMETRY_DISABLED": "1", "CI": "1"}
    for command in commands:
        done = subprocess.run(command, cwd=target, env=environment, capture_output=True, text=True, timeout=240)
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return target


@dataclass(frozen=True, slots=True)
class Backend:
    """An installed example."""

    name: str
    folder: Path

    @contextmanager
    def running(self, authsvc_url: str, key: str, **extra: str) -> Iterator[Process]:
        """Starts it on a free port, with what its README exports."""
        env = {
            "AUTHSVC_URL": authsvc_url,
            "AUTHSVC_KEY": key,
            "SESSION_SECRET": "0123456789abcdef0123456789abcdef",
            "LOGIN_PASSWORD": PASSWORD,
            "COOKIE_INSECURE": "1",
            "NEXT_TELEMETRY_DISABLED": "1",
            "PORT": "0",
            **extra,
        }
        with start_process(RECIPES[self.name].start(self.folder), env) as process:
            yield process


@contextmanager
def visitor(backend: Process) -> Iterator[httpx.Client]:
    """A browser's part: keeps cookies, and nobody is logged in yet."""
    with httpx.Client(base_url=backend.url, timeout=30, trust_env=False) as client:
        yield client


@contextmanager
def logged_in(backend: Process) -> Iterator[httpx.Client]:
    """The user `ada` with a session."""
    with visitor(backend) as client:
        assert log_in(client).status_code == 204
        yield client


def log_in(client: httpx.Client, password: str = PASSWORD) -> httpx.Response:
    return client.post("/api/login", json={"username": NAME, "password": password})


def ask(client: httpx.Client, app: object = f"{APP}/realtime", **headers: str) -> httpx.Response:
    """What the tokenProvider asks for; `headers` with underscores for hyphens."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return client.post("/api/fal/token", json={"app": app}, headers=named)
