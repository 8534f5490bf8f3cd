"""How fast a socket's messages are taken, by a clock that the test turns where nothing is waited for."""

import json
from collections import deque
from collections.abc import Sequence
from typing import Any

import gevent
import pytest
from gevent.event import Event

from runner.doors.pacing import GROSS, PacedSocket
from schemas import limits
from schemas.errors import CloseCode

ERROR = '{"type":"x-fal-error","error":"VALIDATION_ERROR","reason":"mend it"}'


class Peer:
    """A peer whose messages have all been sent, and which then says nothing until it is closed."""

    def __init__(self, *messages: str) -> None:
        self.waiting = deque(messages)
        self.sent: list[str | bytes] = []
        self.closed_with: tuple[int, str] | None = None
        self._closed = Event()

    close_code = None

    def receive(self) -> str | None:
        if self.waiting:
            return self.waiting.popleft()
        self._closed.wait()
        return None

    def send(self, message: str | bytes) -> None:
        self.sent.append(message)

    def close(self, code: int = 1000, reason: str = "") -> None:
        self.closed_with = (code, reason)
        self._closed.set()

    def abort(self) -> None:
        self._closed.set()


class Clock:
    """Stands still until it is put forward."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def paced(peer: Peer, per_minute: int, newest: int | None = None, clock: Any = None) -> PacedSocket:
    return PacedSocket(peer, per_minute, newest, clock or Clock())


def numbers(count: int) -> Sequence[str]:
    return [str(number) for number in range(count)]


def test_a_minute_s_worth_comes_at_once_and_the_next_waits_its_turn() -> None:
    peer, clock = Peer(*numbers(12)), Clock()
    socket = paced(peer, 10, clock=clock)
    assert [socket.receive() for _ in range(10)] == numbers(10)
    waiting = gevent.spawn(socket.receive)
    gevent.sleep(0)
    assert not waiting.ready()
    assert list(peer.waiting) == ["11"]  # one is held, the rest is not even read: TCP holds the peer back
    waiting.kill()


@pytest.mark.parametrize("newest", [None, 3])
def test_who_waits_for_answers_is_never_held_up(newest: int | None) -> None:
    peer = Peer(*numbers(1000))
    socket = paced(peer, 10, newest)
    for number in numbers(1000):
        assert socket.receive() == number
        socket.send(b"a result")
    assert peer.closed_with is None


def test_an_error_gives_nothing_back() -> None:
    peer = Peer(*numbers(11))
    socket = paced(peer, 10)
    for _ in range(10):
        socket.receive()
        socket.send(ERROR)
    waiting = gevent.spawn(socket.receive)
    gevent.sleep(0)
    assert not waiting.ready()
    waiting.kill()


def test_what_is_held_of_a_peer_that_has_left_is_forgotten() -> None:
    peer, clock = Peer(*numbers(30)), Clock()
    socket = paced(peer, 10, 2, clock)
    taken = [socket.receive() for _ in range(10)]
    waiting = gevent.spawn(socket.receive)
    gevent.sleep(0)
    assert not peer.waiting
    clock.now = 6.0
    socket.abort()
    waiting.join()
    assert taken == numbers(10)
    assert waiting.value is None  # nobody is left to answer


def test_where_newest_wins_the_newest_come_when_it_is_their_time() -> None:
    peer = Peer(*numbers(700))
    socket = PacedSocket(peer, 600, 2)  # by the real clock: one each tenth of a second
    taken = [socket.receive() for _ in range(602)]
    assert taken[:600] == numbers(600)
    assert taken[600:] == ["698", "699"]


def test_of_large_messages_fewer_are_kept() -> None:
    large = ["x" * (1 << 20)] * 60
    socket = PacedSocket(Peer(*numbers(600), *large, "last"), 600, 60)
    for _ in range(600):
        socket.receive()
    kept = 0
    while (message := socket.receive()) != "last":
        assert message is not None
        kept += len(message)
    assert 0 < kept <= limits.MESSAGE_MAX_BYTES


def test_who_sends_grossly_too_much_is_told_and_closed() -> None:
    peer = Peer(*numbers(20 * GROSS))
    socket = paced(peer, 10, 1)
    while socket.receive() is not None:
        pass
    assert peer.closed_with is not None
    assert peer.closed_with[0] == CloseCode.POLICY_VIOLATION
    [told] = peer.sent
    assert json.loads(told)["error"] == "LIMIT_EXCEEDED"
    assert "10 messages a minute" in json.loads(told)["reason"]


def test_who_is_held_back_is_never_closed_for_it() -> None:
    peer, clock = Peer(*numbers(20 * GROSS)), Clock()
    socket = paced(peer, 10, None, clock)
    for number in numbers(20 * GROSS):
        clock.now += 6.0
        assert socket.receive() == number
    assert peer.closed_with is None
