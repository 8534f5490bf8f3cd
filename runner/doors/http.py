"""The HTTP door: `POST /{owner}/{alias}[/path]`, from credentials to the last byte of the answer (contract §4)."""

import functools
import logging
import re
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from errno import ECONNRESET
from http import HTTPStatus
from typing import Any, Final

from httpbase import arrival
from httpbase.logs import loggable_path
from runner.apps.serving import AppUnavailable, Headers, HttpAnswer, HttpEndpoint, HttpRequest, Usage
from runner.doors import credentials, refusals, reports
from runner.doors.access import NO_ROOM, AdmittedRequest, Asks, RefusedHttp, decide_request, shown_path
from runner.doors.answer_head import WITHOUT_CONTENT
from runner.doors.cors import CorsPolicy
from runner.doors.exchange import CLIENT_CLOSED_REQUEST, AnswerBroken, Exchange
from runner.doors.refusals import HttpRefusal
from runner.doors.reports import Reporter
from runner.doors.revocations import REVOKED, Revocations
from runner.doors.routes import Registry, Route, split
from runner.doors.tally import Tally
from runner.doors.tracing import CURRENT, NoTracing, Tracing
from runner.doors.websocket.request import (
    CONNECTION_KEY,
    BodyCutShort,
    BodyMalformed,
    BodyTooLarge,
    BodyTooSlow,
    RequestConnection,
)
from runner.protocol import failures
from runner.protocol.allowance import Allowance, Allowances, NoRoom
from runner.protocol.failures import Failure
from schemas import limits
from schemas.errors import RealtimeErrorCode
from schemas.problems import KINDS

log = logging.getLogger(__name__)

Environ = dict[str, Any]
StartResponse = Callable[..., Callable[[bytes], object]]

HEARTBEAT: Final = b": heartbeat\n\n"
"""A comment, which every reader of event streams ignores (HTML standard §9.2.6); it keeps proxies from giving up."""

_REVOKED: Final = Failure(RealtimeErrorCode.UNAUTHORIZED, REVOKED)
_CLIENT_LEFT: Final = HttpRefusal(CLIENT_CLOSED_REQUEST, KINDS[CLIENT_CLOSED_REQUEST].title)
_HOST: Final = re.compile(r"[0-9A-Za-z._-]+(:[0-9]{1,5})?|\[[0-9A-Fa-f:.]+\](:[0-9]{1,5})?", re.ASCII)
_ORIGIN_SHOWN_CHARS: Final = 100
_PHRASES: Final = {int(status): status.phrase for status in HTTPStatus} | {
    CLIENT_CLOSED_REQUEST: "Client Closed Request"
}


@dataclass(frozen=True, slots=True)
class HttpOptions:
    """What an operator may set."""

    timeout_s: float = 120.0
    """How long an answer may take to make."""
    max_body_bytes: int = limits.MESSAGE_MAX_BYTES
    heartbeat_s: float = 15.0
    """How long an event stream may be silent."""
    cors: CorsPolicy = field(default_factory=CorsPolicy)


class HttpDoor:
    """Answers HTTP requests to apps.

    Args:
        registry: What this runner serves.
        asks: What is asked about credentials.
        allowances: What tokens have used of their counted limits.
        tally: What is counted for the metrics.
        reporter: Where usage is reported, if anywhere.
        revocations: What ends requests before their time.
        options: See `HttpOptions`.
        tracing: Where requests are traced, if anywhere.
        clock: Seconds, never going back.
        wall_clock: Unix time, seconds.
    """

    def __init__(
        self,
        registry: Registry,
        asks: Asks,
        allowances: Allowances,
        tally: Tally,
        reporter: Reporter | None = None,
        *,
        revocations: Revocations,
        options: HttpOptions | None = None,
        tracing: Tracing | None = None,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self._registry = registry
        self._asks = asks
        self._allowances = allowances
        self._tally = tally
        self._reporter = reporter
        self._revocations = revocations
        self._options = options or HttpOptions()
        self._tracing = tracing or NoTracing()
        self._clock = clock
        self._wall_clock = wall_clock
        self._exchanges: set[Exchange] = set()

    def end(self) -> None:
        """Ends the requests that are left, whatever they do. Does not block."""
        for exchange in list(self._exchanges):
            exchange.end(failures.unavailable())

    def serves(self, path: str) -> bool:
        """Whether a path is one of an app's, be there an endpoint or not."""
        return split(path)[0] in self._registry.apps

    def exchange(self, route: Route[HttpEndpoint], request: HttpRequest) -> HttpAnswer:
        """What follows access, for a request however it came: see `runner.doors.exchange.Exchange.answer`.

        Counts it (`request.allowance`), bounds its time, puts every failure into the error body. Knows nothing of
        CORS, heartbeats, access, reports or revocation: those are the caller's (an `Exchange` can also be `end`ed).
        """
        return self._begin(route, request).answer()

    def serve(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        """Answers one request, as a WSGI application of our server; all of it is sent when it returns."""
        reply = _Reply(environ, start_response, self._options)
        try:
            self._answer(environ, reply)
        except AppUnavailable as error:
            reply.refuse(refusals.of_error(error, reply.request_id))
        finally:
            self._tally.answered(reply.status)
        return []

    def _answer(self, environ: Environ, reply: "_Reply") -> None:
        if environ["REQUEST_METHOD"] == "OPTIONS":
            reply.preflight()
        elif refusal := self._misdirected(environ):
            reply.refuse(refusal)
        elif isinstance(decision := self._decide(environ), RefusedHttp):
            headers = {name.lower(): value for name, value in decision.headers.items()}
            reply.refuse(HttpRefusal(decision.status, decision.detail, headers=headers))
        else:
            self._admit(environ, decision, reply)

    def _misdirected(self, environ: Environ) -> HttpRefusal | None:
        """Why the method and the path do not go together. A path that leads nowhere is for access to refuse."""
        path, method = environ["PATH_INFO"], environ["REQUEST_METHOD"]
        if route := self._registry.http(path):
            if method in route.endpoint.methods:
                return None
            return HttpRefusal(405, KINDS[405].remedy, headers={"allow": ", ".join(sorted(route.endpoint.methods))})
        if self._registry.socket(path):
            return HttpRefusal(426, KINDS[426].remedy, headers={"upgrade": "websocket", "connection": "upgrade"})
        return None if method == "POST" else HttpRefusal(404, f"Path {shown_path(path)} not found")

    def _decide(self, environ: Environ) -> AdmittedRequest | RefusedHttp:
        return decide_request(
            environ["PATH_INFO"],
            environ.get("QUERY_STRING", ""),
            environ.get("HTTP_AUTHORIZATION"),
            self._registry,
            self._asks,
        )

    def _admit(self, environ: Environ, admitted: AdmittedRequest, reply: "_Reply") -> None:
        try:
            allowance = self._allowances.enter(admitted.claims, by_key=admitted.by_key, now=self._wall_clock())
        except NoRoom as no_room:  # others took the place while the token was looked at
            reply.refuse(HttpRefusal(NO_ROOM[no_room.failure.code], no_room.failure.reason))
            return
        try:
            with self._reported(environ, admitted, reply) as usage:
                self._respond(environ, admitted, allowance, reply, usage)
        finally:
            self._allowances.leave(allowance)

    @contextmanager
    def _reported(self, environ: Environ, admitted: AdmittedRequest, reply: "_Reply") -> Iterator[Usage]:
        """The request's events, its line in the log, and its pictures in the tally."""
        address, since, usage = environ.get("REMOTE_ADDR"), self._clock(), Usage()
        if self._reporter and (event := reports.connected(admitted, address, self._wall_clock())):
            self._reporter.add(event)
        trace = self._tracing.request(admitted.route.path, admitted.claims, reply.request_id)
        CURRENT.set(trace)
        try:
            yield usage
        finally:
            CURRENT.set(None)  # the connection may be kept for another request
            trace.end(reply.status or None)
            claims = admitted.claims
            log.info(
                "request answered: key=%s sub=%s jti=%s path=%s from=%s origin=%r status=%s request_id=%s",
                claims.client_id,
                claims.sub,
                claims.jti,
                admitted.route.path,
                address,
                environ.get("HTTP_ORIGIN", "")[:_ORIGIN_SHOWN_CHARS] or None,
                reply.status,
                reply.request_id,
            )
            self._tally.images += usage.images
            self._close(admitted, address, self._clock() - since, usage)

    def _close(self, admitted: AdmittedRequest, address: str | None, duration_s: float, usage: Usage) -> None:
        if self._reporter is None:
            return
        now = self._wall_clock()
        if event := reports.closed(admitted, address, now, code=None, duration_s=duration_s, usage=usage):
            self._reporter.add(event)

    def _respond(
        self, environ: Environ, admitted: AdmittedRequest, allowance: Allowance, reply: "_Reply", usage: Usage
    ) -> None:
        connection: RequestConnection = environ[CONNECTION_KEY]
        body = self._body(connection)
        if isinstance(body, HttpRefusal):
            reply.refuse(body)
            return
        exchange = self._begin(admitted.route, _request(environ, admitted, allowance, body, reply.request_id))
        self._exchanges.add(exchange)
        try:
            with (
                connection.watched(functools.partial(exchange.abandon, _CLIENT_LEFT)),
                self._revocations.watching(admitted.claims, functools.partial(exchange.end, _REVOKED)),
            ):
                answer = exchange.answer()
                try:
                    reply.send(answer, exchange)
                finally:  # who leaves before the last byte has had the pictures as well
                    usage.images, usage.pixels = answer.usage.images, answer.usage.pixels
        finally:
            self._exchanges.discard(exchange)
            exchange.close()

    def _begin(self, route: Route[HttpEndpoint], request: HttpRequest) -> Exchange:
        return Exchange(route.endpoint, request, timeout_s=self._options.timeout_s, clock=self._clock)

    def _body(self, connection: RequestConnection) -> bytes | HttpRefusal:
        try:
            return connection.read_body(self._options.max_body_bytes)
        except BodyTooLarge:
            return HttpRefusal(413, f"The body is larger than {self._options.max_body_bytes} bytes.")
        except BodyTooSlow:
            return HttpRefusal(408, KINDS[408].remedy)
        except BodyMalformed:
            return HttpRefusal(400, "The chunks of the body are not those of RFC 9112 section 7.1.")
        except BodyCutShort:
            return _CLIENT_LEFT


def _request(
    environ: Environ, admitted: AdmittedRequest, allowance: Allowance, body: bytes, request_id: str
) -> HttpRequest:
    host = environ.get("HTTP_HOST", "")
    return HttpRequest(
        environ["REQUEST_METHOD"],
        admitted.route.below,
        body,
        request_id,
        allowance,
        credentials.without(environ.get("QUERY_STRING", "")),
        credentials.headers_of(environ),
        f"{environ['wsgi.url_scheme']}://{host}" if _HOST.fullmatch(host) else "",
        environ.get("REMOTE_ADDR") or "",
    )


class _Reply:
    """What is sent for one request: every answer has an id, and what a page may read."""

    def __init__(self, environ: Environ, start_response: StartResponse, options: HttpOptions) -> None:
        self._environ = environ
        self._start_response = start_response
        self._options = options
        self.request_id = arrival.error_id()
        self.status = 0

    def preflight(self) -> None:
        wanted = self._environ.get("HTTP_ACCESS_CONTROL_REQUEST_HEADERS", "")
        headers = self._options.cors.preflight(self._environ.get("HTTP_ORIGIN"), wanted)
        self._start(204, (*headers, ("allow", "POST, OPTIONS"), ("x-fal-request-id", self.request_id)))(b"")

    def refuse(self, refusal: HttpRefusal) -> None:
        if refusal.status < 500:
            path = loggable_path(self._environ["PATH_INFO"])
            log.info("request to %r refused with %d (%s)", path, refusal.status, self.request_id)
        answer = refusal.answer(self.request_id)
        self._send_whole(answer.status, self._readable(answer.headers), b"".join(answer.body))

    def send(self, answer: HttpAnswer, exchange: Exchange) -> None:
        """Sends an answer as it is made.

        Raises:
            ConnectionResetError: its end cannot be sent, because it is not there or nobody takes it.
        """
        try:
            self._send(answer, exchange)
        except OSError:
            self.status = _CLIENT_LEFT.status
            raise
        except AnswerBroken:
            log.warning("the answer to request %s broke off", self.request_id)
            # pywsgi cuts the connection for this without a word, and the client sees that something is missing.
            raise ConnectionResetError(ECONNRESET, "the answer broke off") from None

    def _send(self, answer: HttpAnswer, exchange: Exchange) -> None:
        headers = self._readable(answer.headers)
        if isinstance(answer.body, list | tuple):
            self._send_whole(answer.status, headers, b"".join(answer.body))
            return
        write = self._start(answer.status, headers)
        write(b"")  # the head goes out before the first chunk is there
        if exchange.is_event_stream:
            self._send_events(write, exchange)
        else:
            for chunk in exchange:
                write(chunk)

    def _send_events(self, write: Callable[[bytes], object], exchange: Exchange) -> None:
        while True:
            while exchange.is_silent(self._options.heartbeat_s):
                write(HEARTBEAT)
            if (chunk := next(exchange, None)) is None:
                return
            write(chunk)

    def _send_whole(self, status: int, headers: Headers, content: bytes) -> None:
        if status not in WITHOUT_CONTENT and not any(name == "content-length" for name, _ in headers):
            headers = (*headers, ("content-length", str(len(content))))
        self._start(status, headers)(b"" if self._environ["REQUEST_METHOD"] == "HEAD" else content)

    def _readable(self, headers: Headers) -> Headers:
        """The headers with ours about pages in place of an app's."""
        own = (pair for pair in headers if not pair[0].startswith("access-control-"))
        return (*own, *self._options.cors.headers(self._environ.get("HTTP_ORIGIN")))

    def _start(self, status: int, headers: Headers) -> Callable[[bytes], object]:
        self.status = status
        if arrival.request_id() is None:  # else `Arrival` adds it
            headers = (*headers, ("x-request-id", self.request_id))
        return self._start_response(f"{status} {_PHRASES.get(status, 'Unknown')}", list(headers))
