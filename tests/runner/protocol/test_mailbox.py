"""Which inputs wait, which are dropped, and when the reader has to stop."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from runner.protocol.mailbox import Mailbox


def mailbox(max_buffering: int | None = None, *, max_items: int = 3, max_bytes: int = 100) -> Mailbox[str]:
    return Mailbox(max_buffering, max_items=max_items, max_bytes=max_bytes)


def taken(box: Mailbox[str]) -> list[str]:
    return [box.take() for _ in range(len(box))]


def test_newest_wins_and_the_drops_are_counted_once() -> None:
    box = mailbox(2)
    for name in "abcde":
        box.put(name, 1)
    assert not box.full
    assert taken(box) == ["d", "e"]
    assert (box.take_dropped(), box.take_dropped()) == (3, 0)


def test_without_buffering_it_fills_up_by_number() -> None:
    box = mailbox()
    for name in "abc":
        assert not box.full
        box.put(name, 1)
    assert box.full
    assert (box.take(), box.full) == ("a", False)


def test_without_buffering_it_fills_up_by_bytes() -> None:
    box = mailbox()
    box.put("a", 99)
    assert not box.full
    box.put("b", 1)
    assert box.full


def test_one_input_may_wait_whatever_its_size() -> None:
    box = mailbox(60)
    box.put("small", 1)
    box.put("larger than all", 1000)
    assert taken(box) == ["larger than all"]
    assert box.take_dropped() == 1


def test_newest_wins_by_bytes_too() -> None:
    box = mailbox(60)
    for name in "abcd":
        box.put(name, 40)
    assert taken(box) == ["c", "d"]


def test_what_is_cleared_is_not_counted_as_dropped() -> None:
    box = mailbox(2)
    box.put("a", 1)
    box.clear()
    assert (len(box), box.take_dropped()) == (0, 0)


def test_taking_from_an_empty_mailbox_is_an_error() -> None:
    with pytest.raises(IndexError):
        mailbox().take()


@given(st.integers(1, 60), st.lists(st.integers(0, 40), max_size=80))
def test_what_waits_is_always_the_newest_run(max_buffering: int, sizes: list[int]) -> None:
    box: Mailbox[int] = Mailbox(max_buffering, max_items=1, max_bytes=100)
    for number, size in enumerate(sizes):
        box.put(number, size)
    kept = [box.take() for _ in range(len(box))]
    assert kept == list(range(len(sizes) - len(kept), len(sizes)))
    assert box.take_dropped() == len(sizes) - len(kept)


class MailboxMachine(RuleBasedStateMachine):
    """Against a model: order is kept, only the oldest go, nothing is lost uncounted, bounds hold."""

    MAX_BUFFERING: int | None = 3

    def __init__(self) -> None:
        super().__init__()
        self.box: Mailbox[int] = Mailbox(self.MAX_BUFFERING, max_items=4, max_bytes=50)
        self.waiting: list[tuple[int, int]] = []
        self.put_count = self.taken_count = self.dropped_count = 0

    @precondition(lambda self: not self.box.full)
    @rule(size=st.integers(0, 30))
    def put(self, size: int) -> None:
        self.box.put(self.put_count, size)
        self.waiting = [*self.waiting, (self.put_count, size)][-len(self.box) :]
        self.put_count += 1

    @precondition(lambda self: len(self.box))
    @rule()
    def take(self) -> None:
        assert self.box.take() == self.waiting.pop(0)[0]
        self.taken_count += 1

    @rule()
    def ask_for_drops(self) -> None:
        self.dropped_count += self.box.take_dropped()
        assert self.put_count == self.taken_count + self.dropped_count + len(self.box)
        assert self.MAX_BUFFERING or self.dropped_count == 0

    @invariant()
    def is_bounded(self) -> None:
        assert len(self.box) <= (self.MAX_BUFFERING or 4)
        assert sum(size for _, size in self.waiting) <= 50 + 30


class UnbufferedMachine(MailboxMachine):
    MAX_BUFFERING = None


TestNewestWins = MailboxMachine.TestCase
TestUnbuffered = UnbufferedMachine.TestCase
