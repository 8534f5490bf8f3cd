"""Native threads that work for greenlets: gevent's own pool makes an event watcher for every single call."""

import threading
from collections import deque
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any, Final, ParamSpec, TypeVar

from gevent.hub import Waiter, get_hub

P = ParamSpec("P")
T = TypeVar("T")

_Task = tuple["Waiter[Any]", Callable[[], Any]]
_END: Final = None


class Threads:
    """Threads of the hub that makes them.

    Args:
        count: How many functions run at the same time; others wait.
    """

    def __init__(self, count: int) -> None:
        self._count = count
        self._tasks: SimpleQueue[_Task | None] = SimpleQueue()
        self._done: deque[tuple[Waiter[Any], Any, BaseException | None]] = deque()
        self._wake = get_hub().loop.async_()
        self._wake.start(self._deliver)
        for number in range(count):
            threading.Thread(target=self._work, name=f"request-{number}", daemon=True).start()

    def run(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Runs a function in a thread while the calling greenlet waits, and no other one has to."""
        waiter: Waiter[T] = Waiter()
        self._tasks.put((waiter, lambda: function(*args, **kwargs)))
        return waiter.get()

    def close(self) -> None:
        """Ends the threads; one that is still at work, when it has done that."""
        for _ in range(self._count):
            self._tasks.put(_END)

    def _work(self) -> None:
        while (task := self._tasks.get()) is not _END:
            waiter, function = task
            try:
                self._done.append((waiter, function(), None))
            except BaseException as error:  # it belongs to the greenlet that waits
                self._done.append((waiter, None, error))
            self._wake.send()  # the one thing of a hub that other threads may touch

    def _deliver(self) -> None:
        """In the hub: several results may have come by one wake-up."""
        while self._done:
            waiter, value, error = self._done.popleft()
            if error is None:
                waiter.switch(value)
            else:
                waiter.throw(error)
