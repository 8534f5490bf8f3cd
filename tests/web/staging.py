"""The demo site in this process, on a port of its own, with a mint and a runner that tests can steer."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from queue import Queue
from typing import Any

from werkzeug.serving import make_server

from schemas.tokens import PinnedLimits, TokenResponse
from web.app import create_app
from web.minting import MintError
from web.settings import Settings

PASSWORD = "open sesame"


def make_settings(**changes: Any) -> Settings:
    """Settings that do not look at the environment's secrets."""
    return Settings(**({"api_key": "key-id:key-secret", "password": PASSWORD} | changes))


@dataclass
class FakeMint:
    """Mints without authsvc; set `error` and it refuses."""

    error: MintError | None = None
    ready: bool = True
    asked: list[tuple[str, int]] = field(default_factory=list)
    subjects: list[str] = field(default_factory=list)
    """Of each token whom it was for."""
    revoked: "Queue[str]" = field(default_factory=Queue)
    """Subjects, in the order in which they were revoked; that happens in the background."""
    meanwhile: Callable[[], object] = lambda: None
    """Happens while a token is being minted."""

    def mint(self, app: str, duration_s: int, subject: str) -> TokenResponse:
        """A different token each time."""
        if self.error is not None:
            raise self.error
        self.asked.append((app, duration_s))
        self.subjects.append(subject)
        self.meanwhile()
        return TokenResponse(
            token=f"token-{len(self.asked)}",
            expires_at=1,
            expires_in=duration_s,
            allowed_apps=[app],
            jti="j",
            subject=subject,
            one_time=False,
            limits=PinnedLimits(),
        )

    def revoke(self, subject: str) -> None:
        """Takes note of it."""
        if self.error is not None:
            raise self.error
        self.revoked.put(subject)

    def is_ready(self) -> bool:
        """As set."""
        return self.ready


@contextmanager
def run_site(settings: Settings, mint: FakeMint) -> Iterator[str]:
    """Serve the site in threads of this process; yields its URL."""
    server = make_server("127.0.0.1", 0, create_app(settings, mint), threaded=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
