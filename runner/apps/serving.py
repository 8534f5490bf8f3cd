"""The contract between the doors, where requests come in, and the endpoints that answer them, wherever those run.

An app whose handlers only wait for the engine is answered in the gateway itself (`runner.doors.inline`); anybody's
else runs in a process of its own (`runner.hosting`). A door sees no difference.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Final, Protocol

from runner.engine.request import GenerationLimits
from runner.protocol.allowance import Allowance
from runner.protocol.failures import Failure
from runner.protocol.session import SessionRules
from schemas.errors import CloseCode

Headers = tuple[tuple[str, str], ...]
"""Names in lower case. Credentials are never among them."""


class Socket(Protocol):
    """What serving a WebSocket needs of it."""

    @property
    def close_code(self) -> int | None:
        """The code that the peer closed with, 1006 if it vanished; None until then."""

    def receive(self) -> bytes | str | None:
        """The next message; None once the socket is closed."""

    def send(self, message: bytes | str) -> None:
        """Sends a message. Raises ConnectionClosed."""

    def offer(self, message: bytes | str) -> bool:
        """Sends a message if that waits for no other one; else False, and nothing is sent. Raises ConnectionClosed."""

    def close(self, code: int = CloseCode.NORMAL, reason: str = "") -> None:
        """Closes; again does no harm."""

    def abort(self) -> None:
        """Cuts the connection without a word."""


@dataclass(slots=True)
class Usage:
    """What was drawn for a socket or a request, and sent."""

    images: int = 0
    pixels: int = 0


class Meter(Protocol):
    """What is counted of sockets."""

    def sent(self, seconds: float, dropped_inputs: int) -> None:
        """A result was sent, which took so long, and says that so many inputs were dropped before it."""


class _Unmetered:
    def sent(self, seconds: float, dropped_inputs: int) -> None:
        pass


UNMETERED: Final[Meter] = _Unmetered()


@dataclass(frozen=True, slots=True)
class SocketTerms:
    """What a socket that was let in may do, and how it came."""

    path: str
    """Below the app's id: `/realtime`."""
    rules: SessionRules
    """With the peer's `max_buffering` and the token's `max_session_s` in it."""
    allowance: Allowance
    clock: Callable[[], float]
    """Seconds, never going back."""
    query: str = ""
    """Raw, without credentials."""
    headers: Headers = ()
    base_url: str = ""
    """As of an `HttpRequest`."""
    meter: Meter = UNMETERED
    address: str = ""
    """As of an `HttpRequest`."""

    @property
    def limits(self) -> GenerationLimits:
        """What the socket's token allows of one generation."""
        claims = self.allowance.claims
        return GenerationLimits(claims.max_pixels, claims.max_steps)


class Conversation(Protocol):
    """One socket's life at an endpoint. `run` blocks its greenlet; the others are called meanwhile and never block."""

    @property
    def usage(self) -> Usage:
        """What was drawn for it and sent, so far."""

    def run(self) -> None:
        """Serves until the socket is closed."""

    def end(self, failure: Failure, code: CloseCode) -> None:
        """Ends now: `failure` is sent and the socket closed, whatever waits or is worked on."""

    def drain(self) -> None:
        """Takes no new input, delivers the answers to what was taken, then closes with SERVICE_RESTART."""


class SocketEndpoint(Protocol):
    """What answers at a path where WebSockets are opened."""

    def open(self, socket: Socket, terms: SocketTerms) -> Conversation:
        """The conversation on an open socket. Does not block."""


@dataclass(frozen=True, slots=True)
class HttpRequest:
    """A request over HTTP, or over a WebSocket that stands in for it: let in, and its body read."""

    method: str
    path: str
    """Below the app's id: `/`, `/image-to-image`."""
    body: bytes
    request_id: str
    """A UUID, in the answer's `x-fal-request-id` too."""
    allowance: Allowance
    query: str = ""
    """Raw, without credentials."""
    headers: Headers = ()
    base_url: str = ""
    """Scheme and host that the caller used, no slash at the end: where links in the answer begin."""
    address: str = ""
    """The caller's IP address, as far as trusted proxies tell; "" if it has none."""

    @property
    def limits(self) -> GenerationLimits:
        """What the request's token allows of one generation."""
        claims = self.allowance.claims
        return GenerationLimits(claims.max_pixels, claims.max_steps)


@dataclass(frozen=True, slots=True)
class HttpAnswer:
    """An answer on its way.

    `body` is made while it is sent: each chunk goes out as it comes (of an event stream, one event a chunk), and
    taking the next may block the greenlet. Whoever stops early calls `close` of the iterable if it has one (PEP 3333).
    """

    status: int
    headers: Headers
    body: Iterable[bytes]
    usage: Usage = field(default_factory=Usage)
    """What was drawn; complete once `body` is exhausted."""


class HttpEndpoint(Protocol):
    """What answers at a path over HTTP."""

    @property
    def methods(self) -> frozenset[str]:
        """The methods that it takes."""

    def respond(self, request: HttpRequest) -> HttpAnswer:
        """Answers, failures too, with fal's error bodies. Blocks its greenlet; killing that gives the work up.

        Raises:
            AppUnavailable: nobody can answer now.
        """


class AppUnavailable(Exception):
    """The app is starting, restarting or has failed; `reason` is fit for the peer."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class ServedApp(Protocol):
    """An app as the doors see it. Looking a path up may block the greenlet while the app is being loaded.

    Raises:
        AppUnavailable: what the app has cannot be said yet.
    """

    def socket(self, path: str) -> SocketEndpoint | None:
        """The endpoint where WebSockets are opened, or None."""

    def http(self, path: str) -> HttpEndpoint | None:
        """The endpoint that answers HTTP, or None."""
