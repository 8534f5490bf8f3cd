"""What stands before the gate: who a handshake comes from, and whether there is room for one more socket at all.

Nothing here looks at a token, so whatever is refused here costs next to nothing.
"""

import logging
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from http import HTTPStatus
from ipaddress import IPv6Address, ip_network
from typing import Any, Final

from httpbase.arrival import Arrival, error_id, named
from httpbase.origins import is_allowed
from httpbase.proxies import parse_address
from runner.doors import credentials
from runner.doors.access import DECISION_KEY, RETRY_AFTER_S, RefusedInBand
from runner.doors.credentials import QueryToken
from runner.doors.tally import Tally
from runner.doors.websocket import Refusal
from runner.protocol.pace import Paces
from runner.protocol.places import Places, Shortage
from runner.protocol.session import DRAINED_REASON
from schemas.errors import CloseCode, RealtimeErrorCode
from schemas.problems import problem

log = logging.getLogger(__name__)

REQUEST_ID_KEY: Final = "lcm_realtime.request_id"
"""Where in `environ` the id of a handshake is kept for its session."""

_ORIGIN_SHOWN_MAX_CHARS: Final = 100
_IPV6_SITE: Final = 64
"""Bits of an IPv6 address that one customer has; the others it chooses itself (RFC 6177)."""

Environ = dict[str, Any]
Gate = Callable[[Environ], Refusal | None]

_WORDS: Final = {
    Shortage.ALL: (HTTPStatus.SERVICE_UNAVAILABLE, "as many sockets are open as this server takes, try again later"),
    Shortage.ADDRESS: (HTTPStatus.TOO_MANY_REQUESTS, "too many sockets are open from this address: close one"),
}


@dataclass(frozen=True, slots=True)
class OriginPolicy:
    """Which pages may open sockets."""

    allowed: tuple[str, ...] = ()
    """Empty: all, for access is by tokens, and no page gets another's token along as it would its cookies."""
    may_be_missing: bool = True
    """Programs that are no browsers send none."""


class Reception:
    """The way of a handshake to the gate, and of a socket that it let through to its door.

    Args:
        gate: Looks at the credentials; see `runner.doors.access.Gate`.
        arrival: Tells the client from the proxies before it.
        places: How many sockets there may be.
        handshakes: How often one address may try; None: as often as it likes.
        origins: Which pages may.
        tally: What is counted for the metrics.
        clock: Seconds, never going back.
    """

    def __init__(
        self,
        gate: Gate,
        arrival: Arrival,
        places: Places,
        handshakes: Paces | None = None,
        origins: OriginPolicy | None = None,
        *,
        tally: Tally,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._gate = gate
        self._arrival = arrival
        self._places = places
        self._handshakes = handshakes
        self._origins = origins or OriginPolicy()
        self._tally = tally
        self._clock = clock
        self._is_closed = False

    def close(self) -> None:
        """From now on no socket is let in."""
        self._is_closed = True

    def admit(self, environ: Environ) -> Refusal | None:
        """The HTTP answer that refuses a handshake, or None to upgrade it; then `environ` says what follows."""
        environ[REQUEST_ID_KEY] = name = self._arrival.receive(environ)
        with named(name):
            if refusal := self._refuse_stranger(environ):
                return refusal
            if lack := self._lack(environ):
                return self._turn_away(environ, *lack)
            return self._gate(environ)

    def serve(self, environ: Environ, door: Callable[[Environ], None]) -> None:
        """Has an open socket served at the door, where it holds a place. Blocks its greenlet all the while."""
        with named(environ[REQUEST_ID_KEY]):
            if isinstance(environ[DECISION_KEY], RefusedInBand):
                door(environ)
            elif lack := self._lack(environ):  # others took the place, or the server closed, while it was upgraded
                environ[DECISION_KEY] = _in_band(*lack)
                door(environ)
            else:
                self._serve_in_place(environ, door)

    def _serve_in_place(self, environ: Environ, door: Callable[[Environ], None]) -> None:
        address = counted_address(environ)
        self._places.take(address)
        try:
            door(environ)
        finally:
            self._places.leave(address)

    def _refuse_stranger(self, environ: Environ) -> Refusal | None:
        """Before the upgrade, whatever the credentials: a page of another origin learns nothing more of why."""
        origin = environ.get("HTTP_ORIGIN")
        if not is_allowed(origin, self._origins.allowed, may_be_missing=self._origins.may_be_missing):
            log.info("handshake refused for its origin: %s", shown_origin(origin))
            return self._refusal(HTTPStatus.FORBIDDEN, "sockets may not be opened from this origin")
        address = counted_address(environ)
        if self._handshakes is None or address is None:
            return None
        delay_s = self._handshakes.delay_s(address, self._clock())
        if not delay_s:
            return None
        reason = "too many handshakes from this address: wait between them"
        return self._refusal(HTTPStatus.TOO_MANY_REQUESTS, reason, math.ceil(delay_s))

    def _lack(self, environ: Environ) -> tuple[HTTPStatus, str] | None:
        if self._is_closed:
            return HTTPStatus.SERVICE_UNAVAILABLE, DRAINED_REASON
        shortage = self._places.shortage(counted_address(environ))
        return None if shortage is None else _WORDS[shortage]

    def _turn_away(self, environ: Environ, status: HTTPStatus, reason: str) -> Refusal | None:
        if _has_query_token(environ):
            environ[DECISION_KEY] = _in_band(status, reason)
            return None
        return self._refusal(status, reason, RETRY_AFTER_S)

    def _refusal(self, status: HTTPStatus, reason: str, retry_after_s: int | None = None) -> Refusal:
        self._tally.refused(status)
        refusal_id = error_id()
        log.info("handshake refused with %d (%s): %s", status, refusal_id, reason)
        headers = {"Content-Type": "application/json", "Cache-Control": "no-store"}
        if retry_after_s is not None:
            headers["Retry-After"] = str(retry_after_s)
        body = problem(status, reason, refusal_id).model_dump_json().encode()
        return Refusal(status, tuple(headers.items()), body)


def _in_band(status: HTTPStatus, reason: str) -> RefusedInBand:
    """For browsers, which show a page nothing of a failed upgrade. 1013, not 4029: another socket may be let in."""
    is_own_doing = status is HTTPStatus.TOO_MANY_REQUESTS
    error = RealtimeErrorCode.LIMIT_EXCEEDED if is_own_doing else RealtimeErrorCode.UNAVAILABLE
    return RefusedInBand(error, reason, CloseCode.TRY_AGAIN_LATER)


def _has_query_token(environ: Environ) -> bool:
    return isinstance(credentials.read(environ.get("QUERY_STRING", ""), None), QueryToken)


def counted_address(environ: Environ) -> str | None:
    """Whose sockets are counted together: an IPv4 address, or the IPv6 network that one customer has.

    None for this machine itself, where a proxy may run that hands on everybody's.
    """
    return _site(environ.get("REMOTE_ADDR") or "")


@lru_cache(maxsize=4096)
def _site(text: str) -> str | None:
    address = parse_address(text)
    if address is None or address.is_loopback:
        return None
    if isinstance(address, IPv6Address):
        return str(ip_network((address, _IPV6_SITE), strict=False))
    return str(address)


def shown_origin(origin: str | None) -> str:
    """What a log line says of an origin: strangers write it, at any length."""
    return "none" if origin is None else repr(origin[:_ORIGIN_SHOWN_MAX_CHARS])
