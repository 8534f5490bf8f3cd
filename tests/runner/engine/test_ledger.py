import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from runner.engine.ledger import DEATHS_MAX, Ledger
from runner.engine.request import EngineUnavailable
from tests.runner.engine.conftest import request


def test_it_is_bounded_and_frees_places() -> None:
    ledger: Ledger[str] = Ledger(max_pending=2)
    first = ledger.add(request(), "a")
    ledger.add(request(), "b")
    with pytest.raises(EngineUnavailable, match="busy"):
        ledger.add(request(), "c")
    ledger.take(first.id)
    ledger.add(request(), "c")
    assert [entry.waiter for entry in ledger] == ["b", "c"]


def test_only_who_was_running_is_blamed_and_only_so_often() -> None:
    ledger: Ledger[str] = Ledger(max_pending=9)
    bad, innocent = ledger.add(request(), "bad"), ledger.add(request(), "innocent")
    for _ in range(DEATHS_MAX - 1):
        ledger.mark_running(bad.id)
        assert ledger.take_poisonous() == []
    assert ledger.take_poisonous() == []  # a death while nothing ran is nobody's fault
    ledger.mark_running(bad.id)
    assert ledger.take_poisonous() == [bad]
    assert list(ledger) == [innocent]


class LedgerMachine(RuleBasedStateMachine):
    """Against a plain list: everything leaves exactly once, and the rest stays in order."""

    def __init__(self) -> None:
        super().__init__()
        self.ledger: Ledger[int] = Ledger(max_pending=5)
        self.expected: list[int] = []
        self.left: list[int] = []

    @rule()
    def add(self) -> None:
        if len(self.expected) == 5:
            with pytest.raises(EngineUnavailable):
                self.ledger.add(request(), 0)
        else:
            self.expected.append(self.ledger.add(request(), 0).id)

    @rule(id_=st.integers(1, 30))
    def take(self, id_: int) -> None:
        entry = self.ledger.take(id_)
        assert (entry is not None) == (id_ in self.expected)
        if entry:
            self._leave(entry.id)

    @rule(ids=st.lists(st.integers(1, 30), max_size=4))
    def die_running(self, ids: list[int]) -> None:
        for id_ in ids:
            self.ledger.mark_running(id_)
        for entry in self.ledger.take_poisonous():
            assert entry.deaths == DEATHS_MAX
            self._leave(entry.id)

    @rule()
    def take_all(self) -> None:
        for entry in self.ledger.take_all():
            self._leave(entry.id)

    def _leave(self, id_: int) -> None:
        self.expected.remove(id_)
        self.left.append(id_)

    @invariant()
    def holds_the_rest_in_order(self) -> None:
        assert [entry.id for entry in self.ledger] == self.expected
        assert len(self.ledger) == len(self.expected)
        assert len(set(self.left)) == len(self.left)


TestLedgerMachine = LedgerMachine.TestCase
