"""The life of a session, told without a socket and without a clock of its own."""

import json
import weakref
from dataclasses import dataclass, field
from typing import Any

import msgpack
import pytest
from pydantic import BaseModel

from runner.protocol import failures
from runner.protocol.allowance import Allowance, Allowances
from runner.protocol.session import Action, Close, Send, Session, SessionRules, Wait, Work
from schemas.errors import CloseCode
from schemas.tokens import TokenClaims

TIMEOUT = '{"type":"x-fal-error","error":"TIMEOUT","reason":"no inputs, reconnect when needed!"}'


class Frame(BaseModel):
    name: str
    request_id: str = ""


@dataclass
class Peer:
    """A session with both of its owners: the socket's reader and the worker."""

    rules: SessionRules = field(default_factory=SessionRules)
    now: float = 100.0
    allowance: Allowance | None = None

    def __post_init__(self) -> None:
        self.session = Session(Frame, self.rules, self.now, self.allowance)

    def receive(self, *names: str) -> None:
        for name in names:
            self.receive_message(msgpack.packb({"name": name, "request_id": f"id-{name}"}))

    def receive_message(self, message: bytes | str) -> None:
        self.session.receive(message, self.now)

    def next(self) -> Action:
        return self.session.next(self.now)

    def works_on(self) -> str:
        action = self.next()
        assert isinstance(action, Work)
        assert isinstance(action.input, Frame)
        return action.input.name

    def answers(self, output: dict[str, Any] | None = None) -> dict[str, Any]:
        self.session.succeed(output or {})
        return self.sends()

    def sends(self) -> dict[str, Any]:
        action = self.next()
        assert isinstance(action, Send)
        return decoded(action.message)

    def waits_until(self) -> float | None:
        action = self.next()
        assert isinstance(action, Wait)
        return action.until


def decoded(message: bytes | str) -> dict[str, Any]:
    return msgpack.unpackb(message) if isinstance(message, bytes) else json.loads(message)


def rules(**changes: Any) -> SessionRules:
    return SessionRules(**{"idle_timeout_s": 10.0, "max_session_s": 1000.0, **changes})


def test_an_input_is_worked_on_and_answered_in_binary() -> None:
    peer = Peer()
    peer.receive("f0")
    assert peer.works_on() == "f0"
    peer.session.succeed({"images": [{"content": b"\xff"}]})
    action = peer.next()
    assert isinstance(action, Send)
    assert isinstance(action.message, bytes)
    assert decoded(action.message) == {"images": [{"content": b"\xff"}], "dropped_inputs": 0}
    assert isinstance(peer.next(), Wait)


def test_json_text_is_an_input_too() -> None:
    peer = Peer()
    peer.receive_message('{"name": "f0"}')
    assert peer.works_on() == "f0"


# Buffering


@pytest.mark.parametrize("late", [False, True], ids=["worker looks after the first", "worker looks after all"])
def test_with_two_buffered_of_eight_quick_inputs_the_first_and_the_last_two_are_answered(late: bool) -> None:
    peer = Peer(rules(max_buffering=2))
    names = [f"f{n}" for n in range(8)]
    peer.receive(names[0])
    if not late:
        assert peer.works_on() == "f0"
    peer.receive(*names[1:])
    worked = []
    for dropped in (5, 0, 0):
        worked.append("f0" if not late and not worked else peer.works_on())
        assert peer.answers()["dropped_inputs"] == dropped
    assert worked == ["f0", "f6", "f7"]
    assert isinstance(peer.next(), Wait)


def test_without_buffering_every_input_is_answered_in_order() -> None:
    peer = Peer(rules())
    names = [f"f{n}" for n in range(8)]
    peer.receive(*names)
    for name in names:
        assert peer.works_on() == name
        assert peer.answers()["dropped_inputs"] == 0


def test_without_buffering_a_full_session_stops_reading() -> None:
    peer = Peer(rules(max_waiting_items=2))
    peer.receive("f0", "f1")
    assert peer.session.wants_input
    peer.receive("f2")
    assert not peer.session.wants_input
    assert peer.works_on() == "f0"
    assert not peer.session.wants_input
    peer.answers()
    assert peer.works_on() == "f1"
    assert peer.session.wants_input


def test_without_buffering_inputs_that_take_much_memory_stop_reading() -> None:
    """Their length does not tell: with one emoji in it every character of a name takes four bytes."""
    peer = Peer(rules(max_waiting_bytes=100_000))
    peer.receive("f0", "\N{GRINNING FACE}" + "x" * 9_000)
    assert peer.session.wants_input
    peer.receive("\N{GRINNING FACE}" + "x" * 4_000)
    assert not peer.session.wants_input


def test_inputs_that_come_while_an_answer_goes_out_replace_each_other() -> None:
    peer = Peer(rules(max_buffering=1))
    peer.receive("f0")
    peer.works_on()
    peer.answers()
    peer.receive("f1", "f2", "f3")  # the worker is still sending
    assert peer.works_on() == "f3"
    assert peer.answers()["dropped_inputs"] == 2


def test_drops_are_told_in_the_next_result_not_in_an_error() -> None:
    peer = Peer(rules(max_buffering=1))
    peer.receive("f0")
    assert peer.works_on() == "f0"
    peer.receive("f1", "f2", "f3")
    peer.session.fail(failures.unavailable())
    assert "dropped_inputs" not in peer.sends()
    assert peer.works_on() == "f3"
    assert peer.answers()["dropped_inputs"] == 2


# Failures


def test_a_bad_input_is_answered_and_the_session_lives_on() -> None:
    peer = Peer()
    peer.receive_message(msgpack.packb({"request_id": "r1"}))
    assert peer.sends() == {
        "type": "x-fal-error",
        "error": "VALIDATION_ERROR",
        "reason": "name: Field required",
        "detail": [{"loc": ["body", "name"], "msg": "Field required", "type": "missing"}],
        "request_id": "r1",
    }
    peer.receive("f1")
    assert peer.works_on() == "f1"


@pytest.mark.parametrize(
    "message",
    [b"\xc1", b"", "{", msgpack.packb("a prompt"), msgpack.packb([1]), '"text"', '{"a":1,"a":2}'],
)
def test_an_unreadable_message_is_answered_and_the_session_lives_on(message: bytes | str) -> None:
    peer = Peer()
    peer.receive_message(message)
    answer = peer.sends()
    assert answer["error"] == "VALIDATION_ERROR"
    assert answer["detail"] == [{"loc": ["body"], "msg": answer["reason"], "type": "decode_error"}]
    assert "request_id" not in answer
    peer.receive("f1")
    assert peer.works_on() == "f1"


def test_a_bad_input_waits_its_turn_and_costs_the_good_one_nothing() -> None:
    peer = Peer()
    peer.receive("f0")
    assert peer.works_on() == "f0"
    peer.receive_message(msgpack.packb({"request_id": "bad"}))
    peer.receive("f2")
    assert peer.answers({"request_id": "id-f0"})["request_id"] == "id-f0"
    assert peer.sends()["request_id"] == "bad"
    assert peer.works_on() == "f2"


@pytest.mark.parametrize("request_id", [7, None, "", "x" * 201, ["r"], b"r"])
def test_a_request_id_that_cannot_be_one_is_not_echoed(request_id: Any) -> None:
    peer = Peer()
    peer.receive_message(msgpack.packb({"request_id": request_id}))
    assert "request_id" not in peer.sends()


def test_failed_work_is_answered_with_its_own_request_id() -> None:
    peer = Peer()
    peer.receive("f0", "f1")
    peer.works_on()
    peer.session.fail(failures.internal("e1"))
    answer = peer.sends()
    assert (answer["error"], answer["error_id"], answer["request_id"]) == ("INTERNAL_ERROR", "e1", "id-f0")
    assert peer.works_on() == "f1"


# Idle time and the end


def test_an_idle_session_ends_with_fal_s_words_and_1000() -> None:
    peer = Peer(rules())
    assert peer.waits_until() == 110
    peer.now = 110
    assert peer.next() == Send(TIMEOUT)
    assert peer.next() == Close(CloseCode.NORMAL)
    assert peer.next() == Close(CloseCode.NORMAL)


def test_an_input_restarts_the_idle_clock_even_a_bad_one() -> None:
    peer = Peer(rules())
    peer.now = 109
    peer.receive_message(b"\xc1")
    assert peer.sends()["error"] == "VALIDATION_ERROR"
    assert peer.waits_until() == 119


def test_the_idle_clock_stands_still_while_there_is_work() -> None:
    peer = Peer(rules())
    peer.receive("f0", "f1")
    peer.works_on()
    peer.now = 500
    peer.answers()
    assert peer.works_on() == "f1"
    peer.now = 600
    peer.answers()
    peer.now = 605  # the answer has been sent
    assert peer.waits_until() == 615


def test_the_idle_clock_can_be_off() -> None:
    assert Peer(rules(idle_timeout_s=None, max_session_s=None)).waits_until() is None


def test_input_that_comes_too_late_is_ignored() -> None:
    peer = Peer(rules())
    peer.now = 110
    peer.next()
    peer.receive("f0")
    assert isinstance(peer.next(), Close)


def test_at_its_longest_duration_a_session_finishes_what_it_works_on_and_closes() -> None:
    peer = Peer(rules(max_session_s=50.0, idle_timeout_s=None))
    peer.receive("f0", "f1")
    peer.works_on()
    peer.now = 150
    assert peer.answers() == {"dropped_inputs": 0}
    action = peer.next()
    assert isinstance(action, Close)
    assert (action.code, action.reason) == (
        CloseCode.NORMAL,
        "the session reached its longest duration, max_session_s: reconnect to go on",
    )
    assert len(action.reason.encode()) <= 123


def test_a_quiet_session_wakes_for_whichever_end_comes_first() -> None:
    assert Peer(rules(max_session_s=5.0)).waits_until() == 105
    assert Peer(rules(max_session_s=50.0)).waits_until() == 110


def test_a_closing_session_holds_nothing_and_takes_nothing() -> None:
    peer = Peer(rules(max_session_s=50.0, max_waiting_items=1))
    peer.receive("f0", "f1")
    assert not peer.session.wants_input
    peer.now = 150
    assert isinstance(peer.next(), Close)
    assert peer.session.wants_input
    peer.receive("f2", "f3", "f4")
    assert peer.session.wants_input


def test_nothing_is_held_once_the_peer_is_gone() -> None:
    peer = Peer(rules())
    peer.receive("f0", "f1", "f2")
    held = [weakref.ref(peer.next().input), *(weakref.ref(put.content) for put, _ in peer.session._mailbox._waiting)]
    peer.session.discard()
    assert [content() for content in held] == [None] * 3


# max_requests


def limited(max_requests: int) -> Peer:
    claims = TokenClaims(
        iss="i", aud="a", sub="s", jti="t", iat=0, nbf=0, exp=60, apps=["x"], max_requests=max_requests
    )
    return Peer(rules(), allowance=Allowances().enter(claims, by_key=False, now=0))


def test_requests_that_wait_behind_the_last_allowed_one_are_dropped_with_the_session() -> None:
    peer = limited(1)
    peer.receive("f0", "f1", "f2")
    peer.works_on()
    assert peer.answers() == {"dropped_inputs": 0}
    error = peer.sends()
    assert (error["error"], error["request_id"]) == ("LIMIT_EXCEEDED", "id-f1")
    action = peer.next()
    assert isinstance(action, Close)
    assert (action.code, action.reason) == (CloseCode.LIMIT_EXCEEDED, error["reason"])
    assert len(action.reason.encode()) <= 123
    assert peer.next() == action


def test_a_request_that_fails_or_is_given_up_does_not_count() -> None:
    peer = limited(1)
    for _ in range(3):
        peer.receive("f0")
        peer.works_on()
        peer.session.fail(failures.unavailable())
        assert peer.sends()["error"] == "UNAVAILABLE"
    peer.receive("f1")
    peer.works_on()
    peer.session.discard()
    peer.session.discard()
    assert peer.allowance.reserve_request()
    assert not peer.allowance.reserve_request()


def test_an_answer_that_its_peer_did_not_wait_for_counts() -> None:
    peer = limited(1)
    peer.receive("f0")
    peer.works_on()
    peer.session.succeed({})
    peer.session.discard()
    assert not peer.allowance.reserve_request()
