"""What the runner asks of the token service: its public keys, and a token for an API key.

httpx blocks, so every request runs in a thread of gevent's pool while the hub goes on. Answers are bounded in
size and in time.
"""

import re
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Final

import gevent
import httpx
from pydantic import ValidationError

from runner.doors.access import AccessUnavailable, KeyRefused
from schemas.tokens import TokenResponse
from tokens.errors import InvalidKey
from tokens.keys import KeySet, parse_jwks

ANSWER_MAX_BYTES: Final = 256 * 1024

_Answer = tuple[int, Mapping[str, str], bytes]
"""Status, headers and body."""

_MAX_AGE: Final = re.compile(r"(?:^|,)\s*max-age=(\d{1,9})\b", re.ASCII | re.IGNORECASE)


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
        self._jwks_url = httpx.URL(jwks_url)
        self._timeout_s = timeout_s
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

    def mint(self, key: str, path: str) -> TokenResponse:
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
            return TokenResponse.model_validate_json(body)
        except ValidationError:
            raise AccessUnavailable("the token service answered in an unknown form") from None

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
