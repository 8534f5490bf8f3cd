"""Sockets as such: raw ones, the handshake, pings, limits and closes (contract §2, §3)."""

import struct

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus

from tests.conformance.behaviours import behaviour
from tests.conformance.peer import End, peer
from tests.conformance.targets import Target

TOO_LARGE = (16 << 20) + 1


@behaviour("3", "`@endpoint(path, is_websocket=True)`: text, bytes, JSON and the close are the app's own")
def test_a_raw_socket(target: Target) -> None:
    with target.socket("/echo") as socket:
        socket.send("hello")
        assert [socket.recv(timeout=30) for _ in range(3)] == ["hello-0", "hello-1", "hello-2"]
        socket.send(b"\xff")
        assert socket.recv(timeout=30) == b"\x00\xff"
        assert socket.recv(timeout=30) == '{"done":true}'
        with pytest.raises(ConnectionClosed) as closed:
            socket.recv(timeout=30)
    assert closed.value.rcvd is not None
    assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (4321, "as the app likes")


@behaviour(
    "2b",
    "a path without an endpoint",
    differs="Ours, asked with a token in the query as browsers do, answers in band with NOT_FOUND and closes with "
    "4004, because browsers hide the status of a refused upgrade. fal's SDK refuses the upgrade with 403.",
)
def test_an_unknown_path(target: Target) -> None:
    if target.pick(fal=True, ours=False):
        with pytest.raises(InvalidStatus) as refused, target.socket("/zzz/realtime"):
            pass
        assert refused.value.response.status_code == 403
    else:
        with peer(target, "/zzz/realtime") as socket:
            assert socket.control()["error"] == "NOT_FOUND"
            assert socket.end().code == 4004


@behaviour("2a", "no subprotocol is negotiated, and any Origin, or none, is let in")
def test_no_subprotocol_and_any_origin(target: Target) -> None:
    with peer(target, "/realtime", origin="https://app.example", subprotocols=["fal"]) as socket:
        assert socket.socket.subprotocol is None
        assert socket.ask(prompt="hello")["output"] == "hello"


@behaviour("2c", "pings are answered, as fal_client's every 20 s need it")
def test_pings_are_answered(target: Target) -> None:
    with peer(target, "/realtime") as socket:
        assert socket.socket.ping(b"there?").wait(30)


@behaviour("2c", "a message above 16 MiB is refused with 1009, as soon as its length is known")
def test_a_message_that_is_too_large(target: Target) -> None:
    with peer(target, "/realtime") as socket:
        # The head alone (RFC 6455 §5.2): a server that closes with unread bytes left would reset the connection.
        socket.socket.socket.sendall(struct.pack("!BBQI", 0x82, 0x80 | 127, TOO_LARGE, 0))
        assert socket.end().code == 1009


@behaviour(
    "2d",
    "a client that closes without a code, as JS's `connection.close()` does",
    differs="Ours answers with 1000. fal's SDK echoes the empty close, which the JS client reports as error 1005.",
)
def test_an_empty_close_is_answered(target: Target) -> None:
    with peer(target, "/realtime") as socket:
        connection = socket.socket
        with connection.protocol_mutex:
            connection.protocol.send_close()
            connection.send_data()
        with pytest.raises(ConnectionClosed) as closed:
            connection.recv(timeout=30)
    assert closed.value.rcvd is not None
    assert End(closed.value.rcvd.code) == End(target.pick(fal=1005, ours=1000))
