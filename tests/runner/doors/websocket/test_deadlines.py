"""Requests without credentials: none may hold a connection, for they are all that there are."""

import logging

import gevent
import pytest
from gevent.event import AsyncResult, Event

from runner.doors.websocket import WebSocketOptions

from .conftest import echo
from .raw import text

IMPATIENT = WebSocketOptions(request_timeout_s=0.1)
BODY_TO_COME = b"POST / HTTP/1.1\r\nHost: localhost\r\n%s\r\n\r\n"


@pytest.mark.parametrize("framing", [b"Content-Length: 1000000000", b"Transfer-Encoding: chunked"])
def test_a_body_is_not_waited_for(serve, framing):
    """pywsgi read all of it before it let the connection go, and so for ever."""
    client = serve().connect()
    client.send(BODY_TO_COME % framing)
    status, headers, body = client.response()
    assert (status, headers["Connection"], body) == (200, "close", b"plain")
    assert client.at_eof()


def test_a_body_is_not_the_next_request(serve):
    client = serve().connect()
    client.send(BODY_TO_COME % b"Content-Length: 37" + b"GET /next HTTP/1.1\r\nHost: localhost\r\n\r\n")
    assert client.response()[0] == 200
    assert client.at_eof()


def test_one_that_does_not_read_its_answer_is_cut_off(serve):
    def large(environ, start_response):
        start_response("200 OK", [])
        return [bytes(64 << 20)]

    served = serve(large, options=IMPATIENT)
    client = served.connect()
    client.send(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
    _until_empty(served.server.pool)


def test_a_gate_that_takes_too_long_is_503(serve, caplog):
    caplog.set_level(logging.INFO)
    client = serve(gate=lambda environ: Event().wait(), options=IMPATIENT).connect()
    status, headers, _ = client.handshake()
    assert (status, headers["Connection"]) == (503, "close")
    assert client.at_eof()
    assert "Traceback" not in caplog.text


def test_a_session_has_no_deadline(serve):
    passed = AsyncResult()
    served = serve(options=IMPATIENT)
    client = served.open()
    gevent.spawn_later(2 * IMPATIENT.request_timeout_s, passed.set)
    passed.get(timeout=10)
    client.send(text("still here"))
    assert client.message() == "still here"


def test_each_request_of_a_connection_has_a_deadline_of_its_own(serve):
    """libev's timers go on where they were stopped."""
    pause = 0.2

    def paced(environ, start_response):
        gevent.sleep(pause)
        return echo(environ, start_response)

    client = serve(paced, options=WebSocketOptions(request_timeout_s=3 * pause)).connect()
    for _ in range(4):
        client.send(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert client.response()[0] == 200


def _until_empty(pool):
    with gevent.Timeout(10):
        while pool:
            gevent.sleep(0.001)
