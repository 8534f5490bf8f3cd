"""Where the runner listens, in plain text and with TLS, and how that ends."""

from collections.abc import Callable
from typing import Any, Final

import gevent
from gevent.event import Event
from gevent.ssl import PROTOCOL_TLS_SERVER, SSLContext

from runner.doors.websocket import Refusal, WebSocketOptions, WebSocketServer
from runner.protocol.session import DRAINED_REASON
from runner.settings import Settings
from schemas.errors import CloseCode

SPARE_CONNECTIONS: Final = 256
"""For handshakes and plain HTTP beside the sockets; health among it, and telling one socket too many so."""


class Listeners:
    """The one or two servers of a runner.

    Args:
        settings: Where to listen, and how much of everything there may be.
        application: Answers plain HTTP, and serves the sockets that were let in.
        gate: Lets them in.
    """

    def __init__(
        self, settings: Settings, application: Callable[..., Any], gate: Callable[[dict[str, Any]], Refusal | None]
    ) -> None:
        self._settings = settings
        self._application = application
        self._gate = gate
        self._servers: list[WebSocketServer] = []

    def start(self) -> list[str]:
        """Listens; returns the URLs.

        Raises:
            OSError: an address is taken, or a certificate cannot be read.
        """
        settings = self._settings
        tls = None if settings.tls_cert is None else _tls_context(settings)
        if settings.tls_port is None:
            return [self._listen(settings.port, tls)]
        return [self._listen(settings.port, None), self._listen(settings.tls_port, tls)]

    def retire(self) -> None:
        """Listens no more. What is under way goes on."""
        for server in self._servers:
            server.retire()

    def wait_until_left(self, timeout_s: float, hurry: Event) -> None:
        """Waits until every connection has ended, or is not to be waited for any more."""
        leaving = [gevent.spawn(server.wait_until_left) for server in self._servers]
        all_left = gevent.spawn(gevent.joinall, leaving)
        either: list[Any] = [all_left, hurry]
        gevent.wait(either, timeout=timeout_s, count=1)
        gevent.killall([all_left, *leaving])

    def stop(self, timeout_s: float) -> None:
        """Ends every connection that is left: sockets with SERVICE_RESTART, as far as they can still be told."""
        ending = [
            gevent.spawn(server.stop, timeout_s, CloseCode.SERVICE_RESTART, DRAINED_REASON) for server in self._servers
        ]
        gevent.joinall(ending)

    def _listen(self, port: int, tls: SSLContext | None) -> str:
        """Opens one door; returns its URL."""
        settings = self._settings
        options = WebSocketOptions(
            max_message_bytes=settings.max_message_bytes,
            max_frame_bytes=settings.max_message_bytes,
            max_connections=settings.max_connections + SPARE_CONNECTIONS,
        )
        address = (settings.host, port)
        server = WebSocketServer(address, self._application, gate=self._gate, options=options, ssl_context=tls)
        server.start()
        self._servers.append(server)
        host = f"[{settings.host}]" if ":" in settings.host else settings.host
        return f"{'https' if tls else 'http'}://{host}:{server.server_port}"


def connections_max(settings: Settings) -> int:
    """How many connections there can be at once."""
    return settings.max_connections + SPARE_CONNECTIONS * (1 if settings.tls_port is None else 2)


def _tls_context(settings: Settings) -> SSLContext:
    """TLS 1.2 or newer, with the certificate of the settings."""
    context = SSLContext(PROTOCOL_TLS_SERVER)
    context.load_cert_chain(str(settings.tls_cert), str(settings.tls_key))
    # Clients that read and write a TLS socket from two threads (websockets.sync, so fal_client) can lose what comes
    # with a ticket (python-engineio #461): 6 of 2000 handshakes hung, without tickets none.
    context.num_tickets = 0
    return context
