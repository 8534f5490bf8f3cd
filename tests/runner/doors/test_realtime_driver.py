"""What the driver owes its socket and its memory, told with a socket of the test's own."""

import gc
import weakref
from collections.abc import Iterator
from typing import Any, ClassVar

import gevent
import msgpack
import pytest
from gevent.event import AsyncResult, Event
from gevent.socket import create_connection
from pydantic import BaseModel

from runner.doors.conversing import close_reason
from runner.doors.driver import Driver
from runner.doors.websocket import WebSocketServer
from runner.engine.request import InvalidRequest
from runner.protocol.session import Session, SessionRules
from schemas.errors import CloseCode
from tests.runner.doors.door import settle
from tests.runner.doors.websocket.raw import RawClient, announced, binary, continuation


class Prompt(BaseModel):
    prompt: str


class TrackedMessage(bytes):
    """Tells when nobody holds it any more."""

    freed: ClassVar[list[str]] = []

    def __del__(self) -> None:
        self.freed.append("freed")


class OneMessageSocket:
    """Gives what it was given, and then blocks until it is closed; its closing handshake takes a while."""

    close_code = None

    def __init__(self, messages: list[bytes]) -> None:
        self.messages = messages
        self.ended = Event()
        self.sent: list[bytes | str] = []
        self.closes: list[tuple[int, str]] = []

    def receive(self) -> bytes | str | None:
        if self.messages:
            return self.messages.pop()
        self.ended.wait()
        return None

    def send(self, message: bytes | str) -> None:
        self.sent.append(message)

    def close(self, code: int = CloseCode.NORMAL, reason: str = "") -> None:
        self.ended.set()
        settle()
        self.closes.append((code, reason))


def driver(socket: OneMessageSocket, clock: list[float]) -> Driver:
    session = Session(Prompt, SessionRules(idle_timeout_s=10.0), clock[0])
    return Driver(socket, lambda received: received, session, lambda: clock[0])


def test_an_idle_session_holds_its_last_message_no_longer() -> None:
    socket = OneMessageSocket([TrackedMessage(msgpack.packb({"prompt": "x"}))])
    running = gevent.spawn(driver(socket, [0.0]).run)
    settle()
    assert len(socket.sent) == 1
    assert TrackedMessage.freed == ["freed"]
    socket.ended.set()
    running.get()


class TrackedPrompt(Prompt):
    """Remembers, without holding it, every input that was read."""

    read: ClassVar[list[weakref.ref[Prompt]]] = []

    def model_post_init(self, _: object) -> None:
        self.read.append(weakref.ref(self))


@pytest.fixture
def no_cycle_collection() -> Iterator[None]:
    gc.disable()
    yield
    gc.enable()


@pytest.mark.parametrize("left_in_the_middle", [b"", announced(1 << 20) + bytes(1 << 10), continuation(b"wrong")])
def test_nothing_is_kept_of_a_session_that_leaves_while_inputs_wait(
    left_in_the_middle: bytes, no_cycle_collection: None
) -> None:
    """A gateway of little else to do collects cycles minutes later: pictures must not wait for it in one."""
    TrackedPrompt.read.clear()
    connections: list[weakref.ref[object]] = []

    def refuse_the_first(received: BaseModel) -> BaseModel:
        answer: AsyncResult[BaseModel] = AsyncResult()
        if received is TrackedPrompt.read[0]():
            answer.set_exception(InvalidRequest("prompt", "not this one"))
        return answer.get()

    def application(environ: dict[str, Any], _: object) -> list[bytes]:
        websocket = environ["wsgi.websocket"]
        connections.extend([weakref.ref(websocket), weakref.ref(websocket._protocol)])
        Driver(websocket, refuse_the_first, Session(TrackedPrompt, SessionRules(), 0.0), lambda: 0.0).run()
        return []

    server = WebSocketServer(("127.0.0.1", 0), application, gate=lambda _: None)
    server.start()
    client = RawClient(create_connection(("127.0.0.1", server.server_port)))
    client.handshake(then=binary(msgpack.packb({"prompt": "x"})) * 3)
    while len(TrackedPrompt.read) < 3:
        settle()
    client.send(left_in_the_middle)
    settle()
    client.disconnect()
    with gevent.Timeout(10):
        while server.pool:
            settle()
    server.stop(0)
    assert [input_() for input_ in TrackedPrompt.read] == [None] * 3
    assert [connection() for connection in connections] == [None, None]


def test_the_closing_handshake_is_finished_before_the_driver_returns() -> None:
    clock = [0.0]
    socket = OneMessageSocket([])
    to_run = driver(socket, clock)
    clock[0] = 10.0
    to_run.run()
    assert socket.closes == [(1000, "")]
    assert len(socket.sent) == 1


def test_a_close_reason_is_cut_between_characters() -> None:
    assert close_reason("x" * 200) == "x" * 123
    assert close_reason("é" * 100) == "é" * 61
