"""Who may open a socket or send a request: the decision, and the gate that takes it before the upgrade.

A refused header gets an HTTP status. At a socket a refused token in the query is let through the upgrade and told
in band, because a browser shows its page nothing of a failed upgrade. `exp` is looked at here and never again: the
official JS client sends no refreshed token on an open socket.
"""

import logging
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, Final, Generic, Protocol

from runner.apps.serving import AppUnavailable, HttpEndpoint, SocketEndpoint
from runner.doors import credentials
from runner.doors.credentials import ApiKey, BearerToken, Credentials, MalformedCredentials, QueryToken
from runner.doors.routes import EndpointT, Registry, Route, socket_path
from runner.doors.tally import Tally
from runner.doors.websocket import Refusal
from runner.protocol.failures import Failure
from schemas.errors import CloseCode, RealtimeErrorCode
from schemas.problems import problem
from schemas.tokens import TokenClaims
from tokens.errors import TokenError
from tokens.scope import covers_any

log = logging.getLogger(__name__)

DECISION_KEY: Final = "lcm_realtime.access"
"""Where in `environ` the gate leaves its decision for the application."""

KEY_UNKNOWN: Final = "No user found for Key ID and Secret"
"""fal's exact words."""

RETRY_AFTER_S: Final = 5


class AccessUnavailable(Exception):
    """Nobody can say now whether the credentials are good: the token service does not answer."""


class TokenSpent(Exception):
    """The token opens one socket, and was redeemed already."""


class TokenNotRedeemed(Exception):
    """The token service refuses to redeem the token: it has expired since, or was revoked."""


class KeyRefused(Exception):
    """The token service does not know the API key, or the key does not reach the app."""

    def __init__(self, status: int) -> None:
        super().__init__(f"key refused with {status}")
        self.status = status


Verify = Callable[[str], TokenClaims]
"""Verifies a token. Raises TokenError or AccessUnavailable."""

Redeem = Callable[[str], None]
"""Redeems a one-time token. Raises TokenSpent, TokenNotRedeemed or AccessUnavailable."""

Obstacle = Callable[[TokenClaims, bool], Failure | None]
"""Why the counted limits of a token leave no room now, or None; the flag: it came of a key at the door."""


class Exchange(Protocol):
    """From an API key and the path of an endpoint to a token."""

    def __call__(self, key: str, path: str, *, fresh: bool = False) -> str:
        """A token, one that was given before unless it must be `fresh`. Raises KeyRefused or AccessUnavailable."""


@dataclass(frozen=True, slots=True)
class Admission(Generic[EndpointT]):
    """Whoever asks may use what is at `route`."""

    route: Route[EndpointT]
    claims: TokenClaims
    by_key: bool = False
    """Whether an API key did it, exchanged for the token here."""


@dataclass(frozen=True, slots=True)
class Admitted(Admission[SocketEndpoint]):
    """The socket may be opened, and leads to `route`."""


@dataclass(frozen=True, slots=True)
class AdmittedRequest(Admission[HttpEndpoint]):
    """The request may be answered by what is at `route`."""


@dataclass(frozen=True, slots=True)
class RefusedInBand:
    """The socket is opened for one error message and a close."""

    error: RealtimeErrorCode
    reason: str
    close: CloseCode


@dataclass(frozen=True, slots=True)
class RefusedHttp:
    """An HTTP answer in place of the upgrade."""

    status: int
    detail: str
    headers: dict[str, str] = field(default_factory=dict)


Decision = Admitted | RefusedInBand | RefusedHttp


@dataclass(frozen=True, slots=True)
class Asks:
    """What the decision asks others; each may block its greenlet."""

    verify: Verify
    exchange: Exchange
    redeem: Redeem
    obstacle: Obstacle


class _Refused(Exception):
    """A refusal on its way to the form that the credentials' place asks for."""

    def __init__(self, status: HTTPStatus, reason: str) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason


_IN_BAND: Final = {
    HTTPStatus.UNAUTHORIZED: (RealtimeErrorCode.UNAUTHORIZED, CloseCode.UNAUTHORIZED),
    HTTPStatus.FORBIDDEN: (RealtimeErrorCode.FORBIDDEN, CloseCode.FORBIDDEN),
    HTTPStatus.NOT_FOUND: (RealtimeErrorCode.NOT_FOUND, CloseCode.NOT_FOUND),
    HTTPStatus.TOO_MANY_REQUESTS: (RealtimeErrorCode.LIMIT_EXCEEDED, CloseCode.LIMIT_EXCEEDED),
    HTTPStatus.SERVICE_UNAVAILABLE: (RealtimeErrorCode.UNAVAILABLE, CloseCode.TRY_AGAIN_LATER),
}

IN_BAND_CLOSE: Final = dict(_IN_BAND.values())
"""The close code that follows each error of a socket that was opened for it."""

NO_ROOM: Final = {
    RealtimeErrorCode.LIMIT_EXCEEDED: HTTPStatus.TOO_MANY_REQUESTS,
    RealtimeErrorCode.UNAVAILABLE: HTTPStatus.SERVICE_UNAVAILABLE,
}
"""The status of what the counted limits refuse."""

_PATH_SHOWN_CHARS: Final = 200

# RFC 9110 §11.6.1 and RFC 6750 §3
_CHALLENGE: Final = 'Bearer realm="lcm-realtime"'
_ANY_CHALLENGE: Final = f'{_CHALLENGE}, Key realm="lcm-realtime"'


def decide(path: str, query: str, authorization: str | None, registry: Registry, asks: Asks) -> Decision:
    """Decides about one handshake; does no I/O of its own.

    Args:
        path: The request's path, decoded.
        query: The request's raw query string.
        authorization: The Authorization header, if there is one.
        registry: What this runner serves.
        asks: What is asked about the credentials.
    """
    found: Credentials | None = None
    try:
        found = credentials.read(query, authorization)
        admission = _admit(found, _Way(registry.socket, path, "there is no realtime endpoint at this path"), asks)
        return Admitted(admission.route, admission.claims, admission.by_key)
    except MalformedCredentials as error:
        return _refuse(_Refused(HTTPStatus.UNAUTHORIZED, str(error)), found)
    except _Refused as refused:
        return _refuse(refused, found)
    except AppUnavailable as error:
        return _refuse(_Refused(HTTPStatus.SERVICE_UNAVAILABLE, error.reason), found)


def decide_request(
    path: str, query: str, authorization: str | None, registry: Registry, asks: Asks
) -> AdmittedRequest | RefusedHttp:
    """Decides about one HTTP request as `decide` does about a handshake; every refusal is a status.

    Raises:
        AppUnavailable: the app cannot say yet what it has.
    """
    found: Credentials | None = None
    try:
        found = credentials.read(query, authorization)
        admission = _admit(found, _Way(registry.http, path, f"Path {shown_path(path)} not found"), asks)
        return AdmittedRequest(admission.route, admission.claims, admission.by_key)
    except MalformedCredentials as error:
        return _refuse_http(_Refused(HTTPStatus.UNAUTHORIZED, str(error)), found)
    except _Refused as refused:
        return _refuse_http(refused, found)


def shown_path(path: str) -> str:
    """A path as an error repeats it: WSGI has its bytes as Latin-1 (PEP 3333)."""
    return path.encode("latin-1", "replace").decode(errors="replace")[:_PATH_SHOWN_CHARS]


@dataclass(frozen=True, slots=True)
class _Way(Generic[EndpointT]):
    """From a path to its endpoint."""

    look_up: Callable[[str], Route[EndpointT] | None]
    path: str
    nowhere: str
    """What to say where it leads nowhere."""

    def route(self) -> Route[EndpointT]:
        """Raises _Refused, AppUnavailable."""
        if (route := self.look_up(self.path)) is None:
            raise _Refused(HTTPStatus.NOT_FOUND, self.nowhere)
        return route


def _admit(found: Credentials | None, way: _Way[EndpointT], asks: Asks) -> Admission[EndpointT]:
    if found is None:
        raise _Refused(
            HTTPStatus.UNAUTHORIZED,
            "Send a token as ?fal_jwt_token=… or a key as Authorization: Key <key_id>:<key_secret>.",
        )
    # A key is exchanged for its endpoint, so a path that leads nowhere is found out first; a token is judged first.
    if isinstance(found, ApiKey):
        route = way.route()
        token, claims = _claims_of_key(found.key, route.path, asks)
    else:
        token, claims = found.token, _verified(found.token, asks.verify)
        route = way.route()
    if not covers_any(claims.apps, route.path):
        raise _Refused(HTTPStatus.FORBIDDEN, f"the token's allowed_apps do not include {route.path}")
    by_key = isinstance(found, ApiKey)
    if failure := asks.obstacle(claims, by_key):
        raise _Refused(NO_ROOM[failure.code], failure.reason)
    if claims.one_time:  # last: what is refused for anything before does not use the token up
        _redeem(token, asks.redeem)
    return Admission(route, claims, by_key)


def _claims_of_key(key: str, path: str, asks: Asks) -> tuple[str, TokenClaims]:
    token = _exchanged(key, path, asks.exchange)
    try:
        return token, _verified(token, asks.verify)
    except _Refused as refused:
        if refused.status != HTTPStatus.UNAUTHORIZED:
            raise
    # It was kept from before its revocation: the token service knows whether the key is still good for another.
    token = _exchanged(key, path, asks.exchange, fresh=True)
    return token, _verified(token, asks.verify)


def _exchanged(key: str, path: str, exchange: Exchange, *, fresh: bool = False) -> str:
    try:
        return exchange(key, path, fresh=True) if fresh else exchange(key, path)
    except KeyRefused as refused:
        if refused.status == HTTPStatus.FORBIDDEN:
            raise _Refused(HTTPStatus.FORBIDDEN, f"the key may not use {path}") from None
        raise _Refused(HTTPStatus.UNAUTHORIZED, KEY_UNKNOWN) from None
    except AccessUnavailable:
        raise _Refused(HTTPStatus.SERVICE_UNAVAILABLE, "keys cannot be checked now, try again later") from None


def _verified(token: str, verify: Verify) -> TokenClaims:
    try:
        return verify(token)
    except TokenError as error:
        # Its description is made to be shown; the token is not in it.
        raise _Refused(HTTPStatus.UNAUTHORIZED, error.description) from None
    except AccessUnavailable:
        raise _Refused(HTTPStatus.SERVICE_UNAVAILABLE, "tokens cannot be checked now, try again later") from None


def _redeem(token: str, redeem: Redeem) -> None:
    try:
        redeem(token)
    except TokenSpent:
        raise _Refused(HTTPStatus.UNAUTHORIZED, "the token was used already; mint a new one") from None
    except TokenNotRedeemed:
        raise _Refused(HTTPStatus.UNAUTHORIZED, "the token is no longer good; mint a new one") from None
    except AccessUnavailable:
        raise _Refused(
            HTTPStatus.SERVICE_UNAVAILABLE, "one-time tokens cannot be redeemed now, try again later"
        ) from None


def _refuse(refused: _Refused, found: Credentials | None) -> RefusedInBand | RefusedHttp:
    if isinstance(found, QueryToken):
        error, close = _IN_BAND[refused.status]
        return RefusedInBand(error, refused.reason, close)
    return _refuse_http(refused, found)


def _refuse_http(refused: _Refused, found: Credentials | None) -> RefusedHttp:
    return RefusedHttp(refused.status, refused.reason, _headers(refused.status, found))


def _headers(status: HTTPStatus, found: Credentials | None) -> dict[str, str]:
    match status:
        case HTTPStatus.UNAUTHORIZED if isinstance(found, BearerToken | QueryToken):
            return {"WWW-Authenticate": f'{_CHALLENGE}, error="invalid_token"'}
        case HTTPStatus.UNAUTHORIZED:
            return {"WWW-Authenticate": _ANY_CHALLENGE}
        case HTTPStatus.FORBIDDEN:
            return {"WWW-Authenticate": f'{_CHALLENGE}, error="insufficient_scope"'}
        case HTTPStatus.TOO_MANY_REQUESTS | HTTPStatus.SERVICE_UNAVAILABLE:
            return {"Retry-After": str(RETRY_AFTER_S)}
    return {}


class Gate:
    """Takes the decision before the upgrade: answers HTTP, or leaves the decision in `environ`."""

    def __init__(self, registry: Registry, asks: Asks, tally: Tally) -> None:
        self._registry = registry
        self._asks = asks
        self._tally = tally

    def __call__(self, environ: dict[str, Any]) -> Refusal | None:
        """The HTTP refusal, or None to upgrade. Blocks its greenlet while the token service is asked."""
        decision = decide(
            socket_path(environ.get("PATH_INFO", ""), environ.get("HTTP_HOST", "")),
            environ.get("QUERY_STRING", ""),
            environ.get("HTTP_AUTHORIZATION"),
            self._registry,
            self._asks,
        )
        if isinstance(decision, RefusedHttp):
            self._tally.refused(decision.status)
            return _http_refusal(decision)
        environ[DECISION_KEY] = decision
        return None


def _http_refusal(refused: RefusedHttp) -> Refusal:
    error_id = str(uuid.uuid4())
    log.info("handshake refused with %d (%s): %s", refused.status, error_id, refused.detail)
    body = problem(refused.status, refused.detail, error_id).model_dump_json().encode()
    headers = {"Content-Type": "application/json", "Cache-Control": "no-store", **refused.headers}
    return Refusal(refused.status, tuple(headers.items()), body)
