"""Requests over HTTP as programs send them: what is answered, and how every failure looks (contract §4)."""

import json
import uuid
from collections.abc import Iterator
from typing import Any

import gevent
import httpx
import pytest

from runner.doors.cors import EXPOSED, CorsPolicy
from runner.doors.http import HttpOptions
from runner.doors.reports import Reporter
from runner.doors.websocket import WebSocketOptions
from schemas.errors import Problem
from schemas.events import EventKind, SessionEvent
from schemas.revocation import RevokedEntry, RevokedKind
from tests.runner.doors.door import API_KEY, in_thread, token
from tests.runner.doors.http_door import APP, Door, bearer, running_http_door
from tokens.revocation import fingerprint

FAR = 2**40
REVOKED_KEY = RevokedEntry(
    kind=RevokedKind.KEY, sha256=fingerprint(RevokedKind.KEY, "key-1"), issued_before=FAR, expires_at=FAR
)


@pytest.fixture
def door() -> Iterator[Door]:
    with running_http_door() as running:
        yield running


def assert_problem(answer: httpx.Response, status: int, error_type: str | None = None) -> Problem:
    assert answer.status_code == status, answer.text
    problem = Problem.model_validate(answer.json())
    assert problem.status == status
    assert answer.headers["x-fal-error-type"] == problem.error_type
    assert answer.headers["x-fal-billable-units"] == "0"
    assert answer.headers["content-type"] == "application/json"
    assert problem.instance == f"urn:uuid:{answer.headers['x-fal-request-id']}"
    if error_type is not None:
        assert problem.error_type == error_type
    return problem


class TestAnswers:
    def test_a_request_is_answered_with_its_id(self, door: Door) -> None:
        answer = door.post(json={"prompt": "hello", "steps": 3})
        assert answer.status_code == 200, answer.text
        assert answer.json() == {"prompt": "hello", "steps": 3, "images": [{"width": 4, "height": 3}]}
        assert answer.headers["content-type"] == "application/json"
        assert str(uuid.UUID(answer.headers["x-fal-request-id"])) == answer.headers["x-request-id"]
        assert "transfer-encoding" not in answer.headers

    def test_each_request_has_an_id_of_its_own(self, door: Door) -> None:
        first, second = (door.post(json={"prompt": "x"}).headers["x-fal-request-id"] for _ in range(2))
        assert first != second

    def test_a_dict_goes_in_and_out_and_the_tokens_limits_are_known(self, door: Door) -> None:
        answer = door.post(f"/{APP}/limits", json={"any": [1]}, headers=bearer(max_pixels=4096))
        assert answer.json() == {"max_pixels": 4096, "received": {"any": [1]}}

    def test_no_body_is_no_fields(self, door: Door) -> None:
        assert door.post(f"/{APP}/limits").json()["received"] == {}

    def test_a_body_in_chunks_is_read(self, door: Door) -> None:
        answer = door.post(content=iter([b'{"prom', b'pt": "in', b' bits"}']))
        assert answer.json()["prompt"] == "in bits"

    def test_a_slash_at_the_end_is_no_other_path(self, door: Door) -> None:
        assert door.post(f"/{APP}/", json={"prompt": "x"}).status_code == 200


class TestBadRequests:
    def test_a_bad_field_is_named_with_its_input(self, door: Door) -> None:
        problem = assert_problem(door.post(json={"prompt": "x", "steps": 99}), 422, "validation_error")
        [entry] = problem.detail
        assert (entry.loc, entry.type) == (["body", "steps"], "less_than_equal")
        assert entry.model_extra == {"input": 99, "ctx": {"le": 50}}

    def test_a_missing_field_is_named(self, door: Door) -> None:
        [entry] = assert_problem(door.post(json={}), 422).detail
        assert (entry.loc, entry.type) == (["body", "prompt"], "missing")

    @pytest.mark.parametrize(
        "body",
        [
            b"{",
            b"[]",
            b'"x"',
            b"\xff",
            b'{"a": 1, "a": 2}',
            b'{"a": NaN}',
            b'{"a":' * 50 + b"1" + b"}" * 50,
            b'{"a": 1}{',
            b'{"a": "\\ud800"}',
        ],
    )
    def test_what_is_no_json_object_is_422(self, door: Door, body: bytes) -> None:
        [entry] = assert_problem(door.post(content=body), 422).detail
        assert (entry.loc, entry.type) == (["body"], "json_invalid")

    @pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "application/msgpack"])
    def test_another_content_type_is_415(self, door: Door, kind: str) -> None:
        answer = door.post(content=b'{"prompt": "x"}', headers={"Content-Type": kind})
        assert_problem(answer, 415, "unsupported_media_type")

    @pytest.mark.parametrize("kind", ["application/json; charset=utf-8", "Application/JSON", "application/ld+json"])
    def test_json_by_another_spelling_is_read(self, door: Door, kind: str) -> None:
        assert door.post(content=b'{"prompt": "x"}', headers={"Content-Type": kind}).status_code == 200

    def test_a_get_names_the_method(self, door: Door) -> None:
        answer = door.request("GET")
        assert_problem(answer, 405, "method_not_allowed")
        assert answer.headers["allow"] == "POST"

    def test_a_head_has_no_body(self, door: Door) -> None:
        answer = door.request("HEAD")
        assert (answer.status_code, answer.content) == (405, b"")

    @pytest.mark.parametrize("method", ["GET", "POST"])
    def test_a_realtime_path_wants_an_upgrade(self, door: Door, method: str) -> None:
        answer = door.request(method, f"/{APP}/realtime")
        assert_problem(answer, 426, "upgrade_required")
        assert answer.headers["upgrade"] == "websocket"

    @pytest.mark.parametrize("method", ["GET", "POST"])
    def test_an_unknown_path_is_404_in_fals_words(self, door: Door, method: str) -> None:
        problem = assert_problem(door.request(method, f"/{APP}/zzz"), 404, "not_found")
        assert problem.detail == f"Path /{APP}/zzz not found"


class TestAccess:
    def test_a_key_opens(self, door: Door) -> None:
        answer = door.post(json={"prompt": "x"}, headers={"Authorization": f"Key {API_KEY}"})
        assert answer.status_code == 200

    def test_a_token_in_the_query_opens(self, door: Door) -> None:
        answer = door.post(f"/{APP}?fal_jwt_token={token(APP)}", json={"prompt": "x"}, headers={"Authorization": None})
        assert answer.status_code == 200

    @pytest.mark.parametrize(
        ("headers", "status"),
        [
            ({"Authorization": None}, 401),
            ({"Authorization": "Key nobody:nothing"}, 401),
            ({"Authorization": "Key broken"}, 401),
            ({"Authorization": "Bearer not.a.token"}, 401),
            ({"Authorization": f"Bearer {token('owner/other', duration_s=3600)}"}, 403),
            ({"Authorization": f"Bearer {token(APP, age_s=100, duration_s=60)}"}, 401),
        ],
        ids=["nothing", "unknown key", "broken key", "no token", "another scope", "expired"],
    )
    def test_other_credentials_are_a_status(self, door: Door, headers: dict[str, str | None], status: int) -> None:
        answer = door.post(json={"prompt": "x"}, headers=headers)
        assert_problem(answer, status)
        assert "realm" in answer.headers["www-authenticate"]

    def test_a_bad_token_in_the_query_is_a_status_too(self, door: Door) -> None:
        answer = door.post(f"/{APP}?fal_jwt_token=no", json={"prompt": "x"}, headers={"Authorization": None})
        assert_problem(answer, 401, "unauthorized")

    def test_a_refused_caller_with_a_large_body_reads_why(self, door: Door) -> None:
        answer = door.post(content=bytes(8 << 20), headers={"Authorization": None})
        assert_problem(answer, 401)
        assert answer.headers["connection"] == "close"

    def test_a_one_time_token_answers_one_request(self, door: Door) -> None:
        once = bearer(one_time=True)
        assert door.post(json={"prompt": "x"}, headers=once).status_code == 200
        assert_problem(door.post(json={"prompt": "x"}, headers=once), 401)

    def test_max_requests_counts_what_succeeded(self, door: Door) -> None:
        twice = bearer(max_requests=2)
        statuses = [
            door.post(json={"prompt": prompt}, headers=twice).status_code for prompt in ("x", "bug", "invalid", "x")
        ]
        assert statuses == [200, 500, 422, 200]
        problem = assert_problem(door.post(json={"prompt": "x"}, headers=twice), 429, "rate_limited")
        assert "max_requests" in str(problem.detail)

    def test_max_connections_holds_while_one_is_answered(self, door: Door) -> None:
        alone = bearer(max_connections=1)
        door.app.hold.clear()
        first = gevent.spawn(door.post, json={"prompt": "x"}, headers=alone)
        assert door.app.started.wait(10)
        assert_problem(door.post(json={"prompt": "x"}, headers=alone), 429)
        door.app.hold.set()
        assert first.get(timeout=10).status_code == 200
        assert door.post(json={"prompt": "x"}, headers=alone).status_code == 200
        assert door.allowances.counted == 0

    def test_a_revoked_token_ends_a_request_that_runs(self, door: Door) -> None:
        door.app.hold.clear()
        running = gevent.spawn(door.post, json={"prompt": "x"}, headers=bearer())
        assert door.app.started.wait(10)
        door.revocations.add([REVOKED_KEY])
        assert_problem(running.get(timeout=10), 401)
        assert door.app.given_up.wait(10)


class TestFailures:
    @pytest.mark.parametrize(
        ("prompt", "status", "error_type"),
        [
            ("invalid", 422, "validation_error"),
            ("own field", 422, "validation_error"),
            ("starting", 503, "runner_scheduling_failure"),
            ("busy", 503, "runner_scheduling_failure"),
            ("failed", 500, "internal_error"),
            ("bug", 500, "internal_error"),
            ("teapot", 418, None),
        ],
    )
    @pytest.mark.parametrize("path", ["", "/stream"])
    def test_a_failure_is_a_status_and_gives_nothing_away(
        self,
        door: Door,
        caplog: pytest.LogCaptureFixture,
        prompt: str,
        status: int,
        error_type: str | None,
        path: str,
    ) -> None:
        answer = door.post(f"/{APP}{path}", json={"prompt": prompt})
        assert_problem(answer, status, error_type)
        assert "secret" not in answer.text
        if status == 500:
            assert answer.headers["x-fal-request-id"] in caplog.text
        if status == 503:
            assert answer.headers["retry-after"] == ("8" if prompt == "busy" else "5")
        assert answer.headers["x-fal-retryable"] == ("true" if status == 503 else "false")

    def test_a_field_that_the_handler_blames_is_in_the_body(self, door: Door) -> None:
        [entry] = assert_problem(door.post(json={"prompt": "invalid"}), 422).detail
        assert (entry.loc, entry.type, entry.msg) == (["body", "steps"], "multiple_of", "must be even")


class TestTime:
    def test_the_callers_timeout_is_named_and_the_work_given_up(self, door: Door) -> None:
        door.app.hold.clear()
        answer = door.post(json={"prompt": "x"}, headers={"x-fal-request-timeout": "0.2"})
        assert_problem(answer, 504, "request_timeout")
        assert answer.headers["x-fal-request-timeout-type"] == "user"
        assert door.app.given_up.wait(10)

    def test_the_servers_own_is_told_apart(self) -> None:
        with running_http_door(HttpOptions(timeout_s=0.2)) as door:
            door.app.hold.clear()
            answer = door.post(json={"prompt": "x"}, headers={"x-fal-request-timeout": "30"})
            assert_problem(answer, 504, "request_timeout")
            assert "x-fal-request-timeout-type" not in answer.headers

    @pytest.mark.parametrize("value", ["0.1", "0", "-1", "soon", "1e3", "nan", ""])
    def test_a_timeout_that_is_none_is_422(self, door: Door, value: str) -> None:
        [entry] = assert_problem(door.post(json={"prompt": "x"}, headers={"x-fal-request-timeout": value}), 422).detail
        assert entry.loc == ["header", "x-fal-request-timeout"]

    def test_python_clients_spelling_is_read(self, door: Door) -> None:
        assert door.post(json={"prompt": "x"}, headers={"x-fal-request-timeout": "5.0"}).status_code == 200

    def test_an_answer_may_take_longer_than_the_handshakes_deadline(self) -> None:
        with running_http_door(server_options=WebSocketOptions(request_timeout_s=0.1)) as door:
            door.app.hold.clear()
            answer = gevent.spawn(door.post, json={"prompt": "x"})
            assert door.app.started.wait(10)
            gevent.sleep(0.2)
            door.app.hold.set()
            assert answer.get(timeout=10).status_code == 200


class TestPages:
    def test_any_page_may_call_by_default(self, door: Door) -> None:
        origin = {"Origin": "https://page.example"}
        for answer in (door.post(json={"prompt": "x"}, headers=origin), door.post(headers=origin)):
            assert answer.headers["access-control-allow-origin"] == "*"
            assert answer.headers["access-control-expose-headers"] == EXPOSED
            assert "access-control-allow-credentials" not in answer.headers

    def test_a_refusal_can_be_read_too(self, door: Door) -> None:
        answer = door.post(headers={"Authorization": None, "Origin": "https://page.example"})
        assert (answer.status_code, answer.headers["access-control-allow-origin"]) == (401, "*")

    @pytest.mark.parametrize("path", ["", "/stream", "/realtime", "/zzz"])
    def test_a_preflight_is_answered_without_credentials(self, door: Door, path: str) -> None:
        asked = {
            "Authorization": None,
            "Origin": "https://page.example",
            "Access-Control-Request-Method": "POST",
            "Access-Control-Request-Headers": "authorization,content-type,x-fal-queue-priority",
        }
        answer = door.request("OPTIONS", f"/{APP}{path}", headers=asked)
        assert (answer.status_code, answer.content) == (204, b"")
        assert answer.headers["access-control-allow-origin"] == "*"
        assert answer.headers["access-control-allow-headers"] == asked["Access-Control-Request-Headers"]
        assert answer.headers["access-control-max-age"] == "600"
        assert "Access-Control-Request-Headers" in answer.headers["vary"]

    def test_only_listed_pages_where_there_is_a_list(self) -> None:
        with running_http_door(HttpOptions(cors=CorsPolicy(("https://mine.example",)))) as door:
            mine, other = (
                door.post(json={"prompt": "x"}, headers={"Origin": origin})
                for origin in ("https://mine.example", "https://other.example")
            )
            assert mine.headers["access-control-allow-origin"] == "https://mine.example"
            assert "access-control-allow-origin" not in other.headers
            assert mine.headers["vary"] == other.headers["vary"] == "Origin"


class TestAccounts:
    def test_what_was_drawn_is_reported_and_tallied(self) -> None:
        sent: list[SessionEvent] = []
        reporter = Reporter(lambda events: sent.extend(events), delay_s=0)
        reporter.start()
        with running_http_door(reporter=reporter) as door:
            door.post(json={"prompt": "x"})
            door.post(json={"prompt": "bug"})
            assert door.tally.images == 1
            assert door.tally.answers == {"200": 1, "500": 1}
        reporter.stop(5)
        assert [event.kind for event in sent] == [EventKind.CONNECTED, EventKind.CLOSED] * 2
        assert [(event.images, event.pixels) for event in sent[1::2]] == [(1, 12), (0, 0)]
        assert {(event.app, event.key_id) for event in sent} == {(APP, "key-1")}

    def test_the_log_has_who_and_never_the_token(self, door: Door, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level("INFO", logger="runner")  # httpx logs whole URLs
        secret = token(APP)
        door.post(f"/{APP}?fal_jwt_token={secret}", json={"prompt": "hush"}, headers={"Authorization": None})
        assert f"path={APP}" in caplog.text
        assert secret not in caplog.text
        assert "hush" not in caplog.text


def events(answer: httpx.Response) -> list[dict[str, Any]]:
    return [json.loads(line.removeprefix("data: ")) for line in answer.text.splitlines() if line.startswith("data: ")]


class TestStreams:
    def test_an_iterator_is_an_event_stream(self, door: Door) -> None:
        answer = door.post(f"/{APP}/stream", json={"prompt": "x"})
        assert answer.headers["content-type"] == "text/event-stream"
        assert answer.headers["cache-control"] == "no-store"
        assert answer.headers["x-accel-buffering"] == "no"
        assert uuid.UUID(answer.headers["x-fal-request-id"])
        assert [event["prompt"] for event in events(answer)] == ["first", "second"]
        assert answer.text.endswith("}\n\n")
        assert door.tally.images == 2

    def test_a_failure_after_the_start_is_the_last_event_and_does_not_count(self, door: Door) -> None:
        once = bearer(max_requests=1)
        answer = door.post(f"/{APP}/stream", json={"prompt": "late bug"}, headers=once)
        assert answer.status_code == 200
        assert "event: error\ndata: {" in answer.text
        first, error = events(answer)
        assert first["prompt"] == "first"
        assert Problem.model_validate(error).status == 500
        assert "secret" not in answer.text
        assert door.post(f"/{APP}/stream", json={"prompt": "x"}, headers=once).status_code == 200
        assert door.post(f"/{APP}/stream", json={"prompt": "x"}, headers=once).status_code == 429

    def test_who_leaves_after_an_event_has_had_a_request(self, door: Door) -> None:
        url, once = f"{door.url}/{APP}/stream", bearer(max_requests=1)

        def read_one_and_leave() -> str:
            with httpx.stream("POST", url, json={"prompt": "x"}, headers=once) as answer:
                return next(answer.iter_lines())

        door.app.hold.clear()
        assert "first" in in_thread(read_one_and_leave)
        assert door.app.given_up.wait(10)
        door.app.hold.set()
        assert door.post(f"/{APP}/stream", json={"prompt": "x"}, headers=once).status_code == 429

    def test_who_cuts_a_stream_short_after_an_event_has_had_a_request(self, door: Door) -> None:
        hasty = bearer(max_requests=1) | {"x-fal-request-timeout": "0.3"}
        door.app.hold.clear()
        answer = door.post(f"/{APP}/stream", json={"prompt": "x"}, headers=hasty)
        assert [event.get("prompt") for event in events(answer)] == ["first", None]
        assert door.post(f"/{APP}/stream", json={"prompt": "x"}, headers=hasty).status_code == 429

    def test_a_timeout_before_the_first_event_does_not_count(self, door: Door) -> None:
        hasty = bearer(max_requests=1)
        door.app.hold.clear()
        answer = door.post(json={"prompt": "x"}, headers=hasty | {"x-fal-request-timeout": "0.3"})
        assert answer.status_code == 504
        door.app.hold.set()
        assert door.post(json={"prompt": "x"}, headers=hasty).status_code == 200

    def test_what_is_left_of_requests_is_ended(self, door: Door) -> None:
        door.app.hold.clear()
        running = gevent.spawn(door.post, json={"prompt": "x"})
        assert door.app.started.wait(10)
        door.door.end()
        assert_problem(running.get(timeout=10), 503)
        assert door.app.given_up.wait(10)

    def test_the_callers_timeout_ends_a_stream_with_an_event(self, door: Door) -> None:
        door.app.hold.clear()
        answer = door.post(f"/{APP}/stream", json={"prompt": "x"}, headers={"x-fal-request-timeout": "0.3"})
        assert events(answer)[-1]["error_type"] == "request_timeout"
        assert door.app.given_up.wait(10)

    def test_a_silent_stream_has_a_heart(self) -> None:
        with running_http_door(HttpOptions(heartbeat_s=0.05)) as door:
            door.app.hold.clear()
            gevent.spawn_later(0.3, door.app.hold.set)
            answer = door.post(f"/{APP}/stream", json={"prompt": "x"})
            assert ": heartbeat\n\n" in answer.text
            assert [event["prompt"] for event in events(answer)] == ["first", "second"]

    def test_a_revoked_token_ends_a_stream_that_runs(self, door: Door) -> None:
        door.app.hold.clear()
        running = gevent.spawn(door.post, f"/{APP}/stream", json={"prompt": "x"}, headers=bearer())
        assert door.app.started.wait(10)
        door.revocations.add([REVOKED_KEY])
        assert events(running.get(timeout=10))[-1]["status"] == 401
        assert door.app.given_up.wait(10)
