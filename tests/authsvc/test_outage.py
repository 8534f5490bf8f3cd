"""What the log says of a store that is down: one line when it goes, one when it is back."""

import logging
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from authsvc.store.outage import SETTLED_S, Outage


@pytest.fixture
def lines(caplog: pytest.LogCaptureFixture) -> Callable[[], list[tuple[int, str]]]:
    caplog.set_level(logging.DEBUG, "authsvc.store.outage")
    return lambda: [(record.levelno, record.getMessage()) for record in caplog.records]


def test_many_failures_are_one_line_and_the_end_another(lines: Callable[[], list[tuple[int, str]]]) -> None:
    now = 0.0
    outage = Outage("PostgreSQL at db:5432/keys", lambda: now)
    outage.over()
    for _ in range(100):
        outage.noticed("connection refused")
    now = SETTLED_S
    for _ in range(100):
        outage.over()
    (down, down_line), (back, back_line) = lines()
    assert (down, back) == (logging.ERROR, logging.WARNING)
    assert down_line.startswith("PostgreSQL at db:5432/keys cannot be used: connection refused.")
    assert back_line == "PostgreSQL at db:5432/keys is back; requests that failed meanwhile: 100"


def test_a_store_that_still_fails_now_and_then_is_not_back(lines: Callable[[], list[tuple[int, str]]]) -> None:
    now = 0.0
    outage = Outage("a store", lambda: now)
    for _ in range(4):
        now += SETTLED_S / 2
        outage.noticed("x")
        outage.over()
    assert len(lines()) == 1


def test_threads_do_not_announce_twice(lines: Callable[[], list[tuple[int, str]]]) -> None:
    outage, start = Outage("a store", lambda: 0.0), threading.Barrier(8)

    def notice(_: int) -> None:
        start.wait()
        outage.noticed("x")

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(notice, range(8)))
    assert len(lines()) == 1


class _Lines(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.levels: list[int] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.levels.append(record.levelno)


@given(st.lists(st.tuples(st.booleans(), st.sampled_from([0.0, 0.4, 1.0, 7.0]))))
def test_lines_take_turns_whatever_happens(steps: list[tuple[bool, float]]) -> None:
    now, seen, logger = 0.0, _Lines(), logging.getLogger("authsvc.store.outage")
    outage = Outage("a store", lambda: now)
    logger.addHandler(seen)
    try:
        for failed, later in steps:
            now += later
            outage.noticed("x") if failed else outage.over()
    finally:
        logger.removeHandler(seen)
    assert all(
        level == (logging.ERROR if place % 2 == 0 else logging.WARNING) for place, level in enumerate(seen.levels)
    )
