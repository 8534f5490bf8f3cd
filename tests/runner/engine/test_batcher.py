"""Who steps with whom. Every test runs the batcher dry: no model, no clock."""

from collections import Counter
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, precondition, rule

from runner.engine.batcher import PATIENCE_TICKS, Batcher, Shape

SMALL: Shape = (4, 8, 8)
LARGE: Shape = (4, 16, 16)


@dataclass(eq=False)
class Picture:
    name: str
    latent_shape: Shape = SMALL
    row_count: int = 1
    steps_left: int = 4

    def __repr__(self) -> str:
        return self.name


def batcher(max_rows: int = 8) -> Batcher[Picture]:
    return Batcher(lambda shape: max_rows)


def tick(of: Batcher[Picture]) -> list[Picture]:
    """Run the next tick and give its pictures."""
    chosen = of.next_tick()
    if chosen is None:
        return []
    of.stepped(chosen)
    for picture in chosen.samples:
        picture.steps_left -= 1
        if not picture.steps_left:
            of.remove(picture)
    return list(chosen.samples)


def names(of: Batcher[Picture], ticks: int) -> list[str]:
    return ["".join(sorted(picture.name for picture in tick(of))) for _ in range(ticks)]


def test_nothing_to_do_is_no_tick() -> None:
    assert batcher().next_tick() is None


def test_pictures_at_any_step_go_together_and_a_new_one_joins_at_once() -> None:
    under_test = batcher()
    under_test.add(Picture("a"), "A")
    assert names(under_test, 1) == ["a"]
    under_test.add(Picture("b"), "B")
    assert names(under_test, 5) == ["ab", "ab", "ab", "b", ""]


def test_only_one_shape_a_tick_and_no_shape_is_left_waiting() -> None:
    under_test = batcher()
    for name in "abc":
        under_test.add(Picture(name), name)
    under_test.add(Picture("L", LARGE), "L")
    assert "L" in names(under_test, 2)


def test_guided_pictures_take_two_rows() -> None:
    under_test = batcher(max_rows=3)
    for name in "abc":
        under_test.add(Picture(name, row_count=2 if name == "b" else 1), name)
    first = under_test.next_tick()
    assert first is not None
    assert (first.rows, [picture.name for picture in first.samples]) == (3, ["a", "b"])


def test_one_that_is_larger_than_the_limit_steps_by_itself() -> None:
    under_test = batcher(max_rows=1)
    under_test.add(Picture("a", row_count=2), "A")
    under_test.add(Picture("b"), "B")
    assert {*names(under_test, 2)} == {"a", "b"}


def test_a_flow_that_asks_for_more_gets_no_more() -> None:
    under_test = batcher(max_rows=2)
    for number in range(20):
        under_test.add(Picture(f"a{number}"), "A")
    under_test.add(Picture("b", steps_left=10), "B")
    steps = Counter(picture.name[0] for _ in range(10) for picture in tick(under_test))
    assert steps == {"a": 10, "b": 10}


@pytest.mark.parametrize("max_rows", [1, 8])
def test_inside_a_flow_it_is_first_come_first_served(max_rows: int) -> None:
    under_test = batcher(max_rows)
    for name in "xyz":
        under_test.add(Picture(name, LARGE if name == "y" else SMALL, steps_left=2), "one flow")
    # The third could go with the first, but then it would be past the second.
    assert names(under_test, 6) == ["x", "x", "y", "y", "z", "z"]


def test_service_is_counted_in_pixels() -> None:
    under_test = batcher()
    under_test.add(Picture("L", LARGE, steps_left=100), "A")
    under_test.add(Picture("s", steps_left=100), "B")
    # Four times the pixels: the small one has four turns for each.
    assert Counter(names(under_test, 50)) == {"L": 10, "s": 40}


def test_runs_of_the_vae_count_too() -> None:
    under_test = batcher(max_rows=1)
    under_test.add(Picture("a"), "A")
    under_test.add(Picture("b"), "B")
    assert names(under_test, 1) == ["a"]
    under_test.charge("B", SMALL)
    under_test.charge("B", SMALL)
    assert names(under_test, 4) == ["a", "b", "a", "b"], "without it B would have been next"


def test_a_flow_that_was_away_neither_waits_nor_cashes_in() -> None:
    under_test = batcher(max_rows=1)
    under_test.add(Picture("a", steps_left=100), "A")
    names(under_test, 50)
    under_test.add(Picture("b", steps_left=100), "B")  # has had nothing, and gets no fifty turns for it
    assert Counter(names(under_test, 10)) == {"a": 5, "b": 5}


def test_a_flow_that_comes_back_at_once_keeps_what_it_had() -> None:
    under_test = batcher(max_rows=1)
    under_test.add(Picture("b", steps_left=100), "B")
    for _ in range(10):  # a socket asks again as soon as it has its picture
        under_test.add(Picture("a", steps_left=1), "A")
        while not any(picture.name == "a" for picture in tick(under_test)):
            pass
    assert under_test.turn("A")[0] == 10 * 64
    assert under_test.turn("B")[0] >= 9 * 64


def test_a_new_flow_begins_with_the_least_of_those_that_are_still_there() -> None:
    under_test = batcher()
    for name in "abc":
        under_test.add(Picture(name, steps_left=9), "three at once")
    under_test.add(Picture("d"), "one")
    names(under_test, 4)  # the flow that had least is done
    under_test.add(Picture("e"), "new")
    assert under_test.turn("new")[0] == under_test.turn("three at once")[0] == 3 * 4 * 64


def test_newcomers_without_end_keep_nobody_waiting_for_ever() -> None:
    """More than can be served, all of new flows, which begin at the least service there is."""
    under_test = batcher(max_rows=1)
    under_test.add(Picture("a", steps_left=999), "A")
    names(under_test, 1)
    waited = longest = most = 0
    for number in range(400):
        under_test.add(Picture(str(number), steps_left=1), f"new {number}")
        most = max(most, len(under_test))
        waited = 0 if names(under_test, 1) == ["a"] else waited + 1
        longest = max(longest, waited)
    assert longest <= PATIENCE_TICKS * (most + 1) + 1
    assert most < 20


def test_flows_that_have_gone_are_forgotten() -> None:
    under_test = batcher()
    for number in range(1000):
        under_test.add(Picture("p", steps_left=2), f"flow {number}")
        names(under_test, 2)
    assert len(under_test._flows) < 5


def test_too_little_memory_halves_the_rows_for_good() -> None:
    under_test = batcher()
    for name in "abcdefgh":
        under_test.add(Picture(name), name)
    for rows in (8, 4, 2, 1):
        failing = under_test.next_tick()
        assert failing is not None
        assert failing.rows == rows
        assert under_test.lower_limit(failing) == (rows > 1)
    assert under_test.limit(SMALL) == 1
    assert under_test.limit(LARGE) == 8


def test_a_failing_tick_is_repeated_one_by_one_and_then_all_go_together_again() -> None:
    under_test = batcher()
    for name in "abc":
        under_test.add(Picture(name), name)
    failing = under_test.next_tick()
    assert failing is not None
    assert under_test.separate(failing)
    under_test.add(Picture("d"), "d")
    assert names(under_test, 4) == ["a", "b", "c", "abcd"]
    lone = batcher()
    lone.add(Picture("a"), "A")
    only = lone.next_tick()
    assert only is not None
    assert not lone.separate(only)


flows = st.sampled_from("ABCD")
shapes = st.sampled_from([SMALL, LARGE])
row_counts = st.integers(1, 2)


@given(st.lists(st.tuples(flows, shapes, row_counts), min_size=1, max_size=12), st.integers(2, 6))
def test_flows_with_work_all_along_are_served_alike(asked: list[tuple[str, Shape, int]], max_rows: int) -> None:
    """Who leads a tick has had least, so each gets its share of the ticks however much the others ask for.

    But for one that was passed over for too long: of what costs much, a tick outweighs many small ones.
    """
    under_test = batcher(max_rows)
    pictures = {Picture(flow, shape, rows, steps_left=10**6): flow for flow, shape, rows in asked}
    for picture, flow in pictures.items():
        under_test.add(picture, flow)
    had = dict.fromkeys(pictures.values(), 0)
    last_had = dict.fromkeys(had, 0)
    fair_ticks = 0
    for number in range(60):
        chosen = under_test.next_tick()
        assert chosen is not None
        leader = pictures[chosen.samples[0]]
        is_overdue = number - last_had[leader] > PATIENCE_TICKS * (len(had) + 1)
        assert is_overdue or had[leader] == min(had.values())
        under_test.stepped(chosen)
        for picture in chosen.samples:
            _, height, width = picture.latent_shape
            had[pictures[picture]] += height * width * picture.row_count
            last_had[pictures[picture]] = number + 1
        # A tick gives its leader 64 at least, and nobody leads again before he is the one with least.
        fair_ticks += not is_overdue
        assert min(had.values()) >= 64 * (fair_ticks / len(had) - 1)


class Churn(RuleBasedStateMachine):
    """Pictures come, step, finish and are cancelled in any order."""

    pictures = Bundle("pictures")

    def __init__(self) -> None:
        super().__init__()
        self.batcher = batcher(max_rows=4)
        self.here: dict[Picture, str] = {}

    @rule(target=pictures, flow=flows, shape=shapes, rows=row_counts, steps=st.integers(1, 8))
    def add(self, flow: str, shape: Shape, rows: int, steps: int) -> Picture:
        picture = Picture(flow, shape, rows, steps)
        self.batcher.add(picture, flow)
        self.here[picture] = flow
        return picture

    @rule(picture=consumes(pictures))
    def cancel(self, picture: Picture) -> None:
        self.batcher.remove(picture)
        self.here.pop(picture, None)

    @precondition(lambda self: self.here)
    @rule(fails=st.sampled_from(["", "", "", "memory", "unforeseen"]))
    def tick(self, fails: str) -> None:
        chosen = self.batcher.next_tick()
        assert chosen is not None
        assert {picture.latent_shape for picture in chosen.samples} == {chosen.shape}
        assert chosen.rows == sum(picture.row_count for picture in chosen.samples)
        assert chosen.rows <= self.batcher.limit(chosen.shape) or len(chosen.samples) == 1
        assert set(chosen.samples) <= set(self.here)
        assert len(set(chosen.samples)) == len(chosen.samples)
        if fails:
            repeat = self.batcher.lower_limit if fails == "memory" else self.batcher.separate
            assert repeat(chosen) == (len(chosen.samples) > 1)
            return
        self.batcher.stepped(chosen)
        for picture in chosen.samples:
            picture.steps_left -= 1
            if not picture.steps_left:
                self.cancel(picture)

    @invariant()
    def it_knows_who_is_here(self) -> None:
        assert len(self.batcher) == len(self.here)
        assert (self.batcher.next_tick() is None) == (not self.here)

    def teardown(self) -> None:
        """Left alone, all come to their end: nobody starves."""
        left = sum(picture.steps_left for picture in self.here)
        for _ in range(left):
            if self.here:
                self.tick("")
        assert not self.here


TestChurn = Churn.TestCase
