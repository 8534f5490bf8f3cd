"""A hub on this machine: serves folders as repositories, the way huggingface.co answers `snapshot_download`."""

import hashlib
import json
import re
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
    """Where it listens, and which files were fetched from it.

    A file in `breaks_after` is sent up to that byte, then the connection goes. `sent` has the first byte of each
    answer by file.
    """

    endpoint: str = ""
    fetched: set[str] = field(default_factory=set)
    breaks_after: dict[str, int] = field(default_factory=dict)
    sent: dict[str, list[int]] = field(default_factory=dict)


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
            if asked := re.fullmatch(rf"/{re.escape(name)}/resolve/(?:main|{COMMIT})/(.+)", self.path):
                return self._send_file(asked[1], folder / asked[1], with_body)
        return self._refuse("RepoNotFound")

    def _send_file(self, file: str, path: Path, with_body: bool) -> None:
        if not path.is_file():
            return self._refuse("EntryNotFound")
        self.hub.fetched.add(file)
        wanted = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        start = int(wanted[1]) if wanted else 0
        if with_body:
            self.hub.sent.setdefault(file, []).append(start)
        return self._send(path.read_bytes(), with_body, start, self.hub.breaks_after.get(file))

    def _refuse(self, code: str) -> None:
        self.send_response(404)
        self.send_header("X-Error-Code", code)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def _send(self, body: bytes, with_body: bool, start: int = 0, breaks_after: int | None = None) -> None:
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
        self.send_header("Content-Length", str(len(body) - start))
        self.send_header("ETag", f'"{hashlib.sha1(body).hexdigest()}"')
        self.send_header("X-Repo-Commit", COMMIT)
        self.end_headers()
        if with_body:
            self.wfile.write(body[start:breaks_after])


def _listing(name: str, folder: Path) -> bytes:
    files = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    listing = {"id": name, "sha": COMMIT, "siblings": [{"rfilename": file} for file in files]}
    return json.dumps(listing).encode()
