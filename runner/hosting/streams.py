"""Realtime endpoints that take or give a stream: server streaming, client streaming, bidirectional (contract §3)."""

import asyncio
import threading
from collections.abc import AsyncIterator, Iterable, Iterator
from typing import Any, Final

from runner.apps.framework import Mode
from runner.hosting.blame import failure_of
from runner.hosting.conversation import Conversation, Emit, Receive
from runner.hosting.endpoint import Endpoint, stream_of
from runner.protocol.failures import Failure
from runner.protocol.session import Send, Wait
from runner.protocol.streaming import Ended, StreamSession, Taken

LAST_WORK_S: Final = 10.0
"""How long a handler may still work on the stream of a peer that left; fal's lets it end, for however long."""

_END: Final = object()


class StreamConversation(Conversation):
    """One call of the handler for the socket's whole life. What it gives is sent as it comes."""

    def __init__(self, endpoint: Endpoint, session: StreamSession, receive: Receive, emit: Emit) -> None:
        super().__init__(session, receive, emit)
        self._endpoint = endpoint
        self._session = session
        # Answers to bad inputs are sent where the handler asks for inputs, which may be a task of its own.
        self._turn_to_send = asyncio.Lock()

    async def _work(self) -> None:
        failure: Failure | None = None
        deadline = asyncio.timeout_at(self._session.ends_at)
        try:
            async with deadline:
                await self._serve()
        # A handler is anybody's code. What it raises ends its stream, and `sys.exit` nobody else's.
        except (Exception, SystemExit) as error:
            failure = None if deadline.expired() else failure_of(error)
        last_words, close = self._session.finish(failure, is_over=deadline.expired())
        self._room.ring()
        if last_words is not None:
            await self._send(last_words)
        await self._close(close)

    async def _serve(self) -> None:
        inputs = Inputs(self)
        match self._endpoint.declared.mode:
            case Mode.SERVER_STREAMING:
                async for first in inputs:
                    await self._give_all(await self._endpoint.start(first))
                    break
            case Mode.CLIENT_STREAMING:
                await self._give(await self._endpoint.start(inputs))
            case _:
                await self._give_all(await self._endpoint.start(inputs))

    async def take(self) -> Any:
        """The next good input, or the mark of the end. Bad ones before it are answered."""
        while True:
            step = self._session.take(self._now())
            self._room.ring()
            match step:
                case Taken():
                    return step.input
                case Ended():
                    return _END
                case Wait():
                    await self._bell.wait(step.until)
                case Send():
                    await self._send(step)

    async def _give_all(self, returned: Any) -> None:
        stream = stream_of(returned)
        if not isinstance(stream, AsyncIterator):
            stream = stream.__aiter__() if hasattr(stream, "__aiter__") else _in_threads(stream, self._endpoint)
        try:
            async for output in stream:
                await self._give(output)
                del output
        finally:
            if (close := getattr(stream, "aclose", None)) is not None:
                await close()

    async def _give(self, output: Any) -> None:
        dropped = self._session.take_dropped()
        await self._send(Send(await self._endpoint.encode_item(output, dropped)), dropped)

    async def _send(self, action: Send, dropped_inputs: int = 0) -> None:
        async with self._turn_to_send:
            await super()._send(action, dropped_inputs)

    async def _dismiss(self, worker: "asyncio.Task[None]") -> None:
        if self._endpoint.declared.mode is Mode.CLIENT_STREAMING and not worker.done():
            # The end of its inputs is how such a handler learns that the peer left: it may want to keep what it has.
            self._session.end_inputs()
            self._bell.ring()
            await asyncio.wait({worker}, timeout=LAST_WORK_S)
        await super()._dismiss(worker)


class Inputs:
    """The stream of inputs that a handler iterates over. It ends with the session's idle time, or with the peer."""

    def __init__(self, conversation: StreamConversation) -> None:
        self._conversation = conversation

    def __aiter__(self) -> "Inputs":
        return self

    async def __anext__(self) -> Any:
        received = await self._conversation.take()
        if received is _END:
            raise StopAsyncIteration
        return received


async def _in_threads(iterable: Iterable[Any], endpoint: Endpoint) -> AsyncIterator[Any]:
    """A stream made by blocking code, one hop an item. It is closed in a thread too, after the item under way."""
    steps = _Steps(iterable)
    try:
        while (item := await endpoint.threads.call(steps.next)) is not _END:
            yield item
            del item
    finally:
        # Not awaited: the item under way may take long, and this is left when the peer leaves.
        endpoint.threads.call(steps.close).add_done_callback(_report)


def _report(closed: "asyncio.Future[Any]") -> None:
    if not closed.cancelled() and isinstance(error := closed.exception(), Exception):
        failure_of(error)  # it logs the error, and nobody is left to be told


class _Steps:
    """An iterator that one thread takes from while another may close it."""

    def __init__(self, iterable: Iterable[Any]) -> None:
        self._iterable = iterable
        self._iterator: Iterator[Any] | None = None
        self._lock = threading.Lock()
        self._is_closed = False

    def next(self) -> Any:
        """The next item, or the mark of the end."""
        with self._lock:
            if self._is_closed:
                return _END
            if self._iterator is None:
                self._iterator = iter(self._iterable)
            return next(self._iterator, _END)

    def close(self) -> None:
        """Closes a generator, so that its `finally` runs."""
        with self._lock:
            self._is_closed = True
            begun = self._iterable if self._iterator is None else self._iterator
            if (close := getattr(begun, "close", None)) is not None:
                close()
