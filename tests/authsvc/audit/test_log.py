"""The log: complete, in order, never changed, and readable by administrators alone."""

from collections.abc import Callable

import pytest
from sqlalchemy import delete, text, update
from sqlalchemy.exc import DatabaseError

from authsvc.domain import api_keys
from authsvc.ledger import audit
from authsvc.ledger.audit import Event
from authsvc.ledger.refusals import EACH_PER_MINUTE
from authsvc.store.models import ApiKey, AuditEventRow
from schemas.events import AuditQuery, EventKind
from schemas.keys import Role
from tests.authsvc.audit.conftest import Auditor
from tests.authsvc.conftest import Authsvc, assert_problem


def add(authsvc: Authsvc, *events: Event) -> None:
    with authsvc.context.database.counting() as session:
        audit.write(session, events)


def test_an_event_says_what_who_and_when(auditor: Auditor) -> None:
    with auditor.authsvc.context.database.writing() as session:
        audit.record(
            session,
            EventKind.REVOKED,
            now=1_800_000_000.9,
            actor="cli",
            key_id="lcmk_1",
            subject="user-7",
            jti="abc",
            app="a/b",
            address="192.0.2.1",
            detail={"what": "subject"},
        )
    (event,) = auditor.events(kind="revoked")
    assert event.pop("id") > 0
    assert len(event.pop("event_id")) == 36
    assert event == {
        "kind": "revoked",
        "at": 1_800_000_000,
        "actor": "cli",
        "key_id": "lcmk_1",
        "subject": "user-7",
        "jti": "abc",
        "app": "a/b",
        "address": "192.0.2.1",
        "detail": {"what": "subject"},
    }


def test_a_change_that_fails_leaves_no_event(auditor: Auditor) -> None:
    before = auditor.events()

    def fail_after_recording() -> None:
        with auditor.authsvc.context.database.writing() as session:
            audit.record(session, EventKind.REVOKED, now=1, jti="abc")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail_after_recording()
    assert auditor.events() == before


def test_the_database_refuses_to_change_an_event(auditor: Auditor) -> None:
    add(auditor.authsvc, Event(kind=EventKind.REVOKED, at=5, jti="abc"))
    statements = (update(AuditEventRow).values(jti="xyz"), text("UPDATE audit_events SET at = 0"))
    for statement in statements:
        with (
            pytest.raises(DatabaseError, match="never changed"),
            auditor.authsvc.context.database.writing() as session,
        ):
            session.execute(statement)
    assert [event["jti"] for event in auditor.events(kind="revoked")] == ["abc"]


def test_pages_hold_every_event_once_newest_first(auditor: Auditor) -> None:
    add(auditor.authsvc, *(Event(kind=EventKind.REDEEMED, at=at, jti=f"t{at}") for at in range(25)))
    seen: list[str] = []
    query: dict[str, object] = {"kind": "redeemed", "limit": 10}
    while True:
        page = auditor.get("/audit", query_string=query).json
        seen += [event["jti"] for event in page["events"]]
        if page["next"] is None:
            break
        query["before"] = page["next"]
    assert seen == [f"t{at}" for at in reversed(range(25))]


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ({"kind": "minted"}, ["a", "b"]),
        ({"kind": "minted", "key_id": "k1"}, ["a"]),
        ({"subject": "s2"}, ["b", "c"]),
        ({"jti": "c"}, ["c"]),
        ({"from": 11, "to": 12}, ["b", "c"]),
        ({"from": 13}, []),
        ({"to": 9, "kind": "minted"}, []),
    ],
)
def test_events_are_found_by_what_they_concern(auditor: Auditor, query: dict[str, object], found: list[str]) -> None:
    with auditor.authsvc.context.database.writing() as session:
        session.execute(delete(AuditEventRow))  # the creation of the keys
    add(
        auditor.authsvc,
        Event(kind=EventKind.MINTED, at=10, key_id="k1", subject="s1", jti="a"),
        Event(kind=EventKind.MINTED, at=11, key_id="k2", subject="s2", jti="b"),
        Event(kind=EventKind.REDEEMED, at=12, key_id="k2", subject="s2", jti="c"),
    )
    assert sorted(event["jti"] for event in auditor.events(**query)) == found


@pytest.mark.parametrize(
    ("query", "parameter"),
    [
        ("kind=opened", "kind"),
        ("kind=", "kind"),
        ("limit=0", "limit"),
        ("limit=1001", "limit"),
        ("limit=1.0", "limit"),
        ("limit=1_0", "limit"),
        ("limit=ten", "limit"),
        ("before=0", "before"),
        ("before=9007199254740992", "before"),
        ("from=-1", "from"),
        ("to=253402300800", "to"),
        ("key_id=" + "k" * 65, "key_id"),
        ("subject=%00", "subject"),
        ("jti=" + "%C3%A9", "jti"),
        ("jti=a&jti=b", "jti"),
        ("at_from=1", "at_from"),
        ("keyid=1", "keyid"),
    ],
)
def test_a_bad_parameter_is_named(auditor: Auditor, query: str, parameter: str) -> None:
    problem = assert_problem(auditor.get(f"/audit?{query}"), 422)
    assert [field.loc for field in problem.detail] == [["query", parameter]]


@pytest.mark.parametrize("path", ["/audit", "/usage"])
def test_an_answer_is_kept_nowhere(auditor: Auditor, path: str) -> None:
    assert auditor.get(path).headers["Cache-Control"] == "no-store"


@pytest.mark.parametrize("roles", [(Role.MINT,), (Role.RUNNER,), (Role.MINT, Role.RUNNER)])
def test_only_an_administrator_reads_the_log(auditor: Auditor, roles: tuple[Role, ...]) -> None:
    assert_problem(auditor.get("/audit", auditor.new_key(*roles)), 403)
    assert_problem(auditor.get("/audit", "lcmk_no:no"), 401)


def test_text_that_no_column_can_hold_is_cut_and_does_not_lose_the_event(auditor: Auditor) -> None:
    add(auditor.authsvc, Event(kind=EventKind.REDEEMED, at=1, jti="a\0b" + "x" * 100, subject="s" * 500))
    (event,) = auditor.events(kind="redeemed")
    assert event["jti"] == ("ab" + "x" * 100)[:64]
    assert event["subject"] == "s" * 128


def test_old_events_are_pruned_in_small_steps_and_usage_stays(
    auditor: Auditor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audit, "PRUNE_BATCH", 4)
    add(auditor.authsvc, *(Event(kind=EventKind.MINTED, at=at, key_id="k", app="a/b") for at in range(10)))
    deleted = []
    for _ in range(3):
        with auditor.authsvc.context.database.counting() as session:
            deleted.append(audit.prune(session, before=7))
    assert deleted == [4, 3, 0]
    assert sorted(event["at"] for event in auditor.events(kind="minted")) == [7, 8, 9]
    assert [row["tokens"] for row in auditor.usage(**{"from": "1970-01-01", "to": "1970-01-01"})] == [10]


@pytest.mark.parametrize(("days", "left"), [(90, ["new"]), (0, ["new", "old"])])
def test_the_service_itself_deletes_what_is_too_old(
    make_auditor: Callable[..., Auditor], days: int, left: list[str]
) -> None:
    auditor = make_auditor(audit_retention_days=days)
    authsvc = auditor.authsvc
    old = authsvc.clock.now - 91 * 24 * 3600
    add(authsvc, Event(kind=EventKind.REDEEMED, at=int(old), jti="old"))
    authsvc.context.audit.add(EventKind.REDEEMED, now=authsvc.clock(), jti="new")
    authsvc.context.audit.close()  # it prunes after it has written
    assert sorted(event["jti"] for event in auditor.events(kind="redeemed")) == left


def test_an_event_outlives_the_key_that_it_concerns(auditor: Auditor) -> None:
    add(auditor.authsvc, Event(kind=EventKind.MINTED, at=1, key_id="gone", jti="a"))
    with auditor.authsvc.context.database.reading() as session:
        assert session.get(ApiKey, "gone") is None
        assert len(audit.page(session, AuditQuery(key_id="gone")).events) == 1


def test_a_token_for_several_apps_counts_for_none_of_them(auditor: Auditor) -> None:
    with auditor.authsvc.context.database.writing() as session:
        key = str(api_keys.create(session, name="x", apps=["*"], now=auditor.authsvc.clock())[1])
    for apps in (["a/b", "c/d"], ["a/b"]):
        assert auditor.authsvc.mint(key, {"allowed_apps": apps}).status_code == 201
    one, several = auditor.events(kind="minted")
    assert (one["app"], "apps" in one["detail"]) == ("a/b", False)
    assert (several["app"], several["detail"]["apps"]) == (None, ["a/b", "c/d"])
    assert [(row["app"], row["tokens"]) for row in auditor.usage()] == [("", 1), ("a/b", 1)]


def test_a_minted_token_and_a_refusal_are_events(auditor: Auditor) -> None:
    authsvc = auditor.authsvc
    minted = authsvc.mint(auditor.minter, {"app": "fast-lcm-diffusion", "subject": "user-7"}).json
    authsvc.mint(auditor.minter, {"app": "other/app"})
    authsvc.mint("lcmk_no:no", {"app": "fast-lcm-diffusion"})
    key_id = auditor.minter.partition(":")[0]
    (event,) = auditor.events(kind="minted")
    assert (event["jti"], event["subject"], event["key_id"]) == (minted["jti"], "user-7", key_id)
    assert (event["actor"], event["address"]) == (key_id, "127.0.0.1")
    unknown, outside = auditor.events(kind="refused")
    assert (outside["key_id"], outside["detail"]) == (key_id, {"reason": "forbidden"})
    assert (unknown["key_id"], unknown["detail"]) == (None, {"reason": "unauthorized"})
    assert [(row["key_id"], row["tokens"], row["refused"]) for row in auditor.usage()] == [
        ("", 0, 1),
        (key_id, 0, 1),
        (key_id, 1, 0),
    ]


def test_a_flood_of_bad_keys_makes_few_events_and_is_counted(make_auditor: Callable[..., Auditor]) -> None:
    auditor = make_auditor(failures_per_minute=100_000)
    for _ in range(EACH_PER_MINUTE + 40):
        assert_problem(auditor.authsvc.mint("lcmk_no:no", {"app": "x"}), 401)
    auditor.authsvc.context.audit.close()
    refusals = auditor.events(kind="refused")
    assert len(refusals) == EACH_PER_MINUTE + 1
    assert refusals[0]["detail"] == {"reason": "unauthorized", "count": 40}
    assert [row["refused"] for row in auditor.usage()] == [EACH_PER_MINUTE + 40]
