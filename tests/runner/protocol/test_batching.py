"""Inputs that wait, put together (contract §3): `can_batch` is the first input's to say."""

from typing import Any

import msgpack
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from runner.protocol import failures
from runner.protocol.inputs import InputReader
from runner.protocol.session import Batching, Send, Session, SessionRules, Wait, Work


class Numbered(BaseModel):
    number: int
    style: str = ""
    request_id: str = ""


def session(batching: Batching, **rules: Any) -> Session:
    made = Session(InputReader(Numbered), SessionRules(None, None, **rules), 0, batching=batching)
    assert made.next(0) == Wait(None)
    return made


def receive(to: Session, *numbers: int, style: str = "") -> None:
    for number in numbers:
        to.receive(msgpack.packb({"number": number, "style": style, "request_id": str(number)}), 0)


def batch_of(action: Any) -> list[int]:
    assert isinstance(action, Work)
    return [each.number for each in (action.input, *action.others)]


def batches(of: Session) -> list[list[int]]:
    found = []
    while not isinstance(action := of.next(0), Wait):
        if isinstance(action, Work):
            found.append(batch_of(action))
            of.answer(b"output")
    return found


def test_ten_inputs_at_once_are_batches_of_four_four_and_two():
    subject = session(Batching(4))
    receive(subject, *range(10))
    assert batches(subject) == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]


def test_the_first_input_says_which_others_may_join():
    asked = []

    def same_style(first: Numbered, other: Numbered, size: int) -> bool:
        asked.append((first.number, other.number, size))
        return first.style == other.style

    subject = session(Batching(4, same_style))
    receive(subject, 0, 1, style="noir")
    receive(subject, 2, style="cute")
    receive(subject, 3, style="noir")
    assert batches(subject) == [[0, 1], [2], [3]]
    assert asked == [(0, 1, 1), (0, 2, 2), (2, 3, 1)]


def test_a_bad_input_has_its_turn_between_the_batches():
    subject = session(Batching(4))
    receive(subject, 0, 1)
    subject.receive(msgpack.packb({"request_id": "bad"}), 0)
    receive(subject, 2)
    assert batch_of(subject.next(0)) == [0, 1]
    subject.answer(b"output")
    assert subject.next(0) == Send(b"output")
    refused = subject.next(0)
    assert isinstance(refused, Send)
    assert '"request_id":"bad"' in str(refused.message)
    assert refused.failed_inputs == 1
    assert batch_of(subject.next(0)) == [2]


def test_a_batch_that_fails_has_one_error_for_all_its_inputs():
    subject = session(Batching(3))
    receive(subject, 0, 1, 2, 3)
    assert batch_of(subject.next(0)) == [0, 1, 2]
    subject.fail(failures.internal("some-id"))
    failed = subject.next(0)
    assert isinstance(failed, Send)
    assert failed.failed_inputs == 3
    assert '"request_id":"0"' in str(failed.message)
    assert batch_of(subject.next(0)) == [3]


@given(st.lists(st.integers(0, 6), max_size=20), st.integers(1, 5))
def test_every_input_is_in_one_batch_and_in_order(arrivals, size):
    """Some inputs come before each look; nothing is lost, doubled, too many at once or out of order."""
    subject, sent, worked_on = session(Batching(size)), 0, list[int]()
    for arriving in [*arrivals, 0]:
        receive(subject, *range(sent, sent + arriving))
        sent += arriving
        for batch in batches(subject):
            assert len(batch) <= size
            worked_on += batch
    assert worked_on == list(range(sent))
