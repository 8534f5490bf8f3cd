"""Serving: gevent holds the connections, a few threads run the views.

A view runs only once its request has arrived completely, so any number of clients that send slowly cost a
greenlet each and never a thread; with a thread a connection, eight half-sent requests would stop the service.
Threads and not greenlets run the views because SQLite blocks inside C code, which would stop the hub.
"""

import io
import logging
import signal
from collections.abc import Callable, Iterable
from contextlib import suppress
from http.client import HTTPMessage
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final

import gevent
from flask import Flask
from gevent.event import Event
from gevent.pool import Pool
from gevent.pywsgi import Input, WSGIHandler, WSGIServer
from gevent.threadpool import ThreadPool
from greenlet import greenlet
from werkzeug.wrappers import Response

from authsvc.app import create_app
from authsvc.settings import Settings
from httpbase import logs
from httpbase.framing import check_framing
from schemas import limits

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

logger = logging.getLogger(__name__)

REQUEST_TIMEOUT_S: Final = 15
GRACEFUL_TIMEOUT_S: Final = 10
MAX_CONNECTIONS: Final = 2000

_BAD_REQUEST: Final = b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
_REQUEST_TIMEOUT: Final = b"HTTP/1.1 408 Request Timeout\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
_INTERNAL_ERROR: Final = b"HTTP/1.1 500 Internal Server Error\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"


class _Handler(WSGIHandler):
    """One deadline for a request, from the wait for its first byte to the last byte of the answer."""

    server: "Server"

    def handle_one_request(self) -> Any:
        # None, which closes the connection, when nothing or half a head came in time.
        outcome = gevent.with_timeout(self.server.request_timeout_s, super().handle_one_request, timeout_value=None)
        if isinstance(outcome, tuple):
            _, error_answer = outcome
            self._send_at_once(error_answer)
            return None
        return outcome

    def _send_at_once(self, answer: bytes) -> None:
        """Into the kernel's buffer or nowhere: no deadline is left to end a wait for one that never reads."""
        self.socket.settimeout(0.0)
        with suppress(OSError):
            self.socket.sendall(answer)

    def MessageClass(self, *args: Any) -> HTTPMessage:  # type: ignore[override]  # the stub lacks an argument
        """The headers, unless they leave open where the body ends; after this pywsgi resolves that its own way."""
        headers = super().MessageClass(*args)
        check_framing(headers)
        return headers

    def read_requestline(self) -> str:
        if self.server.is_stopping:
            return ""  # the answer that was in hand is out; there is no next request
        self.server.idle.add(gevent.getcurrent())
        try:
            return str(super().read_requestline())
        finally:
            self.server.idle.discard(gevent.getcurrent())

    def run_application(self) -> None:
        try:
            super().run_application()
        except gevent.Timeout:
            # pywsgi would wait for the rest of the body, and a timeout fires only once.
            self.wsgi_input = Input(self.rfile, content_length=0)
            raise

    def handle_error(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Ends a request that was not answered: the views answer their own errors."""
        self.close_connection = True
        answer = self._error_answer(error)
        if answer is not None and not self.headers_sent:
            self._send_at_once(answer)

    def _error_answer(self, error: BaseException | None) -> bytes | None:
        """What ends a request; None where the server stops."""
        if isinstance(error, gevent.Timeout):
            return _REQUEST_TIMEOUT
        if isinstance(error, OSError):  # the connection's: the views answer their own
            logger.info("request from %s broke off: %s", self.client_address, type(error).__name__)
            return _BAD_REQUEST
        if isinstance(error, Exception):
            logger.error("request failed", exc_info=error)
            return _INTERNAL_ERROR
        return None

    def _handle_client_error(self, ex: Exception) -> tuple[str, bytes]:
        """Says that a client spoke no HTTP, without its words: there could be a token in them."""
        logger.info("no HTTP request from %s: %s", self.client_address, type(ex).__name__)
        return "400", _BAD_REQUEST

    def log_request(self) -> None:
        """Leaves it to `authsvc.request_log`: pywsgi would log the query too."""


class Server(WSGIServer):
    """A WSGI server whose every wait has an end.

    Args:
        address: Host and port to listen on; port 0 takes a free one.
        application: What answers, in a thread.
        threads: How many requests are answered at once.
        request_timeout_s: How long a client may take for a request.
    """

    handler_class = _Handler

    def __init__(
        self,
        address: tuple[str, int],
        application: "WSGIApplication",
        *,
        threads: int,
        request_timeout_s: float = REQUEST_TIMEOUT_S,
    ) -> None:
        self.request_timeout_s = request_timeout_s
        self.is_stopping = False
        self.idle: set[greenlet] = set()
        """What waits for a request: nothing is lost when it is killed."""
        in_threads = _in_threads(application, ThreadPool(threads))
        super().__init__(address, in_threads, spawn=Pool(MAX_CONNECTIONS), log=None, error_log=logger)

    def stop(self, timeout: float | None = GRACEFUL_TIMEOUT_S) -> None:
        """Accepts no more, and gives the requests in hand `timeout` seconds."""
        self.is_stopping = True
        self.close()
        gevent.killall(list(self.idle))
        super().stop(timeout)

    @property
    def url(self) -> str:
        """Where it listens, once started."""
        host = str(self.server_host)
        return f"http://{f'[{host}]' if ':' in host else host}:{self.server_port}"


def _in_threads(application: "WSGIApplication", threads: ThreadPool) -> "WSGIApplication":
    """Reads the body here, on the hub, and has the rest done in a thread."""

    def handle(environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        # One byte over the limit is enough for the view to refuse the body.
        body = environ["wsgi.input"].read(limits.HTTP_BODY_MAX_BYTES + 1)
        environ["wsgi.input"] = io.BytesIO(body)
        response: Response = threads.apply(Response.from_app, (application, environ, True))
        return response(environ, start_response)

    return handle


def serve(settings: Settings, announce: Callable[[str], None]) -> None:
    """Serves until SIGTERM or SIGINT.

    Args:
        settings: What the operator set.
        announce: Called with the URL once connections are accepted.

    Raises:
        OSError: the address is taken, or the data folder cannot be made.
        sqlalchemy.exc.DatabaseError: the database cannot be used.
    """
    logs.configure(settings.log_level, settings.log_format)
    stopping = Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        gevent.signal_handler(number, stopping.set)
    app: Flask = create_app(settings)
    server = Server((settings.host, settings.port), app, threads=settings.threads)
    server.start()
    announce(server.url)
    stopping.wait()
    logger.info("stopping")
    server.stop()
