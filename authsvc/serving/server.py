"""The HTTP server of one process: gevent holds the connections, a few threads run the views.

A view runs only once its request has arrived completely, so any number of clients that send slowly cost a
greenlet each and never a thread; with a thread a connection, eight half-sent requests would stop the service.
Threads and not greenlets run the views because SQLite blocks inside C code, which would stop the hub.
"""

import io
import logging
import socket
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from http.client import HTTPMessage
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, cast

import gevent
from gevent.pool import Pool
from gevent.pywsgi import Input, WSGIHandler, WSGIServer
from greenlet import greenlet

from authsvc.serving.threads import Threads
from httpbase.framing import FramingReader, read_message
from schemas import limits

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

logger = logging.getLogger(__name__)

REQUEST_TIMEOUT_S: Final = 15
GRACEFUL_TIMEOUT_S: Final = 10
IDLE_LINGER_S: Final = 1
"""How long a server that stops still takes a request on a connection that it has open. A client may have sent one
before it learns of the stop; with its answer it is told to close."""

MAX_CONNECTIONS: Final = 2000
ARRIVED: Final = "authsvc.arrived"
"""In the WSGI environment: `time.perf_counter()` of the moment when a request had arrived completely."""

_FRAMING_MAX_BYTES: Final = 8 * limits.HTTP_BODY_MAX_BYTES
"""As much as the largest body has in chunks of a byte."""

_BAD_REQUEST: Final = b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
_REQUEST_TIMEOUT: Final = b"HTTP/1.1 408 Request Timeout\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
_INTERNAL_ERROR: Final = b"HTTP/1.1 500 Internal Server Error\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"


def _let_others_in() -> None:
    gevent.sleep(1e-9)  # not 0: sockets would be polled every 5 ms only


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
        """The headers."""
        return read_message(self.rfile)

    def get_environ(self) -> "WSGIEnvironment":
        environ: WSGIEnvironment = super().get_environ()
        body = cast(Any, self.wsgi_input)
        body.rfile = FramingReader(body.rfile, _FRAMING_MAX_BYTES, _let_others_in)
        return environ

    def read_requestline(self) -> str:
        if self.server.is_closed_to_all:
            return ""  # the answer that was in hand is out; there is no next request
        self.server.idle.add(gevent.getcurrent())
        try:
            return str(super().read_requestline())
        finally:
            self.server.idle.discard(gevent.getcurrent())

    def finalize_headers(self) -> None:
        super().finalize_headers()
        if self.server.is_stopping:
            self.close_connection = True
            self.response_headers.append((b"Connection", b"close"))  # type: ignore[union-attr,arg-type]  # bytes here

    def _write_with_headers(self, data: bytes) -> None:
        """Sends an answer in one piece: pywsgi needs two system calls, and a small second one may wait for an ACK."""
        pieces: list[bytes] = []
        self._sendall = pieces.append
        try:
            super()._write_with_headers(data)  # type: ignore[misc]  # the stub lacks it
        finally:
            del self._sendall  # the class's own again
        self._sendall(b"".join(pieces))

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
        listener: Host and port to listen on, where port 0 takes a free one; or a gevent socket that listens.
        application: What answers, in a thread.
        threads: How many requests are answered at once.
        request_timeout_s: How long a client may take for a request.
        is_one_of_many: Whether other processes accept from the same socket.
    """

    handler_class = _Handler
    pool: Pool

    def __init__(
        self,
        listener: tuple[str, int] | socket.socket,
        application: "WSGIApplication",
        *,
        threads: int,
        request_timeout_s: float = REQUEST_TIMEOUT_S,
        is_one_of_many: bool = False,
    ) -> None:
        self.request_timeout_s = request_timeout_s
        self.is_stopping = False
        self.is_closed_to_all = False
        self.idle: set[greenlet] = set()
        """What waits for a request: nothing is lost when it is killed."""
        self._threads = Threads(threads)
        in_threads = _in_threads(application, self._threads)
        # Without SERVER_NAME gevent would ask the resolver for one, which may take its time.
        environ = {"wsgi.multithread": True, "wsgi.multiprocess": is_one_of_many, "SERVER_NAME": "authsvc"}
        pool = Pool(MAX_CONNECTIONS)
        super().__init__(listener, in_threads, spawn=pool, log=None, error_log=logger, environ=environ)

    def init_socket(self) -> None:
        """Without Nagle's algorithm, which accepted connections inherit."""
        super().init_socket()
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def stop(self, timeout: float | None = GRACEFUL_TIMEOUT_S) -> None:
        """Accepts no more connections, and gives the requests in hand `timeout` seconds."""
        self.is_stopping = True
        self.close()
        self.pool.join(timeout=IDLE_LINGER_S)
        self.is_closed_to_all = True
        gevent.killall(list(self.idle))
        super().stop(timeout)
        self._threads.close()

    @property
    def url(self) -> str:
        """Where it listens, once started."""
        host = str(self.server_host)
        return f"http://{f'[{host}]' if ':' in host else host}:{self.server_port}"


def _in_threads(application: "WSGIApplication", threads: Threads) -> "WSGIApplication":
    """Reads the body here, on the hub, and has the rest done in a thread."""

    def handle(environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        # One byte over the limit is enough for the view to refuse the body.
        body = environ["wsgi.input"].read(limits.HTTP_BODY_MAX_BYTES + 1)
        environ["wsgi.input"] = io.BytesIO(body)
        environ[ARRIVED] = time.perf_counter()
        status, headers, answer = threads.run(_whole_answer, application, environ)
        start_response(status, headers)
        return (answer,)

    return handle


def _whole_answer(
    application: "WSGIApplication", environ: "WSGIEnvironment"
) -> tuple[str, list[tuple[str, str]], bytes]:
    """An application's answer with its whole body. A later `start_response` replaces an earlier one (PEP 3333)."""
    head: tuple[str, list[tuple[str, str]]] | None = None
    written: list[bytes] = []

    def start(status: str, headers: list[tuple[str, str]], *_: object) -> Callable[[bytes], object]:
        nonlocal head
        head = status, headers
        return written.append

    parts = application(environ, start)
    try:
        body = b"".join(parts)
        assert head is not None  # PEP 3333: called before the body is there
        return *head, b"".join(written) + body
    finally:
        if close := getattr(parts, "close", None):
            close()
