"""Sessions over real sockets."""

import gc
import json
from contextlib import suppress
from typing import Any

import gevent
import msgpack
import pytest
from gevent.event import Event
from websockets.exceptions import ConnectionClosed

from runner.doors.realtime import read_max_buffering
from runner.engine.request import (
    EngineUnavailable,
    GenerationFailed,
    GenerationRequest,
    GenerationResult,
    InvalidRequest,
)
from runner.protocol.mailbox import Mailbox
from runner.protocol.session import SessionRules
from tests.runner.doors.door import PATH, Client, Door, in_thread, running_door, settle, token
from tests.runner.fakes import FakeEngine, picture


def asked(door: Door, path: str = PATH, query: dict[str, Any] | None = None, **fields: Any) -> dict[str, Any]:
    def ask() -> dict[str, Any]:
        with door.client(path, **(query or {})) as client:
            return client.ask(**fields)

    return in_thread(ask)


def raising(error: Exception) -> FakeEngine:
    """Fails on the prompt "fail", draws everything else."""

    def answer(request: GenerationRequest) -> GenerationResult:
        if request.prompt == "fail":
            raise error
        return picture(request)

    return FakeEngine(answer=answer)


def until_closed(client: Client) -> tuple[list[dict[str, Any]], int, str]:
    """What still comes, and the code and reason of the close."""
    messages = []
    with suppress(ConnectionClosed):
        while True:
            messages.append(client.recv())
    return messages, client.connection.close_code, client.connection.close_reason


# Results


def test_a_result_is_binary_with_the_picture_s_bytes_in_it() -> None:
    def talk() -> None:
        with door.client() as client:
            client.send(prompt="a star", seed=7, request_id="r1")
            message = client.connection.recv()
        assert isinstance(message, bytes)
        assert msgpack.unpackb(message) == {
            "images": [{"content": b"a star#7", "content_type": "image/jpeg", "width": 128, "height": 128}],
            "timings": {"denoise": 0.5},
            "seed": 7,
            "num_inference_steps": 4,
            "request_id": "r1",
            "dropped_inputs": 0,
            "has_nsfw_concepts": [],
            "nsfw_content_detected": [],
        }

    with running_door() as door:
        in_thread(talk)


def test_json_text_is_answered_in_binary_too() -> None:
    def talk() -> bytes | str:
        with door.client() as client:
            client.connection.send('{"prompt": "a star", "seed": 7}')
            return client.connection.recv()

    with running_door() as door:
        assert isinstance(in_thread(talk), bytes)


@pytest.mark.parametrize("doubled", ["", "/realtime"])
@pytest.mark.parametrize("path", [PATH, PATH.replace("/realtime", "/image-to-image/realtime")])
def test_the_paths_of_all_clients_lead_to_a_picture(path: str, doubled: str) -> None:
    with running_door() as door:
        assert asked(door, path + doubled, prompt="a star", image_bytes=b"hi")["images"]


def test_one_socket_s_slow_work_holds_no_other_up() -> None:
    slow, started = Event(), Event()

    def answer(request: GenerationRequest) -> GenerationResult:
        if request.prompt == "slow":
            started.set()
            slow.wait()
        return picture(request)

    with running_door(FakeEngine(answer=answer)) as door:
        first = gevent.spawn(asked, door, prompt="slow")
        started.wait()
        assert asked(door, prompt="quick")["images"]
        assert not first.ready()
        slow.set()
        assert first.get()["images"]


# Buffering


def test_of_eight_quick_inputs_with_two_buffered_the_first_and_the_last_two_are_answered() -> None:
    sent = Event()

    def talk() -> list[tuple[str, int]]:
        with door.client(max_buffering=2) as client:
            for number in range(8):
                client.send(prompt="x", request_id=f"f{number}")
            client.connection.ping().wait()  # the server has read them all
            sent.set()
            results = [client.recv() for _ in range(3)]
        return [(result["request_id"], result["dropped_inputs"]) for result in results]

    with running_door() as door:
        door.engine.hold.clear()
        talking = gevent.spawn(in_thread, talk)
        sent.wait()
        settle()
        door.engine.hold.set()
        assert talking.get() == [("f0", 5), ("f6", 0), ("f7", 0)]


@pytest.mark.parametrize("value", ["0", "61", "-1", "two", "", "2.0", "٣", "1" * 5000])
def test_a_max_buffering_out_of_range_is_told_and_closed(value: str) -> None:
    def talk() -> tuple[list[dict[str, Any]], int, str]:
        with door.client(max_buffering=value) as client:
            return until_closed(client)

    with running_door() as door:
        [message], code, reason = in_thread(talk)
    assert message["error"] == "VALIDATION_ERROR"
    assert message["detail"] == [
        {"loc": ["query", "max_buffering"], "msg": "must be a whole number from 1 to 60", "type": "int_range"}
    ]
    assert (code, reason) == (4000, "max_buffering: must be a whole number from 1 to 60")


@pytest.mark.parametrize(("query", "value"), [("", None), ("max_buffering=1", 1), ("a=b&max_buffering=60", 60)])
def test_max_buffering_in_range(query: str, value: int | None) -> None:
    assert read_max_buffering(query) == value


def test_a_doubled_max_buffering_is_refused_as_a_doubled_token_is() -> None:
    with pytest.raises(ValueError, match="once"):
        read_max_buffering("max_buffering=1&max_buffering=60")


def test_a_flood_without_buffering_is_held_back_and_answered_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    lengths: list[int] = []
    full = Event()
    put = Mailbox.put

    def recording_put(self: Mailbox[Any], item: Any, size_bytes: int) -> None:
        put(self, item, size_bytes)
        lengths.append(len(self))
        if self.full:
            full.set()

    def talk() -> list[str]:
        with door.client() as client:
            for number in range(60):
                client.send(prompt="x", request_id=str(number), image_bytes=bytes(30_000))
            return [client.recv()["request_id"] for _ in range(60)]

    monkeypatch.setattr(Mailbox, "put", recording_put)
    with running_door(rules=SessionRules(max_waiting_items=3)) as door:
        door.engine.hold.clear()
        talking = gevent.spawn(in_thread, talk)
        full.wait()
        settle()
        assert len(door.engine.requests) == 1
        door.engine.hold.set()
        assert talking.get() == [str(number) for number in range(60)]
    assert max(lengths) == 3


# Failures


@pytest.mark.parametrize(
    ("fields", "error"),
    [
        ({}, ("prompt", "missing")),
        ({"prompt": "x", "seed": -1}, ("seed", "greater_than_equal")),
        ({"prompt": "x", "image_size": {"width": 512, "height": 512}}, ("image_size", "image_too_large")),
        ({"prompt": "x", "image_url": "https://example.com/a.png"}, ("image_url", "url_scheme")),
        ({"prompt": "x", "image_bytes": "text"}, ("image_bytes", "bytes_type")),
    ],
)
def test_a_bad_input_costs_one_message_and_the_session_lives_on(fields: dict, error: tuple[str, str]) -> None:
    def talk() -> tuple[dict[str, Any], dict[str, Any]]:
        with door.client() as client:
            client.send(request_id="bad", **fields)
            refusal = client.connection.recv()
            assert isinstance(refusal, str)
            return json.loads(refusal), client.ask(prompt="a star", request_id="good")

    with running_door() as door:
        refusal, result = in_thread(talk)
    assert (refusal["type"], refusal["error"], refusal["request_id"]) == ("x-fal-error", "VALIDATION_ERROR", "bad")
    field, kind = error
    assert (refusal["detail"][0]["loc"], refusal["detail"][0]["type"]) == (["body", field], kind)
    assert refusal["reason"].startswith(f"{field}: ")
    assert (result["request_id"], len(result["images"])) == ("good", 1)


def test_image_to_image_without_a_picture_is_told_which_field() -> None:
    with running_door() as door:
        refusal = asked(door, PATH.replace("/realtime", "/image-to-image/realtime"), prompt="x")
    assert refusal["detail"][0]["loc"] == ["body", "image_bytes"]


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (InvalidRequest("image", "not a picture", "image_load_error"), "VALIDATION_ERROR"),
        (EngineUnavailable("/models/S3CRET is loading"), "UNAVAILABLE"),
        (GenerationFailed("e1"), "INTERNAL_ERROR"),
        (RuntimeError("S3CRET"), "INTERNAL_ERROR"),
    ],
)
def test_what_fails_behind_costs_one_message_and_the_session_lives_on(
    error: Exception, code: str, caplog: pytest.LogCaptureFixture
) -> None:
    def talk() -> tuple[dict[str, Any], dict[str, Any]]:
        with door.client() as client:
            return client.ask(prompt="fail", request_id="bad"), client.ask(prompt="a star", request_id="good")

    with running_door(raising(error)) as door:
        failure, result = in_thread(talk)
    assert (failure["error"], failure["request_id"]) == (code, "bad")
    assert "S3CRET" not in json.dumps(failure)
    assert result["request_id"] == "good"
    if isinstance(error, RuntimeError):
        assert failure["error_id"] in caplog.text
        assert "S3CRET" in caplog.text
    if isinstance(error, GenerationFailed):
        assert failure["error_id"] == "e1"


def test_a_bug_of_ours_ends_its_socket_with_1011(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise AssertionError("S3CRET")

    def talk() -> tuple[list[dict[str, Any]], int, str]:
        with door.client() as client:
            client.send(prompt="x")
            return until_closed(client)

    monkeypatch.setattr("runner.protocol.session.Session.succeed", broken)
    monkeypatch.setattr("runner.protocol.session.Session.fail", broken)
    with running_door() as door:
        messages, code, reason = in_thread(talk)
    assert (messages, code) == ([], 1011)
    assert "S3CRET" not in reason


# Ends


def test_an_idle_session_ends_with_timeout_and_1000() -> None:
    def talk() -> tuple[list[dict[str, Any]], int, str]:
        with door.client() as client:
            return until_closed(client)

    with running_door(rules=SessionRules(idle_timeout_s=0.02)) as door:
        messages, code, reason = in_thread(talk)
    assert messages == [{"type": "x-fal-error", "error": "TIMEOUT", "reason": "no inputs, reconnect when needed!"}]
    assert (code, reason) == (1000, "")


def test_a_session_ends_at_its_longest_duration() -> None:
    def talk() -> tuple[list[dict[str, Any]], int, str]:
        with door.client() as client:
            return until_closed(client)

    with running_door(rules=SessionRules(max_session_s=0.02)) as door:
        assert in_thread(talk) == (
            [],
            1000,
            "the session reached its longest duration, max_session_s: reconnect to go on",
        )


def test_a_token_can_make_the_session_shorter() -> None:
    def talk() -> tuple[list[dict[str, Any]], int, str]:
        with door.client(fal_jwt_token=token(max_session_s=1)) as client:
            return until_closed(client)

    with running_door() as door:
        assert in_thread(talk)[1:] == (
            1000,
            "the session reached its longest duration, max_session_s: reconnect to go on",
        )


def test_an_open_session_outlives_its_token() -> None:
    def talk() -> tuple[dict[str, Any], dict[str, Any]]:
        credentials = token(duration_s=60)
        with door.client(fal_jwt_token=credentials) as client:
            door.clock.ahead_s = 3600
            result = client.ask(prompt="a star")
        with door.client(fal_jwt_token=credentials) as client:
            return result, client.recv()

    with running_door() as door:
        result, refusal = in_thread(talk)
    assert result["images"]
    assert refusal["error"] == "UNAUTHORIZED"


def test_a_client_that_leaves_takes_its_work_along() -> None:
    def leave() -> None:
        with door.client() as client:
            client.send(prompt="left alone", image_bytes=b"x")
            client.connection.ping().wait()

    with running_door() as door:
        door.engine.hold.clear()
        in_thread(leave)
        settle()
        assert [request.prompt for request in door.engine.cancelled] == ["left alone"]
        door.engine.hold.set()
        assert asked(door, prompt="next")["images"]


def test_clients_that_come_and_go_leave_no_greenlet_behind() -> None:
    def alive() -> int:
        gc.collect()
        return sum(isinstance(thing, gevent.Greenlet) and not thing.dead for thing in gc.get_objects())

    with running_door() as door:
        asked(door, prompt="warm up")
        settle()
        before = alive()
        for number in range(20):
            asked(door, prompt=str(number))
        settle()
        assert alive() == before


def test_nothing_of_a_message_or_a_token_reaches_the_log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    with running_door() as door:
        asked(door, prompt="S3CRET", request_id="S3CRET")
    assert "session opened" in caplog.text
    assert "key=key-1" in caplog.text
    assert "S3CRET" not in caplog.text
    assert "eyJ" not in caplog.text
