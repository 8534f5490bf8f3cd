"""A small OpenAI-compatible server for tests: it streams the words of the prompt back, or fails as the prompt says."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

KEY = "sk-upstream-S3CRET"
SECRET_WORDS = "words of the upstream's own"


@dataclass
class OpenAiServer:
    """Where it is, and what it was asked."""

    url: str
    asked: list[dict[str, Any]] = field(default_factory=list)
    may_go_on: threading.Event = field(default_factory=threading.Event)
    """Waited for after the first word of a prompt that begins with `wait`."""
    left: threading.Event = field(default_factory=threading.Event)
    """The caller of a prompt that begins with `endless` has gone."""


@contextmanager
def running_openai_server() -> Iterator[OpenAiServer]:
    """Serves on a free port until the block ends."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    server.daemon_threads = True
    server.told = told = OpenAiServer(f"http://127.0.0.1:{server.server_port}/v1")  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield told
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        told: OpenAiServer = self.server.told  # type: ignore[attr-defined]
        question = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        told.asked.append(question)
        prompt = question["messages"][-1]["content"]
        status = int(prompt.split()[1]) if prompt.startswith("fail ") else 200
        if self.headers["Authorization"] != f"Bearer {KEY}":
            status = 401
        if status != 200 or self.path != "/v1/chat/completions":
            self._refuse(status)
            return
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.end_headers()
        try:
            self._write(told, prompt)
        except OSError:
            told.left.set()

    def _write(self, told: OpenAiServer, prompt: str) -> None:
        words = prompt.split()
        for number, word in enumerate(words):
            if words[0] == "wait" and number == 1:
                assert told.may_go_on.wait(30)
            self._say({"choices": [{"delta": {"content": word if number == 0 else f" {word}"}}]})
            if word == "breaks":
                return
        while words[0] == "endless":
            self._say({"choices": [{"delta": {"content": " more"}}]})
        self._say({"choices": [{"delta": {}, "finish_reason": "stop"}]})
        self._say({"choices": [], "usage": {"total_tokens": len(words)}})
        self.wfile.write(b"data: [DONE]\n\n")

    def _say(self, chunk: dict[str, Any]) -> None:
        self.wfile.write(f"data: {json.dumps(chunk)}\n\n".encode())
        self.wfile.flush()

    def _refuse(self, status: int) -> None:
        body = json.dumps({"error": {"message": SECRET_WORDS}}).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Nothing."""
