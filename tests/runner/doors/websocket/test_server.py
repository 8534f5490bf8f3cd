"""The life of the server: listeners, timeouts, logs, the end, and what is left after it."""

import gc
import json
import logging
import os
import socket as stdlib_socket
import ssl
from contextlib import suppress

import gevent
import pytest
import trustme
from gevent import socket
from gevent.event import AsyncResult, Event
from gevent.ssl import SSLContext
from websockets.frames import Close

from runner.doors.websocket import WebSocketOptions, WebSocketServer

from .conftest import anyone, echo
from .raw import RawClient, close, text

IMPATIENT = WebSocketOptions(header_timeout_s=0.05, close_timeout_s=0.05)


@pytest.fixture(scope="module")
def authority():
    return trustme.CA()


@pytest.fixture
def tls(authority):
    context = SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    return context


def trusting(authority):
    context = SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    authority.configure_trust(context)
    return context


class TestListeners:
    def test_tls(self, serve, tls, authority):
        served = serve(ssl_context=tls)
        plain = served.connect()
        client = RawClient(trusting(authority).wrap_socket(plain.sock, server_hostname="localhost"))
        assert client.handshake(then=text("first"))[0] == 101
        client.send(text("x" * 100_000))
        assert [client.message(), client.message()] == ["first", "x" * 100_000]
        client.send(close(4000))
        assert client.closed_with() == Close(4000, "")
        client.disconnect()

    def test_tls_is_ended_properly_after_a_close(self, serve, tls, authority):
        """Without TLS's own end the peer could not tell ours from a cut by somebody on the way."""
        plain = serve(lambda environ, start_response: [], ssl_context=tls).connect().sock
        sock = trusting(authority).wrap_socket(plain, server_hostname="localhost", suppress_ragged_eofs=False)
        client = RawClient(sock)
        assert client.handshake()[0] == 101
        assert client.closed_with() == Close(1000, "")
        client.disconnect()

    def test_the_application_knows_about_tls(self, serve, tls, authority):
        def application(environ, start_response):
            environ["wsgi.websocket"].send(environ["wsgi.url_scheme"])
            return []

        served = serve(application, ssl_context=tls)
        client = RawClient(trusting(authority).wrap_socket(served.connect().sock, server_hostname="localhost"))
        assert client.handshake()[0] == 101
        assert client.message() == "https"
        client.disconnect()

    def test_a_context_that_would_block_the_hub_is_refused(self):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        with pytest.raises(TypeError, match="gevent"):
            WebSocketServer(("127.0.0.1", 0), echo, gate=anyone, ssl_context=context)

    def test_a_unix_socket_whose_clients_have_no_address(self, serve, tmp_path):
        """gevent-websocket kept clients by address: the second to leave raised KeyError."""
        listener = socket.socket(stdlib_socket.AF_UNIX)
        listener.bind(str(tmp_path / "door"))
        listener.listen()
        served = serve(listener=listener)
        clients = [RawClient(socket.socket(stdlib_socket.AF_UNIX)) for _ in range(2)]
        served.clients += clients
        for client in clients:
            client.sock.connect(str(tmp_path / "door"))
            assert client.handshake()[0] == 101
        assert len(served.server.clients) == 2
        for client in clients:
            client.send(close(1000))
            assert client.closed_with() == Close(1000, "")

    def test_connections_beyond_the_limit_wait(self, serve):
        served = serve(options=WebSocketOptions(max_connections=1))
        first, second = served.open(), served.connect()
        answered = gevent.spawn(second.handshake)
        first.send(text("a"))
        assert first.message() == "a"
        assert not answered.ready()
        first.send(close(1000))
        assert first.closed_with() == Close(1000, "")
        assert answered.get(timeout=10)[0] == 101


class TestSlowAndStrangeClients:
    @pytest.mark.parametrize(
        ("sent", "answer"),
        [
            pytest.param(b"", b"", id="nothing"),
            pytest.param(b"GET / HT", b"", id="half a request line"),
            pytest.param(b"GET / HTTP/1.1\r\nHost: local", b"HTTP/1.1 408 ", id="half a head"),
        ],
    )
    def test_one_that_does_not_finish_its_request_is_cut_off(self, serve, sent, answer):
        client = serve(options=IMPATIENT).connect()
        client.send(sent)
        assert client.sock.recv(13) == answer

    def test_one_that_does_not_finish_its_tls_handshake_is_cut_off(self, serve, tls, capfd):
        assert serve(options=IMPATIENT, ssl_context=tls).connect().at_eof()
        assert "Traceback" not in capfd.readouterr().err

    @pytest.mark.parametrize("garbage", [b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01\0\0garbage"])
    def test_one_that_speaks_no_tls_leaves_no_traceback(self, serve, tls, garbage, capfd, caplog):
        client = serve(ssl_context=tls).connect()
        client.send(garbage)
        with suppress(ConnectionResetError):
            client.sock.recv(100)
        client.disconnect()
        gevent.idle()
        assert "Traceback" not in capfd.readouterr().err + caplog.text

    def test_one_that_does_not_know_our_authority_leaves_no_traceback(self, serve, tls, capfd, caplog):
        caplog.set_level(logging.INFO)
        client = serve(ssl_context=tls).connect()
        stranger = SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        with pytest.raises(ssl.SSLCertVerificationError):
            stranger.wrap_socket(client.sock, server_hostname="localhost")
        while "TLS handshake" not in caplog.text:
            gevent.idle()
        assert "Traceback" not in capfd.readouterr().err + caplog.text

    @pytest.mark.parametrize(
        "request_",
        [
            pytest.param(b"GET /?fal_jwt_token=s3cret HTTP/9\r\n\r\n", id="version"),
            pytest.param(b"GET /?fal_jwt_token=s3cret HTTP/1.1\r\n" + b"A: b\r\n" * 101 + b"\r\n", id="headers"),
            pytest.param(b"EAT /?fal_jwt_token=s3cret now HTTP/1.1\r\n\r\n", id="words"),
            pytest.param(b"GET /?fal_jwt_token=s3cret HTTP/1.1\r\nContent-Length: +1\r\n\r\n", id="length"),
            pytest.param(
                b"GET / HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", id="length and chunks"
            ),
        ],
    )
    def test_one_that_speaks_no_http_is_told_so_and_not_quoted(self, serve, request_, capfd, caplog):
        caplog.set_level(logging.DEBUG)
        client = serve().connect()
        client.send(request_)
        status, _, body = client.response()
        assert status == json.loads(body)["status"] == 400
        assert "s3cret" not in capfd.readouterr().err + caplog.text


class TestLogs:
    @pytest.mark.parametrize("broken", [True, False])
    def test_no_query_is_ever_logged(self, serve, caplog, capfd, broken):
        def application(environ, start_response):
            if broken:
                raise RuntimeError("broken")
            return echo(environ, start_response)

        caplog.set_level(logging.DEBUG)
        served = serve(application)
        client = served.connect()
        client.send(b"GET /app?fal_jwt_token=s3cret HTTP/1.1\r\nHost: localhost\r\n\r\n")
        client.response()
        client = served.open("/app?fal_jwt_token=s3cret")
        client.send(close(1000))
        client.closed_with()
        served.connect().handshake("/app?fal_jwt_token=s3cret", Sec_WebSocket_Version="8")
        written = caplog.text + "".join(capfd.readouterr())
        assert "/app" in written
        assert "s3cret" not in written

    def test_no_credential_in_a_path_is_ever_logged(self, serve, caplog):
        caplog.set_level(logging.DEBUG)
        client = serve().connect()
        client.send(b"GET /app%3Ffal_jwt_token=eyJ.s3cret HTTP/1.1\r\nHost: localhost\r\n\r\n")
        client.response()
        client.send(b"GET /app/lcmk_id:s3cret HTTP/1.1\r\nHost: localhost\r\n\r\n")
        client.response()
        assert "GET '/app/lcmk_…'" in caplog.text
        assert "s3cret" not in caplog.text


class TestStop:
    def test_sockets_are_closed_with_the_code_given(self, serve):
        served = serve()
        client = served.open()
        stopping = gevent.spawn(served.server.stop, 10, 1012, "restart")
        assert client.closed_with() == Close(1012, "restart")
        stopping.get(timeout=10)
        assert served.server.clients == set()

    def test_going_away_is_the_default(self, serve):
        served = serve()
        client = served.open()
        stopping = gevent.spawn(served.server.stop, 10)
        assert client.closed_with() == Close(1001, "")
        stopping.get(timeout=10)

    def test_a_session_may_finish_what_it_does(self, serve):
        release, done = Event(), Event()

        def application(environ, start_response):
            assert environ["wsgi.websocket"].receive() is None
            release.wait()
            done.set()
            return []

        served = serve(application)
        client = served.open()
        stopping = gevent.spawn(served.server.stop, 10)
        assert client.closed_with() == Close(1001, "")
        release.set()
        stopping.get(timeout=10)
        assert done.is_set()

    def test_connections_between_two_requests_are_not_waited_for(self, serve):
        served = serve(options=WebSocketOptions(header_timeout_s=1000))
        client = served.connect()
        client.send(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert client.response()[0] == 200
        gevent.spawn(served.server.stop, 1000).get(timeout=10)
        assert client.at_eof()

    def test_one_that_never_ends_is_killed(self, serve):
        killed = Event()

        def application(environ, start_response):
            try:
                Event().wait()
            except gevent.GreenletExit:
                killed.set()
                raise

        served = serve(application)
        client = served.open()
        stopping = gevent.spawn(served.server.stop, 0.01)
        stopping.get(timeout=10)
        assert killed.is_set()
        assert served.server.clients == set()
        client.disconnect()

    def test_a_killed_session_cuts_its_connection(self, serve):
        greenlet = AsyncResult()

        def application(environ, start_response):
            greenlet.set(gevent.getcurrent())
            Event().wait()

        client = serve(application).open()
        greenlet.get().kill()
        with pytest.raises(ConnectionResetError):
            client.frame()

    def test_nobody_can_connect_after(self, serve):
        served = serve()
        port = served.server.server_port
        served.server.stop(1)
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port))


def test_nothing_is_left_of_a_connection(serve):
    served = serve(options=WebSocketOptions(close_timeout_s=0.05))
    _round(served)
    before = _held()
    for _ in range(50):
        _round(served)
    held = _held()
    assert served.server.clients == set()
    assert {what: held[what] - before[what] for what in held if held[what] > before[what] + 2} == {}


def _round(served):
    """One connection of each way to end."""
    polite, rude, wrong, refused = served.open(), served.open(), served.open(), served.connect()
    polite.send(close(1000))
    polite.closed_with()
    rude.send(text("never finished")[:8])
    wrong.send(b"\xff\xff")
    wrong.closed_with()
    refused.handshake(Sec_WebSocket_Version="8")
    for client in (polite, rude, wrong, refused):
        client.disconnect()
        served.clients.remove(client)
    while served.server.pool:
        gevent.idle()


def _held():
    gc.collect()
    greenlets = sum(isinstance(held, gevent.Greenlet) and not held.dead for held in gc.get_objects())
    return {"file descriptors": len(os.listdir("/proc/self/fd")), "greenlets": greenlets}
