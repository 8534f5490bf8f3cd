"""The realtime door: from a socket that passed the gate to a session, or to a refusal in band."""

import functools
import logging
import re
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final, Protocol
from wsgiref.util import application_uri

from websockets.exceptions import ConnectionClosed
from websockets.frames import Close

from runner.apps.serving import Conversation, Socket, SocketTerms, Usage
from runner.doors import credentials, reports
from runner.doors.access import DECISION_KEY, IN_BAND_CLOSE, Admitted, RefusedInBand
from runner.doors.conversing import close_reason
from runner.doors.pacing import PacedSocket
from runner.doors.reception import shown_origin
from runner.doors.reports import Reporter
from runner.doors.revocations import REVOKED, Revocations
from runner.doors.tally import Tally
from runner.doors.tracing import CURRENT, NoTracing, Tracing
from runner.protocol import codec, failures
from runner.protocol.allowance import Allowance, Allowances, NoRoom
from runner.protocol.failures import Failure
from runner.protocol.session import DRAINED_REASON, SessionRules
from schemas import limits
from schemas.errors import CloseCode, RealtimeErrorCode

log = logging.getLogger(__name__)

BUFFERING_PARAMETER: Final = "max_buffering"

_REVOKED: Final = Failure(RealtimeErrorCode.UNAUTHORIZED, REVOKED)
_DRAINED: Final = Failure(RealtimeErrorCode.UNAVAILABLE, DRAINED_REASON)


class DoorSocket(Socket, Protocol):
    """What serving a socket needs of it besides."""

    @property
    def close_sent(self) -> Close | None:
        """Our own close."""


class RealtimeDoor:
    """Serves the sockets that the gate let through.

    Args:
        rules: How long sessions live. A token's own `max_session_s` can make it shorter.
        allowances: What tokens have used of their counted limits.
        tally: What is counted for the metrics.
        reporter: Where the opening and the close of sessions are reported, if anywhere.
        revocations: What ends sessions before their time; by default nothing is ever revoked.
        messages_per_minute: See `PacedSocket`; None: messages come as fast as they like.
        tracing: Where sessions and what they draw are traced, if anywhere.
        clock: Seconds, never going back.
        wall_clock: Unix time, seconds.
    """

    def __init__(
        self,
        rules: SessionRules,
        allowances: Allowances,
        tally: Tally,
        reporter: Reporter | None = None,
        *,
        revocations: Revocations | None = None,
        messages_per_minute: int | None = None,
        tracing: Tracing | None = None,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self._rules = rules
        self._allowances = allowances
        self._tally = tally
        self._reporter = reporter
        # Not `or`: an empty list is false.
        self._revocations = Revocations(is_known=True) if revocations is None else revocations
        self._messages_per_minute = messages_per_minute
        self._tracing = tracing or NoTracing()
        self._clock = clock
        self._wall_clock = wall_clock
        self._open: set[Conversation] = set()
        self._is_draining = False

    def drain(self) -> None:
        """Has every session answer what it took and close with SERVICE_RESTART, those too that begin from now on."""
        self._is_draining = True
        for conversation in list(self._open):
            conversation.drain()

    def end(self) -> None:
        """Ends the sessions that are left, whatever they do, with SERVICE_RESTART. Does not block."""
        for conversation in list(self._open):
            conversation.end(_DRAINED, CloseCode.SERVICE_RESTART)

    def serve(self, environ: dict[str, Any]) -> None:
        """Serves one socket from the handshake to its end. Blocks its greenlet all the while."""
        socket: DoorSocket = environ["wsgi.websocket"]
        decision: Admitted | RefusedInBand = environ[DECISION_KEY]
        if isinstance(decision, RefusedInBand):
            self._refuse(socket, Failure(decision.error, decision.reason), decision.close)
            return
        try:
            max_buffering = read_max_buffering(environ.get("QUERY_STRING", ""))
        except ValueError as error:
            failure = failures.invalid_field(BUFFERING_PARAMETER, str(error), "int_range", where="query")
            self._refuse(socket, failure, CloseCode.BAD_REQUEST)
            return
        try:
            allowance = self._allowances.enter(decision.claims, by_key=decision.by_key, now=self._wall_clock())
        except NoRoom as no_room:  # others took the place while this one was upgraded
            self._refuse(socket, no_room.failure, IN_BAND_CLOSE[no_room.failure.code])
            return
        try:
            self._serve(socket, decision, allowance, max_buffering, environ)
        finally:
            self._allowances.leave(allowance)

    def _serve(
        self,
        socket: DoorSocket,
        admitted: Admitted,
        allowance: Allowance,
        max_buffering: int | None,
        environ: dict[str, Any],
    ) -> None:
        """One session, from the line in the log that says it was opened to the one that says it was closed."""
        conversation = self._conversation(socket, admitted, allowance, max_buffering, environ)
        origin, address = environ.get("HTTP_ORIGIN"), environ.get("REMOTE_ADDR")
        who = f"key={admitted.claims.client_id} sub={admitted.claims.sub} jti={admitted.claims.jti}"
        line = "session opened: %s path=%s from=%s origin=%s"
        log.info(line, who, admitted.route.path, address, shown_origin(origin))
        self._opened(admitted, address)
        trace = self._tracing.session(admitted.route.path, admitted.claims, address)
        CURRENT.set(trace)
        since = self._clock()
        self._open.add(conversation)
        if self._is_draining:
            conversation.drain()
        try:
            end = functools.partial(conversation.end, _REVOKED, CloseCode.UNAUTHORIZED)
            with self._revocations.watching(admitted.claims, end):
                conversation.run()
        finally:
            self._open.discard(conversation)
            code, duration_s = _end_code(socket), self._clock() - since
            log.info("session closed: %s code=%s", who, code)
            trace.end(code)
            self._closed(admitted, address, code, duration_s, conversation.usage)

    def _conversation(
        self,
        socket: Socket,
        admitted: Admitted,
        allowance: Allowance,
        max_buffering: int | None,
        environ: dict[str, Any],
    ) -> Conversation:
        durations = (self._rules.max_session_s, admitted.claims.max_session_s)
        max_session_s = min((seconds for seconds in durations if seconds is not None), default=None)
        rules = replace(self._rules, max_buffering=max_buffering, max_session_s=max_session_s)
        terms = SocketTerms(
            admitted.route.below,
            rules,
            allowance,
            self._clock,
            credentials.without(environ.get("QUERY_STRING", "")),
            credentials.headers_of(environ),
            application_uri(environ).rstrip("/"),
            self._tally,
            environ.get("REMOTE_ADDR") or "",
        )
        if self._messages_per_minute is not None:
            socket = PacedSocket(socket, self._messages_per_minute, max_buffering, self._clock)
        return admitted.route.endpoint.open(socket, terms)

    def _opened(self, admitted: Admitted, address: str | None) -> None:
        self._tally.opened()
        if self._reporter and (event := reports.connected(admitted, address, self._wall_clock())):
            self._reporter.add(event)

    def _closed(
        self, admitted: Admitted, address: str | None, code: int | None, duration_s: float, usage: Usage
    ) -> None:
        self._tally.closed(code, usage.images)
        if self._reporter is None:
            return
        now = self._wall_clock()
        if event := reports.closed(admitted, address, now, code=code, duration_s=duration_s, usage=usage):
            self._reporter.add(event)

    def _refuse(self, socket: Socket, failure: Failure, code: CloseCode) -> None:
        log.info("socket refused in band: %s: %s", failure.code, failure.reason)
        self._tally.refused(failure.code)
        refuse(socket, failure, code)


def _end_code(socket: DoorSocket) -> int | None:
    """The code that a session ended with: ours, which repeats the peer's if that closed; 1006 if it vanished."""
    sent = socket.close_sent
    return socket.close_code if sent is None else sent.code


def read_max_buffering(query: str) -> int | None:
    """The `max_buffering` of a query string; None where it is not given.

    Raises:
        ValueError: It is not one whole number from 1 to 60; the text is for the peer.
    """
    value = credentials.parameter(query, BUFFERING_PARAMETER)
    if value is None:
        return None
    if not re.fullmatch(r"[1-9][0-9]?", value) or int(value) > limits.MAX_BUFFERING_MAX:
        raise ValueError(f"must be a whole number from 1 to {limits.MAX_BUFFERING_MAX}")
    return int(value)


def refuse(socket: Socket, failure: Failure, code: CloseCode) -> None:
    """One error message and a close. Nothing that the peer sent is looked at."""
    try:
        socket.send(codec.encode_control(failure.message()))
    except ConnectionClosed:
        return
    socket.close(code, close_reason(failure.reason))
