"""How often somebody may ask: each API key, each address, and each address with keys that are not good.

A key's limit counts what was asked with its secret, so nobody can use up another's. An address's limit is looked at
before anything else is, and counts every request that neither a key's limit nor that of bad keys counts. What runners
and monitors ask is free: many runners share an address, and strangers who send bad keys to a runner's door must not
silence it.

Attempts with a bad key have a lower limit, which refuses nothing but such attempts: whoever shares an address with a
stranger, behind a proxy or at a cloud's exit, is not locked out by them. (A secret of 256 bits is not guessed at any
rate.)
"""

import math
from collections.abc import Callable
from functools import lru_cache
from ipaddress import IPv6Address, ip_network
from typing import Any, Final, NamedTuple

from flask import Flask, Response, g, request
from flask_limiter import Limiter
from limits import RateLimitItemPerMinute
from werkzeug.exceptions import TooManyRequests

from authsvc.domain.quotas import DAY_S
from authsvc.errors import Unauthorized
from authsvc.settings import Settings
from authsvc.store.models import ApiKey
from authsvc.store.windows import Window, Windows
from httpbase.errors import http_error
from httpbase.proxies import parse_address

MINUTE_S: Final = 60

FREE_PATHS: Final = frozenset(
    {
        "/health/live",
        "/health/ready",
        "/metrics",
        "/.well-known/jwks.json",
        "/revocations",
        "/tokens/redeem",
        "/events",
    }
)
"""What no address's limit counts or refuses: what runners and monitors ask."""

_NOBODY: Final = "-"
_IPV6_SITE: Final = 64  # what one customer has at least (RFC 6177 §2): its addresses are one caller's
_SF_INTEGER_MAX: Final = 999_999_999_999_999  # RFC 9651 §3.3.1


class Standing(NamedTuple):
    """How one of a caller's quotas stands, as the RateLimit fields tell it."""

    name: str
    quota: int
    window_s: int
    remaining: int
    resets_in_s: float


class LimitReached(TooManyRequests):
    """429; the sentence names the limit."""

    def __init__(self, sentence: str, standing: Standing) -> None:
        super().__init__(sentence, retry_after=_whole_seconds(standing.resets_in_s))
        self.standing = standing

    def get_headers(self, *_: Any, **__: Any) -> list[tuple[str, str]]:
        """When to come again (RFC 6585 §4); the base class would add a content type."""
        return [("Retry-After", str(self.retry_after))]


class RateLimits:
    """The limits of one application, looked at before each of its requests.

    Args:
        app: Whose requests are counted.
        settings: How many are allowed, and where they are counted.
        clock: Gives unix time in seconds.
    """

    def __init__(self, app: Flask, settings: Settings, clock: Callable[[], float]) -> None:
        self._settings = settings
        limiter = Limiter(
            client_network,
            strategy="moving-window",
            storage_uri="windows://"
            if settings.redis_url is None
            else f"windows+{settings.redis_url.get_secret_value()}",
            storage_options={"clock": clock},  # type: ignore[dict-item]  # it hands on whatever it is given
        )
        # On an application that serves nobody: its own look at each request takes as long as reading a key does.
        limiter.init_app(Flask(__name__))
        assert isinstance(limiter.storage, Windows)
        self._windows = limiter.storage
        self._counter = limiter.limiter
        self._per_address = RateLimitItemPerMinute(settings.address_rate_per_minute)
        app.register_error_handler(Unauthorized, self._failed)
        app.before_request(self._look_at_address)
        app.after_request(self._count_address)
        app.after_request(_tell)

    def charge(self, key: ApiKey) -> None:
        """Counts one token that a key, which was authenticated, asks for.

        Raises:
            LimitReached: its rate is used up.
            redis.RedisError: Redis cannot be used.
        """
        rate = key.rate_per_minute or self._settings.key_rate_per_minute
        g.is_for_address = False
        window = self._windows.take(f"key/{key.id}", rate, MINUTE_S)
        standing = _noted(_standing("minute", rate, MINUTE_S, window))
        if not window.is_allowed:
            raise LimitReached(f"The key mints at most {rate} tokens a minute. Try again later.", standing)

    def can_count(self) -> bool:
        """Whether requests can be served now: what cannot be counted is refused."""
        return self._windows.check()

    def close(self) -> None:
        """Gives back the connections."""
        self._windows.close()

    def _look_at_address(self) -> None:
        if request.path in FREE_PATHS:
            return
        if self._counter.test(self._per_address, *_address()):
            g.is_for_address = True
            return
        limit = self._per_address.amount
        resets_in_s = self._counter.get_window_stats(self._per_address, *_address()).reset_time - self._windows.clock()
        standing = _noted(Standing("address", limit, MINUTE_S, 0, resets_in_s))
        raise LimitReached(
            f"At most {limit} requests a minute are answered for one address. Try again later.", standing
        )

    def _count_address(self, response: Response) -> Response:
        # Not where the look failed: nothing was served, and a thread would wait for Redis a second time.
        if g.get("is_for_address", False):
            self._counter.hit(self._per_address, *_address())
        return response

    def _failed(self, error: Unauthorized) -> Response:
        """401, or 429 once there were too many of them; a request without credentials guesses nothing."""
        if "Authorization" not in request.headers:
            return http_error(error)
        # Counted here and not for the address: at a runner's door anybody can have it ask with bad keys, and then the
        # good ones from there, a runner's or a backend's beside it, would be refused.
        g.is_for_address = False
        limit = self._settings.failures_per_minute
        window = self._windows.take(f"failures/{client_network()}", limit, MINUTE_S)
        if window.is_allowed:
            return http_error(error)
        standing = _noted(_standing("failures", limit, MINUTE_S, window))
        sentence = f"At most {limit} requests a minute with a bad key are answered for one address. Mend the key."
        return http_error(LimitReached(sentence, standing))


def client_network() -> str:
    """Whose requests are counted together: an IPv4 address, or the IPv6 network that one customer has."""
    return _network(request.remote_addr or "")


@lru_cache(maxsize=1024)
def _network(text: str) -> str:
    address = parse_address(text)
    if isinstance(address, IPv6Address):
        return str(ip_network((address, _IPV6_SITE), strict=False))
    return _NOBODY if address is None else str(address)


def note_quota(quota: int, minted: int, resets_in_s: float) -> Standing:
    """Has the answer to the current request tell how a key's daily quota stands."""
    return _noted(Standing("day", quota, DAY_S, quota - minted, resets_in_s))


def _address() -> tuple[str, str]:
    """By which name an address is counted."""
    return "address", client_network()


def _standing(name: str, limit: int, window_s: int, window: Window) -> Standing:
    return Standing(name, limit, window_s, limit - window.used, window.resets_in_s)


def _noted(standing: Standing) -> Standing:
    g.setdefault("standings", []).append(standing)
    return standing


def _tell(response: Response) -> Response:
    """The fields of draft-ietf-httpapi-ratelimit-headers-10: the policies, and how each stands now."""
    if standings := g.get("standings"):
        policies = [f'"{name}";q={min(quota, _SF_INTEGER_MAX)};w={window_s}' for name, quota, window_s, *_ in standings]
        states = [
            f'"{standing.name}";r={max(0, min(standing.remaining, _SF_INTEGER_MAX))}'
            f";t={_whole_seconds(standing.resets_in_s)}"
            for standing in standings
        ]
        response.headers.add("RateLimit-Policy", ", ".join(policies))
        response.headers.add("RateLimit", ", ".join(states))
    return response


def _whole_seconds(seconds: float) -> int:
    """Never too early, and never 0: a caller that waits so long must find something given back."""
    return max(1, math.ceil(seconds))
