"""What runners report: kept once however often it is sent, and bounded in every part."""

import uuid
from typing import Any

import pytest

from authsvc.views.audit import EARLY_S, LATE_S
from schemas import limits
from schemas.events import SessionEvent
from schemas.keys import Role
from tests.authsvc.audit.conftest import Auditor
from tests.authsvc.conftest import assert_problem

NOW = 1_800_000_000


def opened(**changes: Any) -> dict[str, Any]:
    event = {
        "event_id": str(uuid.uuid4()),
        "kind": "connected",
        "at": NOW,
        "app": "fal-ai/fast-lcm-diffusion",
        "key_id": "lcmk_1",
        "subject": "user-7",
        "jti": "abc",
        "address": "2001:db8::1",
    }
    return {**event, **changes}


def closed(**changes: Any) -> dict[str, Any]:
    counts = {"close_code": 1000, "duration_s": 2.5, "images": 4, "pixels": 4 * 512 * 512}
    return {**opened(kind="closed"), **counts, **changes}


def test_a_session_is_kept_and_counted(auditor: Auditor) -> None:
    response = auditor.report(opened(), closed())
    assert (response.status_code, response.data) == (204, b"")
    end, start = auditor.events(jti="abc")
    assert (start["kind"], start["detail"]) == ("connected", {})
    assert end["detail"] == {"code": 1000, "duration_s": 2.5, "images": 4, "pixels": 4 * 512 * 512}
    for event in (start, end):
        assert event["actor"] == auditor.runner.partition(":")[0]
        assert (event["key_id"], event["subject"], event["address"]) == ("lcmk_1", "user-7", "2001:db8::1")
    (row,) = auditor.usage()
    assert (row["connections"], row["seconds"], row["images"], row["pixels"]) == (1, 2.5, 4, 4 * 512 * 512)


def test_a_report_that_is_sent_again_changes_nothing(auditor: Auditor) -> None:
    events = [opened(), closed()]
    for _ in range(3):
        assert auditor.report(*events).status_code == 204
    assert auditor.report(*events, opened(jti="new")).status_code == 204
    assert len(auditor.events(jti="abc")) == 2
    assert [row["connections"] for row in auditor.usage()] == [2]


def test_an_event_twice_in_one_report_counts_once(auditor: Auditor) -> None:
    event = opened()
    assert auditor.report(event, event).status_code == 204
    assert [row["connections"] for row in auditor.usage()] == [1]


def test_a_key_that_nobody_knows_is_kept_too(auditor: Auditor) -> None:
    auditor.report(opened(key_id="lcmk_gone"), opened(key_id=None))
    assert [row["key_id"] for row in auditor.usage()] == ["", "lcmk_gone"]


@pytest.mark.parametrize("at", [0, NOW - LATE_S - 1, NOW + EARLY_S + 1, limits.TIME_MAX_S])
def test_the_clock_of_a_runner_is_not_believed_when_it_is_far_off(auditor: Auditor, at: int) -> None:
    auditor.report(opened(at=at))
    (event,) = auditor.events(jti="abc")
    assert (event["at"], event["detail"]) == (NOW, {"reported_at": at})


@pytest.mark.parametrize("at", [NOW - LATE_S, NOW + EARLY_S])
def test_a_report_may_be_late(auditor: Auditor, at: int) -> None:
    auditor.report(opened(at=at))
    (event,) = auditor.events(jti="abc")
    assert (event["at"], event["detail"]) == (at, {})


@pytest.mark.parametrize("roles", [(Role.MINT,), (Role.ADMIN,)])
def test_only_a_runner_reports(auditor: Auditor, roles: tuple[Role, ...]) -> None:
    assert_problem(auditor.report(opened(), key=auditor.new_key(*roles)), 403)
    assert_problem(auditor.report(opened(), key="lcmk_no:no"), 401)
    assert auditor.events(jti="abc") == []


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"kind": "minted"}, "kind"),
        ({"event_id": "1"}, "event_id"),
        ({"at": -1}, "at"),
        ({"at": limits.TIME_MAX_S + 1}, "at"),
        ({"app": "a" * 201}, "app"),
        ({"app": "a\0b"}, "app"),
        ({"key_id": "k" * 65}, "key_id"),
        ({"subject": ""}, "subject"),
        ({"jti": "a\0"}, "jti"),
        ({"jti": None}, "jti"),
        ({"address": "x" * 65}, "address"),
        ({"close_code": 999}, "close_code"),
        ({"duration_s": -0.1}, "duration_s"),
        ({"duration_s": 1e300}, "duration_s"),
        ({"duration_s": "1"}, "duration_s"),
        ({"at": str(NOW)}, "at"),
        ({"images": -1}, "images"),
        ({"images": True}, "images"),
        ({"pixels": 10**15 + 1}, "pixels"),
        ({"token": "x"}, "token"),
    ],
)
def test_a_bad_event_is_named_and_none_of_its_report_is_kept(
    auditor: Auditor, changes: dict[str, Any], field: str
) -> None:
    problem = assert_problem(auditor.report(opened(), closed(**changes)), 422)
    assert [entry.loc for entry in problem.detail] == [["body", "events", 1, field]]
    assert auditor.events(jti="abc") == []


@pytest.mark.parametrize("number", [0, limits.EVENTS_PER_REPORT_MAX + 1])
def test_a_report_has_at_least_one_event_and_not_too_many(auditor: Auditor, number: int) -> None:
    assert_problem(auditor.report(*(opened() for _ in range(number))), 422)


def test_the_largest_report_is_within_the_limit_of_a_body(auditor: Auditor) -> None:
    largest = closed(
        at=NOW,
        app="a" * limits.APP_MAX_CHARS,
        key_id="k" * limits.ID_MAX_CHARS,
        subject='"' * limits.SUBJECT_MAX_CHARS,
        jti="\\" * limits.ID_MAX_CHARS,
        address="a" * 64,
        duration_s=86400.123456789,
        images=10**9,
        pixels=10**15,
    )
    assert set(largest) == set(SessionEvent.model_fields)
    events = [{**largest, "event_id": str(uuid.uuid4())} for _ in range(limits.EVENTS_PER_REPORT_MAX)]
    assert auditor.report(*events).status_code == 204
    assert len(auditor.events(kind="closed")) == limits.EVENTS_PER_REPORT_MAX
