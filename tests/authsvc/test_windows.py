"""Where requests are counted, in memory and in Redis: never too many in any window, and never too much kept."""

import itertools
import math
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
import redis
from hypothesis import given
from hypothesis import strategies as st

from authsvc.store import windows
from authsvc.store.windows import SLICES, MemoryWindows, RedisWindows, Windows
from tests.authsvc.conftest import Clock

WINDOW_S = 60
NAMES = map("key/{}".format, itertools.count())
Make = Callable[[Callable[[], float]], Windows]

# How long after the one before a request comes, in quarters of a second: many at once, some far apart.
PAUSES = st.lists(st.sampled_from([0, 0, 0, 1, 2, 3, 17, 40, 100, 239, 240, 241, 300]), max_size=120)


@pytest.fixture(scope="module", params=["memory", "redis"])
def make(request: pytest.FixtureRequest) -> Make:
    if request.param == "memory":
        return lambda clock: MemoryWindows("windows://", clock=clock)
    url = request.getfixturevalue("redis_url")
    return lambda clock: RedisWindows(f"windows+{url}", clock=clock)


@given(pauses=PAUSES, limit=st.integers(1, 12), begin=st.floats(0, 60))
def test_never_more_than_the_limit_in_any_window_and_hardly_fewer(
    make: Make, pauses: list[int], limit: int, begin: float
) -> None:
    clock, name = Clock(1_800_000_000 + begin), next(NAMES)
    counted = make(clock)
    allowed: list[float] = []
    for pause in pauses:
        clock.now += pause / 4
        recent = [at for at in allowed if at > clock.now - WINDOW_S]
        barely_gone = [at for at in allowed if at > clock.now - WINDOW_S * (1 + 1 / SLICES)]
        window = counted.take(name, limit, WINDOW_S)
        if window.is_allowed:
            allowed.append(clock.now)
            assert len(recent) < limit
        else:
            assert len(barely_gone) >= limit
    counted.close()


@given(pauses=PAUSES, limit=st.integers(1, 12))
def test_what_it_says_of_itself_is_true(make: Make, pauses: list[int], limit: int) -> None:
    """What is left can be taken, and after the time that it names something is given back."""
    clock, name = Clock(), next(NAMES)
    counted = make(clock)
    for pause in pauses:
        clock.now += pause / 4
        counted.take(name, limit, WINDOW_S)
    seen = counted.take(name, limit, WINDOW_S, 0)
    assert counted.take(name, limit, WINDOW_S, limit - seen.used).is_allowed
    assert not counted.take(name, limit, WINDOW_S).is_allowed
    clock.now += math.ceil(counted.take(name, limit, WINDOW_S, 0).resets_in_s)
    assert counted.take(name, limit, WINDOW_S).is_allowed
    counted.close()


@pytest.fixture
def hasty_threads() -> Iterator[None]:
    """Threads take turns within every few instructions, so that one without a lock is caught."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(interval)


@pytest.mark.usefixtures("hasty_threads")
def test_of_many_at_once_exactly_the_limit_is_allowed(make: Make) -> None:
    counted, name = make(Clock()), next(NAMES)
    limit = 20_000 if isinstance(counted, MemoryWindows) else 400  # what is fast needs more to collide
    all_are_ready = threading.Barrier(8, timeout=30)

    def take_half_of_it() -> int:
        all_are_ready.wait()
        return sum(counted.take(name, limit, WINDOW_S).is_allowed for _ in range(limit // 2))

    with ThreadPoolExecutor(8) as pool:
        taken = [pool.submit(take_half_of_it) for _ in range(8)]
        assert sum(each.result() for each in taken) == limit
    counted.close()


def test_a_refusal_uses_nothing_up_and_names_are_apart(make: Make) -> None:
    clock, name, other = Clock(), next(NAMES), next(NAMES)
    counted = make(clock)
    assert counted.take(name, 1, WINDOW_S).is_allowed
    for second in range(WINDOW_S + 1):
        assert counted.take(name, 1, WINDOW_S) == (False, 1, WINDOW_S + 1 - second)
        clock.now += 1
    assert counted.take(name, 1, WINDOW_S).is_allowed
    assert counted.take(other, 1, WINDOW_S).is_allowed
    counted.close()


def test_a_clock_that_is_set_back_locks_nobody_out(make: Make) -> None:
    clock, name = Clock(), next(NAMES)
    counted = make(clock)
    clock.now += 24 * 3600
    assert counted.take(name, 1, WINDOW_S).is_allowed
    clock.now -= 24 * 3600
    assert counted.take(name, 1, WINDOW_S).is_allowed
    assert not counted.take(name, 1, WINDOW_S).is_allowed
    counted.close()


def test_a_flood_of_addresses_is_kept_in_bounds_and_pushes_no_key_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(windows, "KEYS_MAX", 100)
    counted = MemoryWindows("windows://", clock=Clock())
    assert counted.take("key/a", 1, WINDOW_S).is_allowed
    for number in range(1000):
        assert counted.take(f"LIMITER/{number}", 1, WINDOW_S).is_allowed
    assert sum(map(len, counted._kinds.values())) <= 101
    assert not counted.take("key/a", 1, WINDOW_S).is_allowed


def test_a_busy_name_costs_no_more_memory_than_its_slices() -> None:
    clock = Clock()
    counted = MemoryWindows("windows://", clock=clock)
    for _ in range(1000):
        clock.now += 0.5
        counted.take("key/a", 10**9, WINDOW_S, 1000)
    assert len(counted._kinds["key"]["key/a"]) <= SLICES + 1


def test_redis_forgets_a_name_that_is_not_used(redis_url: str) -> None:
    counted = RedisWindows(f"windows+{redis_url}", clock=Clock())
    counted.take("key/forgotten", 5, WINDOW_S)
    with redis.Redis.from_url(redis_url) as client:
        assert 0 < client.ttl("authsvc/key/forgotten") <= 2 * WINDOW_S
    counted.close()


@pytest.mark.parametrize(
    "call",
    [
        lambda counted: counted.incr("a", 1),
        lambda counted: counted.get("a"),
        lambda counted: counted.get_expiry("a"),
        lambda counted: counted.reset(),
        lambda counted: counted.clear("a"),
    ],
)
def test_other_kinds_of_windows_are_not_pretended(call: Callable[[Windows], object]) -> None:
    with pytest.raises(NotImplementedError):
        call(MemoryWindows("windows://"))
