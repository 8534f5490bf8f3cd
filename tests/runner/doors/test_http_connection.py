"""What happens on the connection itself: who leaves, who is slow, and where one request ends and the next begins."""

from collections.abc import Iterator
from contextlib import closing

import gevent
import pytest
from gevent import socket
from gevent.socket import SHUT_WR

from runner.apps.serving import HttpAnswer, HttpEndpoint, HttpRequest, SocketEndpoint
from runner.doors.http import HttpOptions
from runner.doors.websocket import WebSocketOptions
from tests.runner.doors.door import token
from tests.runner.doors.http_door import APP, Door, running_http_door


def post(path: str = f"/{APP}", body: bytes = b'{"prompt": "x"}', framing: str | None = None, **headers: str) -> bytes:
    framing = framing or f"Content-Length: {len(body)}"
    fields = {"Host": "localhost", "Authorization": f"Bearer {token(APP)}", **headers}
    lines = [f"POST {path} HTTP/1.1", framing, *(f"{name}: {value}" for name, value in fields.items())]
    return "\r\n".join([*lines, "", ""]).encode() + body


def answers(received: bytes) -> list[int]:
    return [int(head.split()[0]) for head in received.split(b"HTTP/1.1 ")[1:]]


def read_to_end(client: socket.socket) -> bytes:
    received = b""
    with closing(client):
        while data := client.recv(1 << 16):
            received += data
    return received


@pytest.fixture
def door() -> Iterator[Door]:
    with running_http_door() as running:
        yield running


class TestLeaving:
    def test_a_client_that_leaves_cancels_the_work(self, door: Door, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level("INFO", logger="runner")
        door.app.hold.clear()
        client = door.connect()
        client.sendall(post())
        assert door.app.started.wait(10)
        client.close()
        assert door.app.given_up.wait(10)
        door.server.stop(timeout=5)
        assert "status=499" in caplog.text
        assert "Traceback" not in caplog.text
        assert door.tally.answers == {"499": 1}

    def test_it_is_noticed_behind_a_request_that_waits(self, door: Door) -> None:
        door.app.hold.clear()
        client = door.connect()
        client.sendall(post() + post())
        assert door.app.started.wait(10)
        client.close()
        assert door.app.given_up.wait(10)

    def test_a_client_that_leaves_a_stream_cancels_it(self, door: Door) -> None:
        door.app.hold.clear()
        client = door.connect()
        client.sendall(post(f"/{APP}/stream"))
        assert door.app.started.wait(10)
        client.close()
        assert door.app.given_up.wait(10)

    def test_in_the_middle_of_its_body(self, door: Door, caplog: pytest.LogCaptureFixture) -> None:
        client = door.connect()
        client.sendall(post(framing="Content-Length: 1000"))
        client.shutdown(SHUT_WR)
        assert answers(read_to_end(client)) == [499]
        assert not door.app.started.is_set()
        assert "Traceback" not in caplog.text


class TestKeepAlive:
    def test_requests_follow_each_other_on_one_connection(self, door: Door) -> None:
        client = door.connect()
        client.sendall(post() + post(body=b'{"prompt": "bug"}') + post(Connection="close"))
        assert answers(read_to_end(client)) == [200, 500, 200]

    def test_a_request_in_chunks_ends_where_they_do(self, door: Door) -> None:
        body = b'f;x=y\r\n{"prompt": "x"}\r\n0\r\nTrailer: 1\r\n\r\n'
        client = door.connect()
        client.sendall(post(body=body, framing="Transfer-Encoding: chunked") + post(Connection="close"))
        assert answers(read_to_end(client)) == [200, 200]

    def test_a_stream_ends_where_it_says(self, door: Door) -> None:
        client = door.connect()
        client.sendall(post(f"/{APP}/stream") + post(Connection="close"))
        assert answers(read_to_end(client)) == [200, 200]

    def test_http_1_0_ends_with_the_connection(self, door: Door) -> None:
        client = door.connect()
        client.sendall(post(f"/{APP}/stream").replace(b"HTTP/1.1", b"HTTP/1.0"))
        received = read_to_end(client)
        assert received.endswith(b"}\n\n")
        assert b"chunked" not in received

    def test_what_is_left_of_a_body_is_not_the_next_request(self, door: Door) -> None:
        client = door.connect()
        client.sendall(post(Authorization="Bearer no") + post())
        assert answers(read_to_end(client)) == [401]


class TestBounds:
    @pytest.mark.parametrize("framing", ["Content-Length: 5000", "Transfer-Encoding: chunked"])
    def test_a_body_that_is_too_large_is_413(self, framing: str) -> None:
        with running_http_door(HttpOptions(max_body_bytes=1000)) as door:
            client = door.connect()
            body = bytes(5000) if "5000" in framing else b"1388\r\n" + bytes(5000) + b"\r\n0\r\n\r\n"
            client.sendall(post(body=body, framing=framing))
            received = read_to_end(client)
            assert answers(received) == [413]
            assert b"Connection: close" in received

    def test_as_much_as_allowed_is_read(self) -> None:
        with running_http_door(HttpOptions(max_body_bytes=1000)) as door:
            body = b'{"prompt": "' + b"x" * 986 + b'"}'
            assert len(body) == 1000
            assert door.post(content=body).status_code == 200

    def test_a_body_that_does_not_come_is_408(self) -> None:
        with running_http_door(server_options=WebSocketOptions(body_timeout_s=0.1)) as door:
            client = door.connect()
            client.sendall(post(framing="Content-Length: 1000"))
            assert answers(read_to_end(client)) == [408]

    @pytest.mark.parametrize("body", [b"zz\r\n", b"5\r\nabcdefg\r\n0\r\n\r\n", b"fffffffffffffffff\r\n"])
    def test_chunks_that_are_none_are_400(self, door: Door, body: bytes) -> None:
        client = door.connect()
        client.sendall(post(body=body, framing="Transfer-Encoding: chunked"))
        client.shutdown(SHUT_WR)
        assert answers(read_to_end(client)) == [400]

    def test_many_tiny_chunks_do_not_hold_up_the_hub(self, door: Door) -> None:
        client = door.connect()
        turns = 0

        def tick() -> None:
            nonlocal turns
            while True:
                gevent.sleep(1e-9)
                turns += 1

        ticking = gevent.spawn(tick)
        client.sendall(post(body=b"1\r\nx\r\n" * 20_000 + b"0\r\n\r\n", framing="Transfer-Encoding: chunked"))
        client.shutdown(SHUT_WR)
        read_to_end(client)
        ticking.kill()
        assert turns > 20_000 / 512

    def test_a_reader_that_takes_nothing_is_cut_off(self) -> None:
        server_options = WebSocketOptions(send_stall_timeout_s=0.2)
        with running_http_door(server_options=server_options, apps={"owner/flood": Fixed(Flood())}) as door:
            client = door.connect()
            client.sendall(post("/owner/flood", Authorization=f"Bearer {token('owner/flood')}"))
            with gevent.Timeout(20):
                while not Flood.closed:
                    gevent.sleep(0.01)
            client.close()


class Fixed:
    """An app of one endpoint at every path."""

    def __init__(self, endpoint: HttpEndpoint) -> None:
        self._endpoint = endpoint

    def socket(self, path: str) -> SocketEndpoint | None:
        return None

    def http(self, path: str) -> HttpEndpoint | None:
        return self._endpoint


class Flood:
    """Answers without end."""

    methods = frozenset({"POST"})
    closed = False

    def respond(self, request: HttpRequest) -> HttpAnswer:
        return HttpAnswer(200, (("content-type", "application/octet-stream"),), self._body())

    def _body(self) -> Iterator[bytes]:
        try:
            while True:
                yield bytes(1 << 20)
        finally:
            Flood.closed = True


class Hosted:
    """Answers as a framework in another process does."""

    methods = frozenset({"POST"})

    def respond(self, request: HttpRequest) -> HttpAnswer:
        headers = (
            ("Content-Type", "text/plain"),
            ("X-Own", "kept"),
            ("Connection", "keep-alive, x-hop"),
            ("X-Hop", "1"),
            ("Transfer-Encoding", "chunked"),
            ("Access-Control-Allow-Origin", "https://elsewhere.example"),
            ("X-Fal-Request-Id", "forged"),
        )
        return HttpAnswer(201, headers, iter([b"one ", b"", b"two"]))


class Breaking:
    """Promises more than it has."""

    methods = frozenset({"POST"})

    def respond(self, request: HttpRequest) -> HttpAnswer:
        def body() -> Iterator[bytes]:
            yield b"half"
            raise RuntimeError("gone")

        return HttpAnswer(200, (("content-type", "text/plain"), ("content-length", "8")), body())


class TestOthersAnswers:
    def test_status_headers_and_body_pass_without_what_is_of_the_connection(self) -> None:
        with running_http_door(apps={"owner/hosted": Fixed(Hosted())}) as door:
            answer = door.post("/owner/hosted/any", headers={"Authorization": f"Bearer {token('owner/hosted')}"})
        assert (answer.status_code, answer.text, answer.headers["x-own"]) == (201, "one two", "kept")
        assert "x-hop" not in answer.headers
        assert answer.headers["access-control-allow-origin"] == "*"
        assert answer.headers["x-fal-request-id"] != "forged"
        assert answer.headers["transfer-encoding"] == "chunked"

    def test_an_answer_that_breaks_off_breaks_the_connection(self) -> None:
        with running_http_door(apps={"owner/breaking": Fixed(Breaking())}) as door:
            client = door.connect()
            client.sendall(post("/owner/breaking", Authorization=f"Bearer {token('owner/breaking')}") + post())
            received = read_to_end(client)
        assert answers(received) == [200]
        assert received.endswith(b"half")
