"""What the sockets of this runner have used of their tokens' counted limits: max_connections and max_requests.

Sockets hold their place for as long as they are open. A request is reserved when work on it begins, and counts once
its result is on the way; one that fails or is given up gives its count back. Everything is in memory: each runner
counts for itself, and one that was started again counts anew.
"""

import heapq
from collections import Counter
from dataclasses import dataclass
from typing import Final

from runner.protocol import failures
from runner.protocol.failures import Failure
from schemas import limits
from schemas.tokens import TokenClaims

COUNTED_TOKENS_MAX: Final = 100_000
"""Tokens whose requests are remembered. Beyond it no other token with max_requests is let in: to forget one would be
to let it begin anew."""


class NoRoom(Exception):
    """The socket may not be opened now; `failure` is for the peer."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.reason)
        self.failure = failure


@dataclass(slots=True)
class _Requests:
    """The requests of one token, over all its sockets."""

    forget_at: float
    used: int = 0
    sockets: int = 0
    is_leaving: bool = False


class Allowance:
    """What one open socket may still do. Made by `Allowances.enter`."""

    def __init__(self, claims: TokenClaims, holder: str, requests: _Requests | None, is_counted: bool = True) -> None:
        self.claims = claims
        self.holder = holder
        self.is_counted = is_counted
        """Whether the socket is one of so many."""
        self._requests = requests

    def reserve_request(self) -> bool:
        """Counts one request more; False if max_requests is used up."""
        if self._requests is None:
            return True
        assert self.claims.max_requests is not None
        if self._requests.used >= self.claims.max_requests:
            return False
        self._requests.used += 1
        return True

    def release_request(self) -> None:
        """Takes the count of a reserved request back."""
        if self._requests is not None:
            self._requests.used -= 1


class Allowances:
    """The counts of all sockets.

    A token that came in itself is counted by its `jti`. An API key at the door is exchanged for a token that is
    replaced every few minutes, so its sockets are counted by the key; its requests are counted by the token that
    each socket was opened with.

    Args:
        max_counted_tokens: See `COUNTED_TOKENS_MAX`.
        max_connections: Sockets of any one token at once; a token's own max_connections can make it fewer.
    """

    def __init__(self, max_counted_tokens: int = COUNTED_TOKENS_MAX, max_connections: int | None = None) -> None:
        self._max_counted_tokens = max_counted_tokens
        self._max_connections = max_connections
        self._sockets: Counter[str] = Counter()
        self._requests: dict[str, _Requests] = {}
        # Tokens whose count must outlive their sockets, by when they open no more; each is in it once.
        self._leaving: list[tuple[float, str]] = []

    @property
    def counted(self) -> int:
        """How many counts are held."""
        return len(self._sockets) + len(self._requests)

    def obstacle(self, claims: TokenClaims, *, by_key: bool, now: float) -> Failure | None:
        """Why a socket could not be opened now, or None. Changes no count.

        Args:
            claims: The token's.
            by_key: Whether the token was made from an API key at the door.
            now: Unix time, seconds.
        """
        most = self._most_sockets(claims)
        if most is not None and self._sockets[_holder(claims, by_key)] >= most:
            whose = "key" if by_key else "token"
            limit = f"the {whose}'s max_connections" if most == claims.max_connections else f"the limit of one {whose}"
            return failures.limit_exceeded(f"{limit}, {most}, is reached: close another socket and try again")
        if claims.max_requests is None or claims.jti in self._requests:
            return None
        self._forget(now)
        return failures.overcrowded() if len(self._requests) >= self._max_counted_tokens else None

    def enter(self, claims: TokenClaims, *, by_key: bool, now: float) -> Allowance:
        """Takes a place for a socket, which `leave` gives back.

        Raises:
            NoRoom: there is an `obstacle`.
        """
        if failure := self.obstacle(claims, by_key=by_key, now=now):
            raise NoRoom(failure)
        holder = _holder(claims, by_key)
        is_counted = self._most_sockets(claims) is not None
        if is_counted:
            self._sockets[holder] += 1
        requests = None
        if claims.max_requests is not None:
            forget_at = claims.exp + limits.TOKEN_LEEWAY_S
            requests = self._requests.setdefault(claims.jti, _Requests(forget_at))
            requests.sockets += 1
        return Allowance(claims, holder, requests, is_counted)

    def leave(self, allowance: Allowance) -> None:
        """Gives a socket's place back. Its requests stay counted for as long as its token opens sockets."""
        claims, holder = allowance.claims, allowance.holder
        if allowance.is_counted:
            self._sockets[holder] -= 1
            if not self._sockets[holder]:
                del self._sockets[holder]
        if claims.max_requests is not None:
            self._leave_requests(claims.jti)

    def _most_sockets(self, claims: TokenClaims) -> int | None:
        return min((most for most in (claims.max_connections, self._max_connections) if most is not None), default=None)

    def _leave_requests(self, jti: str) -> None:
        requests = self._requests[jti]
        requests.sockets -= 1
        if requests.sockets:
            return
        if not requests.used:
            del self._requests[jti]
        elif not requests.is_leaving:
            requests.is_leaving = True
            heapq.heappush(self._leaving, (requests.forget_at, jti))

    def _forget(self, now: float) -> None:
        while self._leaving and self._leaving[0][0] <= now:
            _, jti = heapq.heappop(self._leaving)
            self._requests[jti].is_leaving = False
            if not self._requests[jti].sockets:
                del self._requests[jti]


def _holder(claims: TokenClaims, by_key: bool) -> str:
    if by_key and claims.client_id is not None:
        return f"key {claims.client_id}"
    return f"token {claims.jti}"
