"""Threads that work for greenlets."""

import threading
from collections.abc import Iterator

import gevent
import pytest

from authsvc.serving.threads import Threads


@pytest.fixture
def threads() -> Iterator[Threads]:
    threads = Threads(2)
    yield threads
    threads.close()


def test_many_greenlets_get_each_its_own_result(threads: Threads) -> None:
    waiting = [gevent.spawn(threads.run, lambda number=number: (number, threading.get_ident())) for number in range(50)]
    results = [greenlet.get(timeout=30) for greenlet in waiting]
    assert [number for number, _ in results] == list(range(50))
    assert threading.get_ident() not in {ident for _, ident in results}


def test_an_error_is_the_caller_s(threads: Threads) -> None:
    with pytest.raises(ZeroDivisionError):
        threads.run(lambda: 1 / 0)
    assert threads.run(lambda: "goes on") == "goes on"


def test_a_caller_that_gave_up_disturbs_nobody(threads: Threads) -> None:
    may_end = threading.Event()
    left = gevent.spawn(threads.run, may_end.wait)
    gevent.idle()
    left.kill()
    may_end.set()
    assert threads.run(lambda: "next") == "next"


def test_no_more_than_its_threads_work_at_once(threads: Threads) -> None:
    started, may_end = threading.Semaphore(0), threading.Event()

    def work() -> None:
        started.release()
        may_end.wait()

    waiting = [gevent.spawn(threads.run, work) for _ in range(3)]
    gevent.idle()
    assert started.acquire(timeout=30)
    assert started.acquire(timeout=30)
    assert not started.acquire(blocking=False)
    may_end.set()
    gevent.joinall(waiting, timeout=30, raise_error=True)
    assert started.acquire(timeout=30)
