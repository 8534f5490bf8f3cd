"""API keys at the runner's door: exchanged for a token at the token service, and the answer kept for a while.

The runner never sees the key store. It keeps a hash of a key, never the key itself.
"""

import hashlib
import logging
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import gevent
from gevent.lock import BoundedSemaphore

from runner.doors.access import AccessUnavailable, KeyRefused
from runner.doors.token_service import MintedToken

log = logging.getLogger(__name__)

EXPIRY_MARGIN_S: Final = 10
"""A kept token is given out no later than this before it expires."""

_Answer = str | KeyRefused | AccessUnavailable


@dataclass(frozen=True, slots=True)
class _Kept:
    answer: str | KeyRefused
    until: float


class KeyExchange:
    """From an API key to a token.

    Simultaneous questions about one key and path become one request. Good answers are kept until shortly
    before the token expires, refusals for `refused_ttl_s`; that the service was down is not kept.

    Args:
        mint: Asks the token service, blocking its greenlet. Raises KeyRefused or AccessUnavailable.
        clock: Seconds, never going back.
        max_entries: Answers kept; the one used longest ago goes first.
        max_requests: Requests to the token service at once: wrong keys must not use up the threads of the pool.
    """

    def __init__(
        self,
        mint: Callable[[str, str], MintedToken],
        *,
        clock: Callable[[], float] = time.monotonic,
        refused_ttl_s: float = 10.0,
        max_entries: int = 1024,
        max_requests: int = 4,
    ) -> None:
        self._mint = mint
        self._clock = clock
        self._refused_ttl_s = refused_ttl_s
        self._max_entries = max_entries
        self._places = BoundedSemaphore(max_requests)
        self._kept: OrderedDict[bytes, _Kept] = OrderedDict()
        self._asking: dict[bytes, gevent.Greenlet[..., _Answer]] = {}

    def __call__(self, key: str, path: str, *, fresh: bool = False) -> str:
        """A token for the endpoint at `path`; `fresh`: the one that was kept is no good, and is forgotten.

        Raises:
            KeyRefused: the key is unknown, or does not reach `path`.
            AccessUnavailable: the token service does not answer.
        """
        # Neither part can hold a line break (see credentials.py), so no two pairs make the same text.
        name = hashlib.sha256(f"{key}\n{path}".encode()).digest()
        if fresh:
            self._kept.pop(name, None)
        answer = self._look_up(name) or self._ask(name, key, path)
        # Raised anew: an exception raised again and again keeps the frames of all who raised it.
        if isinstance(answer, KeyRefused):
            raise KeyRefused(answer.status)
        if isinstance(answer, AccessUnavailable):
            raise AccessUnavailable(*answer.args)
        return answer

    def _look_up(self, name: bytes) -> str | KeyRefused | None:
        kept = self._kept.get(name)
        if kept is None or self._clock() >= kept.until:
            return None
        self._kept.move_to_end(name)
        return kept.answer

    def _ask(self, name: bytes, key: str, path: str) -> _Answer:
        """Joins the request that is under way, or starts one: a greenlet of its own, which outlives any asker."""

        def request() -> _Answer:  # a closure: gevent prints a greenlet's arguments, and the key must not be one
            return self._request(name, key, path)

        if name not in self._asking:
            self._asking[name] = gevent.spawn(request)
        answer: _Answer = self._asking[name].get()
        return answer

    def _request(self, name: bytes, key: str, path: str) -> _Answer:
        """Returns errors instead of raising them: several askers wait, and gevent prints what a greenlet raises."""
        try:
            with self._places:
                minted = self._mint(key, path)
        except KeyRefused as refused:
            return self._keep(name, refused, self._refused_ttl_s)
        except AccessUnavailable as unavailable:
            log.warning("cannot exchange an API key: %s", unavailable)
            return unavailable
        finally:
            del self._asking[name]
        return self._keep(name, minted.token, minted.expires_in - EXPIRY_MARGIN_S)

    def _keep(self, name: bytes, answer: str | KeyRefused, ttl_s: float) -> str | KeyRefused:
        if ttl_s > 0:
            self._kept[name] = _Kept(answer, self._clock() + ttl_s)
            self._kept.move_to_end(name)
        while len(self._kept) > self._max_entries:
            self._kept.popitem(last=False)
        return answer
