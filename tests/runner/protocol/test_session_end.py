"""A session that is ended from outside: one message, a close, and nothing of what was under way."""

import json

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from runner.protocol import failures
from runner.protocol.failures import Failure
from runner.protocol.session import Close, Send, Session, SessionRules, Wait, Work
from schemas.errors import CloseCode, RealtimeErrorCode

REVOKED = Failure(RealtimeErrorCode.UNAUTHORIZED, "the token was revoked")


class Prompt(BaseModel):
    prompt: str


def prompt(text: str) -> bytes:
    return msgpack.packb({"prompt": text})


@given(st.lists(st.sampled_from(["input", "bad input", "look", "finish", "fail"]), max_size=12), st.booleans())
def test_whatever_it_did_before_the_error_and_the_close_follow_and_nothing_else(
    steps: list[str], finishes: bool
) -> None:
    session, action = Session(Prompt, SessionRules(), 0), None
    for step in steps:
        is_working = isinstance(action, Work)
        if step == "input":
            session.receive(prompt("x"), 0)
        elif step == "bad input":
            session.receive(b"\xc1", 0)
        elif step == "look" and not is_working:
            action = session.next(0)
        elif step == "finish" and is_working:
            session.succeed({})
            action = None
        elif step == "fail" and is_working:
            session.fail(failures.unavailable())
            action = None
    session.end(REVOKED, CloseCode.UNAUTHORIZED)
    session.receive(prompt("late"), 0)
    if finishes and isinstance(action, Work):
        session.succeed({"late": True})
    sent = session.next(0)
    assert isinstance(sent, Send)
    said = json.loads(sent.message)
    assert (said["type"], said["error"], said["reason"]) == ("x-fal-error", "UNAUTHORIZED", "the token was revoked")
    assert session.next(0) == session.next(0) == Close(CloseCode.UNAUTHORIZED, "the token was revoked")


@pytest.mark.parametrize("seconds", [60, 3600])
def test_a_session_that_closes_already_closes_as_it_was_going_to(seconds: float) -> None:
    session = Session(Prompt, SessionRules(max_session_s=3600), 0)
    assert isinstance(session.next(0), Wait)
    first = session.next(seconds)
    session.end(REVOKED, CloseCode.UNAUTHORIZED)
    last = session.next(seconds) if isinstance(first, Send) else first
    assert isinstance(last, Close)
    assert last.code == CloseCode.NORMAL


def test_what_waits_is_let_go_of_at_once() -> None:
    session = Session(Prompt, SessionRules(max_waiting_items=2), 0)
    for _ in range(3):
        session.receive(prompt("x"), 0)
    assert not session.wants_input
    session.end(REVOKED, CloseCode.UNAUTHORIZED)
    assert session.wants_input
