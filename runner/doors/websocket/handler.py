"""pywsgi's handler of one connection, with the upgrade to a WebSocket."""

import logging
import uuid
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import suppress
from errno import ECONNRESET
from http import HTTPStatus
from http.client import HTTPMessage
from types import TracebackType
from typing import Any

import gevent
from gevent.pywsgi import Input, WSGIHandler
from gevent.socket import SHUT_WR
from geventwebsocket.handler import WebSocketHandler as GeventWebSocketHandler
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Response

from httpbase.framing import read_message
from httpbase.logs import loggable_path, request_level
from runner.doors.websocket import handshake
from runner.doors.websocket.connection import WebSocket
from runner.doors.websocket.options import Refusal
from runner.doors.websocket.request import CONNECTION_KEY, RequestConnection
from runner.doors.websocket.transport import Transport
from schemas.errors import CloseCode

logger = logging.getLogger(__name__)

_LINGER_READ_BYTES = 64 * 1024


class WebSocketHandler(GeventWebSocketHandler):  # type: ignore[misc]  # gevent-websocket has no types
    """Keeps gevent-websocket's contract and none of its protocol code.

    An application finds its connection as `environ["wsgi.websocket"]` and keeps it until it returns. What
    is not a handshake goes to the same application as plain HTTP.
    """

    _deadline: gevent.Timeout
    _request: RequestConnection | None = None
    _has_unread_body = False

    def handle(self) -> None:
        """Serve one connection; it ends without a word where its deadline finds nobody who could answer."""
        self._deadline = gevent.Timeout()
        try:
            super().handle()
        except gevent.Timeout as timeout:
            if timeout is not self._deadline:
                raise
        except OSError:
            pass  # the peer did not wait to be told what was wrong with its request
        finally:
            self._deadline.close()
            del self._deadline  # it holds the frames that it interrupted, and they this handler

    def handle_one_request(self) -> Any:
        """Read and answer a request before its deadline; the only wait without one is a session's."""
        self._deadline.close()
        gevent.sleep(1e-9)  # see connection._let_others_in: who pipelines requests never waits for the next
        # A new one each time: libev starts a timer that was stopped with what was left of it.
        self._deadline = gevent.Timeout.start_new(self.server.options.request_timeout_s)
        try:
            return super().handle_one_request()
        finally:
            if self._has_unread_body:
                self._linger()

    def run_application(self) -> None:
        """Answer one request: refuse it, hand it on, or run a session."""
        if not handshake.asks_for_websocket(self.environ):
            self._run_http()
            return
        answer = handshake.answer(self.command, self.path, self.request_version, self.headers)
        refusal = answer if isinstance(answer, Refusal) else self.server.gate(self.environ)
        if refusal is not None:
            self._refuse(refusal)
        elif isinstance(answer, Response):
            self._upgrade(answer)
            del answer, refusal
            self._forget_handshake()
            self.run_websocket()

    def run_websocket(self) -> None:
        """Run the application on an open connection and close it after."""
        websocket: WebSocket = self.environ["wsgi.websocket"]
        self.server.clients.add(websocket)
        try:
            websocket.close(self._run_session())
        finally:
            websocket.abort()  # the application was killed; else all is closed already
            self.server.clients.discard(websocket)
            self.environ["wsgi.websocket"] = None

    def _run_http(self) -> None:
        options = self.server.options
        self._request = self.environ[CONNECTION_KEY] = RequestConnection(
            self.socket, self.wsgi_input, self._lift_deadline, options.body_timeout_s
        )
        try:
            WSGIHandler.run_application(self)
        finally:
            if not self._request.body_was_read:
                self._has_unread_body = True
                self._leave_body()
            # It knows this handler, and the environ knows it.
            self._request = self.environ[CONNECTION_KEY] = None

    def _lift_deadline(self) -> None:
        self._deadline.cancel()

    def _leave_body(self) -> None:
        """Read nothing more: pywsgi would wait for all of it before the next request."""
        self.wsgi_input = self.environ["wsgi.input"] = Input(self.rfile, content_length=0)
        self.close_connection = True

    def _linger(self) -> None:
        """End our half and read on for a while: closing on unread bytes resets TCP, which can overtake the answer."""
        with suppress(OSError), gevent.Timeout(self.server.options.linger_timeout_s, TimeoutError):
            self.socket.shutdown(SHUT_WR)
            while self.socket.recv(_LINGER_READ_BYTES):
                gevent.sleep(1e-9)  # see connection._let_others_in

    def _sendall(self, data: bytes) -> None:
        """Send for as long as the peer takes some of it; pywsgi's own would send for ever."""
        timeout_s = self.socket.gettimeout()
        transport = Transport(self.socket, b"", self.server.options.send_stall_timeout_s)
        try:
            if timeout_s != 0:
                transport.send(data)
            elif transport.send_now(data):  # the deadline has passed, see `handle_error`
                raise BlockingIOError
        except OSError:
            # pywsgi knows this one: the peer is gone, or as good as gone, and there is nobody to tell.
            raise ConnectionResetError(ECONNRESET, "the peer takes no more") from None
        finally:
            self.socket.settimeout(timeout_s)
        self.response_length += len(data)

    def finalize_headers(self) -> None:
        """Announce the connection's end (RFC 9112 §9.6): pywsgi closes without a word."""
        if self._request is not None and not self._request.body_was_read:
            self.close_connection = True  # nobody waits for the rest of it
        super().finalize_headers()
        if self.request_version == "HTTP/1.0":
            self.close_connection = True  # its answers may end where the connection does
        if self.close_connection and self.code != HTTPStatus.SWITCHING_PROTOCOLS:
            self.response_headers.append((b"Connection", b"close"))

    def _refuse(self, refusal: Refusal) -> None:
        status = HTTPStatus(refusal.status)
        self._leave_body()  # or frames that came after the handshake: neither is the next request
        self.start_response(f"{status.value} {status.phrase}", list(refusal.headers))
        self.result = [refusal.body]
        self.process_result()

    def _upgrade(self, response: Response) -> None:
        websocket = WebSocket(self._transport(), self.server.options)
        self.environ["wsgi.websocket"] = websocket  # from now on `start_response` adds no HTTP framing
        self.environ["wsgi.websocket_version"] = "13"
        self.start_response("101 Switching Protocols", list(response.headers.raw_items()))
        self.write(b"")
        self._deadline.cancel()
        websocket.start()

    def _forget_handshake(self) -> None:
        """Let go of what is said in `environ` too: 5 KB, for as long as the session lasts, with the token twice."""
        del self.headers, self.response_headers
        self.requestline = self.path = ""

    def _transport(self) -> Transport:
        # pywsgi reads ahead: the first frames may have come in one segment with the handshake.
        self.socket.setblocking(False)
        try:
            read_ahead = self.rfile.read1() or b""
        except OSError:  # TLS says so when there is nothing
            read_ahead = b""
        self.socket.setblocking(True)
        self.rfile.close()
        return Transport(self.socket, read_ahead, self.server.options.send_stall_timeout_s)

    def _run_session(self) -> CloseCode:
        """Run the application; the code to close with unless it closed by itself."""
        statuses = ["200"]

        def start_response(status: str, *_: object) -> Callable[[bytes], int]:
            statuses.append(status)
            return len  # PEP 3333's write(): the 101 is out, so what it is given goes nowhere

        try:
            self._exhaust(self.application(self.environ, start_response))
        except ConnectionClosed:
            return CloseCode.NORMAL
        except (Exception, gevent.Timeout):
            # Whatever went wrong inside, the peer is told no more than that something did.
            logger.exception("session on %r failed", loggable_path(self.environ["PATH_INFO"]))
            return CloseCode.INTERNAL_ERROR
        # Flask turns an exception into a 500 by itself.
        return CloseCode.NORMAL if statuses[-1] < "4" else CloseCode.INTERNAL_ERROR

    def _exhaust(self, response: Iterable[bytes]) -> None:
        try:
            deque(response, maxlen=0)
        finally:
            getattr(response, "close", bool)()  # PEP 3333: called if there is one, whatever happened

    # HTTP: nothing a client sends is logged but its method and path, for queries carry tokens.

    @property
    def logger(self) -> logging.Logger:
        """Where gevent-websocket logs."""
        return logger

    def log_request(self) -> None:
        """Log a request without its query; sessions are logged by who knows whose they are."""
        if self.code != HTTPStatus.SWITCHING_PROTOCOLS and self.environ is not None:
            path = self.environ["PATH_INFO"]
            logger.log(request_level(path), "%s %r %s", self.command, loggable_path(path), self.code)

    def read_requestline(self) -> str:
        """The next request line; "" (which ends the connection) when none comes in time."""
        if self.server.closed:  # it was retired while this connection was answered
            return ""
        patience = self.server.options.header_timeout_s
        self.server.idle.add(gevent.getcurrent())
        try:
            return str(gevent.with_timeout(patience, super().read_requestline, timeout_value=""))
        finally:
            self.server.idle.discard(gevent.getcurrent())

    def read_request(self, raw_requestline: str) -> bool:
        """Read the headers.

        Raises:
            TimeoutError: They did not end in time.
            ValueError: They are not HTTP.
        """
        with gevent.Timeout(self.server.options.header_timeout_s, TimeoutError):
            return bool(super().read_request(raw_requestline))

    def MessageClass(self, *args: Any) -> HTTPMessage:
        """The headers."""
        return read_message(self.rfile)

    def _handle_client_error(self, ex: Exception) -> tuple[str, bytes]:
        # pywsgi would log the request line and print a traceback for too many headers.
        logger.info("no HTTP request from %s: %s", self.client_address, type(ex).__name__)
        status = HTTPStatus.REQUEST_TIMEOUT if isinstance(ex, TimeoutError) else HTTPStatus.BAD_REQUEST
        return str(status.value), handshake.refusal(status).serialize()

    def handle_error(self, kind: type[BaseException], error: BaseException, traceback: TracebackType | None) -> None:
        """Log what the application or the gate did not catch, and answer 500 if nothing was answered yet."""
        self.close_connection = True
        if issubclass(kind, gevent.GreenletExit):
            return
        error_id, status = str(uuid.uuid4()), HTTPStatus.INTERNAL_SERVER_ERROR
        if error is self._deadline:
            # Nothing waits for a body here: it is the gate that was slow, or the peer that does not read.
            logger.info("request not answered in time (error id %s)", error_id)
            status = HTTPStatus.SERVICE_UNAVAILABLE
            self.socket.settimeout(0.0)  # the deadline comes once: the answer goes into the kernel's buffer or nowhere
        else:
            logger.error("request failed (error id %s)", error_id, exc_info=(kind, error, traceback))
        if not self.headers_sent:
            with suppress(OSError):  # the peer is gone, or never reads
                self._refuse(handshake.refusal(status, error_id))
