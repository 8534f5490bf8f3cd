"""The I/O around one realtime session, over ASGI: what reads the socket, and what works and alone sends.

Two tasks a socket and none a message. Only one of them sends, so answers keep their order, and a peer that reads
slowly slows down its own work only.
"""

import asyncio
import logging
import uuid
from collections.abc import Awaitable, Callable, MutableMapping
from contextlib import suppress
from typing import Any, Protocol, assert_never

from runner.hosting.bell import Bell
from runner.hosting.blame import failure_of
from runner.hosting.endpoint import Endpoint
from runner.protocol.session import Close, Send, Session, Wait, Work
from schemas import limits
from schemas.errors import CloseCode

log = logging.getLogger(__name__)

Event = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Event]]
Emit = Callable[[Event], Awaitable[None]]


class PeerLeft(BaseException):
    """Nothing can be sent any more. No `Exception`: it passes through handlers, and those may catch theirs."""


class _Session(Protocol):
    """What reading needs of a session."""

    @property
    def wants_input(self) -> bool:
        """Whether to read on."""

    def receive(self, message: bytes | str, now: float) -> None:
        """Takes a message."""

    def drain(self) -> None:
        """Takes no more."""

    def discard(self) -> None:
        """Forgets all."""


class Conversation:
    """One socket's life at an endpoint.

    Args:
        session: What says which message is whose turn.
        receive: ASGI's, after `websocket.connect`. Besides its events there is `runner.drain`: take no more, finish.
        emit: ASGI's `send`.
    """

    def __init__(self, session: _Session, receive: Receive, emit: Emit) -> None:
        self._reading = session
        self._receive = receive
        self._emit = emit
        self._now = asyncio.get_running_loop().time
        self._bell = Bell()
        self._room = Bell()
        self._is_reading = True

    async def run(self) -> None:
        """Serves until the socket is closed. Work that is under way when the peer leaves is given up."""
        reader = asyncio.current_task()
        assert reader is not None
        worker = asyncio.create_task(self._work_to_the_end())

        def stop_reading(_: object) -> None:
            if self._is_reading:
                reader.cancel()

        worker.add_done_callback(stop_reading)
        try:
            await self._read()
        except asyncio.CancelledError:
            # Ours is to be undone as asyncio.timeout does it; the server's goes on.
            if not worker.done() or reader.uncancel():
                raise
        # Reading is no handler's code, but it runs an app's decoder and validators.
        except Exception:
            self._is_reading = False
            worker.cancel()
            await self._break_off()
        finally:
            self._is_reading = False
            await self._dismiss(worker)
            self._bell.silence()
            self._reading.discard()

    async def _read(self) -> None:
        while True:
            event = await self._receive()
            if event["type"] == "websocket.receive":
                message = event.get("bytes")
                self._reading.receive(event["text"] if message is None else message, self._now())
                del event, message  # an idle session must not hold its last picture
            elif event["type"] == "runner.drain":
                self._reading.drain()
            else:
                return
            self._bell.ring()
            while not self._reading.wants_input:
                await self._room.wait()

    async def _dismiss(self, worker: "asyncio.Task[None]") -> None:
        worker.cancel()
        await asyncio.wait({worker})

    async def _work_to_the_end(self) -> None:
        try:
            await self._work()
        except PeerLeft:
            pass  # the reader learns it from `receive`
        # The boundary of the task: a bug of ours ends this socket with 1011, and no other.
        except Exception:
            await self._break_off()

    async def _work(self) -> None:
        raise NotImplementedError

    async def _break_off(self) -> None:
        error_id = uuid.uuid4().hex
        log.exception("session failed (%s)", error_id)
        await self._close(Close(CloseCode.INTERNAL_ERROR, error_id))

    async def _send(self, action: Send, dropped_inputs: int = 0) -> None:
        """Sends; waits while the peer does not read. Raises PeerLeft."""
        message = action.message
        event: Event = {"type": "websocket.send", "bytes" if isinstance(message, bytes) else "text": message}
        # The gateway counts a token's requests: an input that failed, or was never looked at, is none.
        if action.failed_inputs:
            event["runner.failed"] = action.failed_inputs
        if dropped_inputs:
            event["runner.dropped"] = dropped_inputs
        try:
            await self._emit(event)
        except OSError:  # what ASGI servers raise once the peer is gone
            raise PeerLeft from None

    async def _close(self, close: Close) -> None:
        reason = close.reason.encode()[: limits.CLOSE_REASON_MAX_BYTES].decode(errors="ignore")
        with suppress(OSError):
            await self._emit({"type": "websocket.close", "code": int(close.code), "reason": reason})


class UnaryConversation(Conversation):
    """One answer for each input, or for each batch of them, in their order."""

    def __init__(self, endpoint: Endpoint, session: Session, receive: Receive, emit: Emit) -> None:
        super().__init__(session, receive, emit)
        self._endpoint = endpoint
        self._session = session
        self._dropped = 0

    async def _work(self) -> None:
        while True:
            action = self._session.next(self._now())
            self._room.ring()
            match action:
                case Work():
                    await self._run(action)
                case Send():
                    dropped, self._dropped = self._dropped, 0
                    await self._send(action, dropped)
                case Wait():
                    until = action.until
                    del action  # a picture that was sent is not held while the session waits
                    await self._bell.wait(until)
                case Close():
                    await self._close(action)
                    return
                case _:
                    assert_never(action)

    async def _run(self, work: Work) -> None:
        try:
            output = await self._endpoint.answer((work.input, *work.others))
            dropped = self._session.dropped_inputs
            self._session.answer(self._endpoint.encode(output, dropped))
            self._dropped = dropped
        # A handler is anybody's code: what it raises costs one answer, and `sys.exit` nobody else's socket.
        except (Exception, SystemExit) as error:
            self._session.fail(failure_of(error))
