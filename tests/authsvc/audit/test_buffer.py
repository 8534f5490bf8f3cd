"""The buffer: requests neither wait for the database nor fail with it, and what is lost is counted and said."""

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from authsvc.ledger import audit
from authsvc.ledger.audit_buffer import CLOSE_TIMEOUT_S, AuditBuffer
from authsvc.ledger.refusals import EACH_PER_MINUTE
from authsvc.store.sqlite import SQLite
from schemas.events import AuditEvent, AuditQuery, EventKind
from tests.authsvc.conftest import Authsvc

NOW = 1_800_000_000.0


@pytest.fixture
def database(tmp_path: Path) -> Iterator[SQLite]:
    with SQLite(tmp_path / "authsvc.sqlite3") as made:
        made.prepare()
        yield made


@contextmanager
def away(database: SQLite) -> Iterator[None]:
    """Takes the file away for a while."""
    elsewhere = database.path.with_name("away")
    database.close()
    database.path.rename(elsewhere)
    yield
    elsewhere.rename(database.path)


def written(database: SQLite) -> list[AuditEvent]:
    """The events, oldest first."""
    with database.reading() as session:
        return audit.page(session, AuditQuery(limit=1000)).events[::-1]


def names(database: SQLite) -> list[str | None]:
    return [event.jti for event in written(database)]


def test_events_are_written_in_their_order(database: SQLite) -> None:
    buffer = AuditBuffer(database)
    for number in range(2500):
        buffer.add(EventKind.MINTED, now=NOW, jti=f"t{number}")
    assert buffer.flush()
    assert buffer.backlog == 0
    with database.reading() as session:
        page = audit.page(session, AuditQuery(limit=1000))
    assert [event.jti for event in page.events] == [f"t{number}" for number in reversed(range(1500, 2500))]
    buffer.close()


def test_an_event_keeps_what_it_was_given(database: SQLite) -> None:
    buffer = AuditBuffer(database)
    given = {"actor": "k", "key_id": "k", "subject": "s", "jti": "t", "app": "a/b", "address": "::1"}
    buffer.add(EventKind.MINTED, now=NOW, **given, detail={"duration_s": 120})
    buffer.close()
    (event,) = written(database)
    assert event.model_dump(include=set(given)) == given
    assert (event.kind, event.at, event.detail) == (EventKind.MINTED, NOW, {"duration_s": 120})


def test_closing_writes_what_is_left_and_ends_the_thread(database: SQLite) -> None:
    before = threading.active_count()
    buffer = AuditBuffer(database)
    buffer.close()
    buffer.add(EventKind.MINTED, now=NOW, jti="a")
    buffer.close()
    buffer.close()
    assert names(database) == ["a"]
    assert threading.active_count() == before


def test_an_unused_buffer_has_no_thread(database: SQLite) -> None:
    """A thread that was started before a fork would be missing after it."""
    before = threading.active_count()
    buffer = AuditBuffer(database)
    assert threading.active_count() == before
    buffer.close()


def test_a_buffer_can_be_used_after_it_was_closed(database: SQLite) -> None:
    buffer = AuditBuffer(database)
    for name in ("a", "b"):
        buffer.add(EventKind.MINTED, now=NOW, jti=name)
        buffer.close()
    assert names(database) == ["a", "b"]


def test_events_wait_for_a_database_that_is_away(database: SQLite, caplog: pytest.LogCaptureFixture) -> None:
    buffer = AuditBuffer(database, retry_s=0.01)
    with away(database):
        for name in ("a", "b", "c"):
            buffer.add(EventKind.MINTED, now=NOW, jti=name)
        wait_for_log(caplog, "cannot be written just now")
        buffer.add(EventKind.MINTED, now=NOW, jti="d")
        assert buffer.backlog == 4
    assert buffer.flush()
    assert names(database) == ["a", "b", "c", "d"]
    buffer.close()
    lines = [record.getMessage() for record in caplog.records if record.name == "authsvc.ledger.audit_buffer"]
    assert len(lines) == 2, "an outage is said once, and its end once"
    assert lines[1] == "audit events are written again; 0 were lost"


def test_the_oldest_events_go_when_too_many_wait(database: SQLite, caplog: pytest.LogCaptureFixture) -> None:
    buffer = AuditBuffer(database, capacity=3, retry_s=0.01)
    with away(database):
        buffer.add(EventKind.MINTED, now=NOW, jti="t0")
        wait_for_log(caplog, "cannot be written just now")
        for number in range(1, 10):
            buffer.add(EventKind.MINTED, now=NOW, jti=f"t{number}")
        assert buffer.backlog <= 4  # one more while a batch is tried
    assert buffer.flush()
    buffer.close()
    assert names(database) == ["t7", "t8", "t9"]
    assert buffer.dropped == 7
    assert "audit events are written again; 7 were lost" in caplog.text


def test_what_cannot_be_written_at_the_end_is_said(database: SQLite, caplog: pytest.LogCaptureFixture) -> None:
    buffer = AuditBuffer(database, retry_s=3600)
    with away(database):
        buffer.add(EventKind.MINTED, now=NOW)
        buffer.add(EventKind.MINTED, now=NOW)
        buffer.close()
    assert "2 audit events could not be written" in caplog.text


def test_closing_does_not_wait_for_a_database_for_ever(database: SQLite) -> None:
    buffer = AuditBuffer(database)
    with database.writing():  # nobody else may write
        buffer.add(EventKind.MINTED, now=NOW, jti="a")
        buffer.close(timeout_s=0.01)
    buffer.close()
    assert names(database) == ["a"]


def test_adding_does_not_wait_for_the_database(database: SQLite) -> None:
    buffer = AuditBuffer(database)
    with database.writing():
        for number in range(100):
            buffer.add(EventKind.MINTED, now=NOW, jti=f"t{number}")
        assert buffer.backlog == 100
        assert not buffer.flush(timeout_s=0)
    assert buffer.flush()
    buffer.close()
    assert len(written(database)) == 100


def test_an_event_that_cannot_be_written_does_not_take_the_others_with_it(
    database: SQLite, caplog: pytest.LogCaptureFixture
) -> None:
    buffer = AuditBuffer(database)
    for jti, detail in (("a", {}), ("b", {"no": object()}), ("c", {})):
        buffer.add(EventKind.MINTED, now=NOW, jti=jti, detail=detail)
    buffer.close()
    assert names(database) == ["a", "c"]
    assert buffer.dropped == 1
    assert [record.levelno for record in caplog.records] == [logging.ERROR]


def test_a_flood_of_refusals_is_counted(database: SQLite) -> None:
    buffer = AuditBuffer(database)
    for _ in range(EACH_PER_MINUTE + 1000):
        buffer.add(EventKind.REFUSED, now=NOW, detail={"reason": "unauthorized"})
    buffer.close()
    *each, tally = written(database)
    assert len(each) == EACH_PER_MINUTE
    assert tally.detail == {"reason": "unauthorized", "count": 1000}


def test_the_count_of_a_flood_is_written_when_its_minute_is_over(
    database: SQLite, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("authsvc.ledger.refusals._MINUTE_S", 0.05)
    buffer = AuditBuffer(database)
    for _ in range(EACH_PER_MINUTE + 5):
        buffer.add(EventKind.REFUSED, now=NOW, detail={"reason": "unauthorized"})
    tally_came = threading.Event()
    for _ in range(500):
        if any("count" in event.detail for event in written(database)):
            break
        tally_came.wait(0.01)
    else:
        pytest.fail("no count was written")
    buffer.close()


def test_every_event_of_many_threads_is_there(authsvc: Authsvc) -> None:
    buffer = authsvc.context.audit

    def work(worker: int) -> None:
        for number in range(200):
            buffer.add(EventKind.REDEEMED, now=NOW, jti=f"{worker}-{number}")

    threads = [threading.Thread(target=work, args=(worker,)) for worker in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert buffer.flush(CLOSE_TIMEOUT_S)
    with authsvc.context.database.reading() as session:
        page = audit.page(session, AuditQuery(kind=EventKind.REDEEMED, limit=1000))
    assert {event.jti for event in page.events} == {
        f"{worker}-{number}" for worker in range(5) for number in range(200)
    }


def wait_for_log(caplog: pytest.LogCaptureFixture, text: str, pause: Callable[[float], object] | None = None) -> None:
    """Until the buffer's thread has said something."""
    pause = pause or threading.Event().wait
    for _ in range(1000):
        if text in caplog.text:
            return
        pause(0.01)
    pytest.fail(f"never logged: {text}")
