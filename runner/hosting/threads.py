"""Threads for handlers that are no coroutines, one hop there and back for each call.

`run_in_executor` makes a concurrent future, an asyncio future and two callbacks a call, and wakes the loop for each.
Here one queue leads into the threads, and one wake-up of the loop brings back all that is done by then.
"""

import asyncio
import threading
from collections import deque
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any, Final

THREADS_MAX: Final = 64
"""Handlers that wait for something else block their thread: more of them than there are cores."""

_Job = tuple["asyncio.Future[Any]", Callable[..., Any], tuple[Any, ...]]
_Outcome = tuple["asyncio.Future[Any]", Any, BaseException | None]


class Threads:
    """A pool for one event loop: the one that runs when it is first used.

    Args:
        threads_max: As many calls run at once; others wait their turn.
    """

    def __init__(self, threads_max: int = THREADS_MAX) -> None:
        self._threads_max = threads_max
        self._threads = 0
        self._unfinished = 0
        self._jobs: SimpleQueue[_Job | None] = SimpleQueue()
        self._outcomes: deque[_Outcome] = deque()
        self._is_delivery_due = False
        self._loop: asyncio.AbstractEventLoop | None = None

    def call(self, function: Callable[..., Any], *arguments: Any) -> "asyncio.Future[Any]":
        """Calls in a thread. Cancelling the future forgets the outcome; a call that has begun runs to its end."""
        if self._loop is None:
            self._loop = asyncio.get_running_loop()
        future: asyncio.Future[Any] = self._loop.create_future()
        self._unfinished += 1
        if self._unfinished > self._threads < self._threads_max:
            self._threads += 1
            threading.Thread(target=self._serve, name=f"handler-{self._threads}", daemon=True).start()
        self._jobs.put((future, function, arguments))
        return future

    def close(self) -> None:
        """Ends the threads that are idle, and the others after their call."""
        for _ in range(self._threads):
            self._jobs.put(None)
        self._threads = 0

    def _serve(self) -> None:
        while (job := self._jobs.get()) is not None:
            future, function, arguments = job
            self._outcomes.append(_outcome(future, function, arguments))
            del job, future, function, arguments  # an idle thread must not hold a picture
            self._ask_for_delivery()

    def _ask_for_delivery(self) -> None:
        # Two threads may both find it not due; the second delivery is empty. It is never missed: `_deliver` clears the
        # mark before it looks, and a thread looks at the mark after its outcome is there.
        if self._is_delivery_due or self._loop is None:
            return
        self._is_delivery_due = True
        try:
            self._loop.call_soon_threadsafe(self._deliver)
        except RuntimeError:
            return  # the loop is closed: nobody waits any more

    def _deliver(self) -> None:
        self._is_delivery_due = False
        while self._outcomes:
            future, result, error = self._outcomes.popleft()
            self._unfinished -= 1
            if future.done():  # cancelled: the peer left
                continue
            if error is None:
                future.set_result(result)
            else:
                future.set_exception(error)


def _outcome(future: "asyncio.Future[Any]", function: Callable[..., Any], arguments: tuple[Any, ...]) -> _Outcome:
    if future.cancelled():
        return future, None, None
    try:
        return future, function(*arguments), None
    except Exception as error:
        # A future cannot hold StopIteration.
        return future, None, RuntimeError("StopIteration") if isinstance(error, StopIteration) else error
    # SystemExit in a handler ends one call, not the thread.
    except BaseException as error:
        return future, None, RuntimeError(f"the handler raised {type(error).__name__}")
