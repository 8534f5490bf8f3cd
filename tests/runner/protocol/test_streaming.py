"""Streaming sessions, told without a socket and without a clock of their own."""

import json
from typing import Any

import msgpack
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from pydantic import BaseModel

from runner.protocol import failures
from runner.protocol.inputs import InputReader
from runner.protocol.session import Close, Send, SessionRules, Wait
from runner.protocol.streaming import Ended, StreamSession, Taken
from schemas.errors import CloseCode

TIMEOUT = '{"type":"x-fal-error","error":"TIMEOUT","reason":"no inputs, reconnect when needed!"}'


class Numbered(BaseModel):
    number: int
    request_id: str = ""


def stream(inputs_max: int | None = None, **rules: Any) -> StreamSession:
    changed = SessionRules(**{"idle_timeout_s": 10.0, "max_session_s": 1000.0, **rules})
    return StreamSession(InputReader(Numbered), changed, 100.0, inputs_max)


def receive(to: StreamSession, *numbers: int, now: float = 100.0) -> None:
    for number in numbers:
        to.receive(msgpack.packb({"number": number}), now)


def taken(of: StreamSession, now: float = 100.0) -> int:
    step = of.take(now)
    assert isinstance(step, Taken)
    return step.input.number


def test_inputs_are_taken_in_order():
    subject = stream()
    receive(subject, 1, 2)
    assert [taken(subject), taken(subject)] == [1, 2]
    assert subject.take(100.0) == Wait(110.0)


def test_a_bad_input_is_answered_and_skipped():
    subject = stream()
    subject.receive('{"request_id": "bad"}', 100.0)
    receive(subject, 2)
    refused = subject.take(100.0)
    assert isinstance(refused, Send)
    assert (json.loads(refused.message)["request_id"], refused.failed_inputs) == ("bad", 1)
    assert taken(subject) == 2


def test_the_idle_clock_runs_while_the_handler_waits_for_an_input():
    subject = stream()
    receive(subject, 1)
    assert taken(subject, 100.0) == 1
    assert subject.take(150.0) == Wait(160.0)  # it worked for 50 seconds, and now it waits
    assert subject.take(155.0) == Wait(160.0)
    receive(subject, 2, now=159.0)
    assert taken(subject, 159.0) == 2
    assert subject.take(159.0) == Wait(169.0)
    assert subject.take(169.0) == Ended()
    receive(subject, 3, now=169.0)
    assert subject.take(169.0) == Ended()


def test_without_an_idle_timeout_it_waits_for_ever():
    assert stream(idle_timeout_s=None).take(10_000.0) == Wait(None)


def test_of_a_stream_with_one_input_the_others_are_ignored():
    subject = stream(inputs_max=1)
    subject.receive("no map", 100.0)
    receive(subject, 1, 2)
    assert isinstance(subject.take(100.0), Send)
    assert taken(subject) == 1
    receive(subject, 3)
    assert subject.take(100.0) == Ended()
    assert subject.wants_input  # what nobody takes must not hide that the peer leaves


def test_reading_pauses_when_the_handler_takes_nothing():
    subject = stream(max_waiting_items=2)
    receive(subject, 1)
    assert subject.wants_input
    receive(subject, 2)
    assert not subject.wants_input
    assert taken(subject) == 1
    assert subject.wants_input


def test_newer_inputs_replace_older_ones_if_asked_to():
    subject = stream(max_buffering=2)
    receive(subject, *range(5))
    assert subject.wants_input
    assert [taken(subject), taken(subject)] == [3, 4]
    assert (subject.take_dropped(), subject.take_dropped()) == (3, 0)


def test_inputs_that_wait_are_still_taken_after_the_end():
    subject = stream()
    receive(subject, 1)
    subject.end_inputs()
    receive(subject, 2)
    assert taken(subject) == 1
    assert subject.take(100.0) == Ended()


def test_every_normal_end_is_told_as_timeout():
    assert stream().finish() == (Send(TIMEOUT), Close(CloseCode.NORMAL))


def test_a_failure_is_told_and_closed_with_1000():
    last_words, close = stream().finish(failures.internal("some-id"))
    assert last_words is not None
    assert json.loads(last_words.message)["error_id"] == "some-id"
    assert close == Close(CloseCode.NORMAL)


def test_draining_ends_the_inputs_and_closes_with_service_restart():
    subject = stream()
    receive(subject, 1)
    subject.drain()
    assert taken(subject) == 1
    assert subject.take(100.0) == Ended()
    last_words, close = subject.finish()
    assert (last_words, close.code) == (None, CloseCode.SERVICE_RESTART)


def test_a_session_that_is_over_says_so():
    subject = stream()
    assert subject.ends_at == 1100.0
    last_words, close = subject.finish(is_over=True)
    assert (last_words, close.code) == (None, CloseCode.NORMAL)
    assert "max_session_s" in close.reason


class StreamMachine(RuleBasedStateMachine):
    """A peer that sends good and bad inputs at any time, and a handler at any pace."""

    def __init__(self) -> None:
        super().__init__()
        self.session = stream(idle_timeout_s=None, max_waiting_items=4)
        self.sent = 0
        self.answered: list[int] = []
        self.is_ended = False

    @precondition(lambda self: self.session.wants_input and not self.is_ended)
    @rule(good=st.booleans())
    def receive(self, good: bool) -> None:
        fields = {"number": self.sent if good else "none", "request_id": str(self.sent)}
        self.session.receive(msgpack.packb(fields), 0)
        self.sent += 1

    @rule()
    def take(self) -> None:
        step = self.session.take(0)
        if isinstance(step, Taken):
            self.answered.append(step.input.number)
        elif isinstance(step, Send):
            self.answered.append(int(json.loads(step.message)["request_id"]))
        else:
            assert isinstance(step, Ended if self.is_ended else Wait)
            assert self.answered == list(range(self.sent))

    @rule()
    def end(self) -> None:
        self.session.end_inputs()
        self.is_ended = True

    @invariant()
    def nothing_overtakes_and_little_waits(self) -> None:
        assert self.answered == list(range(len(self.answered)))
        assert self.sent - len(self.answered) <= 4


TestStream = StreamMachine.TestCase
