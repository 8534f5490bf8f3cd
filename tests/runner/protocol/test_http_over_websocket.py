"""HTTP over WebSocket without I/O: turns, ends, and what becomes of a body."""

import json
from http import HTTPStatus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.protocol.http_over_websocket import (
    WAITING_PAYLOADS_MAX,
    EventCutter,
    Joiner,
    Refuse,
    Respond,
    Turns,
    body_cutter,
    end_message,
    start_message,
)
from runner.protocol.session import DRAINED_REASON, SESSION_OVER_REASON, Close, SessionRules, Wait
from schemas.errors import TIMEOUT_REASON, CloseCode

RULES = SessionRules(idle_timeout_s=10.0, max_session_s=100.0, max_waiting_bytes=1000)


def turns(rules: SessionRules = RULES) -> Turns:
    return Turns(rules, 0.0)


def test_payloads_have_their_turns_in_order() -> None:
    queue = turns()
    for payload in ('{"n":1}', '{"n":2}', "broken"):
        queue.receive(payload, 1.0)
    assert [queue.next(1.0) for _ in range(3)] == [Respond(b'{"n":1}'), Respond(b'{"n":2}'), Respond(b"broken")]
    assert isinstance(queue.next(1.0), Wait)


def test_a_binary_message_is_refused_in_its_turn() -> None:
    queue = turns()
    queue.receive("{}", 1.0)
    queue.receive(b"\x80", 1.0)
    assert queue.next(1.0) == Respond(b"{}")
    refused = queue.next(1.0)
    assert isinstance(refused, Refuse)
    assert refused.status == HTTPStatus.UNSUPPORTED_MEDIA_TYPE
    assert "text message" in refused.detail


@pytest.mark.parametrize(
    ("message", "most"), [("{}", WAITING_PAYLOADS_MAX), (b"", WAITING_PAYLOADS_MAX), ("x" * 500, 2)]
)
def test_reading_stops_when_enough_waits_and_goes_on_after_a_turn(message: bytes | str, most: int) -> None:
    queue = turns()
    for _ in range(most):
        assert queue.wants_input
        queue.receive(message, 1.0)
    assert not queue.wants_input
    queue.next(1.0)
    assert queue.wants_input


def test_the_idle_clock_starts_again_with_a_payload_and_with_the_end_of_an_answer() -> None:
    queue = turns()
    assert queue.next(0.0) == Wait(10.0)
    queue.receive("{}", 9.0)
    assert queue.next(9.0) == Respond(b"{}")
    assert queue.next(30.0) == Wait(40.0)  # the answer took 21 s
    assert queue.next(40.0) == Close(CloseCode.NORMAL, TIMEOUT_REASON)


def test_nothing_is_idle_without_a_timeout() -> None:
    assert turns(SessionRules(idle_timeout_s=None, max_session_s=None)).next(1e9) == Wait(None)


def test_the_longest_duration_ends_it_between_two_answers_whatever_waits() -> None:
    queue = turns()
    queue.receive("1", 99.0)
    queue.receive("2", 99.0)
    assert queue.next(99.0) == Respond(b"1")
    assert queue.next(100.0) == Close(CloseCode.NORMAL, SESSION_OVER_REASON)
    queue.receive("3", 100.0)
    assert queue.next(101.0) == Close(CloseCode.NORMAL, SESSION_OVER_REASON)


def test_draining_answers_what_was_taken_and_takes_no_more() -> None:
    queue = turns()
    queue.receive("1", 1.0)
    queue.drain()
    queue.receive("2", 1.0)
    assert queue.next(1.0) == Respond(b"1")
    assert queue.next(1.0) == Close(CloseCode.SERVICE_RESTART, DRAINED_REASON)


def test_the_first_close_counts_and_forgets_what_waits() -> None:
    queue = turns()
    queue.receive("1", 1.0)
    queue.close(CloseCode.UNAUTHORIZED, "revoked")
    queue.close(CloseCode.NORMAL)
    assert queue.next(1.0) == Close(CloseCode.UNAUTHORIZED, "revoked")


def test_metadata_are_as_fal_documents_them() -> None:
    headers = [("content-type", "text/event-stream; charset=utf-8"), ("x-a", "1"), ("X-A", "2")]
    assert json.loads(start_message("id", 200, headers)) == {
        "type": "start",
        "request_id": "id",
        "status": 200,
        "headers": {"Content-Type": "text/event-stream; charset=utf-8", "X-A": "1, 2"},
    }
    assert json.loads(end_message("id", HTTPStatus.OK, 0.577083)) == {
        "type": "end",
        "request_id": "id",
        "status": 200,
        "time_to_first_byte_seconds": 0.577083,
    }


def pieces(data: bytes, cuts: list[int]) -> list[bytes]:
    ends = [*sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    return [data[start:end] for start, end in zip([0, *ends], ends, strict=False)]


def messages(data: list[bytes], cutter: EventCutter) -> list[bytes]:
    return [*(message for chunk in data for message in cutter.feed(chunk)), *cutter.finish()]


LINES = st.lists(
    st.sampled_from([b"data: x", b": ping", b"event: error", b"id: \xc3\xa9", b"data:"]), min_size=1, max_size=3
)
EVENTS = st.tuples(st.sampled_from([b"\n", b"\r\n", b"\r"]), st.lists(LINES, max_size=6)).map(
    lambda drawn: [drawn[0].join(lines) + 2 * drawn[0] for lines in drawn[1]]
)


@given(EVENTS, st.lists(st.integers(min_value=0), max_size=12))
def test_an_event_is_a_message_wherever_the_chunks_end(events: list[bytes], cuts: list[int]) -> None:
    wanted = [event for event in events if any(not line.startswith(b":") for line in event.splitlines() if line)]
    assert messages(pieces(b"".join(events), cuts), EventCutter()) == wanted


@given(
    st.binary(max_size=60).map(lambda data: data.replace(b"x", b"\n")), st.lists(st.integers(min_value=0), max_size=8)
)
def test_anything_else_that_calls_itself_an_event_stream_loses_only_comments(data: bytes, cuts: list[int]) -> None:
    together = b"".join(messages(pieces(data, cuts), EventCutter()))
    lines = lambda body: [line for line in body.splitlines() if line and not line.startswith(b":")]  # noqa: E731
    assert lines(together) == lines(data)


def test_an_event_goes_out_as_soon_as_it_is_complete() -> None:
    cutter = EventCutter()
    assert cutter.feed(b"data: 1\n") == []
    assert cutter.feed(b"\ndata: 2") == [b"data: 1\n\n"]
    assert cutter.finish() == [b"data: 2"]


@given(st.binary(min_size=1, max_size=80), st.lists(st.integers(min_value=0), max_size=8))
def test_an_event_that_is_too_long_to_hold_goes_out_whole_in_pieces(data: bytes, cuts: list[int]) -> None:
    event = b"data" + data.replace(b"\n", b":").replace(b"\r", b":") + b"\n\n"
    got = messages(pieces(event, cuts), EventCutter(max_bytes=8))
    assert b"".join(got).rstrip(b"\n") == event.rstrip(b"\n")


def test_json_is_one_message_unless_it_is_too_long_to_hold() -> None:
    joiner = Joiner(max_bytes=4)
    assert [*joiner.feed(b"{"), *joiner.feed(b"}"), *joiner.finish()] == [b"{}"]
    assert [*joiner.feed(b"[1,"), *joiner.feed(b"2]"), *joiner.finish()] == [b"[1,2]"]
    assert [*joiner.feed(b"12345"), *joiner.feed(b"6"), *joiner.finish()] == [b"12345", b"6"]


@pytest.mark.parametrize(
    ("content_type", "wanted"),
    [
        ("application/json", [b"abc"]),
        ("Application/JSON; charset=utf-8", [b"abc"]),
        ("text/event-stream; charset=utf-8", [b"abc"]),
        ("video/mp4", [b"a", b"bc"]),
        (None, [b"a", b"bc"]),
    ],
)
def test_the_content_type_says_how_a_body_is_cut(content_type: str | None, wanted: list[bytes]) -> None:
    cutter = body_cutter([] if content_type is None else [("content-type", content_type)])
    assert [*cutter.feed(b"a"), *cutter.feed(b""), *cutter.feed(b"bc"), *cutter.finish()] == wanted
