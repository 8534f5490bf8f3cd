"""The server: pywsgi with WebSockets, limits on every wait, and an orderly end."""

import logging
from collections.abc import Callable, Sequence
from typing import Any

import gevent
from gevent import Greenlet
from gevent.pool import Pool
from gevent.pywsgi import WSGIServer
from gevent.socket import socket as GeventSocket
from gevent.ssl import SSLContext
from greenlet import greenlet

from runner.doors.websocket.connection import WebSocket
from runner.doors.websocket.handler import WebSocketHandler
from runner.doors.websocket.options import Refusal, WebSocketOptions
from schemas.errors import CloseCode

logger = logging.getLogger(__name__)

Environ = dict[str, Any]
WSGIApplication = Callable[..., Any]


class WebSocketServer(WSGIServer):
    """Serves one WSGI application over HTTP and WebSocket, on TCP, TLS or a Unix socket.

    For a WebSocket the application is called with `environ["wsgi.websocket"]` set (a `WebSocket`) and the
    session is over when it returns: then the socket is closed with 1000, or 1011 if it raised.

    Args:
        listener: (host, port), or a gevent socket that listens.
        application: The WSGI application.
        gate: Called with the environ of every well-formed handshake before it is answered. A `Refusal` is
            sent instead of the 101. What it learns it may leave in the environ for the application.
        options: Limits and timeouts.
        ssl_context: For TLS, with certificate and key loaded.

    Raises:
        TypeError: `ssl_context` is the standard library's, whose sockets would block the hub.
    """

    handler_class = WebSocketHandler

    def __init__(
        self,
        listener: tuple[str, int] | GeventSocket,
        application: WSGIApplication,
        *,
        gate: Callable[[Environ], Refusal | None],
        options: WebSocketOptions | None = None,
        ssl_context: SSLContext | None = None,
    ) -> None:
        if ssl_context is not None and not isinstance(ssl_context, SSLContext):
            raise TypeError("ssl_context must be a gevent.ssl.SSLContext")
        self._ssl_context = ssl_context
        self.gate = gate
        self.options = options or WebSocketOptions()
        self.clients: set[WebSocket] = set()
        """The open WebSockets."""
        self.idle: set[greenlet] = set()
        """What waits for a request: nothing is lost when it is killed."""
        # pywsgi's own access log has whole request lines, tokens in queries included.
        super().__init__(
            listener,
            application,
            spawn=Pool(self.options.max_connections),
            log=None,
            error_log=logger,
            environ={"wsgi.url_scheme": "http" if ssl_context is None else "https"},
        )

    def handle(self, sock: GeventSocket, address: Any) -> None:
        """Serve one connection."""
        if self._ssl_context is None:
            super().handle(sock, address)
        else:
            self._handle_tls(self._ssl_context, sock, address)

    def _handle_tls(self, context: SSLContext, sock: GeventSocket, address: Any) -> None:
        # Not at once: a handshake that is interrupted inside the constructor leaves its socket open.
        tls = context.wrap_socket(sock, server_side=True, do_handshake_on_connect=False)
        try:
            with gevent.Timeout(self.options.header_timeout_s, TimeoutError):
                tls.do_handshake()
        except OSError as error:  # a port scan, a client that does not know our CA: no error of ours
            logger.info("TLS handshake with %s failed: %s", address, type(error).__name__)
        else:
            super().handle(tls, address)
        finally:
            tls.close()

    def retire(self) -> None:
        """Accept no more, let go of connections that wait for a request, and answer no second one on the others."""
        self.close()
        gevent.killall(list(self.idle), block=False)

    def wait_until_left(self, timeout: float | None = None) -> bool:
        """Wait until every connection has ended; False if some are left after `timeout` seconds."""
        assert self.pool is not None
        return bool(self.pool.join(timeout))

    def stop(self, timeout: float | None = None, close_code: int = CloseCode.GOING_AWAY, reason: str = "") -> None:
        """Accept no more, close every socket with `close_code`, and wait for their sessions to end.

        Args:
            timeout: Seconds that all of it may take; what runs on after is killed.
            close_code: 1001, or 1012 where clients may come back at once.
            reason: Up to 123 bytes of it reach the clients.
        """
        self.retire()
        closing = [gevent.spawn(client.close, close_code, reason) for client in list(self.clients)]
        timeout = self.stop_timeout if timeout is None else timeout
        gevent.with_timeout(timeout, self._join, closing, timeout_value=None)
        super().stop(timeout=0)

    def _join(self, closing: "Sequence[Greenlet[..., None]]") -> None:
        gevent.joinall(closing)
        self.wait_until_left()
