"""The token service's public keys, kept at hand: verification goes on while the service is down."""

import logging
import time
from collections.abc import Callable
from typing import Final

import gevent
from gevent.lock import BoundedSemaphore

from runner.doors.access import AccessUnavailable
from runner.doors.token_service import PublishedKeys
from schemas.tokens import TokenClaims
from tokens.errors import UnknownKey
from tokens.keys import KeySet
from tokens.verify import verify

log = logging.getLogger(__name__)

REFRESH_MIN_S: Final = 10
REFRESH_MAX_S: Final = 3600
REFRESH_DEFAULT_S: Final = 300
UNKNOWN_KEY_INTERVAL_S: Final = 5.0


class JwksCache:
    """The last good key set.

    A background greenlet refreshes it when it gets old, and whoever hears that other keys are published (`refresh`).
    A token that names an unknown key asks for it early, at most once in `min_interval_s`: made-up names cannot turn
    the runner against the token service.

    Args:
        fetch: Fetches the key set, blocking its greenlet. Raises AccessUnavailable.
        clock: Seconds, never going back.
        min_interval_s: Between two fetches that tokens ask for, and between two tries while the service is down.
    """

    def __init__(
        self,
        fetch: Callable[[], PublishedKeys],
        *,
        clock: Callable[[], float] = time.monotonic,
        min_interval_s: float = UNKNOWN_KEY_INTERVAL_S,
    ) -> None:
        self._fetch = fetch
        self._clock = clock
        self._min_interval_s = min_interval_s
        self._keys: KeySet = {}
        self._last_asked: float | None = None
        self._tries = 0
        self._max_age_s: float = REFRESH_DEFAULT_S
        self._one_at_a_time = BoundedSemaphore(1)
        self._refresher: gevent.Greenlet[..., None] | None = None

    @property
    def keys(self) -> KeySet:
        """The last good key set; empty until there was one."""
        return self._keys

    def start(self) -> None:
        """Begins to fetch, and to refresh in the background."""
        self._refresher = gevent.spawn(self._keep_fresh)

    def stop(self) -> None:
        """Ends the background greenlet."""
        if self._refresher is not None:
            self._refresher.kill()
            self._refresher = None

    def refresh(self) -> bool:
        """Fetches now. Returns whether that worked; if not, the last good set stays."""
        with self._one_at_a_time:
            return self._refresh()

    def refresh_for_unknown_key(self) -> None:
        """Fetches, unless that was tried for a token within `min_interval_s`. Waits for a fetch that is under way."""
        before = self._tries
        with self._one_at_a_time:
            is_due = self._last_asked is None or self._clock() >= self._last_asked + self._min_interval_s
            if self._tries == before and is_due:
                self._refresh()
                # The end of the try and not its start: those who waited for a slow one must not each try again.
                self._last_asked = self._clock()

    def _refresh(self) -> bool:
        self._tries += 1
        try:
            published = self._fetch()
        except AccessUnavailable as error:
            # The first time is no news: services that are started together come up in any order.
            level = logging.WARNING if self._keys or self._tries > 1 else logging.INFO
            log.log(level, "keeping %d public keys: %s", len(self._keys), error)
            return False
        self._keys = published.keys
        age_s = REFRESH_DEFAULT_S if published.max_age_s is None else published.max_age_s
        self._max_age_s = min(max(age_s, REFRESH_MIN_S), REFRESH_MAX_S)
        return True

    def _keep_fresh(self) -> None:
        while True:
            gevent.sleep(self._max_age_s if self.refresh() else self._min_interval_s)


class TokenVerifier:
    """Verifies tokens with the keys at hand, and asks once for newer ones where a token names an unknown key.

    Args:
        jwks: The keys of `issuer`.
        issuer: The only accepted `iss`.
        audience: The only accepted `aud`.
        clock: Unix time, seconds.
    """

    def __init__(self, jwks: JwksCache, *, issuer: str, audience: str, clock: Callable[[], float] = time.time) -> None:
        self._jwks = jwks
        self._issuer = issuer
        self._audience = audience
        self._clock = clock

    def __call__(self, token: str) -> TokenClaims:
        """The claims of a good token.

        Raises:
            TokenError: the token is refused.
            AccessUnavailable: there has been no key set yet.
        """
        try:
            return self._verify(token)
        except UnknownKey:
            self._jwks.refresh_for_unknown_key()
            if not self._jwks.keys:
                raise AccessUnavailable("no public keys yet") from None
            return self._verify(token)

    def _verify(self, token: str) -> TokenClaims:
        return verify(token, self._jwks.keys, issuer=self._issuer, audience=self._audience, now=self._clock())
