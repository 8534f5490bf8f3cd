import asyncio

import pytest

from runner.hosting.bell import Bell


def run(test) -> None:
    async def main() -> None:
        async with asyncio.timeout(20):
            await test(Bell(), asyncio.get_running_loop())

    asyncio.run(main())


def test_it_wakes_who_waits():
    async def test(bell: Bell, loop: asyncio.AbstractEventLoop) -> None:
        loop.call_soon(bell.ring)
        await bell.wait()
        bell.ring()  # nobody waits: nothing is remembered
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await bell.wait()

    run(test)


def test_it_rings_by_itself_at_a_time():
    async def test(bell: Bell, loop: asyncio.AbstractEventLoop) -> None:
        until = loop.time() + 0.02
        while loop.time() < until:
            await bell.wait(until)

    run(test)


def test_a_time_may_be_moved_both_ways():
    async def test(bell: Bell, loop: asyncio.AbstractEventLoop) -> None:
        loop.call_soon(bell.ring)
        await bell.wait(loop.time() + 60)
        until = loop.time() + 0.02
        await bell.wait(until)  # earlier than the timer that is armed
        assert loop.time() + 0.001 >= until
        loop.call_soon(bell.ring)
        await bell.wait(loop.time() + 0.01)
        until = loop.time() + 0.05
        while loop.time() < until:  # later: woken once for nothing
            await bell.wait(until)

    run(test)


def test_one_task_waits():
    async def test(bell: Bell, loop: asyncio.AbstractEventLoop) -> None:
        first = asyncio.create_task(bell.wait())
        await asyncio.sleep(0)
        with pytest.raises(RuntimeError, match="waits for this already"):
            await bell.wait()
        bell.ring()
        await first

    run(test)


def test_silence_forgets_the_time():
    async def test(bell: Bell, loop: asyncio.AbstractEventLoop) -> None:
        loop.call_soon(bell.ring)
        await bell.wait(loop.time() + 0.01)
        bell.silence()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await bell.wait()

    run(test)
