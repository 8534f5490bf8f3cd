"""How often something may happen, by a clock that the test turns."""

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.protocol.pace import Pace, Paces


def admitted(pace: Pace, times: Sequence[float]) -> list[float]:
    """The times at which something happened that was tried at each of `times`."""
    taken = []
    for now in times:
        if not pace.delay_s(now):
            pace.take(now)
            taken.append(now)
    return taken


def test_so_many_at_once_and_then_one_each_interval() -> None:
    pace = Pace(10, 3)
    assert admitted(pace, [0.0] * 5) == [0.0] * 3
    assert pace.delay_s(0.0) == pytest.approx(0.1)
    assert admitted(pace, [0.05, 0.11, 0.15, 0.21]) == [0.11, 0.21]


def test_after_a_pause_as_many_as_at_first_and_no_more() -> None:
    pace = Pace(10, 3)
    assert len(admitted(pace, [0.0] * 9 + [1000.0] * 9)) == 6


def test_what_is_given_back_counts_no_more_and_makes_no_larger_burst() -> None:
    pace = Pace(10, 3)
    for _ in range(100):
        assert not pace.delay_s(5.0)
        pace.take(5.0)
        pace.give_back()
    pace.give_back()
    assert len(admitted(pace, [5.0] * 9)) == 3


@given(
    st.lists(st.floats(0, 0.5), min_size=1, max_size=200),
    st.sampled_from([1.0, 7.0, 600 / 60]),
    st.integers(1, 20),
)
def test_in_no_stretch_of_time_more_than_the_burst_and_the_rate(steps: list[float], per_s: float, burst: int) -> None:
    times, now = [], 0.0
    for step in steps:
        now += step
        times.append(now)
    taken = admitted(Pace(per_s, burst), times)
    for first in range(len(taken)):
        for last in range(first, len(taken)):
            assert last - first + 1 <= burst + (taken[last] - taken[first]) * per_s + 1e-6


def test_each_key_has_a_pace_of_its_own() -> None:
    paces = Paces(1, 2)
    assert [paces.delay_s("a", 0.0) for _ in range(2)] == [0, 0]
    assert paces.delay_s("a", 0.0) > 0
    assert paces.delay_s("b", 0.0) == 0


def test_a_refusal_counts_nothing() -> None:
    paces = Paces(1, 1)
    assert paces.delay_s("a", 0.0) == 0
    assert [paces.delay_s("a", 0.5) for _ in range(50)] == [0.5] * 50
    assert paces.delay_s("a", 1.0) == 0


def test_who_was_still_for_long_is_forgotten() -> None:
    paces = Paces(1, 1)
    for number in range(100):
        paces.delay_s(str(number), 0.0)
    paces.delay_s("new", 10.0)
    assert len(paces) == 1


def test_strangers_cannot_make_it_remember_more_than_so_many() -> None:
    paces = Paces(1, 1, max_keys=50)
    for number in range(1000):
        assert paces.delay_s(str(number), 0.0) == 0
    assert len(paces) == 50
    assert paces.delay_s("999", 0.0) > 0
