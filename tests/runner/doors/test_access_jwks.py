"""The key set: kept while the service is down, refreshed when old, and not a lever against the service."""

import logging
from collections.abc import Callable
from dataclasses import dataclass, field

import gevent
import pytest
from gevent.event import Event

from runner.doors.access import AccessUnavailable
from runner.doors.jwks import REFRESH_MAX_S, REFRESH_MIN_S, JwksCache, TokenVerifier
from runner.doors.token_service import PublishedKeys
from tokens.errors import ExpiredToken, TokenError, UnknownKey
from tokens.keys import SigningKey
from tokens.mint import mint, new_claims

NOW = 1_800_000_000.0
OLD, NEW = SigningKey.generate(), SigningKey.generate()


def token(key: SigningKey, *, now: float = NOW, duration_s: int = 60) -> str:
    claims = new_claims(issuer="i", audience="a", subject="k", apps=["x"], now=now, duration_s=duration_s, limits=None)
    return mint(key, claims)


@dataclass
class Service:
    """What the token service publishes, and how often it was asked."""

    published: list[SigningKey] = field(default_factory=lambda: [OLD])
    max_age_s: int | None = None
    down: bool = False
    fetches: int = 0
    hold: Event = field(default_factory=Event)
    takes: Callable[[], None] = lambda: None

    def __post_init__(self) -> None:
        self.hold.set()

    def fetch(self) -> PublishedKeys:
        self.fetches += 1
        self.hold.wait()
        self.takes()
        if self.down:
            raise AccessUnavailable("no answer")
        return PublishedKeys({key.kid: key.public for key in self.published}, self.max_age_s)


@dataclass
class Clock:
    now: float = 0.0

    def __call__(self) -> float:
        return self.now


def parts(service: Service) -> tuple[JwksCache, TokenVerifier, Clock]:
    clock = Clock()
    jwks = JwksCache(service.fetch, clock=clock, min_interval_s=5)
    return jwks, TokenVerifier(jwks, issuer="i", audience="a", clock=lambda: NOW), clock


def refusal(verify: Callable[[str], object], text: str) -> type[TokenError]:
    with pytest.raises(TokenError) as caught:
        verify(text)
    return caught.type


def test_the_first_token_fetches_the_keys() -> None:
    service = Service()
    _, verify, _ = parts(service)
    assert verify(token(OLD)).sub == "k"
    assert verify(token(OLD)).sub == "k"
    assert service.fetches == 1


def test_an_expired_token_is_refused() -> None:
    _, verify, _ = parts(Service())
    assert refusal(verify, token(OLD, now=NOW - 100)) is ExpiredToken


def test_a_rotated_key_is_found_with_one_fetch() -> None:
    service = Service()
    _, verify, clock = parts(service)
    verify(token(OLD))
    service.published = [NEW, OLD]
    clock.now = 5
    assert verify(token(NEW)).sub == "k"
    assert verify(token(OLD)).sub == "k"
    assert service.fetches == 2


def test_a_thousand_unknown_keys_make_one_fetch() -> None:
    service = Service()
    jwks, verify, clock = parts(service)
    jwks.refresh()
    clock.now = 5
    unknown = token(NEW)
    service.hold.clear()
    askers = [gevent.spawn(refusal, verify, unknown) for _ in range(1000)]
    gevent.sleep(0)
    service.hold.set()
    gevent.joinall(askers)
    assert {asker.value for asker in askers} == {UnknownKey}
    assert service.fetches == 2
    clock.now = 10
    refusal(verify, unknown)
    refusal(verify, unknown)
    assert service.fetches == 3


def test_a_refresh_in_the_background_leaves_a_token_its_own() -> None:
    """Keys may change again right after a refresh: the next unknown name must not wait for the interval."""
    service = Service()
    jwks, verify, _ = parts(service)
    jwks.refresh()
    service.published = [NEW, OLD]
    assert verify(token(NEW)).sub == "k"
    assert service.fetches == 2


def test_a_slow_service_is_not_asked_again_by_everyone_who_waited() -> None:
    service = Service(down=True)
    _, verify, clock = parts(service)

    def ask() -> None:
        with pytest.raises(AccessUnavailable):
            verify(token(NEW))

    def takes_ten_seconds() -> None:
        clock.now += 10

    service.takes = takes_ten_seconds
    service.hold.clear()
    askers = [gevent.spawn(ask) for _ in range(10)]
    gevent.sleep(0)
    service.hold.set()
    gevent.joinall(askers, raise_error=True)
    assert service.fetches == 1


def test_the_last_good_keys_stay_while_the_service_is_down() -> None:
    service = Service()
    jwks, verify, clock = parts(service)
    verify(token(OLD))
    service.down = True
    clock.now = 1e6
    assert not jwks.refresh()
    assert refusal(verify, token(NEW)) is UnknownKey
    assert verify(token(OLD)).sub == "k"


def test_a_service_that_is_not_up_yet_is_a_warning_from_the_second_try_on(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    service = Service()
    jwks, _, _ = parts(service)
    service.down = True
    assert not jwks.refresh()
    assert not jwks.refresh()
    assert [record.levelno for record in caplog.records] == [logging.INFO, logging.WARNING]


def test_a_retired_key_is_forgotten() -> None:
    service = Service()
    jwks, verify, _ = parts(service)
    verify(token(OLD))
    service.published = [NEW]
    assert jwks.refresh()
    assert refusal(verify, token(OLD)) is UnknownKey


def test_without_any_keys_a_token_is_not_bad_but_unchecked() -> None:
    service = Service(down=True)
    jwks, verify, clock = parts(service)
    for _ in range(3):
        with pytest.raises(AccessUnavailable):
            verify(token(OLD))
    assert (service.fetches, dict(jwks.keys)) == (1, {})
    service.down = False
    clock.now = 5
    assert verify(token(OLD)).sub == "k"


@pytest.mark.parametrize("text", ["", "x", "a.b.c", "x" * 10_000])
def test_a_token_that_is_none_asks_nobody(text: str) -> None:
    service = Service()
    _, verify, _ = parts(service)
    refusal(verify, text)
    assert service.fetches == 0


@pytest.mark.parametrize(
    ("max_age_s", "down", "waits_s"),
    [(None, False, 300), (60, False, 60), (0, False, REFRESH_MIN_S), (10**9, False, REFRESH_MAX_S), (60, True, 5)],
)
def test_how_long_a_set_is_kept_before_it_is_fetched_again(
    monkeypatch: pytest.MonkeyPatch, max_age_s: int | None, down: bool, waits_s: float
) -> None:
    service = Service(max_age_s=max_age_s, down=down)
    jwks, _, _ = parts(service)
    waits: list[float] = []
    three = Event()
    really_sleep = gevent.sleep

    def sleep(seconds: float) -> None:
        waits.append(seconds)
        if len(waits) == 3:
            three.set()
        really_sleep(0)

    monkeypatch.setattr("runner.doors.jwks.gevent.sleep", sleep)
    jwks.start()
    three.wait()
    jwks.stop()
    assert waits[:3] == [waits_s] * 3
    assert service.fetches >= 3
