import threading

from runner.engine.inbox import Inbox
from tests.runner.engine.conftest import request


def test_first_in_first_out_with_the_time_spent_waiting() -> None:
    times = iter([10.0, 11.0, 15.0, 15.5])
    inbox = Inbox(clock=lambda: next(times))
    inbox.put(1, request(seed=1))
    inbox.put(2, request(seed=2))
    jobs = [inbox.get(), inbox.get()]
    assert [(job.id, job.request.seed, job.queued_s) for job in jobs] == [(1, 1, 5.0), (2, 2, 4.5)]


def test_a_queued_request_is_forgotten() -> None:
    inbox = Inbox()
    for number in (1, 2, 3):
        inbox.put(number, request())
    inbox.cancel(2)
    assert [inbox.get().id, inbox.get().id] == [1, 3]


def test_a_running_request_is_told_and_the_next_one_is_not() -> None:
    inbox = Inbox()
    inbox.put(1, request())
    inbox.put(2, request())
    inbox.get()
    assert not inbox.is_cancelled(1)
    inbox.cancel(1)
    assert inbox.is_cancelled(1)
    inbox.get()
    assert not inbox.is_cancelled(2)


def test_cancelling_what_is_unknown_changes_nothing() -> None:
    inbox = Inbox()
    inbox.cancel(9)
    inbox.put(9, request())
    assert inbox.get().id == 9
    assert not inbox.is_cancelled(9)


def test_get_waits_for_the_other_thread() -> None:
    inbox = Inbox()
    putter = threading.Thread(target=inbox.put, args=(5, request()))
    putter.start()
    assert inbox.get().id == 5
    putter.join()
