import asyncio
import gc
import threading
import weakref
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from runner.hosting.threads import Threads


def run(test: Callable[[Threads], Awaitable[None]], threads_max: int = 4) -> None:
    async def main() -> None:
        threads = Threads(threads_max)
        try:
            async with asyncio.timeout(20):
                await test(threads)
        finally:
            threads.close()

    asyncio.run(main())


def test_a_call_is_made_in_a_thread_and_its_outcome_brought_back():
    async def test(threads: Threads) -> None:
        assert await threads.call(divmod, 7, 2) == (3, 1)
        assert await threads.call(threading.get_ident) != threading.get_ident()
        with pytest.raises(ZeroDivisionError):
            await threads.call(divmod, 1, 0)

    run(test)


@pytest.mark.parametrize("error", [StopIteration, SystemExit, KeyboardInterrupt])
def test_what_no_future_can_hold_is_an_error_of_the_call_alone(error):
    def fail() -> None:
        raise error

    async def test(threads: Threads) -> None:
        with pytest.raises(RuntimeError, match=error.__name__):
            await threads.call(fail)
        assert await threads.call(abs, -1) == 1

    run(test, threads_max=1)


def test_many_calls_share_few_threads():
    async def test(threads: Threads) -> None:
        names = await asyncio.gather(
            *(threads.call(lambda: threading.current_thread().name) for _ in range(500)), threads.call(lambda: "last")
        )
        assert len(set(names) - {"last"}) <= 4
        assert names[-1] == "last"

    run(test)


def test_calls_that_wait_for_each_other_run_at_once():
    async def test(threads: Threads) -> None:
        barrier = threading.Barrier(4)
        await asyncio.gather(*(threads.call(barrier.wait, 20) for _ in range(4)))

    run(test)


def test_a_call_that_is_cancelled_before_it_begins_is_not_made():
    async def test(threads: Threads) -> None:
        gate, made = threading.Event(), list[str]()
        first = threads.call(gate.wait, 20)
        second = threads.call(made.append, "second")
        second.cancel()
        gate.set()
        assert await first
        await threads.call(made.append, "third")
        assert made == ["third"]

    run(test, threads_max=1)


def test_an_outcome_that_nobody_waits_for_is_forgotten():
    async def test(threads: Threads) -> None:
        begun, gate = threading.Event(), threading.Event()

        def work() -> None:
            begun.set()
            gate.wait(20)

        call = threads.call(work)
        assert await asyncio.to_thread(begun.wait, 20)
        call.cancel()
        gate.set()
        assert await threads.call(abs, -1) == 1

    run(test, threads_max=1)


def test_an_idle_thread_holds_no_input():
    class Picture:
        pass

    async def test(threads: Threads) -> None:
        picture = Picture()
        seen = weakref.ref(picture)
        await threads.call(lambda received: None, picture)
        del picture
        await threads.call(abs, -1)  # the thread has gone round once more
        gc.collect()
        assert seen() is None

    run(test, threads_max=1)


def test_closing_ends_the_threads():
    before = threading.active_count()
    known: list[threading.Thread] = []

    async def test(threads: Threads) -> None:
        known.append(await threads.call(threading.current_thread))

    run(test)
    known[0].join(20)
    assert not known[0].is_alive()
    assert threading.active_count() <= before


def test_a_thread_outlives_its_loop_without_harm():
    gate, known = threading.Event(), list[Any]()

    async def main() -> None:
        threads = Threads()
        known.append(await threads.call(threading.current_thread))
        threads.call(gate.wait, 20)
        threads.close()

    asyncio.run(main())
    gate.set()
    known[0].join(20)
    assert not known[0].is_alive()
