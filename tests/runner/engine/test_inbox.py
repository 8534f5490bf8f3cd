import threading

from runner.engine.inbox import Inbox


def test_events_are_taken_once_and_in_order() -> None:
    inbox: Inbox[int] = Inbox()
    inbox.put(1)
    inbox.put(2)
    assert inbox.take() == [1, 2]
    assert inbox.take() == []


def test_waiting_ends_with_an_event_of_another_thread_or_with_time() -> None:
    inbox: Inbox[int] = Inbox()
    inbox.wait(timeout_s=0)
    assert inbox.take() == []
    putter = threading.Thread(target=inbox.put, args=(5,))
    putter.start()
    inbox.wait()
    assert inbox.take() == [5]
    putter.join()
    inbox.put(6)
    inbox.wait()  # what is there already is not waited for
