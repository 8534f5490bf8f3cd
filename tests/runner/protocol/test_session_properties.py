"""Whatever happens in whatever order: one answer an input, in order, or it is counted as dropped."""

import json

import msgpack
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from pydantic import BaseModel

from runner.protocol import failures
from runner.protocol.session import Send, Session, SessionRules, Wait, Work


class Numbered(BaseModel):
    number: int
    request_id: str


class SessionMachine(RuleBasedStateMachine):
    """A peer that sends good and bad inputs at any time, and a worker at any pace."""

    RULES = SessionRules(idle_timeout_s=None, max_session_s=None, max_buffering=2)

    def __init__(self) -> None:
        super().__init__()
        self.session = Session(Numbered, self.RULES, 0)
        self.last: object = Wait(None)
        self.sent = 0
        self.good: set[int] = set()
        self.answered: list[int] = []
        self.dropped = 0

    @precondition(lambda self: self.session.wants_input)
    @rule(good=st.booleans(), text=st.booleans())
    def receive(self, good: bool, text: bool) -> None:
        fields = {"number": self.sent if good else "no number", "request_id": str(self.sent)}
        self.session.receive(json.dumps(fields) if text else msgpack.packb(fields), 0)
        if good:
            self.good.add(self.sent)
        self.sent += 1

    @precondition(lambda self: not isinstance(self.last, Work))
    @rule()
    def look(self) -> None:
        self.last = self.session.next(0)
        if isinstance(self.last, Send):
            self.read_answer(self.last.message)

    @precondition(lambda self: isinstance(self.last, Work))
    @rule(fails=st.booleans())
    def finish(self, fails: bool) -> None:
        work, self.last = self.last, None
        if fails:
            self.session.fail(failures.unavailable())
        else:
            self.session.succeed({"request_id": work.input.request_id})

    def read_answer(self, message: bytes | str) -> None:
        answer = msgpack.unpackb(message) if isinstance(message, bytes) else json.loads(message)
        number = int(answer["request_id"])
        assert (answer.get("error") == "VALIDATION_ERROR") == (number not in self.good)
        self.answered.append(number)
        self.dropped += answer.get("dropped_inputs", 0)

    @invariant()
    def answers_keep_the_order_of_their_inputs(self) -> None:
        assert self.answered == sorted(set(self.answered))

    def rest(self) -> None:
        while True:
            if isinstance(self.last, Work):
                self.finish(fails=False)
            self.look()
            if isinstance(self.last, Wait):
                return

    def teardown(self) -> None:
        """At rest, every input was answered once or dropped; the next result accounts for the last drops."""
        self.rest()
        self.receive(good=True, text=False)
        self.look()
        self.finish(fails=False)
        self.rest()
        assert len(self.answered) + self.dropped == self.sent
        if self.RULES.max_buffering is None:
            assert self.answered == list(range(self.sent))


class UnbufferedMachine(SessionMachine):
    RULES = SessionRules(idle_timeout_s=None, max_session_s=None, max_waiting_items=4)


TestBuffered = SessionMachine.TestCase
TestUnbuffered = UnbufferedMachine.TestCase
