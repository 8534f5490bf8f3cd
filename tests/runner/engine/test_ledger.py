from collections.abc import Collection
from typing import Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from runner.engine.ledger import DEATHS_MAX, Entry, Ledger
from tests.runner.engine.conftest import request

ONE = (0,)


def entered(number: int, **changes: Any) -> tuple[Ledger[str], list[Entry[str]]]:
    ledger: Ledger[str] = Ledger()
    return ledger, [ledger.add(request(**changes), "", str(index)) for index in range(number)]


def test_a_worker_is_given_all_that_waits_once() -> None:
    ledger, entries = entered(3)
    assert ledger.assign(()) == []
    assert ledger.assign(ONE) == entries
    assert ledger.assign(ONE) == []
    assert ledger.in_hand(0) == entries


def test_each_goes_to_the_worker_with_least_to_do() -> None:
    ledger: Ledger[str] = Ledger()
    sides = (128, 64, 64, 64, 64, 64)
    entries = [ledger.add(request(width=side, height=side), "", "") for side in sides]
    ledger.assign((0, 1))
    # The first is as much work as four of the others.
    assert [entry.worker for entry in entries] == [0, 1, 1, 1, 1, 0]
    ledger.take(entries[0].id)
    late = ledger.add(request(), "", "")
    ledger.assign((0, 1))
    assert late.worker == 0


def test_what_a_dead_worker_had_goes_to_another() -> None:
    ledger, entries = entered(4)
    ledger.assign((0, 1))
    lost = ledger.in_hand(0)
    assert ledger.take_poisonous(0) == []
    assert ledger.assign((1,)) == lost
    assert ledger.in_hand(1) == entries


def test_a_death_over_what_nobody_had_begun_is_nobodys_fault() -> None:
    ledger, entries = entered(2)
    for _ in range(2 * DEATHS_MAX):
        ledger.assign(ONE)
        assert ledger.take_poisonous(0) == []
    assert ledger.assign(ONE) == entries


def run(ledger: Ledger[str], culprit: Entry[str], workers: Collection[int]) -> list[str]:
    """Let workers run what they are given until nothing is left; gives who was given up, and how often one died."""
    given_up, deaths = [], 0
    while len(ledger):
        ledger.assign(workers)
        for worker in workers:
            in_hand = ledger.in_hand(worker)
            for entry in in_hand:
                ledger.mark_running(entry.id)
            if culprit in in_hand:
                deaths += 1
                given_up += [entry.waiter for entry in ledger.take_poisonous(worker)]
            elif in_hand:
                ledger.take(in_hand[0].id)
    assert deaths == DEATHS_MAX
    return given_up


@pytest.mark.parametrize("workers", [(0,), (0, 1), (0, 1, 2)])
@pytest.mark.parametrize("culprit", range(9))
def test_only_the_culprit_is_given_up(workers: Collection[int], culprit: int) -> None:
    ledger, entries = entered(9)
    assert run(ledger, entries[culprit], workers) == [str(culprit)]


def test_a_suspect_runs_with_nothing_beside_it() -> None:
    ledger, entries = entered(3)
    ledger.assign(ONE)
    for entry in entries:
        ledger.mark_running(entry.id)
    ledger.take_poisonous(0)
    innocent = ledger.add(request(), "", "late")
    for entry in entries:
        assert ledger.assign(ONE) == [entry]
        assert ledger.assign(ONE) == []
        ledger.take(entry.id)
    assert ledger.assign(ONE) == [innocent]


def test_others_are_drawn_elsewhere_while_suspects_run() -> None:
    ledger, entries = entered(4)
    ledger.assign((0, 1))
    suspect, clean = ledger.in_hand(0)
    ledger.mark_running(suspect.id)
    ledger.take_poisonous(0)
    # The dead one's successor is not there yet; the other worker is kept free for the suspect.
    late = ledger.add(request(), "", "late")
    assert ledger.assign((1,)) == []
    # With both there the suspect has one for itself, and all the others share the rest.
    assert ledger.assign((0, 1)) == [suspect, clean, late]
    assert ledger.in_hand(0) == [suspect]
    assert ledger.in_hand(1) == [entries[1], clean, entries[3], late]


class LedgerMachine(RuleBasedStateMachine):
    """Against a plain list: everything leaves exactly once, and the rest stays in order."""

    def __init__(self) -> None:
        super().__init__()
        self.ledger: Ledger[int] = Ledger()
        self.expected: list[int] = []
        self.left: list[int] = []

    @rule()
    def add(self) -> None:
        self.expected.append(self.ledger.add(request(), "", 0).id)

    @rule(id_=st.integers(1, 30))
    def take(self, id_: int) -> None:
        entry = self.ledger.take(id_)
        assert (entry is not None) == (id_ in self.expected)
        if entry:
            self._leave(entry.id)

    @rule(ready=st.sets(st.integers(0, 2)))
    def assign(self, ready: set[int]) -> None:
        for entry in self.ledger.assign(ready):
            assert entry.worker in ready
            alone = entry.is_suspect or any(other.is_suspect for other in self.ledger.in_hand(entry.worker))
            assert not alone or self.ledger.in_hand(entry.worker) == [entry]

    @rule(ids=st.lists(st.integers(1, 30), max_size=4), worker=st.integers(0, 2))
    def die_running(self, ids: list[int], worker: int) -> None:
        for id_ in ids:
            self.ledger.mark_running(id_)
        for entry in self.ledger.take_poisonous(worker):
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
