"""Clients and frameworks that others wrote."""

import gevent
import pytest
from flask import Flask, request
from websockets.exceptions import ConnectionClosedError, ConnectionClosedOK
from websockets.sync.client import connect


def in_a_thread(function, *args):
    """Run what blocks beside the hub."""
    return gevent.get_hub().threadpool.apply(function, args)


@pytest.mark.parametrize("size", [0, 1, 125, 126, 65535, 65536, 1_000_000])
def test_websockets_gets_back_what_it_sent(serve, size):
    def client(url):
        with connect(url, compression="deflate") as connection:
            connection.send(bytes(size))
            connection.send("☃" * (size // 12))
            return connection.recv(), connection.recv(), connection.protocol.extensions

    assert in_a_thread(client, url(serve())) == (bytes(size), "☃" * (size // 12), [])


def test_websockets_may_send_a_message_in_fragments(serve):
    def client(url):
        with connect(url) as connection:
            connection.send(["a", "b", "c"])
            return connection.recv()

    assert in_a_thread(client, url(serve())) == "abc"


def test_websockets_sees_a_normal_end(serve):
    def client(url):
        with connect(url) as connection, pytest.raises(ConnectionClosedOK) as ending:
            connection.recv()
        return ending.value.rcvd.code

    assert in_a_thread(client, url(serve(lambda environ, start_response: []))) == 1000


def test_websockets_sees_a_failure(serve):
    def application(environ, start_response):
        raise RuntimeError

    def client(url):
        with connect(url) as connection, pytest.raises(ConnectionClosedError) as ending:
            connection.recv()
        return ending.value.rcvd.code

    assert in_a_thread(client, url(serve(application))) == 1011


def test_websockets_ping_is_answered(serve):
    def client(url):
        with connect(url) as connection:
            return connection.ping().wait(30)

    assert in_a_thread(client, url(serve()))


@pytest.fixture
def flask_app():
    app = Flask(__name__)

    @app.get("/health")
    def health():
        return "well"

    @app.route("/echo", websocket=True)
    def echo():
        websocket = request.environ["wsgi.websocket"]
        websocket.send(websocket.receive())
        return ""

    @app.route("/broken", websocket=True)
    def broken():
        raise RuntimeError

    return app


class TestFlask:
    def test_serves_sockets_and_http_on_one_port(self, serve, flask_app):
        served = serve(flask_app)

        def client(url):
            with connect(f"{url}echo") as connection:
                connection.send("hello")
                return connection.recv()

        assert in_a_thread(client, url(served)) == "hello"
        plain = served.connect()
        plain.send(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert plain.response()[2] == b"well"

    @pytest.mark.parametrize("path", ["broken", "nowhere", "health"])
    def test_a_view_that_fails_or_is_none_closes_with_1011(self, serve, flask_app, path):
        received = serve(flask_app).open(f"/{path}").closed_with()
        assert received is not None
        assert received.code == 1011


def url(served):
    return f"ws://127.0.0.1:{served.server.server_port}/"
