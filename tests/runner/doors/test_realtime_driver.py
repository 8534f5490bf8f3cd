"""What the driver owes its socket and its memory, told with a socket of the test's own."""

from typing import ClassVar

import gevent
import msgpack
from gevent.event import Event
from pydantic import BaseModel

from runner.apps.framework import RealtimeEndpoint
from runner.doors.driver import Driver, close_reason
from runner.protocol.session import Session, SessionRules
from schemas.errors import CloseCode
from tests.runner.doors.door import settle


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
    endpoint = RealtimeEndpoint(Prompt, lambda received: received)
    session = Session(Prompt, SessionRules(idle_timeout_s=10.0), clock[0])
    return Driver(socket, endpoint, session, lambda: clock[0])


def test_an_idle_session_holds_its_last_message_no_longer() -> None:
    socket = OneMessageSocket([TrackedMessage(msgpack.packb({"prompt": "x"}))])
    running = gevent.spawn(driver(socket, [0.0]).run)
    settle()
    assert len(socket.sent) == 1
    assert TrackedMessage.freed == ["freed"]
    socket.ended.set()
    running.get()


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
