"""Usage: the log added up, by day, key and app."""

import csv
import io
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import delete

from authsvc.ledger import audit, usage
from authsvc.ledger.audit import Event
from authsvc.store.models import AuditEventRow, DailyUsage
from authsvc.store.sqlite import SQLite
from schemas import limits
from schemas.events import EventKind, UsageQuery
from tests.authsvc.audit.conftest import Auditor
from tests.authsvc.conftest import Authsvc, assert_problem

DAY_S = 24 * 3600
DAY = 1_800_000_000 // DAY_S * DAY_S
"""The start of 2027-01-15."""


def event(kind: EventKind, at: int = DAY, **fields: Any) -> Event:
    return Event(**{"kind": kind, "at": at, "key_id": "k", "app": "a/b", **fields})


def add(authsvc: Authsvc, *events: Event) -> int:
    with authsvc.context.database.counting() as session:
        return audit.write(session, events)


def row(**changes: Any) -> dict[str, Any]:
    sums = {"tokens": 0, "refused": 0, "connections": 0, "seconds": 0.0, "images": 0, "pixels": 0}
    return {"day": "2027-01-15", "key_id": "k", "app": "a/b", **sums, **changes}


def test_each_kind_adds_to_its_own_sums(auditor: Auditor) -> None:
    closed = {"code": 1000, "duration_s": 1.5, "images": 3, "pixels": 3 * 512 * 512}
    add(
        auditor.authsvc,
        event(EventKind.MINTED),
        event(EventKind.MINTED),
        event(EventKind.CONNECTED),
        event(EventKind.CLOSED, detail=closed),
        event(EventKind.CLOSED, detail={"code": 1006}),
        event(EventKind.REDEEMED),
        event(EventKind.REVOKED),
    )
    (found,) = auditor.usage()
    assert found == row(tokens=2, connections=1, seconds=1.5, images=3, pixels=3 * 512 * 512)


def test_a_day_begins_at_midnight_in_utc(auditor: Auditor) -> None:
    add(auditor.authsvc, *(event(EventKind.MINTED, DAY + offset) for offset in (-1, 0, DAY_S - 1, DAY_S)))
    found = auditor.usage(to="2027-01-16")
    assert [(row["day"], row["tokens"]) for row in found] == [("2027-01-14", 1), ("2027-01-15", 2), ("2027-01-16", 1)]


def test_an_event_that_comes_twice_counts_once(auditor: Auditor) -> None:
    first = event(EventKind.MINTED)
    assert add(auditor.authsvc, first, first, event(EventKind.MINTED)) == 2
    assert add(auditor.authsvc, first) == 0
    assert [row["tokens"] for row in auditor.usage()] == [2]
    assert len(auditor.events(kind="minted")) == 2


def test_refusals_are_not_told_apart_by_an_app_that_anybody_can_make_up(auditor: Auditor) -> None:
    add(auditor.authsvc, *(event(EventKind.REFUSED, app=f"x/{number}") for number in range(5)))
    assert auditor.usage() == [row(app="", refused=5)]


def test_every_path_of_an_app_counts_for_the_app(auditor: Auditor) -> None:
    add(auditor.authsvc, *(event(EventKind.MINTED, app=app) for app in ("a/b", "a/b/realtime", "a/b/x/y", "b")))
    assert [(row["app"], row["tokens"]) for row in auditor.usage()] == [("a/b", 3), ("b", 1)]


def test_a_rate_of_two_processes_is_added_up_without_loss(make_authsvc: Callable[..., Authsvc]) -> None:
    services = [make_authsvc(), make_authsvc()]
    keys = ("k1", "k2")

    def work(number: int) -> None:
        for _ in range(10):
            add(services[number % 2], *(event(EventKind.MINTED, key_id=key) for key in keys[:: 1 - 2 * (number % 2)]))

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(4)))
    with services[0].context.database.reading() as session:
        rows = usage.page(session, UsageQuery(), now=DAY).usage
    assert [(row.key_id, row.tokens) for row in rows] == [("k1", 40), ("k2", 40)]


def test_usage_is_found_by_day_key_and_app(auditor: Auditor) -> None:
    days = (DAY - 31 * DAY_S, DAY - 30 * DAY_S, DAY)
    add(auditor.authsvc, *(event(EventKind.MINTED, at, key_id=f"k{n}") for n, at in enumerate(days)))
    add(auditor.authsvc, event(EventKind.MINTED, key_id="k2", app="c/d"))
    assert [(row["key_id"], row["app"]) for row in auditor.usage()] == [("k1", "a/b"), ("k2", "a/b"), ("k2", "c/d")]
    assert [row["key_id"] for row in auditor.usage(**{"from": "2026-12-15"})] == ["k0", "k1", "k2", "k2"]
    assert [row["key_id"] for row in auditor.usage(to="2026-12-15")] == ["k0"]
    assert [row["day"] for row in auditor.usage(key_id="k1")] == ["2026-12-16"]
    assert [row["key_id"] for row in auditor.usage(app="c/d")] == ["k2"]
    assert auditor.usage(**{"from": "2027-02-01", "to": "2027-01-01"}) == []


def test_pages_hold_every_row_once(auditor: Auditor) -> None:
    names = [(day, key, app) for day in (0, 1) for key in ("", "k1", "k2") for app in ("", "a/b", "a/c")]
    add(
        auditor.authsvc,
        *(event(EventKind.MINTED, DAY - day * DAY_S, key_id=key, app=app) for day, key, app in names),
    )
    seen: list[tuple[str, str, str]] = []
    query: dict[str, object] = {"limit": 4}
    while True:
        page = auditor.get("/usage", query_string=query).json
        seen += [(row["day"], row["key_id"], row["app"]) for row in page["usage"]]
        if page["next"] is None:
            break
        query["after"] = page["next"]
    assert len(seen) == len(names)
    assert seen == sorted(set(seen))


@pytest.mark.parametrize("how", [{"query_string": {"format": "csv"}}, {"headers": {"Accept": "text/csv"}}])
def test_usage_comes_as_csv(auditor: Auditor, how: dict[str, Any]) -> None:
    add(auditor.authsvc, event(EventKind.MINTED))
    response = auditor.get("/usage", **how)
    assert response.content_type == "text/csv; charset=utf-8"
    (line,) = csv.DictReader(io.StringIO(response.text))
    assert line == {name: str(value) for name, value in row(tokens=1).items()}


@pytest.mark.parametrize("key_id", ['=HYPERLINK("http://evil.example")', "+1", "-1", "@SUM(1)"])
def test_csv_holds_no_formula_that_a_runner_made_up(auditor: Auditor, key_id: str) -> None:
    add(auditor.authsvc, event(EventKind.CONNECTED, key_id=key_id))
    (line,) = csv.DictReader(io.StringIO(auditor.get("/usage?format=csv").text))
    assert line["key_id"] == f"'{key_id}"


def test_sums_that_a_runner_makes_up_stop_no_other_report(auditor: Auditor) -> None:
    """Beyond 63 bits PostgreSQL takes no event any more, and SQLite makes the sum a number that nobody can read."""
    made_up = {"images": 10**9, "pixels": 10**15}
    for _ in range(2):
        add(auditor.authsvc, *(event(EventKind.CLOSED, detail=made_up) for _ in range(10)))
    add(auditor.authsvc, event(EventKind.CLOSED, detail={"images": 1, "pixels": 512 * 512}))
    (found,) = auditor.usage()
    assert found == row(images=20 * 10**9 + 1, pixels=limits.PINNED_MAX)


def test_a_page_of_csv_says_where_it_continues(auditor: Auditor) -> None:
    add(auditor.authsvc, *(event(EventKind.MINTED, key_id=key) for key in ("k1", "k2", "k3")))
    first = auditor.get("/usage?format=csv&limit=2")
    link = first.headers["Link"]
    assert link.endswith('>; rel="next"')
    second = auditor.get(link[1:].partition(">")[0])
    assert "Link" not in second.headers
    assert [line["key_id"] for line in csv.DictReader(io.StringIO(second.text))] == ["k3"]


@pytest.mark.parametrize("accept", ["*/*", "application/json", "text/html", "text/csv;q=0.5, application/json"])
def test_usage_is_json_to_all_who_do_not_ask_for_csv(auditor: Auditor, accept: str) -> None:
    assert auditor.get("/usage", headers={"Accept": accept}).is_json


@pytest.mark.parametrize(
    ("query", "parameter"),
    [
        ("from=1700000000", "from"),
        ("from=2026-02-30", "from"),
        ("to=yesterday", "to"),
        ("to=2026-1-1", "to"),
        ("app=../etc", "app"),
        ("key_id=", "key_id"),
        ("limit=10001", "limit"),
        ("after=k", "after"),
        ("after=2026-01-01,%00,", "after"),
        ("format=xml", "format"),
        ("day=2026-01-01", "day"),
    ],
)
def test_a_bad_parameter_is_named(auditor: Auditor, query: str, parameter: str) -> None:
    problem = assert_problem(auditor.get(f"/usage?{query}"), 422)
    assert [field.loc for field in problem.detail] == [["query", parameter]]


@pytest.mark.parametrize("first_and_last", [("0001-01-01", "9999-12-31"), ("9999-12-31", "0001-01-01")])
def test_any_day_may_be_asked_for(auditor: Auditor, first_and_last: tuple[str, str]) -> None:
    first, last = first_and_last
    assert auditor.usage(**{"from": first, "to": last}) == []
    assert auditor.usage(to="0001-01-01") == []


def test_a_key_that_mints_sees_its_own_usage_alone(auditor: Auditor) -> None:
    own = auditor.minter.partition(":")[0]
    add(auditor.authsvc, event(EventKind.MINTED, key_id=own), event(EventKind.MINTED, key_id="another"))
    assert [row["key_id"] for row in auditor.usage(auditor.minter)] == [own]
    assert [row["key_id"] for row in auditor.usage(auditor.minter, key_id=own)] == [own]
    assert_problem(auditor.get("/usage?key_id=another", auditor.minter), 403)
    assert_problem(auditor.get("/usage", auditor.runner), 403)


KINDS = st.sampled_from([EventKind.MINTED, EventKind.REFUSED, EventKind.CONNECTED, EventKind.REVOKED])


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SQLite]:
    with SQLite(tmp_path_factory.mktemp("usage") / "authsvc.sqlite3") as made:
        made.prepare()
        yield made


@settings(max_examples=50)
@given(
    st.lists(st.tuples(KINDS, st.integers(0, 2), st.sampled_from("ab"), st.integers(0, 9)), max_size=30), st.randoms()
)
def test_whatever_comes_how_often_the_sums_are_those_of_the_log(
    database: SQLite, given_events: list[tuple[EventKind, int, str, int]], random: Any
) -> None:
    """Batches of any size, repeated in part: each event counts once."""
    events = {
        number: event(kind, DAY + day * DAY_S, key_id=key, event_id=f"{number}")
        for kind, day, key, number in given_events
    }
    batches = [random.sample(list(events.values()), random.randint(0, len(events))) for _ in range(3)]
    with database.counting() as session:
        for table in (AuditEventRow, DailyUsage):
            session.execute(delete(table))
        for batch in (*batches, list(events.values())):
            audit.write(session, batch)
        rows = usage.page(session, UsageQuery(to="2028-01-01", **{"from": "2026-01-01"}), now=0).usage
    counted = Counter((usage.day(one.at), one.key_id, one.kind) for one in events.values())
    for found in rows:
        name = found.day, found.key_id
        assert found.tokens == (counted[*name, EventKind.MINTED] if found.app else 0)
        assert found.connections == (counted[*name, EventKind.CONNECTED] if found.app else 0)
        assert found.refused == (0 if found.app else counted[*name, EventKind.REFUSED])
    total = sum(found.tokens + found.refused + found.connections for found in rows)
    assert total == sum(one.kind is not EventKind.REVOKED for one in events.values())
