"""The two servers that the suite talks to: fal's own SDK under uvicorn, and authsvc with our runner.

Both serve `app.py`. For ours its import lines are replaced, and nothing else: that is all that moving an app takes.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Protocol, TypeVar

import httpx
from websockets.sync.client import ClientConnection, connect

from tests.processes import ROOT, start_process
from tests.stack import Stack

Outcome = TypeVar("Outcome")

APP: Final = "conformance/app"
SOURCE: Final = Path(__file__).parent / "app.py"
FAL_PYTHON: Final = ROOT / ".venv-fal" / "bin" / "python"
ANSWERED_WITHIN_S: Final = 30

MOVED_IMPORTS: Final = {
    "import fal\n": "import runner as fal\n",
    "from fal.exceptions import ": "from runner.exceptions import ",
    "from fastapi import WebSocket\n": "from runner import WebSocket\n",
    "from fastapi.responses import StreamingResponse\n": "from runner import StreamingResponse\n",
}
"""Line beginnings of an app of fal's, and what they become here."""


class Server(Protocol):
    """Where the app answers."""

    @property
    def http_url(self) -> str:
        """What its paths are appended to."""

    @property
    def headers(self) -> dict[str, str]:
        """Credentials, if it asks for any."""

    def socket_url(self, path: str, query: str = "") -> str:
        """Where a socket is opened."""


@dataclass
class FalServer:
    http_url: str
    headers: dict[str, str] = field(default_factory=dict)

    def socket_url(self, path: str, query: str = "") -> str:
        return f"ws{self.http_url.removeprefix('http')}{path}{'?' if query else ''}{query}"


@dataclass
class OurServer:
    stack: Stack

    @property
    def http_url(self) -> str:
        return f"http{self.stack.runner_url.removeprefix('ws')}/{APP}"

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Key {self.stack.key}"}

    def socket_url(self, path: str, query: str = "") -> str:
        token = self.stack.mint(APP)
        return f"{self.stack.runner_url}/{APP}{path}?fal_jwt_token={token}{'&' if query else ''}{query}"


@dataclass
class Target:
    """A server, and what the suite expects of it."""

    name: str
    server: Server
    differs: bool = False
    """Whether the test expected ours to be another."""

    def pick(self, *, fal: Outcome, ours: Outcome) -> Outcome:
        """The outcome to expect where ours differs on purpose."""
        self.differs = True
        return ours if self.name == "ours" else fal

    def socket(self, path: str, query: str = "", **options: Any) -> ClientConnection:
        """An open socket at a path of the app."""
        return connect(self.server.socket_url(path, query), max_size=None, compression=None, **options)

    def request(self, method: str, path: str, **options: Any) -> httpx.Response:
        """An HTTP request at a path of the app."""
        headers = {**self.server.headers, **options.pop("headers", {})}
        return httpx.request(method, self.server.http_url + path, headers=headers, timeout=ANSWERED_WITHIN_S, **options)

    def post(self, path: str, body: Any, **options: Any) -> httpx.Response:
        """A POST of JSON at a path of the app."""
        return self.request("POST", path, json=body, **options)


def moved(source: str) -> str:
    """An app of fal's as it is written here."""
    for line, ours in MOVED_IMPORTS.items():
        assert source.count(f"\n{line}") == 1, f"app.py does not have the line {line!r} once"
        source = source.replace(f"\n{line}", f"\n{ours}")
    return source


@contextmanager
def fal_server() -> Iterator[FalServer]:
    """The app under fal's SDK."""
    with start_process([str(FAL_PYTHON), str(SOURCE.with_name("serve_fal.py"))], timeout_s=90) as process:
        url = process.url
        process.wait_for_line("Application startup complete")
        yield FalServer(url)
