"""API keys become tokens: asked once, kept briefly, never stored in the clear."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

import gevent
import pytest
from gevent.event import Event

from runner.doors.access import AccessUnavailable, KeyRefused
from runner.doors.key_exchange import EXPIRY_MARGIN_S, KeyExchange
from runner.doors.token_service import MintedToken


@dataclass
class Service:
    """Counts what it is asked; `error` is raised instead of a token."""

    asked: Counter[tuple[str, str]] = field(default_factory=Counter)
    error: Exception | None = None
    expires_in: int = 120
    hold: Event = field(default_factory=Event)
    at_once: int = 0
    most_at_once: int = 0

    def __post_init__(self) -> None:
        self.hold.set()

    def mint(self, key: str, path: str) -> MintedToken:
        self.asked[key, path] += 1
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        self.hold.wait()
        self.at_once -= 1
        if self.error:
            raise self.error
        number = self.asked.total()
        return MintedToken(token=f"token-{number}", expires_in=self.expires_in)


@dataclass
class Clock:
    now: float = 0.0

    def __call__(self) -> float:
        return self.now


def refused(exchange: Callable[[str, str], str], error: type[Exception], key: str = "k:s") -> Exception:
    with pytest.raises(error) as caught:
        exchange(key, "p")
    return caught.value


def test_a_good_answer_is_kept_until_shortly_before_the_token_expires() -> None:
    service, clock = Service(), Clock()
    exchange = KeyExchange(service.mint, clock=clock)
    assert exchange("k:s", "p") == "token-1"
    clock.now = 120 - EXPIRY_MARGIN_S - 0.1
    assert exchange("k:s", "p") == "token-1"
    clock.now = 120 - EXPIRY_MARGIN_S
    assert exchange("k:s", "p") == "token-2"


def test_a_token_that_soon_expires_is_not_kept() -> None:
    service = Service(expires_in=EXPIRY_MARGIN_S)
    exchange = KeyExchange(service.mint, clock=Clock())
    assert [exchange("k:s", "p"), exchange("k:s", "p")] == ["token-1", "token-2"]


@pytest.mark.parametrize("status", [401, 403])
def test_a_refusal_is_kept_for_ten_seconds(status: int) -> None:
    service, clock = Service(error=KeyRefused(status)), Clock()
    exchange = KeyExchange(service.mint, clock=clock)
    assert refused(exchange, KeyRefused).status == status
    service.error = None
    clock.now = 9.9
    assert refused(exchange, KeyRefused).status == status
    clock.now = 10
    assert exchange("k:s", "p") == "token-2"


def test_that_the_service_was_down_is_not_kept() -> None:
    service = Service(error=AccessUnavailable("no answer"))
    exchange = KeyExchange(service.mint, clock=Clock())
    refused(exchange, AccessUnavailable)
    service.error = None
    assert exchange("k:s", "p") == "token-2"


def test_keys_and_paths_are_kept_apart() -> None:
    service = Service()
    exchange = KeyExchange(service.mint, clock=Clock())
    tokens = {exchange(key, path) for key in ("a:1", "b:1") for path in ("p", "q")}
    assert len(tokens) == len(service.asked) == 4


@pytest.mark.parametrize("error", [None, KeyRefused(401), AccessUnavailable("no answer")])
def test_simultaneous_questions_become_one_request(error: Exception | None) -> None:
    service = Service(error=error)
    service.hold.clear()
    exchange = KeyExchange(service.mint, clock=Clock())

    def ask() -> str:
        try:
            return exchange("k:s", "p")
        except (KeyRefused, AccessUnavailable) as raised:
            return type(raised).__name__

    askers = [gevent.spawn(ask) for _ in range(100)]
    gevent.sleep(0)
    service.hold.set()
    gevent.joinall(askers)
    assert service.asked.total() == 1
    assert {asker.value for asker in askers} == {type(error).__name__ if error else "token-1"}


def test_an_asker_that_leaves_takes_nobody_s_answer_away() -> None:
    service = Service()
    service.hold.clear()
    exchange = KeyExchange(service.mint, clock=Clock())
    first, second = (gevent.spawn(exchange, "k:s", "p") for _ in range(2))
    gevent.sleep(0)
    first.kill()
    service.hold.set()
    assert second.get() == "token-1"
    assert service.asked.total() == 1


def test_many_wrong_keys_make_few_requests_at_once() -> None:
    service = Service()
    service.hold.clear()
    exchange = KeyExchange(service.mint, clock=Clock(), max_requests=4)
    askers = [gevent.spawn(exchange, f"k{n}:s", "p") for n in range(50)]
    gevent.sleep(0)
    gevent.sleep(0)
    service.hold.set()
    gevent.joinall(askers)
    assert service.most_at_once == 4
    assert service.asked.total() == 50


def test_what_is_kept_is_bounded_and_the_least_used_goes_first() -> None:
    service = Service()
    exchange = KeyExchange(service.mint, clock=Clock(), max_entries=2)
    exchange("a:1", "p")
    exchange("b:1", "p")
    exchange("a:1", "p")
    exchange("c:1", "p")
    exchange("a:1", "p")
    assert service.asked["a:1", "p"] == 1
    exchange("b:1", "p")
    assert service.asked["b:1", "p"] == 2


def test_no_key_is_kept_or_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")
    service = Service()
    exchange = KeyExchange(service.mint, clock=Clock())
    exchange("id:S3CRET", "p")
    service.error = AccessUnavailable("no answer")
    assert "S3CRET" not in str(refused(exchange, AccessUnavailable, "id2:S3CRET"))
    assert "S3CRET" not in repr(exchange._kept)
    assert "cannot exchange" in caplog.text
    assert "S3CRET" not in caplog.text


def test_an_unforeseen_failure_prints_no_key(capfd: pytest.CaptureFixture[str]) -> None:
    """gevent prints the greenlet that failed, arguments and all."""
    exchange = KeyExchange(Service(error=OverflowError()).mint, clock=Clock())
    refused(exchange, OverflowError, "id:S3CRET")
    gevent.idle()
    printed = "".join(capfd.readouterr())
    assert "OverflowError" in printed
    assert "S3CRET" not in printed
