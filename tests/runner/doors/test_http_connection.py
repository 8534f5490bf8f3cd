"""What happens on the connection itself: who leaves, who is slow, and where one request ends and the next begins."""

import gzip
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress

import gevent
import pytest
from gevent import socket
from gevent.socket import SHUT_WR

from runner.apps.serving import Headers, HttpAnswer, HttpEndpoint, HttpRequest, SocketEndpoint
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


def read_answer(client: socket.socket) -> bytes:
    """As `read_to_end`, of a server that resets the connection on what it left unread."""
    received = b""
    with closing(client), suppress(ConnectionResetError):
        while data := client.recv(1 << 16):
            received += data
    return received


@contextmanager
def turning() -> Iterator[list[None]]:
    """An element for each turn of the hub's loop."""
    turns: list[None] = []

    def tick() -> None:
        while True:
            gevent.sleep(1e-9)
            turns.append(None)

    ticking = gevent.spawn(tick)
    try:
        yield turns
    finally:
        ticking.kill()


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

    def test_what_it_drew_counts_though_the_last_byte_is_never_read(self, door: Door) -> None:
        client = socket.socket()
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.connect(("127.0.0.1", door.server.server_port))
        client.sendall(post(body=b'{"prompt": "%s"}' % (b"x" * (8 << 20))))
        assert client.recv(1000).startswith(b"HTTP/1.1 200")
        client.close()  # the rest is unread, which resets the connection
        door.server.stop(timeout=10)
        assert door.tally.answers == {"499": 1}
        assert door.tally.images == 1

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

    @pytest.mark.parametrize(
        "line",
        [
            b"X-A: b\r\n folded: c",
            b"X-A: b\rX-Hidden: c",
            b"X-A: b\0c",
            b"X A: b",
            b"Host: other.example",
            b"X-A: " + b"b" * 66_000,
            b"\r\n".join([b"X-A: " + b"b" * 1000] * 70),
            b"\r\n".join([b"X-A: b"] * 101),
        ],
        ids=["folded", "lone CR", "NUL", "no name", "second host", "long", "long in all", "many"],
    )
    def test_a_head_that_is_none_is_400(self, door: Door, line: bytes) -> None:
        client = door.connect()
        client.sendall(post().replace(b"Host: localhost", b"Host: localhost\r\n" + line))
        assert answers(read_answer(client)) == [400]

    @pytest.mark.parametrize(
        ("body", "status"),
        [
            (b"1\r\nx\r\n" * 20_000 + b"0\r\n\r\n", 422),
            (b"0\r\n" + (b"X-Trailer: " + b"a" * 8000 + b"\r\n") * 500, 400),
            ((b"1;" + b"a" * 8000 + b"\r\nx\r\n") * 500 + b"0\r\n\r\n", 400),
        ],
        ids=["tiny chunks", "trailers", "extensions"],
    )
    def test_framing_does_not_hold_up_the_hub(self, door: Door, body: bytes, status: int) -> None:
        client = door.connect()
        with turning() as turns:
            with suppress(ConnectionError):  # what nobody reads any more
                client.sendall(post(body=body, framing="Transfer-Encoding: chunked"))
                client.shutdown(SHUT_WR)
            received = read_answer(client)
        assert len(turns) > 20_000 / 512
        assert answers(received) == [status]

    def test_requests_sent_ahead_do_not_hold_up_the_hub(self, door: Door) -> None:
        client = door.connect()
        with turning() as turns:
            sending = gevent.spawn(client.sendall, post(Authorization="Bearer no", body=b"") * 500)
            sending.join()
            client.shutdown(SHUT_WR)
            received = read_answer(client)
        assert len(turns) > 500
        assert answers(received) == [401] * 500

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


class Said:
    """An app that answers in words of the test's own."""

    methods = frozenset({"POST"})

    def __init__(self, status: int, headers: Headers, *chunks: bytes, delay_s: float = 0) -> None:
        self._status, self._headers, self._chunks, self._delay_s = status, headers, chunks, delay_s

    def respond(self, request: HttpRequest) -> HttpAnswer:
        return HttpAnswer(self._status, self._headers, self._body())

    def _body(self) -> Iterator[bytes]:
        gevent.sleep(self._delay_s)
        yield from self._chunks

    @contextmanager
    def serving(self, options: HttpOptions | None = None) -> Iterator[Door]:
        with running_http_door(options, apps={"owner/said": Fixed(self)}) as door:
            yield door

    def exchange_two(self) -> bytes:
        """All that comes back for a request to it and, on the same connection, one to another app."""
        with self.serving() as door:
            client = door.connect()
            client.sendall(post("/owner/said", Authorization=f"Bearer {token('owner/said')}"))
            client.sendall(post(Connection="close"))
            return read_to_end(client)


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

    @pytest.mark.parametrize(
        ("length", "arrived"),
        [("3", b"abc"), ("100", b"abcevil")],
        ids=["longer", "shorter"],
    )
    def test_a_body_of_another_length_is_not_the_next_answer(
        self, caplog: pytest.LogCaptureFixture, length: str, arrived: bytes
    ) -> None:
        said = Said(200, (("content-type", "text/plain"), ("content-length", length)), b"abc", b"evil")
        received = said.exchange_two()
        assert answers(received) == [200]
        assert received.endswith(b"\r\n\r\n" + arrived)
        assert "than its Content-Length" in caplog.text

    @pytest.mark.parametrize("status", [100, 101, 199, 0, 999, 1000])
    def test_a_status_that_ends_no_request_is_500(self, status: int) -> None:
        assert answers(Said(status, ()).exchange_two()) == [500, 200]

    @pytest.mark.parametrize(
        "header",
        [
            ("x-a", "b\r\nX-Injected: 1"),
            ("x-a", "b\nc"),
            ("x-a", "b\0c"),
            ("x-a", "\u20ac"),
            ("x-a: b\r\nx-injected", "1"),
            ("x a", "b"),
            ("", "b"),
            ("content-length", "three"),
            ("content-length", "-3"),
        ],
    )
    def test_a_header_that_is_none_is_500(self, caplog: pytest.LogCaptureFixture, header: tuple[str, str]) -> None:
        received = Said(200, (header,), b"abc").exchange_two()
        assert answers(received) == [500, 200]
        assert b"njected" not in received
        assert "is not HTTP" in caplog.text

    def test_two_lengths_are_500(self) -> None:
        lengths = (("content-length", "3"), ("Content-Length", "5"))
        assert answers(Said(200, lengths, b"abc").exchange_two()) == [500, 200]

    @pytest.mark.parametrize("status", [204, 304])
    def test_what_may_have_no_body_has_none(self, status: int) -> None:
        received = Said(status, (("content-length", "3"),), b"abc").exchange_two()
        assert answers(received) == [status, 200]
        assert b"abc" not in received

    def test_heartbeats_do_not_make_a_stream_longer_than_it_says(self) -> None:
        headers = (("content-type", "text/event-stream"), ("content-length", "9"))
        said = Said(200, headers, b"data: 1\n\n", delay_s=0.3)
        with said.serving(HttpOptions(heartbeat_s=0.05)) as door:
            answer = door.post("/owner/said", headers={"Authorization": f"Bearer {token('owner/said')}"})
        assert ": heartbeat" in answer.text
        assert answer.text.endswith("data: 1\n\n")

    def test_a_packed_stream_has_no_heartbeats_in_it(self) -> None:
        headers = (("content-type", "text/event-stream"), ("content-encoding", "gzip"))
        said = Said(200, headers, gzip.compress(b"data: 1\n\n"), delay_s=0.3)
        with said.serving(HttpOptions(heartbeat_s=0.05)) as door:
            answer = door.post("/owner/said", headers={"Authorization": f"Bearer {token('owner/said')}"})
        assert answer.text == "data: 1\n\n"
