"""`authsvc audit` and `authsvc usage`: the bodies of the HTTP doors, and tables for people."""

import csv
import io
import json
import subprocess
from datetime import UTC, datetime

import pytest

from authsvc.installation import open_database
from authsvc.ledger import audit
from authsvc.ledger.audit import Event
from schemas.events import EventKind
from tests.processes import run_module
from tests.stores import Store

AT = int(datetime(2026, 3, 4, 12, tzinfo=UTC).timestamp())


def event(kind: EventKind = EventKind.MINTED, **fields: object) -> Event:
    return Event(**{"kind": kind, "at": AT, "key_id": "lcmk_1", "app": "a/b", **fields})


@pytest.fixture
def env(store: Store) -> dict[str, str]:
    """The environment of a store with some events in it."""
    with open_database(store.settings()) as database, database.counting() as session:
        detail = {"code": 1000, "duration_s": 2.5, "images": 4, "pixels": 65536}
        events = [event(jti=f"t{number}", subject="user-7", at=AT + number * 86400) for number in range(3)]
        audit.write(session, [*events, event(EventKind.CLOSED, jti="t0", address="::1", detail=detail)])
    return store.env


def run(env: dict[str, str], *args: str) -> subprocess.CompletedProcess[str]:
    return run_module("authsvc", *args, env=env)


def said(env: dict[str, str], *args: str) -> dict:
    done = run(env, *args, "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_the_log_as_one_json_object(env: dict[str, str]) -> None:
    page = said(env, "audit", "list", "--limit", "2")
    assert [(found["kind"], found["jti"]) for found in page["events"]] == [("closed", "t0"), ("minted", "t2")]
    rest = said(env, "audit", "list", "--before", str(page["next"]))
    assert [found["jti"] for found in rest["events"]] == ["t1", "t0"]
    assert rest["next"] is None


@pytest.mark.parametrize(
    ("options", "found"),
    [
        (["--kind", "closed"], ["t0"]),
        (["--key", "lcmk_2"], []),
        (["--jti", "t1"], ["t1"]),
        (["--from", "2026-03-05", "--to", "2026-03-06"], ["t1"]),
    ],
)
def test_events_are_found_by_what_they_concern(env: dict[str, str], options: list[str], found: list[str]) -> None:
    assert [event["jti"] for event in said(env, "audit", "list", *options)["events"]] == found


def test_the_log_as_a_table(env: dict[str, str]) -> None:
    done = run(env, "audit", "list", "--limit", "1")
    heading, line = done.stdout.splitlines()
    assert heading.split()[:4] == ["id", "time", "kind", "actor"]
    named = ["2026-03-04T12:00:00Z", "closed", "-", "lcmk_1", "-", "t0", "a/b", "::1"]
    assert line.split()[1:] == [*named, "code=1000", "duration_s=2.5", "images=4", "pixels=65536"]
    assert done.stderr.startswith("There are more: --before ")


def test_usage_in_each_form(env: dict[str, str]) -> None:
    days = ("usage", "--from", "2026-03-04", "--to", "2026-03-04")
    row = {"day": "2026-03-04", "key_id": "lcmk_1", "app": "a/b", "tokens": 1, "refused": 0, "connections": 0}
    row |= {"seconds": 2.5, "images": 4, "pixels": 65536}
    assert said(env, *days) == {"usage": [row], "next": None}
    table = run(env, *days).stdout.splitlines()
    assert table[1].split() == [str(value) for value in row.values()]
    (line,) = csv.DictReader(io.StringIO(run(env, *days, "--format", "csv").stdout))
    assert line == {name: str(value) for name, value in row.items()}


def test_usage_is_shown_in_pages(env: dict[str, str]) -> None:
    found = said(env, "usage", "--from", "2026-03-04", "--to", "2026-03-31", "--limit", "2")
    assert [row["day"] for row in found["usage"]] == ["2026-03-04", "2026-03-05"]
    rest = said(env, "usage", "--from", "2026-03-04", "--to", "2026-03-31", "--after", found["next"])
    assert [row["day"] for row in rest["usage"]] == ["2026-03-06"]


def test_old_events_are_deleted_and_that_is_an_event(env: dict[str, str]) -> None:
    before = int(datetime(2026, 3, 5, tzinfo=UTC).timestamp())
    assert said(env, "audit", "prune", "--before", "2026-03-05") == {"deleted": 2, "before": before}
    newest, *left = said(env, "audit", "list")["events"]
    assert [found["jti"] for found in left] == ["t2", "t1"]
    assert (newest["kind"], newest["actor"]) == ("pruned", "cli")
    assert newest["detail"] == {"deleted": 2, "before": before}
    assert len(said(env, "usage", "--from", "2026-03-01", "--to", "2026-03-31")["usage"]) == 3


@pytest.mark.parametrize(
    ("command", "option"),
    [
        (["audit", "list", "--kind", "opened"], "--kind"),
        (["audit", "list", "--limit", "0"], "--limit"),
        (["audit", "list", "--key", "k" * 65], "--key"),
        (["audit", "list", "--subject", "a b"], "--subject"),
        (["audit", "list", "--from", "yesterday"], "--from"),
        (["audit", "prune", "--before", "soon"], "--before"),
        (["usage", "--app", "../etc"], "--app"),
        (["usage", "--after", "x"], "--after"),
        (["usage", "--format", "xml"], "--format"),
    ],
)
def test_a_bad_option_is_named(tmp_path, command: list[str], option: str) -> None:
    done = run({"AUTHSVC_DATA_DIR": str(tmp_path)}, *command)
    assert done.returncode == 2
    assert f"'{option}'" in done.stderr or f"{option}:" in done.stderr
