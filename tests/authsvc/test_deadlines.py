"""The server itself: every wait for a client has an end, and views run in threads."""

import socket
import threading
from collections.abc import Iterable, Iterator
from contextlib import suppress
from typing import TYPE_CHECKING

import gevent
import pytest
from gevent import socket as gevent_socket
from gevent.event import Event

from authsvc.serving.server import Server, _Handler, _whole_answer

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
HALF_A_BODY = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\n{"
CHUNKED = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"


def application(environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
    if environ["PATH_INFO"] == "/fail":
        raise RuntimeError("a secret")
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [threading.current_thread().name.encode(), b" ", environ["wsgi.input"].read()]


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server(("127.0.0.1", 0), application, threads=1, request_timeout_s=0.2)
    server.start()
    yield server
    server.stop()


def exchange(server: Server, data: bytes) -> bytes:
    """Sends `data` and reads until the server closes the connection."""
    with gevent_socket.create_connection(("127.0.0.1", server.server_port), timeout=30) as connection:
        connection.sendall(data)
        return b"".join(iter(lambda: connection.recv(4096), b""))


def test_the_body_arrives_and_the_view_runs_in_a_thread(server: Server) -> None:
    answer = exchange(server, b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nConnection: close\r\n\r\nbody")
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 OK")
    thread, _, echoed = body.rpartition(b" ")
    assert (echoed, thread == threading.current_thread().name.encode()) == (b"body", False)


@pytest.mark.parametrize("half", [b"", b"GET / HT", GET[:-2]])
def test_half_a_head_is_closed_after_the_deadline(server: Server, half: bytes) -> None:
    assert exchange(server, half) == b""


def test_half_a_body_is_408_after_the_deadline(server: Server) -> None:
    assert exchange(server, HALF_A_BODY).startswith(b"HTTP/1.1 408 ")


def test_an_idle_connection_is_closed_after_the_deadline(server: Server) -> None:
    assert exchange(server, GET).count(b"HTTP/1.1 200 OK") == 1


def test_a_connection_carries_several_requests(server: Server) -> None:
    assert exchange(server, GET * 3).count(b"HTTP/1.1 200 OK") == 3


@pytest.mark.parametrize("junk", [b"nonsense\r\n\r\n", b"\x16\x03\x01\x02\x00\x01\r\n", b"GET / HTTP/9\r\n\r\n"])
def test_what_is_no_http_is_400_and_not_logged(
    server: Server, junk: bytes, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level("INFO")
    assert exchange(server, junk).startswith(b"HTTP/1.1 400 ")
    assert "no HTTP request from" in caplog.text
    assert "nonsense" not in caplog.text + "".join(capfd.readouterr())


@pytest.mark.parametrize(
    "sent",
    [
        pytest.param(HALF_A_BODY, id="body cut short"),
        pytest.param(CHUNKED + b"4\r\nbo", id="chunk cut short"),
        pytest.param(CHUNKED + b"zz\r\n", id="chunk without a length"),
        pytest.param(GET[:-2] + b"A: b\r\n" * 101 + b"\r\n", id="101 headers"),
        pytest.param(HALF_A_BODY.replace(b": 9", b": 1, 1"), id="two lengths"),
        pytest.param(CHUNKED.replace(b"\r\n\r\n", b"\r\nContent-Length: 1\r\n\r\n"), id="chunks and a length"),
    ],
)
def test_a_client_s_broken_request_is_400_and_leaves_no_traceback(
    server: Server, sent: bytes, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level("INFO")
    with gevent_socket.create_connection(("127.0.0.1", server.server_port), timeout=30) as connection:
        connection.sendall(sent)
        connection.shutdown(socket.SHUT_WR)
        answer = connection.recv(4096)
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert "request from" in caplog.text
    assert "Traceback" not in caplog.text + "".join(capfd.readouterr())


@pytest.mark.parametrize(
    "body",
    [
        b"0\r\n" + (b"X-Trailer: " + b"a" * 8000 + b"\r\n") * 200,
        (b"1;" + b"a" * 8000 + b"\r\nx\r\n") * 200 + b"0\r\n\r\n",
    ],
    ids=["trailers", "extensions"],
)
def test_the_framing_of_a_body_is_bounded_and_does_not_hold_up_the_hub(body: bytes) -> None:
    server, turns = Server(("127.0.0.1", 0), application, threads=1, request_timeout_s=60), 0
    server.start()

    def tick() -> None:
        nonlocal turns
        while True:
            gevent.sleep(1e-9)
            turns += 1

    ticking, received = gevent.spawn(tick), b""
    with gevent_socket.create_connection(("127.0.0.1", server.server_port), timeout=30) as connection:
        sending = gevent.spawn(connection.sendall, CHUNKED + body)
        with suppress(ConnectionError):
            received = connection.recv(4096)
        sending.kill()
    ticking.kill()
    server.stop(0)
    assert turns > 500
    assert received.startswith(b"HTTP/1.1 400 ")


def test_a_failure_of_the_application_is_500_and_logged(server: Server, caplog: pytest.LogCaptureFixture) -> None:
    answer = exchange(server, GET.replace(b"/ ", b"/fail "))
    assert answer.startswith(b"HTTP/1.1 500 ")
    assert b"secret" not in answer
    assert "RuntimeError: a secret" in caplog.text


def test_a_server_that_stops_answers_once_more_on_each_connection_and_says_that_it_closes() -> None:
    server = Server(("127.0.0.1", 0), application, threads=1, request_timeout_s=3600)
    server.start()
    with gevent_socket.create_connection(("127.0.0.1", server.server_port), timeout=30) as connection:
        connection.sendall(GET)
        assert b"\r\nConnection: close\r\n" not in connection.recv(4096)
        stopping = gevent.spawn(server.stop, 3600)
        gevent.idle()
        connection.sendall(GET)
        answer = b"".join(iter(lambda: connection.recv(4096), b""))
    assert answer.startswith(b"HTTP/1.1 200 OK")
    assert b"\r\nConnection: close\r\n" in answer
    stopping.get(timeout=30)


@pytest.mark.parametrize("length", [2, 100_000])
def test_an_answer_is_sent_in_one_piece(length: int) -> None:
    """A client's kernel may take its time with an ACK, and the second of two small pieces would wait for it."""

    def sized(environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        start_response("200 OK", [("Content-Length", str(length))])
        return [b"a"] * length

    sent: list[bytes] = []

    class Recording(_Handler):
        def _sendall(self, data: bytes) -> None:
            sent.append(bytes(data))
            super()._sendall(data)

    server = Server(("127.0.0.1", 0), sized, threads=1)
    server.handler_class = Recording
    server.start()
    answer = exchange(server, GET[:-2] + b"Connection: close\r\n\r\n")
    server.stop()
    assert sent == [answer]
    assert answer.endswith(b"\r\n\r\n" + b"a" * length)


def test_an_application_may_write_and_is_closed() -> None:
    """PEP 3333: `write` comes before the parts, a later head replaces an earlier one, `close` is called."""
    closed: list[bool] = []

    class Parts(list[bytes]):
        def close(self) -> None:
            closed.append(True)

    def old(environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        start_response("200 OK", [])
        start_response("500 Failed", [("X-A", "b")])(b"written ")
        return Parts([b"and ", b"given"])

    assert _whole_answer(old, {}) == ("500 Failed", [("X-A", "b")], b"written and given")
    assert closed == [True]


def test_stopping_closes_idle_connections() -> None:
    server = Server(("127.0.0.1", 0), application, threads=1, request_timeout_s=3600)
    server.start()
    with gevent_socket.create_connection(("127.0.0.1", server.server_port), timeout=30) as connection:
        connection.sendall(GET)
        assert connection.recv(4096).startswith(b"HTTP/1.1 200 OK")
        server.stop(timeout=3600)
        assert connection.recv(4096) == b""
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", server.server_port))


def test_stopping_waits_for_the_request_in_hand_and_no_longer() -> None:
    started, may_end = Event(), threading.Event()

    def slow(environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        started.set()
        may_end.wait()
        return application(environ, start_response)

    server = Server(("127.0.0.1", 0), slow, threads=1, request_timeout_s=3600)
    server.start()
    client = gevent.spawn(exchange, server, GET)
    started.wait()
    stopping = gevent.spawn(server.stop, 3600)
    gevent.idle()
    assert not stopping.dead
    may_end.set()
    assert client.get(timeout=30).startswith(b"HTTP/1.1 200 OK")
    stopping.get(timeout=30)
