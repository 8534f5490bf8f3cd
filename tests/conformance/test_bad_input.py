"""What becomes of inputs that cannot be, and of handlers that fail (contract §3 "Bad input")."""

import secrets
from typing import Any

import msgpack
import pytest

from tests.conformance.behaviours import behaviour
from tests.conformance.peer import NORMAL, Peer, control, peer
from tests.conformance.targets import Target

LIVES_ON = "Ours answers VALIDATION_ERROR with pydantic's field list, and the session goes on. fal ends the session"


@behaviour("3", "an input that breaks the schema", differs=f"{LIVES_ON} with pydantic's text in `reason`.")
def test_a_field_error(target: Target) -> None:
    with peer(target, "/realtime") as socket:
        socket.send(prompt="hello", steps=1000)
        error = socket.control()
        assert error["type"] == "x-fal-error"
        assert error["error"] == target.pick(fal="INTERNAL_ERROR", ours="VALIDATION_ERROR")
        if target.name == "ours":
            [field] = error["detail"]
            assert (field["loc"], field["type"]) == (["body", "steps"], "less_than_equal")
        else:
            assert error["reason"].startswith("1 validation error for Prompt\nsteps\n")
        assert_goes_on(target, socket)


@behaviour("3", "a field that is missing", differs=f"{LIVES_ON}.")
def test_a_missing_field(target: Target) -> None:
    with peer(target, "/realtime") as socket:
        socket.send(steps=4)
        error = socket.control()
        assert error["error"] == target.pick(fal="INTERNAL_ERROR", ours="VALIDATION_ERROR")
        if target.name == "ours":
            assert [(field["loc"], field["type"]) for field in error["detail"]] == [(["body", "prompt"], "missing")]
        assert_goes_on(target, socket)


@pytest.mark.parametrize("message", [b"", b"\xc1", b"\x81\xa6prompt", msgpack.packb([1, 2]), msgpack.packb("text")])
@behaviour("3", "bytes that are no msgpack, or no map", differs=f"{LIVES_ON}, with the decoder's text or none.")
def test_undecodable_bytes(target: Target, message: bytes) -> None:
    with peer(target, "/realtime") as socket:
        socket.socket.send(message)
        assert socket.control()["error"] == target.pick(fal="INTERNAL_ERROR", ours="VALIDATION_ERROR")
        assert_goes_on(target, socket)


@behaviour("3", "a good input, still worked on, and a bad one after it", differs=f"{LIVES_ON}; the good one is lost.")
def test_a_bad_input_costs_no_good_one(target: Target) -> None:
    run = secrets.token_hex(4)
    with control(target) as app, peer(target, "/every/realtime") as socket:
        socket.send(name=f"good {run}", until=f"go {run}")
        app.wait_for(f"good {run} has arrived")
        socket.send(no_name=1)
        if target.pick(fal=True, ours=False):
            assert socket.control()["error"] == "INTERNAL_ERROR"
            assert socket.end() == NORMAL
            app.announce(f"go {run}")
        else:
            app.announce(f"go {run}")
            assert socket.result()["names"] == [f"good {run}"]
            assert socket.control()["error"] == "VALIDATION_ERROR"


@behaviour(
    "3",
    "an exception of the handler's is INTERNAL_ERROR",
    differs="Ours says a fixed sentence and an id that is in the log, and the session goes on; "
    "fal sends `str(exception)`, whatever secret is in it, and ends the session.",
)
def test_an_exception_is_an_internal_error(target: Target) -> None:
    with peer(target, "/fails/realtime") as socket:
        socket.send(prompt="fail")
        error = socket.control()
        assert (error["type"], error["error"]) == ("x-fal-error", "INTERNAL_ERROR")
        if target.pick(fal=True, ours=False):
            assert error["reason"] == "secret of the server"
        else:
            assert "secret" not in str(error)
            assert error["error_id"]
        assert_goes_on(target, socket)


@behaviour(
    "3",
    "an output that is neither a dict nor a pydantic model is INTERNAL_ERROR",
    differs="As with exceptions: an id instead of the text, and the session goes on.",
)
def test_an_output_that_is_no_map(target: Target) -> None:
    with peer(target, "/no-map/realtime") as socket:
        socket.send(prompt="hello")
        error = socket.control()
        assert error["error"] == "INTERNAL_ERROR"
        if target.pick(fal=True, ours=False):
            assert error["reason"] == "Expected a dict or pydantic model as output, got <class 'list'>"
            assert socket.end() == NORMAL
        else:
            assert error["error_id"]
            socket.send(prompt="again")
            assert socket.control()["error"] == "INTERNAL_ERROR"


@behaviour("3", "bytes that `decode_message` of the app's fails on", differs=f"{LIVES_ON} with the exception's text.")
def test_a_decoder_that_fails(target: Target) -> None:
    with peer(target, "/codec/realtime") as socket:
        socket.socket.send(b"\xff")
        error = socket.control()
        assert error["error"] == target.pick(fal="INTERNAL_ERROR", ours="VALIDATION_ERROR")
        if target.name == "ours":
            assert "0xff" not in str(error)
            socket.socket.send(b"next")
            assert socket.socket.recv(timeout=30) == "<next>"
        else:
            assert "0xff" in error["reason"]
            assert socket.end() == NORMAL


def assert_goes_on(target: Target, socket: Peer) -> Any:
    """Ours answers the next input; fal closes."""
    if target.name == "ours":
        assert socket.ask(prompt="next")["output"] == "next"
    else:
        assert socket.end() == NORMAL
