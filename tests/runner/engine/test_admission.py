"""Who may wait for the engine, by how much work is before it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.engine.admission import LEARNING, RETRY_AFTER_MIN_S, Admission, Throughput, expected_wait
from runner.engine.request import EngineBusy

works = st.dictionaries(st.sampled_from("abcd"), st.floats(0, 1e9), max_size=4)


def learned(rate: float) -> Throughput:
    """After as many requests as it takes, one after the other, each a second long."""
    throughput = Throughput()
    for second in range(LEARNING):
        throughput.began(second)
        throughput.done(rate, second + 1, is_idle=True)
    return throughput


def test_nothing_is_known_before_a_few_answers() -> None:
    throughput = Throughput()
    throughput.began(0)
    for second in range(1, LEARNING):
        throughput.done(100, second, is_idle=False)
        assert throughput.rate is None
    throughput.done(100, LEARNING, is_idle=True)
    assert throughput.rate == pytest.approx(100)


def test_idle_time_does_not_count() -> None:
    throughput = learned(100)
    throughput.began(1000)
    throughput.done(100, 1001, is_idle=True)
    assert throughput.rate == pytest.approx(100)


def test_what_was_long_ago_counts_less() -> None:
    throughput = learned(100)
    throughput.began(10)
    for second in range(11, 111):
        throughput.done(10, second, is_idle=False)
    assert throughput.rate == pytest.approx(10, rel=0.01)


def test_a_request_that_would_wait_too_long_is_told_when_to_come_back() -> None:
    admission = Admission(max_pending=99, max_wait_s=10)
    admission.check("new", 1000, 1, {"old": 1000}, rate=100)  # ten seconds
    with pytest.raises(EngineBusy) as busy:
        admission.check("new", 1000, 2, {"old": 1000, "older": 500}, rate=100)
    assert busy.value.retry_after_s == pytest.approx(5)


def test_a_flow_that_floods_the_engine_makes_itself_wait_and_not_others() -> None:
    admission = Admission(max_pending=99, max_wait_s=10)
    with pytest.raises(EngineBusy):
        admission.check("flood", 10, 50, {"flood": 5000}, rate=100)
    admission.check("other", 10, 50, {"flood": 5000}, rate=100)


def test_nobody_is_refused_while_nothing_is_known_but_for_room() -> None:
    admission = Admission(max_pending=2, max_wait_s=10)
    admission.check("new", 1e9, 1, {"old": 1e9}, rate=None)
    with pytest.raises(EngineBusy) as busy:
        admission.check("new", 1, 2, {"old": 2}, rate=None)
    assert busy.value.retry_after_s == RETRY_AFTER_MIN_S


@given(works, st.sampled_from("abcde"), st.floats(0, 1e9))
def test_the_wait_is_for_others_work_and_no_more_than_there_is(work: dict[str, float], flow: str, cost: float) -> None:
    wait = expected_wait(flow, cost, work)
    assert work.get(flow, 0) <= wait <= sum(work.values()) * (1 + 1e-9)
    assert wait <= expected_wait(flow, cost + 1, work)


@given(works, st.floats(0.1, 1e6), st.floats(0, 1e9))
def test_whoever_finds_nobody_is_let_in(work: dict[str, float], rate: float, cost: float) -> None:
    Admission(max_pending=1, max_wait_s=0.001).check("new", cost, 0, {}, rate)


@given(works, st.floats(0.1, 1e6), st.floats(0, 1e9), st.integers(1, 9))
def test_a_refusal_never_says_to_come_back_at_once(
    work: dict[str, float], rate: float, cost: float, pending: int
) -> None:
    admission = Admission(max_pending=5, max_wait_s=1)
    if pending < 5 and expected_wait("new", cost, work) / rate <= 1:
        admission.check("new", cost, pending, work, rate)
    else:
        with pytest.raises(EngineBusy) as busy:
            admission.check("new", cost, pending, work, rate)
        assert busy.value.retry_after_s >= RETRY_AFTER_MIN_S
