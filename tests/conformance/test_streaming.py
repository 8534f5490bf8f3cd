"""The modes that annotations choose besides unary (contract §3)."""

import secrets

import pytest

from tests.conformance.behaviours import behaviour
from tests.conformance.peer import NORMAL, TIMEOUT, control, peer
from tests.conformance.targets import Target

ITEMS = 20
"""More than fal's queue of outgoing messages holds."""

NEVER_REORDERS = (
    "Ours never reorders. fal's queue of outgoing messages holds two; the next is sent around them, and overtakes."
)


@pytest.mark.parametrize("path", ["/countdown/realtime", "/sync-countdown/realtime"])
@behaviour("3", "server streaming, async and sync: one input, n outputs, then TIMEOUT and 1000")
def test_server_streaming(target: Target, path: str) -> None:
    with peer(target, path) as socket:
        socket.send(number=2)
        results, controls, end = socket.rest()
    assert [result["number"] for result in results] == [1, 0]
    assert (controls, end) == ([TIMEOUT], NORMAL)


@behaviour("3", "server streaming takes exactly one input a socket")
def test_server_streaming_takes_one_input(target: Target) -> None:
    run = secrets.token_hex(4)
    with control(target) as app, peer(target, "/held/realtime") as socket:
        socket.send(name="first", until=f"go {run}")
        socket.send(name="second", until=f"go {run}")
        app.announce(f"go {run}")
        results, controls, end = socket.rest()
    assert [result["names"] for result in results] == [["first"]]
    assert (controls, end) == ([TIMEOUT], NORMAL)


@behaviour("3", "server streaming of many outputs at once", differs=NEVER_REORDERS)
def test_server_streaming_keeps_the_order(target: Target) -> None:
    with peer(target, "/countdown/realtime") as socket:
        socket.send(number=ITEMS)
        numbers = [result["number"] for result in socket.rest()[0]]
    in_order = list(reversed(range(ITEMS)))
    assert sorted(numbers, reverse=True) == in_order
    assert (numbers == in_order) == target.pick(fal=False, ours=True)


@behaviour("3", "client streaming: n inputs until the idle time is over, one output, then TIMEOUT and 1000")
def test_client_streaming(target: Target) -> None:
    with peer(target, "/sum/realtime") as socket:
        for number in range(3):
            socket.send(number=number)
        results, controls, end = socket.rest()
    assert [result["numbers"] for result in results] == [[0, 1, 2]]
    assert (controls, end) == ([TIMEOUT], NORMAL)


@behaviour("3", "bidirectional: outputs come while inputs go on; the idle time ends the inputs, then TIMEOUT and 1000")
def test_bidirectional(target: Target) -> None:
    with peer(target, "/double/realtime") as socket:
        for number in range(5):
            assert socket.ask(number=number)["number"] == 2 * number
        results, controls, end = socket.rest()
    assert (results, controls, end) == ([], [TIMEOUT], NORMAL)


@behaviour("3", "bidirectional: when the generator ends, TIMEOUT and 1000 follow at once")
def test_bidirectional_ends_with_its_generator(target: Target) -> None:
    with peer(target, "/burst/realtime") as socket:
        socket.send(number=2)
        results, controls, end = socket.rest()
    assert [result["number"] for result in results] == [0, 1]
    assert (controls, end) == ([TIMEOUT], NORMAL)


@behaviour("3", "bidirectional with many outputs at once", differs=NEVER_REORDERS)
def test_bidirectional_keeps_the_order(target: Target) -> None:
    with peer(target, "/burst/realtime") as socket:
        socket.send(number=ITEMS)
        numbers = [result["number"] for result in socket.rest()[0]]
    assert sorted(numbers) == list(range(ITEMS))
    assert (numbers == list(range(ITEMS))) == target.pick(fal=False, ours=True)


@pytest.mark.parametrize(("path", "mended"), [("/double/realtime", 4), ("/countdown/realtime", 1)])
@behaviour(
    "3",
    "a bad input in a stream of inputs, and as the one input of server streaming",
    differs="Ours answers with the field error and waits for the next; fal ends the session.",
)
def test_a_bad_input_in_a_stream(target: Target, path: str, mended: int) -> None:
    with peer(target, path) as socket:
        socket.send(number="many")
        error = socket.control()
        if target.pick(fal=True, ours=False):
            assert error["error"] == "INTERNAL_ERROR"
            assert socket.end() == NORMAL
        else:
            assert error["error"] == "VALIDATION_ERROR"
            assert error["detail"][0]["loc"] == ["body", "number"]
            assert socket.ask(number=2)["number"] == mended
