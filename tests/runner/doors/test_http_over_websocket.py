"""HTTP over WebSocket on real sockets: the real gate, door and server, before endpoints that a test says."""

import json
import socket as sockets
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import gevent
import pytest
from gevent.event import Event
from gevent.socket import create_connection
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from runner.apps.serving import AppUnavailable, HttpAnswer, HttpEndpoint, HttpRequest, SocketEndpoint, Usage
from runner.doors.http_over_websocket import HttpOverWebSocket
from runner.doors.routes import Registry
from runner.doors.websocket import WebSocketOptions
from runner.engine.request import FLOW
from runner.protocol.http_over_websocket import WAITING_PAYLOADS_MAX
from runner.protocol.session import DRAINED_REASON, SESSION_OVER_REASON, SessionRules
from schemas.errors import TIMEOUT_REASON
from tests.runner.doors.door import API_KEY, Door, in_thread, running_door, settle, token
from tests.runner.doors.test_realtime_revocation import revoke
from tests.runner.doors.websocket.raw import RawClient, text

APP = "me/writer"
PATH = f"/ws/{APP}"


@dataclass
class Endpoint:
    """Answers as it is told, and remembers."""

    answer: Callable[[HttpRequest], HttpAnswer]
    methods: frozenset[str] = frozenset({"POST"})
    requests: list[HttpRequest] = field(default_factory=list)
    started: Event = field(default_factory=Event)
    given_up: Event = field(default_factory=Event)

    def respond(self, request: HttpRequest) -> HttpAnswer:
        self.requests.append(request)
        self.started.set()
        try:
            return self.answer(request)
        except BaseException:
            self.given_up.set()
            raise


@dataclass
class App:
    """One endpoint for every path that is asked for over HTTP, and a raw socket at `/ws`."""

    endpoint: Endpoint

    def http(self, path: str) -> HttpEndpoint | None:
        if path == "/loading":
            raise AppUnavailable("the app is starting")
        return self.endpoint if path in ("/", "/stream") else None

    def socket(self, path: str) -> SocketEndpoint | None:
        return RawSocket() if path == "/ws" else None


class RawSocket:
    def open(self, socket: Any, terms: Any) -> Any:
        return Echo(socket)


class Echo:
    def __init__(self, socket: Any) -> None:
        self.socket = socket
        self.usage = Usage()

    def run(self) -> None:
        while (message := self.socket.receive()) is not None:
            self.socket.send(message)

    def end(self, failure: Any, code: int) -> None:
        raise NotImplementedError


def json_answer(content: Any, status: int = 200, *headers: tuple[str, str]) -> HttpAnswer:
    return HttpAnswer(status, (("content-type", "application/json"), *headers), [json.dumps(content).encode()])


def event_stream(chunks: Iterable[bytes]) -> HttpAnswer:
    return HttpAnswer(200, (("content-type", "text/event-stream; charset=utf-8"),), chunks)


def echo(request: HttpRequest) -> HttpAnswer:
    return json_answer({"type": "x", "request_id": "a body like the metadata", "received": json.loads(request.body)})


@dataclass
class Answer:
    """Everything of one answer, as a reader sees it."""

    start: dict[str, Any]
    body: list[bytes]
    end: dict[str, Any]

    @property
    def json(self) -> Any:
        [only] = self.body
        return json.loads(only)


def read_answer(connection: ClientConnection) -> Answer:
    start = json.loads(connection.recv(decode=True))
    assert start["type"] == "start"
    body = []
    while isinstance(message := connection.recv(), bytes):
        body.append(message)
    end = json.loads(message)
    assert (end["type"], end["request_id"]) == ("end", start["request_id"])
    return Answer(start, body, end)


def ask(connection: ClientConnection, content: Any) -> Answer:
    connection.send(json.dumps(content))
    return read_answer(connection)


@contextmanager
def serving(
    answer: Callable[[HttpRequest], HttpAnswer] = echo,
    rules: SessionRules | None = None,
    *,
    options: WebSocketOptions | None = None,
) -> Iterator[tuple[Door, Endpoint]]:
    endpoint = Endpoint(answer)
    registry = Registry({APP: App(endpoint)}, lambda found: HttpOverWebSocket(found, timeout_s=60))
    with running_door(rules=rules, registry=registry, options=options) as door:
        yield door, endpoint


def url(door: Door, path: str = PATH, **query: object) -> str:
    return door.url(path, **({"fal_jwt_token": token(APP)} | query))


@contextmanager
def client(door: Door, path: str = PATH, **options: Any) -> Iterator[ClientConnection]:
    """Call from a native thread."""
    query = options.pop("query", {})
    with connect(url(door, path, **query), max_size=None, **options) as connection:
        yield connection


def closed(connection: ClientConnection) -> tuple[int | None, str | None]:
    """What the server closes with; nothing may come before."""
    with suppress(ConnectionClosed):
        raise AssertionError(connection.recv())
    return connection.close_code, connection.close_reason


def test_a_payload_is_a_post_and_its_answer_comes_between_metadata() -> None:
    def talk() -> list[Answer]:
        with client(door, PATH + "/stream", additional_headers={"X-Fal-Runner-Hint": "b"}) as connection:
            return [ask(connection, {"prompt": "é"}), ask(connection, {"prompt": "two"})]

    with serving() as (door, endpoint):
        first, second = in_thread(talk)
    assert first.json == {"type": "x", "request_id": "a body like the metadata", "received": {"prompt": "é"}}
    assert (first.start["status"], first.end["status"]) == (200, 200)
    assert first.start["headers"]["Content-Type"] == "application/json"
    assert first.start["headers"]["X-Fal-Request-Id"] == first.start["request_id"]
    assert uuid.UUID(first.start["request_id"]) != uuid.UUID(second.start["request_id"])
    assert 0 <= first.end["time_to_first_byte_seconds"] < 60
    request = endpoint.requests[0]
    assert (request.method, request.path, request.query) == ("POST", "/stream", "")
    assert request.request_id == first.start["request_id"]
    assert request.base_url == f"http://127.0.0.1:{door.server.server_port}"
    headers = dict(request.headers)
    assert (headers["x-fal-runner-hint"], headers["content-type"]) == ("b", "application/json")
    assert headers["content-length"] == str(len(request.body))
    assert not {"authorization", "upgrade", "connection", "sec-websocket-key"} & headers.keys()


def test_each_event_of_a_stream_is_a_message_as_soon_as_it_is_made() -> None:
    may_go_on = [Event(), Event()]

    def events(_: HttpRequest) -> HttpAnswer:
        def body() -> Iterator[bytes]:
            yield b'event: event\r\ndata: {"output": "a"}\r\n\r\n: ping\n\ndata: {"out'
            may_go_on[0].wait()
            yield b'put": "ab"}\n\n'
            may_go_on[1].wait()

        return event_stream(body())

    def talk() -> tuple[list[Any], Answer]:
        loop = gevent_loop
        with client(door) as connection:
            connection.send("{}")
            start, event = connection.recv(), connection.recv()
            loop.run_callback_threadsafe(may_go_on[0].set)
            second = connection.recv()
            loop.run_callback_threadsafe(may_go_on[1].set)
            return [start, event, second, connection.recv()]

    gevent_loop = gevent.get_hub().loop
    with serving(events) as (door, _):
        start, first, second, end = in_thread(talk)
    assert json.loads(start)["headers"]["Content-Type"] == "text/event-stream; charset=utf-8"
    assert (first, second) == (b'event: event\r\ndata: {"output": "a"}\r\n\r\n', b'data: {"output": "ab"}\n\n')
    assert json.loads(end)["type"] == "end"


def test_pipelined_payloads_are_answered_one_after_the_other() -> None:
    count = WAITING_PAYLOADS_MAX * 3
    running, most = 0, 0

    def answer(request: HttpRequest) -> HttpAnswer:
        nonlocal running, most

        def body() -> Iterator[bytes]:
            nonlocal running
            gevent.sleep(0)
            yield request.body
            running -= 1

        running += 1
        most = max(most, running)
        gevent.sleep(0)
        return HttpAnswer(200, (("content-type", "application/json"),), body())

    def talk() -> list[Any]:
        with client(door) as connection:
            for number in range(count):
                connection.send(json.dumps(number))
            return [read_answer(connection).json for _ in range(count)]

    with serving(answer) as (door, _):
        assert in_thread(talk) == list(range(count))
    assert most == 1


@pytest.mark.parametrize(
    ("raised", "status", "error_type"),
    [
        (AppUnavailable("the app is starting"), 503, None),
        (RuntimeError("/home/secret"), 500, "internal_error"),
    ],
)
def test_a_failure_has_its_status_and_the_socket_lives_on(
    raised: Exception, status: int, error_type: str | None
) -> None:
    def answer(request: HttpRequest) -> HttpAnswer:
        if json.loads(request.body) == "fail":
            raise raised
        return echo(request)

    def talk() -> tuple[Answer, Answer]:
        with client(door) as connection:
            return ask(connection, "fail"), ask(connection, "go on")

    with serving(answer) as (door, _):
        failed, after = in_thread(talk)
    assert (failed.start["status"], failed.end["status"]) == (status, status)
    assert failed.json["status"] == status
    assert "secret" not in str(failed)
    if error_type:
        assert failed.json["error_type"] == error_type
    if status == 503:
        assert int(failed.start["headers"]["Retry-After"]) > 0
    assert after.json["received"] == "go on"


def test_an_answer_of_the_app_keeps_its_status_and_fields() -> None:
    fields = {"detail": [{"loc": ["body", "prompt"], "msg": "Field required", "type": "missing"}]}
    with serving(lambda request: json_answer(fields, 422, ("x-fal-billable-units", "0"))) as (door, _):
        answer = in_thread(lambda: talk_once(door))
    assert (answer.start["status"], answer.end["status"], answer.json) == (422, 422, fields)
    assert answer.start["headers"]["X-Fal-Billable-Units"] == "0"


def talk_once(door: Door, content: Any = None, **options: Any) -> Answer:
    with client(door, **options) as connection:
        return ask(connection, content or {})


def test_a_request_takes_no_longer_than_the_handshake_allows() -> None:
    def answer(request: HttpRequest) -> HttpAnswer:
        Event().wait()
        raise AssertionError

    with serving(answer) as (door, endpoint):
        told = in_thread(lambda: talk_once(door, additional_headers={"x-fal-request-timeout": "0.2"}))
    assert (told.start["status"], told.json["error_type"]) == (504, "request_timeout")
    assert endpoint.given_up.is_set()


def test_a_body_that_breaks_off_says_so_in_its_end() -> None:
    def body() -> Iterator[bytes]:
        yield b"half"
        raise RuntimeError("/home/secret")

    def answer(_: HttpRequest) -> HttpAnswer:
        return HttpAnswer(200, (("content-type", "video/mp4"),), body())

    def talk() -> list[Answer]:
        with client(door) as connection:
            return [ask(connection, {}), ask(connection, {})]

    with serving(answer) as (door, _):
        for broken in in_thread(talk):
            assert (broken.start["status"], broken.body, broken.end["status"]) == (200, [b"half"], 500)


def test_a_binary_message_is_refused_in_its_turn() -> None:
    def talk() -> list[Answer]:
        with client(door) as connection:
            connection.send('"first"')
            connection.send(b"\x81\xa1p\xa1x")
            connection.send('"third"')
            return [read_answer(connection) for _ in range(3)]

    with serving() as (door, _):
        first, second, third = in_thread(talk)
    assert (first.json["received"], third.json["received"]) == ("first", "third")
    assert (second.start["status"], second.json["error_type"]) == (415, "unsupported_media_type")
    assert "text message" in second.json["detail"]


def test_a_socket_is_one_flow_of_the_engine() -> None:
    def talk() -> list[str]:
        with client(door) as connection:
            return [ask(connection, {}).json for _ in range(2)]

    with serving(lambda _: json_answer(FLOW.get())) as (door, _):
        (first, second), (other, _) = in_thread(talk), in_thread(talk)
    assert first == second != other
    assert first


# Where it is


def test_any_path_of_a_host_that_begins_with_ws() -> None:
    def talk(path: str) -> Answer:
        sock = sockets.create_connection(("127.0.0.1", door.server.server_port))
        target = f"ws://WS.example.test{path}?fal_jwt_token={token(APP)}"
        with connect(target, sock=sock) as connection:
            return ask(connection, {})

    with serving() as (door, endpoint):
        for path in (f"/{APP}", f"/{APP}/stream", f"/ws/{APP}/stream"):
            assert in_thread(lambda path=path: talk(path)).start["status"] == 200
    assert [request.path for request in endpoint.requests] == ["/", "/stream", "/stream"]


def test_an_apps_own_socket_at_ws_is_another_one() -> None:
    def talk() -> str:
        with client(door, f"/{APP}/ws") as connection:
            connection.send("hello")
            return str(connection.recv())

    with serving() as (door, endpoint):
        assert in_thread(talk) == "hello"
    assert endpoint.requests == []


# Who may, and for how long


@pytest.mark.parametrize(
    ("path", "authorization", "status"),
    [
        (PATH, None, 401),
        (PATH, "Key key-1:WRONG", 401),
        (PATH, f"Bearer {token('other-app', duration_s=3600)}", 403),
        (f"{PATH}/nothing", f"Key {API_KEY}", 404),
        ("/ws/me/nobody", f"Key {API_KEY}", 404),
        (f"{PATH}/loading", f"Key {API_KEY}", 503),
        (f"/{APP}", f"Key {API_KEY}", 404),
    ],
)
def test_a_refused_header_is_a_status_at_the_upgrade(path: str, authorization: str | None, status: int) -> None:
    headers = {"Authorization": authorization} if authorization else {}

    def knock() -> int:
        with pytest.raises(InvalidStatus) as refused:
            connect(url(door, path, fal_jwt_token=None), additional_headers=headers)
        return refused.value.response.status_code

    with serving() as (door, _):
        assert in_thread(knock) == status


@pytest.mark.parametrize("authorization", [f"Key {API_KEY}", f"Bearer {token('me/writer/stream', duration_s=3600)}"])
def test_a_header_that_is_good_opens_it(authorization: str) -> None:
    with serving() as (door, _):
        answer = in_thread(
            lambda: talk_once(
                door,
                path=f"{PATH}/stream",
                query={"fal_jwt_token": None},
                additional_headers={"Authorization": authorization},
            )
        )
    assert answer.start["status"] == 200


@pytest.mark.parametrize(
    ("path", "bearer", "error", "code"),
    [
        (PATH, "x", "UNAUTHORIZED", 4001),
        (PATH, token("me/writer/stream", duration_s=3600), "FORBIDDEN", 4003),
        (f"{PATH}/nothing", token(APP, duration_s=3600), "NOT_FOUND", 4004),
    ],
)
def test_a_refused_token_in_the_query_is_told_in_band(path: str, bearer: str, error: str, code: int) -> None:
    def talk() -> tuple[Any, tuple[int | None, str | None]]:
        with client(door, path, query={"fal_jwt_token": bearer}) as connection:
            return json.loads(connection.recv()), closed(connection)

    with serving() as (door, _):
        message, (close_code, _) = in_thread(talk)
    assert (message["type"], message["error"], close_code) == ("x-fal-error", error, code)


def test_each_payload_counts_against_max_requests() -> None:
    bearer = token(APP, max_requests=2)

    def talk() -> list[int]:
        with client(door, query={"fal_jwt_token": bearer}) as connection:
            return [ask(connection, {}).start["status"] for _ in range(3)]

    with serving() as (door, endpoint):
        assert in_thread(talk) == [200, 200, 429]
    assert len(endpoint.requests) == 2


def test_a_socket_counts_against_max_connections() -> None:
    bearer = token(APP, max_connections=1)

    def talk() -> Any:
        with client(door, query={"fal_jwt_token": bearer}) as first:
            with client(door, query={"fal_jwt_token": bearer}) as second:
                refused = json.loads(second.recv()), closed(second)
            return refused, ask(first, {}).start["status"]

    with serving() as (door, _):
        (message, (code, _)), status = in_thread(talk)
    assert (message["error"], code, status) == ("LIMIT_EXCEEDED", 4029, 200)


@pytest.mark.parametrize(
    ("rules", "reason"),
    [
        (SessionRules(idle_timeout_s=0.1), TIMEOUT_REASON),
        (SessionRules(max_session_s=0.1), SESSION_OVER_REASON),
    ],
)
def test_a_socket_ends_with_1000_when_its_time_is_over(rules: SessionRules, reason: str) -> None:
    def talk() -> tuple[int | None, str | None]:
        with client(door) as connection:
            return closed(connection)

    with serving(rules=rules) as (door, _):
        assert in_thread(talk) == (1000, reason)


def held_answer(request: HttpRequest) -> HttpAnswer:
    Event().wait()
    raise AssertionError


def held_body(request: HttpRequest) -> HttpAnswer:
    def body() -> Iterator[bytes]:
        yield b"data: 1\n\n"
        Event().wait()

    return event_stream(body())


@pytest.mark.parametrize("held", [held_answer, held_body])
def test_a_revocation_ends_it_whatever_is_under_way(held: Callable[[HttpRequest], HttpAnswer]) -> None:
    bearer = token(APP)

    def talk() -> tuple[int | None, str | None]:
        with client(door, query={"fal_jwt_token": bearer}) as connection:
            connection.send("{}")
            with suppress(ConnectionClosed):
                while True:
                    connection.recv()
            return connection.close_code, connection.close_reason

    with serving(held) as (door, endpoint):
        talking = gevent.spawn(in_thread, talk)
        endpoint.started.wait()
        settle()
        revoke(door, bearer)
        assert talking.get() == (4001, "the token was revoked")


def test_an_idle_socket_is_closed_by_a_revocation() -> None:
    bearer, opened = token(APP), gevent.get_hub().loop.async_()
    is_open = Event()
    opened.start(is_open.set)

    def talk() -> tuple[int | None, str | None]:
        with client(door, query={"fal_jwt_token": bearer}) as connection:
            ask(connection, {})
            opened.send()
            return closed(connection)

    with serving() as (door, _):
        talking = gevent.spawn(in_thread, talk)
        is_open.wait()
        revoke(door, bearer)
        assert talking.get() == (4001, "the token was revoked")


# What a peer can do


@pytest.mark.parametrize("held", [held_answer, held_body])
def test_what_is_under_way_is_given_up_when_the_peer_leaves(held: Callable[[HttpRequest], HttpAnswer]) -> None:
    closed_body = Event()

    def watched(request: HttpRequest) -> HttpAnswer:
        answer = held(request)

        def body() -> Iterator[bytes]:
            try:
                yield from answer.body
            finally:
                closed_body.set()

        return HttpAnswer(answer.status, answer.headers, body())

    with serving(watched) as (door, endpoint):
        peer = raw(door)
        peer.send(text("{}"), text("{}"))
        endpoint.started.wait()
        settle()
        peer.disconnect()
        gevent.wait([endpoint.given_up, closed_body], timeout=10, count=1)
        assert endpoint.given_up.is_set() or closed_body.is_set()
        with gevent.Timeout(10):
            while door.server.pool:
                gevent.sleep(0.01)
        assert len(endpoint.requests) == 1


def raw(door: Door) -> RawClient:
    peer = RawClient(create_connection(("127.0.0.1", door.server.server_port)))
    status, _, _ = peer.handshake(f"{PATH}?fal_jwt_token={token(APP)}")
    assert status == 101
    return peer


def test_a_peer_that_never_reads_is_cut_off_and_its_answer_made_no_further() -> None:
    made = 0

    def answer(_: HttpRequest) -> HttpAnswer:
        def body() -> Iterator[bytes]:
            nonlocal made
            while True:
                made += 1
                yield bytes(1 << 20)

        return HttpAnswer(200, (("content-type", "video/mp4"),), body())

    with serving(answer, options=WebSocketOptions(send_stall_timeout_s=0.3)) as (door, endpoint):
        peer = raw(door)
        peer.send(text("{}"))
        endpoint.started.wait()
        with gevent.Timeout(20):
            while door.server.pool:
                gevent.sleep(0.01)
        assert made < 64  # what the kernel's buffers hold
        peer.disconnect()


def test_what_was_drawn_counts_though_the_end_is_never_read() -> None:
    def answer(_: HttpRequest) -> HttpAnswer:
        return HttpAnswer(200, (("content-type", "application/json"),), [bytes(8 << 20)], Usage(1, 12))

    with serving(answer, options=WebSocketOptions(send_stall_timeout_s=0.3)) as (door, _):
        peer = raw(door)
        peer.send(text("{}"))
        with gevent.Timeout(20):
            while door.server.pool:
                gevent.sleep(0.01)
        assert door.tally.images == 1
        peer.disconnect()


def test_a_peer_that_sends_and_sends_is_held_back() -> None:
    payloads = [text(json.dumps("x" * 100_000))] * (8 * WAITING_PAYLOADS_MAX)  # far more than the kernel holds besides

    def send_all() -> None:
        for payload in payloads:
            with gevent.Timeout(1):
                peer.send(payload)

    may_go_on = Event()

    def answer(request: HttpRequest) -> HttpAnswer:
        may_go_on.wait()
        return echo(request)

    with serving(answer) as (door, endpoint):
        peer = raw(door)
        peer.sock.setsockopt(sockets.SOL_SOCKET, sockets.SO_SNDBUF, 1 << 16)
        with pytest.raises(gevent.Timeout):
            send_all()
        assert len(endpoint.requests) == 1
        may_go_on.set()
        peer.disconnect()


def test_draining_delivers_what_was_taken() -> None:
    may_go_on = Event()
    conversations: list[Any] = []

    class Watched(HttpOverWebSocket):
        def open(self, socket: Any, terms: Any) -> Any:
            conversations.append(super().open(socket, terms))
            return conversations[-1]

    def answer(request: HttpRequest) -> HttpAnswer:
        may_go_on.wait()
        return echo(request)

    def talk() -> tuple[list[Any], tuple[int | None, str | None]]:
        with client(door) as connection:
            connection.send("1")
            connection.send("2")
            return [read_answer(connection).json["received"] for _ in range(2)], closed(connection)

    endpoint = Endpoint(answer)
    registry = Registry({APP: App(endpoint)}, lambda found: Watched(found, timeout_s=60))
    with running_door(registry=registry) as door:
        talking = gevent.spawn(in_thread, talk)
        endpoint.started.wait()
        while not conversations[0]._turns._waiting:
            gevent.sleep(0.001)
        conversations[0].drain()
        may_go_on.set()
        assert talking.get() == ([1, 2], (1012, DRAINED_REASON))
