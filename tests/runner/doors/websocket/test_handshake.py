"""The opening handshake over a socket: what is accepted, what is refused, and how."""

import base64
import json

import pytest
from gevent.event import AsyncResult
from websockets.utils import accept_key

from runner.doors.websocket import Refusal

from .conftest import echo
from .raw import KEY, binary, text


def test_a_handshake_is_accepted(serve):
    status, headers, _ = serve().connect().handshake()
    assert status == 101
    assert headers["Upgrade"].lower() == "websocket"
    assert headers["Connection"].lower() == "upgrade"
    assert headers["Sec-WebSocket-Accept"] == accept_key(KEY)
    assert headers["Content-Length"] is None
    assert headers["Transfer-Encoding"] is None


@pytest.mark.parametrize(
    ("header", "value"),
    [
        ("Connection", "keep-alive, Upgrade"),
        ("Connection", "upgrade"),
        ("Upgrade", "WebSocket"),
    ],
)
def test_tokens_are_compared_as_http_does(serve, header, value):
    status, _, _ = serve().connect().handshake(**{header: value})
    assert status == 101


def test_neither_compression_nor_a_subprotocol_is_negotiated(serve):
    """gevent-websocket would find the subprotocol "a" in "ab"."""
    client = serve().connect()
    _, headers, _ = client.handshake(
        Sec_WebSocket_Extensions="permessage-deflate; client_max_window_bits",
        Sec_WebSocket_Protocol="ab, c",
    )
    assert headers["Sec-WebSocket-Extensions"] is None
    assert headers["Sec-WebSocket-Protocol"] is None


@pytest.mark.parametrize(
    ("status", "headers"),
    [
        pytest.param(400, {"Sec-WebSocket-Version": "7"}, id="version 7"),
        pytest.param(400, {"Sec-WebSocket-Version": "8"}, id="version 8"),
        pytest.param(400, {"Sec-WebSocket-Version": "14"}, id="version 14"),
        pytest.param(400, {"Sec-WebSocket-Version": ""}, id="no version"),
        pytest.param(400, {"Sec-WebSocket-Key": "####"}, id="key not base64"),
        pytest.param(400, {"Sec-WebSocket-Key": "abc"}, id="key cut short"),
        pytest.param(400, {"Sec-WebSocket-Key": base64.b64encode(bytes(15)).decode()}, id="key of 15 bytes"),
        pytest.param(400, {"Sec-WebSocket-Key": ""}, id="no key"),
        pytest.param(400, {"X-Any": "a\x15b"}, id="control character in a header"),
        pytest.param(400, {"Host": ""}, id="no host"),
        pytest.param(400, {"Content-Length": "5"}, id="a body"),
        pytest.param(400, {"Transfer-Encoding": "chunked"}, id="a chunked body"),
        pytest.param(426, {"Connection": ""}, id="no Connection"),
        pytest.param(426, {"Connection": "keep-alive"}, id="Connection without upgrade"),
        pytest.param(426, {"Upgrade": ""}, id="no Upgrade"),
        pytest.param(426, {"Upgrade": "h2c, websocket"}, id="two upgrades"),
    ],
)
def test_a_wrong_handshake_is_refused_with_the_version_we_speak(serve, status, headers):
    answered, answer_headers, body = serve().connect().handshake(**headers)
    assert answered == status
    assert answer_headers["Sec-WebSocket-Version"] == "13"
    assert answer_headers["Content-Type"] == "application/json"
    problem = json.loads(body)
    assert problem["status"] == status
    assert problem["detail"]


def test_426_says_what_to_upgrade_to(serve):
    _, headers, _ = serve().connect().handshake(Upgrade="")
    assert headers["Upgrade"] == "websocket"


@pytest.mark.parametrize("method", ["POST", "HEAD", "OPTIONS"])
def test_a_method_other_than_get_is_refused(serve, method):
    status, headers, _ = serve().connect().handshake(method=method)
    assert status == 405
    assert headers["Allow"] == "GET"


def test_http_1_0_is_refused(serve):
    assert serve().connect().handshake(version="HTTP/1.0")[0] == 400


def test_what_the_client_sent_is_not_in_the_answer(serve):
    _, headers, body = serve().connect().handshake(Sec_WebSocket_Key="<script>")
    assert b"script" not in body
    assert "script" not in str(headers)


class TestPlainHttp:
    def test_goes_to_the_application(self, serve):
        client = serve().connect()
        client.send(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert client.response()[2] == b"plain"

    def test_with_another_upgrade_goes_to_the_application(self, serve):
        client = serve().connect()
        client.send(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n")
        assert client.response()[2] == b"plain"

    def test_may_be_followed_by_a_handshake(self, serve):
        client = serve().connect()
        client.send(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert client.response()[0] == 200
        assert client.handshake()[0] == 101
        client.send(text("a"))
        assert client.message() == "a"


class TestGate:
    def test_what_it_learns_reaches_the_application(self, serve):
        def gate(environ):
            environ["test.subject"] = environ["QUERY_STRING"]

        def application(environ, start_response):
            environ["wsgi.websocket"].send(environ["test.subject"])
            return []

        assert serve(application, gate=gate).open("/?alice").message() == "alice"

    def test_a_refusal_is_the_answer(self, serve):
        refusal = Refusal(401, [("WWW-Authenticate", "Key"), ("Content-Type", "application/json")], b'{"no": 1}')
        client = serve(gate=lambda environ: refusal).connect()
        status, headers, body = client.handshake()
        assert (status, headers["WWW-Authenticate"], body) == (401, "Key", b'{"no": 1}')

    def test_a_refused_application_never_runs(self, serve):
        called = AsyncResult()
        client = serve(lambda *_: called.set(), gate=lambda environ: Refusal(403)).connect()
        assert client.handshake()[0] == 403
        assert client.at_eof()
        assert not called.ready()

    def test_frames_behind_a_refused_handshake_are_no_request(self, serve):
        client = serve(gate=lambda environ: Refusal(403)).connect()
        assert client.handshake(then=binary(b"GET / HTTP/1.1\r\n\r\n"))[0] == 403
        assert client.at_eof()

    def test_a_wrong_handshake_is_not_asked_about(self, serve):
        asked = AsyncResult()
        serve(gate=asked.set).connect().handshake(Sec_WebSocket_Version="8")
        assert not asked.ready()

    def test_one_that_fails_lets_nobody_in(self, serve, caplog):
        def gate(environ):
            raise RuntimeError("no key store")

        status, headers, body = serve(gate=gate).connect().handshake()
        assert status == 500
        assert headers["Content-Type"] == "application/json"
        assert b"key store" not in body
        assert "no key store" in caplog.text
        assert json.loads(body)["instance"].removeprefix("urn:uuid:") in caplog.text

    def test_plain_http_passes_it_by(self, serve):
        client = serve(echo, gate=lambda environ: Refusal(403)).connect()
        client.send(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert client.response()[0] == 200
