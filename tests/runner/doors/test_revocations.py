"""The list at the runner: how it is read, kept and forgotten. No sockets."""

import logging
from collections.abc import Callable
from dataclasses import dataclass, field

import gevent
import pytest
from gevent.event import Event
from hypothesis import given
from hypothesis import strategies as st

from runner.doors.access import AccessUnavailable
from runner.doors.revocations import RevocationPage, RevocationPoller, Revocations
from schemas.revocation import RevocationList, RevokedEntry, RevokedKind
from schemas.tokens import TokenClaims
from tokens.errors import ExpiredToken, RevokedToken
from tokens.keys import SigningKey
from tokens.mint import mint
from tokens.revocation import fingerprint

NOW = 1_800_000_000


def claims(jti: str = "0") -> TokenClaims:
    return TokenClaims(iss="i", aud="a", sub="s", jti=jti, iat=NOW, nbf=NOW, exp=NOW + 60, apps=["x"])


def entry(jti: str, expires_at: int = NOW + 100) -> RevokedEntry:
    named = fingerprint(RevokedKind.TOKEN, jti)
    return RevokedEntry(kind=RevokedKind.TOKEN, sha256=named, issued_before=NOW + 100, expires_at=expires_at)


@dataclass
class Service:
    """A list as authsvc publishes it, in pages of `size`."""

    entries: list[RevokedEntry] = field(default_factory=list)
    size: int = 10
    down: bool = False
    asked: list[tuple[str, str | None]] = field(default_factory=list)
    fails_after: int | None = None

    def fetch(self, after: str, etag: str | None) -> RevocationPage | None:
        self.asked.append((after, etag))
        if self.down or len(self.asked) == self.fails_after:
            raise AccessUnavailable("no answer")
        position = next((at for at, one in enumerate(self.entries, 1) if one.sha256 == after), 0)
        page = self.entries[position : position + self.size]
        answer = RevocationList(
            revocations=page,
            next=page[-1].sha256 if page else after if position else "",
            from_start=position == 0,
            more=position + len(page) < len(self.entries),
        )
        tag = str(hash(answer.model_dump_json()))
        return None if tag == etag else RevocationPage(answer, tag)


def parts(service: Service) -> tuple[Revocations, RevocationPoller]:
    revocations = Revocations()
    return revocations, RevocationPoller(service.fetch, revocations, interval_s=0.5, clock=lambda: NOW)


def is_revoked(revocations: Revocations, jti: str) -> bool:
    try:
        revocations.check(claims(jti))
    except RevokedToken:
        return True
    return False


def test_nobody_is_admitted_until_the_list_was_read() -> None:
    service = Service(down=True)
    revocations, poller = parts(service)
    assert not poller.poll()
    with pytest.raises(AccessUnavailable):
        revocations.check(claims())
    service.down = False
    assert poller.poll()
    assert not is_revoked(revocations, "0")


def test_nobody_is_admitted_until_the_last_page_was_read() -> None:
    service = Service([entry(str(number)) for number in range(25)], fails_after=2)
    revocations, poller = parts(service)
    assert not poller.poll()
    with pytest.raises(AccessUnavailable):
        revocations.check(claims())
    assert poller.poll()
    assert all(is_revoked(revocations, str(number)) for number in range(25))
    # It went on where it had been.
    assert [after for after, _ in service.asked].count("") == 1


def test_a_list_that_leads_back_to_itself_is_not_read_for_ever() -> None:
    answers = iter([RevocationPage(RevocationList(revocations=[], next="1", from_start=False, more=True), None)] * 9)
    poller = RevocationPoller(lambda *_: next(answers), Revocations(), interval_s=0.5)
    assert not poller.poll()
    assert not poller.poll()
    assert len(list(answers)) == 6


def test_what_is_revoked_later_is_read_and_nothing_twice() -> None:
    service = Service([entry("1")])
    revocations, poller = parts(service)
    poller.poll()
    service.entries.append(entry("2"))
    assert not is_revoked(revocations, "2")
    poller.poll()
    assert [is_revoked(revocations, jti) for jti in "123"] == [True, True, False]
    for _ in range(3):
        poller.poll()
    first, second = entry("1").sha256, entry("2").sha256
    # An ETag is asked with at the address that it came from and at no other.
    assert [(after, etag is not None) for after, etag in service.asked] == [
        ("", False),
        (first, False),
        (second, False),
        (second, True),
        (second, True),
    ]


def test_the_last_list_stays_while_the_service_is_down_and_that_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    service = Service([entry("1")])
    revocations, poller = parts(service)
    poller.poll()
    service.down = True
    for _ in range(3):
        assert not poller.poll()
    assert is_revoked(revocations, "1")
    assert not is_revoked(revocations, "2")
    service.down = False
    for _ in range(3):
        assert poller.poll()
    said = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert len(said) == 2
    assert "keeping 1 revocations" in said[0]
    assert "again" in said[1]


def test_a_service_that_comes_up_late_is_a_warning_only_after_a_while(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    service = Service(down=True)
    _, poller = parts(service)
    for _ in range(19):
        poller.poll()
    assert [record.levelno for record in caplog.records] == [logging.INFO]
    for _ in range(19):
        poller.poll()
    assert [record.levelno for record in caplog.records] == [logging.INFO, logging.WARNING]
    service.down = False
    poller.poll()
    assert "again" in caplog.messages[-1]
    service.down = True
    poller.poll()
    assert [record.levelno for record in caplog.records] == [logging.INFO] + [logging.WARNING] * 3


def test_a_list_that_starts_anew_replaces_the_old_one() -> None:
    service = Service([entry("1"), entry("2")])
    revocations, poller = parts(service)
    poller.poll()
    service.entries = [entry("3")]
    poller.poll()
    assert [is_revoked(revocations, jti) for jti in "123"] == [False, False, True]


def test_while_a_long_list_starts_anew_the_old_one_still_counts() -> None:
    service = Service([entry("old")])
    revocations, poller = parts(service)
    poller.poll()
    service.entries = [entry(str(number)) for number in range(15)] + [entry("old")]
    service.entries[-1] = service.entries[-1].model_copy(update={"expires_at": NOW + 200})
    service.entries[0], service.entries[-1] = service.entries[-1], service.entries[0]
    service.entries.pop(0)
    service.fails_after = len(service.asked) + 2
    assert not poller.poll()
    assert is_revoked(revocations, "old")
    assert is_revoked(revocations, "1")
    assert poller.poll()
    assert not is_revoked(revocations, "old")


def test_what_has_expired_is_forgotten() -> None:
    revocations = Revocations(is_known=True)
    revocations.add([entry("1", expires_at=NOW + 1), entry("2", expires_at=NOW + 2)])
    for seconds, left in ((0, 2), (1, 1), (2, 0)):
        revocations.forget(NOW + seconds)
        assert len(revocations) == left


@given(st.lists(st.sampled_from(["revoke", "poll", "outage", "restart"]), max_size=30), st.integers(1, 3))
def test_whatever_happens_a_poll_that_worked_leaves_the_runner_with_the_list(steps: list[str], size: int) -> None:
    service = Service(size=size)
    revocations, poller = parts(service)
    names: list[str] = []
    for step in [*steps, "poll"]:
        if step == "revoke":
            names.append(str(len(names)))
            service.entries.append(entry(names[-1]))
        elif step == "restart":
            revocations, poller = parts(service)
        elif step == "outage":
            service.fails_after = len(service.asked) + 2
        if step != "revoke" and poller.poll():
            assert [is_revoked(revocations, name) for name in names] == [True] * len(names)
            assert len(revocations) == len(names)


def test_a_refusal_of_the_token_itself_comes_first() -> None:
    def expired(token: str) -> TokenClaims:
        raise ExpiredToken("the token has expired; mint a new one")

    text = mint(SigningKey.generate(), claims("7"))
    with pytest.raises(ExpiredToken):
        Revocations().checked(expired)(text)
    with pytest.raises(AccessUnavailable):
        Revocations().checked(lambda _: claims("7"))(text)
    known = Revocations(is_known=True)
    assert known.checked(lambda _: claims("7"))(text).jti == "7"
    known.add([entry("7")])
    with pytest.raises(RevokedToken) as caught:
        known.checked(lambda _: claims("7"))(text)
    assert caught.value.description == "the token was revoked"


# Live sockets


def watched(revocations: Revocations, jti: str, ended: list[str], leaves: Event) -> None:
    with revocations.watching(claims(jti), lambda: ended.append(jti)):
        leaves.wait()


@pytest.mark.parametrize("how", ["add", "replace"])
def test_only_those_who_are_concerned_and_still_there_are_ended_and_once(how: str) -> None:
    revocations, ended, leaves = Revocations(is_known=True), list[str](), Event()
    left = Event()
    left.set()
    watched(revocations, "1", ended, left)
    staying = [gevent.spawn(watched, revocations, jti, ended, leaves) for jti in ("1", "1", "2")]
    gevent.sleep(0)
    for _ in range(2):
        getattr(revocations, how)([entry("1")])
    assert ended == ["1", "1"]
    leaves.set()
    gevent.joinall(staying, raise_error=True)


def test_who_was_revoked_between_the_decision_and_the_session_is_ended_at_once() -> None:
    revocations, ended = Revocations(is_known=True), list[str]()
    revocations.check(claims("1"))
    revocations.add([entry("1")])
    with revocations.watching(claims("1"), lambda: ended.append("1")):
        assert ended == ["1"]


def test_a_defect_does_not_end_the_polling(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    service, revocations, again = Service(), Revocations(), Event()
    fetches: list[Callable[[], None]] = [lambda: None, again.set]

    def fetch(after: str, etag: str | None) -> RevocationPage | None:
        if len(fetches) == 2:
            fetches.pop(0)
            raise RuntimeError("a defect")
        fetches[0]()
        return service.fetch(after, etag)

    poller = RevocationPoller(fetch, revocations, interval_s=1e-9)
    poller.start()
    with gevent.Timeout(10):
        again.wait()
        while not revocations.is_known:
            gevent.sleep(1e-9)
    poller.stop()
    assert "reading the revocation list failed" in caplog.text
