"""A server that is about to end: nothing new, and what is under way goes on."""

import gevent
import pytest
from gevent import socket
from gevent.event import Event

from .conftest import echo
from .raw import text

GET = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"


def test_nobody_is_let_in_and_open_sockets_go_on(serve):
    served = serve()
    address = ("127.0.0.1", served.server.server_port)
    client = served.open()
    served.server.retire()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(address)
    client.send(text("still here"))
    assert client.message() == "still here"
    assert not served.server.wait_until_left(0)
    client.disconnect()
    assert served.server.wait_until_left(30)


def test_a_connection_that_waits_for_a_request_is_let_go(serve):
    served = serve()
    client = served.connect()
    client.send(GET)
    assert client.response()[0] == 200
    gevent.idle()
    served.server.retire()
    assert client.at_eof()
    assert served.server.wait_until_left(30)


def test_a_request_under_way_is_answered_and_the_next_one_on_its_connection_is_not(serve):
    asked, may_answer = Event(), Event()

    def slow(environ, start_response):
        asked.set()
        may_answer.wait()
        return echo(environ, start_response)

    served = serve(slow)
    client = served.connect()
    client.send(GET + GET)
    asked.wait()
    served.server.retire()
    may_answer.set()
    assert client.response()[0] == 200
    assert client.at_eof()
    assert served.server.wait_until_left(30)
