"""What is counted, and that nobody outside chooses a label; `test_serving` has several workers."""

import os
from collections.abc import Callable

from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from authsvc.shared_counts import GAUGES, SharedRows
from schemas.problems import KINDS
from tests.authsvc.conftest import APP, Authsvc, assert_problem


def samples(authsvc: Authsvc) -> list[Sample]:
    families = text_string_to_metric_families(authsvc.client.get("/metrics").text)
    return [sample for family in families for sample in family.samples]


def value(found: list[Sample], name: str, **labels: str) -> float:
    (sample,) = (sample for sample in found if sample.name == name and labels.items() <= sample.labels.items())
    return float(sample.value)


def test_mints_and_refusals_are_counted_by_reason(authsvc: Authsvc) -> None:
    key = authsvc.key(APP)
    assert authsvc.mint(key, {"app": APP}).status_code == 201
    authsvc.mint(key, {"app": APP}, path="/tokens/")
    authsvc.mint(key, {"app": "other/app"})
    authsvc.mint(key, {})
    authsvc.mint("lcmk_unknown:secret", {"app": APP})
    found = samples(authsvc)
    assert value(found, "authsvc_tokens_minted_total") == 2
    refusals = {s.labels["reason"]: s.value for s in found if s.name == "authsvc_mint_refusals_total"}
    assert refusals == {KINDS[status].error_type: 1 for status in (401, 403, 422)}
    assert value(found, "authsvc_authentication_failures_total") == 1
    assert value(found, "authsvc_requests_total", method="POST", route="/tokens/realtime", status="201") == 1


def test_requests_for_what_is_not_there_make_no_labels(authsvc: Authsvc) -> None:
    def visit(numbers: range) -> list[Sample]:
        for number in numbers:
            authsvc.client.get(f"/nowhere/{number}")
            authsvc.client.open(f"/tokens/{number}", method=f"VERB{number}")
        return samples(authsvc)

    visit(range(1))
    before = visit(range(1, 2))
    found = visit(range(2, 20))
    assert len(found) == len(before)
    assert not [sample for sample in found if "nowhere" in str(sample.labels) or "VERB" in str(sample.labels)]
    assert value(found, "authsvc_requests_total", route="none", status="404") == 40


def test_a_path_s_variable_part_is_no_label(authsvc: Authsvc) -> None:
    authsvc.client.get("/keys/lcmk_of_somebody", headers={"Authorization": f"Key {authsvc.key()}"})
    routes = {sample.labels["route"] for sample in samples(authsvc) if "route" in sample.labels}
    assert "/keys/<key_id>" in routes
    assert "lcmk_of_somebody" not in str(routes)


def test_durations_are_a_histogram(authsvc: Authsvc) -> None:
    for _ in range(3):
        authsvc.client.get("/health/live")
    found = [sample for sample in samples(authsvc) if sample.labels.get("route") == "/health/live"]
    buckets = [sample.value for sample in found if sample.name == "authsvc_request_seconds_bucket"]
    assert buckets == sorted(buckets)
    assert buckets[-1] == value(found, "authsvc_request_seconds_count") == 3


def test_events_that_wait_are_shown(authsvc: Authsvc) -> None:
    authsvc.context.audit.flush()
    assert value(samples(authsvc), "authsvc_audit_backlog") == 0
    assert value(samples(authsvc), "authsvc_audit_events_dropped_total") == 0


def test_metrics_can_be_switched_off(make_authsvc: Callable[..., Authsvc]) -> None:
    assert_problem(make_authsvc(metrics=False).client.get("/metrics"), 404)


def test_rows_are_seen_by_every_process_and_outlive_theirs() -> None:
    rows = SharedRows(2)
    gauge, counter = 0, GAUGES
    mine = rows.claim()
    rows.row(mine).add(counter)
    child = os.fork()
    if child == 0:
        rows.row(1 - mine).add(counter, counter)
        rows.row(1 - mine).add_amount(counter, 0.5)
        rows.row(1 - mine).set(gauge, 7)
        os._exit(0)
    os.waitpid(child, 0)
    assert (rows.total(counter), rows.total(gauge)) == (3.5, 7)
    rows.release(1 - mine)
    assert (rows.total(counter), rows.total(gauge)) == (3.5, 0)


def test_when_all_rows_are_taken_one_is_shared() -> None:
    rows = SharedRows(1)
    assert [rows.claim(), rows.claim()] == [0, 0]
