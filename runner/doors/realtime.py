"""The realtime door: from a socket that passed the gate to a session, or to a refusal in band."""

import logging
import re
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final

from websockets.exceptions import ConnectionClosed

from runner.doors import credentials
from runner.doors.access import DECISION_KEY, Admitted, RefusedInBand
from runner.doors.driver import Driver, Socket, close_reason
from runner.protocol import codec, failures
from runner.protocol.failures import Failure
from runner.protocol.session import Session, SessionRules
from schemas import limits
from schemas.errors import CloseCode

log = logging.getLogger(__name__)

BUFFERING_PARAMETER: Final = "max_buffering"


class RealtimeDoor:
    """Serves the sockets that the gate let through.

    Args:
        rules: How long sessions live. A token's own `max_session_s` can make it shorter.
        clock: Seconds, never going back.
    """

    def __init__(self, rules: SessionRules, clock: Callable[[], float] = time.monotonic) -> None:
        self._rules = rules
        self._clock = clock

    def serve(self, environ: dict[str, Any]) -> None:
        """Serves one socket from the handshake to its end. Blocks its greenlet all the while."""
        socket: Socket = environ["wsgi.websocket"]
        decision: Admitted | RefusedInBand = environ[DECISION_KEY]
        if isinstance(decision, RefusedInBand):
            log.info("socket refused in band: %s: %s", decision.error, decision.reason)
            refuse(socket, Failure(decision.error, decision.reason), decision.close)
            return
        try:
            max_buffering = read_max_buffering(environ.get("QUERY_STRING", ""))
        except ValueError as error:
            failure = failures.invalid_field(BUFFERING_PARAMETER, str(error), "int_range", where="query")
            refuse(socket, failure, CloseCode.BAD_REQUEST)
            return
        who = f"key={decision.claims.sub} jti={decision.claims.jti}"
        origin, address = environ.get("HTTP_ORIGIN"), environ.get("REMOTE_ADDR")
        log.info("session opened: %s path=%s from=%s origin=%r", who, decision.route.path, address, origin)
        try:
            self._run(socket, decision, max_buffering)
        finally:
            log.info("session closed: %s code=%s", who, socket.close_code)

    def _run(self, socket: Socket, admitted: Admitted, max_buffering: int | None) -> None:
        durations = (self._rules.max_session_s, admitted.claims.max_session_s)
        max_session_s = min((seconds for seconds in durations if seconds is not None), default=None)
        rules = replace(self._rules, max_buffering=max_buffering, max_session_s=max_session_s)
        endpoint = admitted.route.endpoint
        Driver(socket, endpoint, Session(endpoint.input_model, rules, self._clock()), self._clock).run()


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
