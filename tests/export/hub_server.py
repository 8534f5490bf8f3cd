"""A hub on this machine: serves folders as repositories, the way huggingface.co answers `snapshot_download`."""

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

COMMIT = "c" * 40


@dataclass
class Hub:
    """Where it listens, and which files were fetched from it."""

    endpoint: str = ""
    fetched: set[str] = field(default_factory=set)


@contextmanager
def serve(repositories: dict[str, Path]) -> Iterator[Hub]:
    """A hub that has these repositories, by id, until the block ends."""
    hub = Hub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Handler, hub, repositories))
    hub.endpoint = f"http://127.0.0.1:{server.server_port}"
    thread = Thread(target=server.serve_forever)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    def __init__(self, hub: Hub, repositories: dict[str, Path], *args: Any) -> None:
        self.hub, self.repositories = hub, repositories
        super().__init__(*args)

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def log_message(self, *_: object) -> None:
        pass

    def _answer(self, with_body: bool) -> None:
        for name, folder in self.repositories.items():
            if self.path.startswith(f"/api/models/{name}/"):
                return self._send(_listing(name, folder), with_body)
            prefix = f"/{name}/resolve/{COMMIT}/"
            if self.path.startswith(prefix):
                file = self.path.removeprefix(prefix)
                self.hub.fetched.add(file)
                return self._send((folder / file).read_bytes(), with_body)
        return self._send(b"", with_body, status=404)

    def _send(self, body: bytes, with_body: bool, status: int = 200) -> None:
        self.send_response(status)
        if status == 404:
            self.send_header("X-Error-Code", "RepoNotFound")
        self.send_header("Content-Length", str(len(body)))
        self.send_header("ETag", f'"{hashlib.sha1(body).hexdigest()}"')
        self.send_header("X-Repo-Commit", COMMIT)
        self.end_headers()
        if with_body:
            self.wfile.write(body)


def _listing(name: str, folder: Path) -> bytes:
    files = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    listing = {"id": name, "sha": COMMIT, "siblings": [{"rfilename": file} for file in files]}
    return json.dumps(listing).encode()
