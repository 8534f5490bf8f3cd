"""Where rate limits count: storages for Flask-Limiter, in this process or in Redis.

What `limits` brings keeps an entry for each request, so that a key with a high rate makes Redis walk through all of
them; its memory storage grows with every address that ever called, and starts a thread every 10 ms to tidy up. Here a
window is sixty counts and a bit: a slice counts as long as any part of it lies in the window. So there are never more
requests than the limit in any window, wherever it begins; at worst one is refused a sixtieth of the window too long.

Times are unix seconds by the processes' own clocks. Slices from more than a window ahead are forgotten: a clock that
was wrong and is set back locks nobody out.
"""

import math
import threading
import time
from abc import abstractmethod
from collections import OrderedDict, defaultdict
from collections.abc import Callable
from typing import Any, Final, NamedTuple

from limits.storage import MovingWindowSupport, Storage
from pydantic import SecretStr
from redis import Redis, RedisError

from authsvc.store import redis_store
from authsvc.store.database import cause
from authsvc.store.outage import Outage

SLICES: Final = 60
KEYS_MAX: Final = 50_000
"""Names that are counted at once in memory, of addresses and of keys each: about 20 MB."""


class Window(NamedTuple):
    """How a limit stands. `resets_in_s`: until some of what was used is given back."""

    is_allowed: bool
    used: int
    resets_in_s: float


class Windows(Storage, MovingWindowSupport):
    """Counts by name in sliding windows. Of a storage's methods only those that moving windows need work."""

    STORAGE_SCHEME: list[str] | None = None

    def __init__(self, uri: str | None = None, *, clock: Callable[[], float] = time.time, **_: Any) -> None:
        super().__init__(uri)
        self.clock = clock

    @abstractmethod
    def take(self, name: str, limit: int, window_s: int, amount: int = 1) -> Window:
        """Uses up some of a limit, or nothing if that is more than is left; an amount of 0 only looks."""

    def acquire_entry(self, key: str, limit: int, expiry: int, amount: int = 1) -> bool:
        """Flask-Limiter's way to ask `take`."""
        return self.take(key, limit, expiry, amount).is_allowed

    def get_moving_window(self, key: str, limit: int, expiry: int) -> tuple[float, int]:
        """Flask-Limiter's way to look; a window that began so many seconds ago resets when `take` says."""
        window = self.take(key, limit, expiry, 0)
        return self.clock() + window.resets_in_s - expiry, window.used

    def incr(self, key: str, expiry: int, amount: int = 1) -> int:
        """Fixed windows are not kept."""
        raise NotImplementedError

    def get(self, key: str) -> int:
        """Fixed windows are not kept."""
        raise NotImplementedError

    def get_expiry(self, key: str) -> float:
        """Fixed windows are not kept."""
        raise NotImplementedError

    def reset(self) -> int | None:
        """Nobody forgets limits on purpose."""
        raise NotImplementedError

    def clear(self, key: str) -> None:
        """Nobody forgets limits on purpose."""
        raise NotImplementedError

    def close(self) -> None:
        """Gives back what the storage holds."""


def _place(now: float, window_s: int) -> int:
    """The number of the slice in which a moment lies."""
    return math.floor(now * SLICES / window_s)


def _resets_in(oldest: int, now: float, window_s: int) -> float:
    """When a slice has left the window; a slice in which nothing is counted leaves it at once."""
    return max(0.0, (oldest + SLICES + 1) * window_s / SLICES - now)


class MemoryWindows(Windows):
    """Counts of this process, for at most `KEYS_MAX` names of a kind: the one that was used least lately gives way.

    A name's kind is what stands before its first slash, so a flood of addresses pushes no key's count out.
    """

    STORAGE_SCHEME = ["windows"]  # noqa: RUF012 - as `limits` declares it

    def __init__(self, uri: str | None = None, **options: Any) -> None:
        super().__init__(uri, **options)
        self._lock = threading.Lock()
        self._kinds: defaultdict[str, OrderedDict[str, dict[int, int]]] = defaultdict(OrderedDict)

    @property
    def base_exceptions(self) -> type[Exception]:
        """Nothing here can be away."""
        return OSError

    def check(self) -> bool:
        """Always there."""
        return True

    def take(self, name: str, limit: int, window_s: int, amount: int = 1) -> Window:
        """Counts under one lock."""
        now = self.clock()
        place = _place(now, window_s)
        with self._lock:
            names = self._kinds[name.partition("/")[0]]
            slices = names.get(name, {})
            # Oldest first, unless the clock went back.
            for old in [old for old in slices if abs(place - old) > SLICES]:
                del slices[old]
            used = sum(slices.values())
            is_allowed = used + amount <= limit
            if amount and is_allowed:
                slices[place] = slices.get(place, 0) + amount
                used += amount
                names[name] = slices
                names.move_to_end(name)
                if len(names) > KEYS_MAX:
                    names.popitem(last=False)
            return Window(is_allowed, used, _resets_in(min(slices), now, window_s) if slices else 0.0)


_TAKE: Final = f"""
local place, limit, amount, keep_s = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local used, oldest, old = 0, place, {{}}
local slices = redis.call('HGETALL', KEYS[1])
for i = 1, #slices, 2 do
    local at = tonumber(slices[i])
    if math.abs(place - at) > {SLICES} then
        old[#old + 1] = slices[i]
    else
        used = used + tonumber(slices[i + 1])
        oldest = math.min(oldest, at)
    end
end
if #old > 0 then redis.call('HDEL', KEYS[1], unpack(old)) end
local is_allowed = 0
if used + amount <= limit then is_allowed = 1 end
if amount > 0 and is_allowed == 1 then
    redis.call('HINCRBY', KEYS[1], string.format('%d', place), amount)
    redis.call('EXPIRE', KEYS[1], keep_s)
    used = used + amount
end
return {{is_allowed, used, oldest}}
"""


class RedisWindows(Windows):
    """Counts that processes share in Redis, one round trip each."""

    STORAGE_SCHEME = ["windows+redis", "windows+rediss", "windows+unix"]  # noqa: RUF012 - as `limits` declares it
    NAME_PREFIX: Final = "authsvc/"

    def __init__(self, uri: str, **options: Any) -> None:
        super().__init__(uri, **options)
        url = uri.removeprefix("windows+")
        self._redis = Redis.from_url(url, **redis_store.options())
        self._script = self._redis.register_script(_TAKE)
        self._outage = Outage(redis_store.name(SecretStr(url)))

    @property
    def base_exceptions(self) -> type[Exception]:
        """What a Redis that is away raises."""
        return RedisError

    def check(self) -> bool:
        """Whether Redis answers."""
        try:
            return bool(self._redis.ping())
        except RedisError:
            return False

    def take(self, name: str, limit: int, window_s: int, amount: int = 1) -> Window:
        """Counts in one script, which Redis runs alone.

        Raises:
            redis.RedisError: Redis cannot be used.
        """
        now = self.clock()
        keep_s = 2 * window_s  # by the clock of Redis
        try:
            taken = self._script([self.NAME_PREFIX + name], [_place(now, window_s), limit, amount, keep_s])
        except RedisError as error:
            self._outage.noticed(cause(error))
            raise
        self._outage.over()
        is_allowed, used, oldest = map(int, taken)
        return Window(bool(is_allowed), used, _resets_in(oldest, now, window_s) if used else 0.0)

    def acquire_entry(self, key: str, limit: int, expiry: int, amount: int = 1) -> bool:
        """How Flask-Limiter counts what was answered: too late to refuse it because Redis has gone since."""
        try:
            return super().acquire_entry(key, limit, expiry, amount)
        except RedisError:
            return True

    def close(self) -> None:
        """Closes the connections."""
        self._redis.close()
