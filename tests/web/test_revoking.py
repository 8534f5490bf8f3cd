"""Logging out ends what the tokens of the login opened, whatever authsvc does just then."""

import logging
from collections.abc import Callable, Iterator
from http import HTTPStatus
from queue import Queue
from threading import Event

import pytest

from tests.web.conftest import Visitor
from tests.web.staging import FakeMint
from web.minting import MintError
from web.revoking import Revoker

AWAY = MintError(HTTPStatus.SERVICE_UNAVAILABLE, "The token service does not answer.")
WITHIN_S = 20


class FlakyMint(FakeMint):
    """Fails as often as it is told to."""

    def __init__(self, failures: int) -> None:
        super().__init__()
        self.failures = failures
        self.tries = 0

    def revoke(self, subject: str) -> None:
        self.tries += 1
        if self.tries <= self.failures:
            raise AWAY
        super().revoke(subject)


class HangingMint(FakeMint):
    """Answers nobody until `go` is set."""

    def __init__(self) -> None:
        super().__init__()
        self.go = Event()
        self.heard: Queue[str] = Queue()

    def revoke(self, subject: str) -> None:
        self.heard.put(subject)
        assert self.go.wait(WITHIN_S)
        super().revoke(subject)


@pytest.fixture
def hanging() -> Iterator[HangingMint]:
    mint = HangingMint()
    yield mint
    mint.go.set()


def test_logging_out_revokes_what_was_minted_for_the_login(visitor: Visitor) -> None:
    visitor.log_in()
    visitor.ask_for_token()
    visitor.client.post("/logout")
    assert visitor.mint.revoked.get(timeout=WITHIN_S) == visitor.mint.subjects[0]


def test_logging_in_anew_revokes_the_login_before_it(visitor: Visitor) -> None:
    visitor.log_in()
    visitor.ask_for_token()
    visitor.log_in()
    assert visitor.mint.revoked.get(timeout=WITHIN_S) == visitor.mint.subjects[0]


def test_who_is_not_logged_in_revokes_nothing(visitor: Visitor) -> None:
    visitor.client.post("/logout")
    visitor.log_in()
    visitor.ask_for_token()
    visitor.client.post("/logout")
    assert visitor.mint.revoked.get(timeout=WITHIN_S) == visitor.mint.subjects[0]  # the first, and so the only one


def test_a_login_from_before_a_restart_of_the_site_can_still_be_ended(make_visitor: Callable[..., Visitor]) -> None:
    before, after = (make_visitor(secret_key="the same at every start") for _ in range(2))
    before.log_in()
    before.ask_for_token()
    cookie = before.client.get_cookie("lcm_realtime_demo")
    assert cookie is not None
    after.client.set_cookie(cookie.key, cookie.value)
    assert not after.is_logged_in()
    after.client.post("/logout")
    assert after.mint.revoked.get(timeout=WITHIN_S) == before.mint.subjects[0]


def test_logging_out_does_not_wait_for_authsvc(make_visitor: Callable[..., Visitor], hanging: HangingMint) -> None:
    visitor = make_visitor(mint=hanging)
    visitor.log_in()
    assert visitor.client.post("/logout").status_code == 303
    assert not visitor.is_logged_in()
    assert hanging.heard.get(timeout=WITHIN_S)
    assert hanging.revoked.empty()


def test_while_authsvc_is_away_it_is_tried_again(caplog: pytest.LogCaptureFixture) -> None:
    mint = FlakyMint(failures=2)
    revoker = Revoker(mint, pauses_s=(0, 0, 0))
    revoker.revoke("login-1")
    assert mint.revoked.get(timeout=WITHIN_S) == "login-1"
    assert [record.levelno for record in caplog.records] == [logging.WARNING] * 2
    assert "the tokens of login-1 are not revoked yet: The token service does not answer." in caplog.text


def test_in_the_end_it_is_given_up_with_what_to_do(caplog: pytest.LogCaptureFixture) -> None:
    mint = FlakyMint(failures=99)
    revoker = Revoker(mint, pauses_s=(0, 0))
    revoker.revoke("login-1")
    revoker.stop()
    assert mint.revoked.empty()
    assert caplog.records[-1].levelno == logging.ERROR
    assert caplog.messages[-1].endswith("python -m authsvc tokens revoke --subject login-1")


def test_stopping_waits_for_what_is_under_way(hanging: HangingMint) -> None:
    revoker = Revoker(hanging)
    for subject in ("login-1", "login-2"):
        revoker.revoke(subject)
    assert {hanging.heard.get(timeout=WITHIN_S) for _ in range(2)} == {"login-1", "login-2"}  # neither holds another up
    hanging.go.set()
    revoker.stop()
    assert hanging.revoked.qsize() == 2


def test_stopping_gives_what_waits_its_last_try_at_once() -> None:
    mint = FlakyMint(failures=1)
    revoker = Revoker(mint, pauses_s=(3600,))
    revoker.revoke("login-1")
    revoker.stop()
    assert mint.revoked.get_nowait() == "login-1"


def test_only_so_many_are_under_way(hanging: HangingMint, caplog: pytest.LogCaptureFixture) -> None:
    revoker = Revoker(hanging, at_once_max=1)
    revoker.revoke("login-1")
    revoker.revoke("login-2")
    assert "the tokens of login-2 are not revoked: too many others are waiting" in caplog.text
    hanging.go.set()
    revoker.stop()
    revoker.revoke("login-3")
    revoker.stop()
    assert [hanging.revoked.get_nowait() for _ in range(2)] == ["login-1", "login-3"]
