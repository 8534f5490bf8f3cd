"""What the runner asks of the token service, and tells it: public keys, tokens, one-time tokens, what happened.

httpx blocks, so every request runs in a thread of gevent's pool while the hub goes on. Answers are bounded in
size and in time.
"""

import re
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Final

import gevent
import httpx
from gevent.lock import BoundedSemaphore
from pydantic import BaseModel, Field, ValidationError

from runner.doors.access import AccessUnavailable, KeyRefused, TokenNotRedeemed, TokenSpent
from runner.doors.revocations import RevocationPage
from schemas import limits
from schemas.events import SessionEvent, SessionReport
from schemas.revocation import RevocationList
from tokens.errors import InvalidKey
from tokens.keys import KeySet, parse_jwks

ANSWER_MAX_BYTES: Final = 256 * 1024

_Answer = tuple[int, Mapping[str, str], bytes]
"""Status, headers and body."""

_MAX_AGE: Final = re.compile(r"(?:^|,)\s*max-age=(\d{1,9})\b", re.ASCII | re.IGNORECASE)


REDEMPTIONS_AT_ONCE: Final = 4
"""Handshakes with one-time tokens must not use up the threads of the pool."""


class MintedToken(BaseModel):
    """Of the answer to a minting request, what is needed here: other versions of the service may say more or less."""

    token: str = Field(repr=False)
    expires_in: int = Field(ge=0, le=limits.TOKEN_DURATION_MAX_S)


class ReportRefused(Exception):
    """The token service will not take this report, now or later."""


@dataclass(frozen=True, slots=True)
class PublishedKeys:
    """A key set, and for how many seconds its publisher says it holds (None: it did not say)."""

    keys: KeySet
    max_age_s: int | None


class TokenService:
    """The token service over HTTP. Every call blocks its greenlet, at most twice `timeout_s`.

    Args:
        base_url: For example `http://127.0.0.1:8001`.
        jwks_url: Where its public keys are.
        timeout_s: For connecting, for each read, and for a whole answer's body.
    """

    def __init__(self, base_url: str, jwks_url: str, timeout_s: float = 5.0) -> None:
        # Parsed here, so that a URL that is none stops the start and not the first request.
        self._tokens_url = httpx.URL(f"{base_url.rstrip('/')}/tokens/realtime")
        self._redeem_url = httpx.URL(f"{base_url.rstrip('/')}/tokens/redeem")
        self._revocations_url = httpx.URL(f"{base_url.rstrip('/')}/revocations")
        self._events_url = httpx.URL(f"{base_url.rstrip('/')}/events")
        self._jwks_url = httpx.URL(jwks_url)
        self._timeout_s = timeout_s
        self._redemptions = BoundedSemaphore(REDEMPTIONS_AT_ONCE)
        # trust_env=False: proxy variables of the environment must not send API keys through a third party.
        # identity: the size is bounded as it comes in, so nothing may unpack to more.
        self._client = httpx.Client(
            timeout=timeout_s, trust_env=False, headers={"Accept-Encoding": "identity"}, follow_redirects=False
        )

    def close(self) -> None:
        """Gives the connections back."""
        self._client.close()

    def fetch_keys(self) -> PublishedKeys:
        """Fetches the public keys.

        Raises:
            AccessUnavailable: no answer, or one that holds no usable key.
        """
        status, headers, body = self._request("GET", self._jwks_url)
        if status != HTTPStatus.OK:
            raise AccessUnavailable(f"the key set was answered with {status}")
        try:
            keys = parse_jwks(body)
        except InvalidKey as error:
            raise AccessUnavailable(str(error)) from None
        if not keys:
            raise AccessUnavailable("the key set holds no usable key")
        return PublishedKeys(keys, _max_age(headers.get("cache-control", "")))

    def fetch_revocations(self, after: str, etag: str | None) -> RevocationPage | None:
        """Fetches what was revoked after the cursor; None where nothing was since the answer of that ETag.

        Raises:
            AccessUnavailable: no usable answer.
        """
        url = self._revocations_url.copy_merge_params({"after": after}) if after else self._revocations_url
        status, headers, body = self._request("GET", url, headers={"If-None-Match": etag} if etag else {})
        if status == HTTPStatus.NOT_MODIFIED and etag:
            return None
        if status != HTTPStatus.OK:
            raise AccessUnavailable(f"the revocation list was answered with {status}")
        try:
            return RevocationPage(RevocationList.model_validate_json(body), headers.get("etag"))
        except ValidationError:
            raise AccessUnavailable("the revocation list came in an unknown form") from None

    def mint(self, key: str, path: str) -> MintedToken:
        """Exchanges an API key for a token that opens one endpoint.

        Raises:
            KeyRefused: the key is unknown, or does not reach `path`.
            AccessUnavailable: no usable answer.
        """
        status, _, body = self._request(
            "POST", self._tokens_url, headers={"Authorization": f"Key {key}"}, json={"allowed_apps": [path]}
        )
        if status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
            raise KeyRefused(status)
        if status not in (HTTPStatus.OK, HTTPStatus.CREATED):
            raise AccessUnavailable(f"the token request was answered with {status}")
        try:
            return MintedToken.model_validate_json(body)
        except ValidationError:
            raise AccessUnavailable("the token service answered in an unknown form") from None

    def redeem(self, token: str) -> None:
        """Uses a one-time token up. Not tried again when no answer comes: it may have been used up all the same.

        Raises:
            TokenSpent: it was used already.
            TokenNotRedeemed: it is not good any more.
            AccessUnavailable: no usable answer.
        """
        if not self._redemptions.acquire(timeout=self._timeout_s / 2):  # within the time of a handshake, all in all
            raise AccessUnavailable("too many one-time tokens are being redeemed")
        try:
            status, _, _ = self._request("POST", self._redeem_url, json={"token": token})
        finally:
            self._redemptions.release()
        match status:
            case HTTPStatus.NO_CONTENT:
                return
            case HTTPStatus.CONFLICT:
                raise TokenSpent
            case HTTPStatus.UNAUTHORIZED:
                raise TokenNotRedeemed
        raise AccessUnavailable(f"the redemption was answered with {status}")

    def report(self, key: str, events: Sequence[SessionEvent]) -> None:
        """Reports what happened on sockets. To report an event again does no harm.

        Raises:
            KeyRefused: the key is unknown, or does not have the role `runner`.
            ReportRefused: the events are not accepted, and will not be.
            AccessUnavailable: no usable answer.
        """
        body = SessionReport(events=list(events)).model_dump(mode="json", exclude_none=True)
        status, _, _ = self._request("POST", self._events_url, headers={"Authorization": f"Key {key}"}, json=body)
        match status:
            case HTTPStatus.OK | HTTPStatus.NO_CONTENT:
                return
            case HTTPStatus.UNAUTHORIZED | HTTPStatus.FORBIDDEN:
                raise KeyRefused(status)
            case HTTPStatus.REQUEST_ENTITY_TOO_LARGE | HTTPStatus.UNPROCESSABLE_ENTITY:
                raise ReportRefused(f"the report was answered with {status}")
        raise AccessUnavailable(f"the report was answered with {status}")

    def _request(self, method: str, url: httpx.URL, **options: Any) -> _Answer:
        # httpx has no deadline for a whole head. A thread that is left behind ends with its connection.
        with gevent.Timeout(2 * self._timeout_s, AccessUnavailable("the token service answers too slowly")):
            answer: _Answer | AccessUnavailable = gevent.get_hub().threadpool.apply(
                self._request_in_thread, (method, url), options
            )
        if isinstance(answer, AccessUnavailable):
            raise answer
        return answer

    def _request_in_thread(self, method: str, url: httpx.URL, **options: Any) -> _Answer | AccessUnavailable:
        """Returns the error instead of raising it: gevent's pool prints a traceback of whatever a task raises."""
        try:
            with _unavailable_on_failure(), self._client.stream(method, url, **options) as response:
                return response.status_code, response.headers, _read(response, time.monotonic() + self._timeout_s)
        except AccessUnavailable as unavailable:
            return unavailable


@contextmanager
def _unavailable_on_failure() -> Iterator[None]:
    try:
        yield
    except httpx.HTTPError as error:
        # `from None` and the class alone: an exception of httpx holds the request, and it the API key.
        raise AccessUnavailable(f"the token service does not answer: {type(error).__name__}") from None


def _read(response: httpx.Response, deadline: float) -> bytes:
    body = bytearray()
    for chunk in response.iter_raw():
        body += chunk
        if len(body) > ANSWER_MAX_BYTES or time.monotonic() > deadline:
            raise AccessUnavailable("the token service's answer is too large or too slow")
    return bytes(body)


def _max_age(cache_control: str) -> int | None:
    """RFC 9111 §5.2.2.1."""
    found = _MAX_AGE.search(cache_control)
    return int(found[1]) if found else None
