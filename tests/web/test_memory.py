"""What the site remembers of its visitors is right, and bounded."""

from hypothesis import given
from hypothesis import strategies as st

from tests.web.conftest import Clock
from web.attempts import FailedAttempts
from web.logins import Logins


@given(pauses=st.lists(st.floats(0, 40), max_size=30))
def test_never_more_than_the_allowed_failures_in_any_window(pauses: list[float]) -> None:
    clock = Clock()
    attempts = FailedAttempts(clock, max_failures=3, window_s=60)
    failed_at: list[float] = []
    for pause in pauses:
        clock.now += pause
        if attempts.wait_s("client") == 0:
            attempts.record("client")
            failed_at.append(clock.now)
        assert len([at for at in failed_at if at > clock.now - 60]) <= 3


def test_after_the_wait_one_may_try_again() -> None:
    clock = Clock()
    attempts = FailedAttempts(clock, max_failures=2, window_s=60)
    attempts.record("client")
    clock.now += 10
    attempts.record("client")
    assert attempts.wait_s("client") == 50
    clock.now += 50
    assert attempts.wait_s("client") == 0


def test_success_forgets_the_failures() -> None:
    attempts = FailedAttempts(Clock(), max_failures=1)
    attempts.record("client")
    attempts.forget("client")
    assert attempts.wait_s("client") == 0


def test_asking_remembers_nothing_and_failing_only_so_much() -> None:
    attempts = FailedAttempts(Clock(), max_failures=1, max_clients=2)
    for client in ("first", "second", "third"):
        assert attempts.wait_s(client) == 0
        attempts.record(client)
    assert [attempts.wait_s(client) > 0 for client in ("first", "second", "third")] == [False, True, True]
    assert len(attempts._failures) == 2


def test_the_oldest_login_ends_when_there_are_too_many() -> None:
    logins = Logins(Clock(), lasts_s=60, max_logins=2)
    ids = [logins.begin("demo") for _ in range(3)]
    assert [logins.username(login_id) for login_id in ids] == [None, "demo", "demo"]


def test_no_id_is_nobody() -> None:
    logins = Logins(Clock(), lasts_s=60)
    assert logins.username(None) is None
    assert logins.username("") is None
    logins.end(None)
