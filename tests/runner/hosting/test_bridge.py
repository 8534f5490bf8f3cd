"""Apps in processes of their own: real processes, a real door, real sockets."""

import json
import threading
from collections.abc import Iterator

import gevent
import psutil
import pytest
from websockets.exceptions import ConnectionClosed

from runner.apps.serving import AppUnavailable, SocketTerms
from runner.hosting.bridge import HostedApp
from runner.hosting.hosted_http import AnswerBrokenOff
from runner.hosting.supervisor import AppState
from runner.protocol.session import SessionRules
from schemas.errors import CloseCode
from tests.runner.doors.door import settle, token
from tests.runner.doors.test_realtime_revocation import revoke
from tests.runner.hosting.hosted import SAMPLES, Hosted, end_of, hosted, pack, request, until

APP = "acme/echo"


@pytest.fixture(scope="module")
def echo() -> Iterator[Hosted]:
    with hosted(echo="Echo") as running:
        yield running


def test_a_realtime_endpoint_answers_and_a_bad_input_costs_one_answer(echo: Hosted) -> None:
    def talk() -> None:
        with echo.client("acme/echo/realtime") as client:
            assert client.ask(prompt="a cat", request_id="one")["output"] == "a cat"
            refused = client.ask(prompt=7)
            assert (refused["error"], refused["detail"][0]["loc"]) == ("VALIDATION_ERROR", ["body", "prompt"])
            assert client.ask(prompt="a dog")["output"] == "a dog"

    echo.in_thread(talk)


def test_a_raw_socket_is_the_handlers_own(echo: Hosted) -> None:
    def talk() -> None:
        with echo.client("acme/echo/echo") as client:
            for text in ("one", "twö", ""):
                client.connection.send(text)
                assert client.connection.recv() == text

    echo.in_thread(talk)


@pytest.mark.parametrize(("asked", "sent"), [(4321, 4321), (1000, 1000), (1013, 1013), (1005, 1011), (700, 1011)])
def test_a_handler_chooses_the_close_code_if_a_close_frame_can_carry_it(echo: Hosted, asked: int, sent: int) -> None:
    def talk() -> tuple[list[object], int]:
        with echo.client("acme/echo/close") as client:
            client.connection.send(str(asked))
            return end_of(client)

    assert echo.in_thread(talk) == ([], sent)


def test_a_handler_that_raises_closes_with_1011_and_says_nothing_of_why(echo: Hosted) -> None:
    def talk() -> tuple[int, str]:
        with echo.client("acme/echo/fail") as client, pytest.raises(ConnectionClosed) as closed:
            client.connection.recv()
        assert closed.value.rcvd is not None
        return closed.value.rcvd.code, closed.value.rcvd.reason

    code, reason = echo.in_thread(talk)
    assert code == CloseCode.INTERNAL_ERROR
    assert "hunter2" not in reason
    assert len(reason) == 32  # an id


def test_a_handler_learns_the_code_that_its_peer_left_with(echo: Hosted) -> None:
    def talk() -> None:
        with echo.client("acme/echo/leaving") as client:
            client.connection.close(4005)

    echo.in_thread(talk)
    until(lambda: 4005 in json.loads(echo.post(APP, "/left")[1]))


def test_http_is_answered_with_fastapis_words(echo: Hosted) -> None:
    assert echo.post(APP, "/", b'{"prompt": "a cat"}') == (200, b'{"output":"a cat"}')
    status, body = echo.post(APP, "/", b'{"prompt": 7}')
    assert status == 422
    assert json.loads(body)["detail"][0]["loc"] == ["body", "prompt"]
    document = echo.respond(APP, "/openapi.json", method="GET")
    assert "/realtime" in json.loads(b"".join(document.body))["paths"]


def test_http_answers_may_come_in_pieces(echo: Hosted) -> None:
    answer = echo.respond(APP, "/lines")
    assert b"".join(answer.body) == b"0\n1\n2\n"
    assert {name for name, _ in answer.headers} & {"connection", "transfer-encoding", "date", "server"} == set()


def test_an_answer_that_breaks_off_says_where_the_cause_is_and_blames_no_process(echo: Hosted) -> None:
    parts = iter(echo.respond(APP, "/breaking-off").body)
    assert next(parts) == b"a"
    with pytest.raises(AnswerBrokenOff, match=r"under [0-9a-f]{32}$"):
        next(parts)
    assert echo.apps[APP].open_streams == 0
    assert echo.post(APP, "/sent")[0] == 200


def test_a_path_says_which_methods_it_takes(echo: Hosted) -> None:
    app = echo.apps[APP]
    assert [endpoint.methods for endpoint in (app.http("/"), app.http("/health")) if endpoint] == [{"POST"}, {"GET"}]
    assert app.http("/realtime") is None
    assert app.socket("/") is None


def test_whoever_stops_waiting_has_the_handler_told(echo: Hosted) -> None:
    before = json.loads(echo.post(APP, "/left")[1]).count(0)
    waiting = gevent.spawn(echo.respond, APP, "/endless", b'{"prompt": "x"}')
    until(lambda: echo.apps[APP].open_streams == 1)
    waiting.kill()
    until(lambda: json.loads(echo.post(APP, "/left")[1]).count(0) == before + 1)
    assert echo.apps[APP].open_streams == 0


def test_a_peer_that_does_not_read_stops_its_own_handler_and_nobody_else(echo: Hosted) -> None:
    def sent() -> int:
        return int(echo.post(APP, "/sent")[1])

    def talk(stop: threading.Event) -> None:
        with echo.client("acme/echo/flood") as client:
            stop.wait()
            client.connection.close()

    stop = threading.Event()
    try:
        flooded = gevent.get_hub().threadpool.spawn(talk, stop)
        counts = [-1, sent()]
        while counts[-1] != counts[-2] or counts[-1] == 0:
            with_others(echo)
            counts.append(sent())
        # What the kernel's buffers, the client's queue and one window hold.
        assert counts[-1] * 64 * 1024 < 32 * 1024 * 1024
    finally:
        stop.set()
    flooded.get()


def with_others(echo: Hosted, count: int = 20) -> None:
    """Has another socket and another request answered meanwhile."""

    def talk() -> None:
        with echo.client("acme/echo/realtime") as client:
            for number in range(count):
                assert client.ask(prompt=str(number))["output"] == str(number)

    echo.in_thread(talk)
    assert echo.post(APP, "/", b'{"prompt": "x"}')[0] == 200


class Flood:
    """A peer with no end of messages, that counts how many were taken."""

    close_code = None

    def __init__(self) -> None:
        self.taken = 0
        self.is_closed = False
        self.sent: list[bytes | str] = []

    def receive(self) -> bytes | str | None:
        gevent.sleep(0)  # as a connection does, which lets others in
        if self.is_closed:
            return None
        self.taken += 1
        return b"x" * 64 * 1024

    def offer(self, message: bytes | str) -> bool:
        self.sent.append(message)
        return True

    def send(self, message: bytes | str) -> None:
        self.sent.append(message)

    def close(self, code: int = 1000, reason: str = "") -> None:
        self.is_closed = True

    abort = close


def test_a_handler_that_does_not_receive_holds_one_window_of_what_its_peer_sends() -> None:
    """The peer is made up: of a real one nobody could say what the kernel holds and what we do."""
    with hosted(echo="Echo") as running:
        endpoint = running.apps[APP].socket("/deaf")
        assert endpoint is not None
        flood = Flood()
        conversation = endpoint.open(flood, SocketTerms("/deaf", SessionRules(), request("/").allowance, lambda: 0.0))
        served = gevent.spawn(conversation.run)
        with_others(running)
        assert 0 < flood.taken * 64 * 1024 <= 512 * 1024
        running.post(APP, "/release")
        served.get()
        assert flood.sent == ["heard nothing"]


def test_a_handler_that_hogs_the_interpreter_stalls_its_own_app_only() -> None:
    with hosted(echo="Echo", hog="Hog") as running:

        def spin(spinning: threading.Event, stop: threading.Event) -> None:
            with running.client("acme/hog/spin") as client:
                assert client.connection.recv() == "spinning"
                spinning.set()
                # The gateway answers for a process that cannot.
                for _ in range(3):
                    assert client.connection.ping().wait(30)
                stop.wait()

        spinning, stop = threading.Event(), threading.Event()
        spun = gevent.get_hub().threadpool.spawn(spin, spinning, stop)
        running.in_thread(spinning.wait)
        with_others(running)
        stop.set()
        spun.get()
        running.apps["acme/hog"].stop(0.1)


def test_a_killed_process_ends_its_sockets_with_an_id_and_another_one_serves() -> None:
    with hosted(echo="Echo") as running:
        app = running.apps[APP]
        first = app.pid
        assert first is not None

        def under_load(ready: threading.Barrier) -> tuple[object, int]:
            with running.client("acme/echo/realtime") as client:
                client.ask(prompt="before")
                ready.wait()
                try:
                    while True:
                        client.connection.send(pack(prompt="again"))
                        message = client.recv()
                        if "error" in message:
                            return (message["error"], bool(message["error_id"])), end_of(client)[1]
                except ConnectionClosed:
                    return None, client.connection.close_code

        ready = threading.Barrier(5)
        clients = [gevent.get_hub().threadpool.spawn(under_load, ready) for _ in range(4)]
        unanswered = gevent.spawn(running.respond, APP, "/endless", b'{"prompt": "x"}')
        gevent.get_hub().threadpool.apply(ready.wait)
        psutil.Process(first).kill()
        for client in clients:
            assert client.get() == (("INTERNAL_ERROR", True), CloseCode.INTERNAL_ERROR)
        with pytest.raises(AppUnavailable, match="died"):
            unanswered.get()
        with_others(running)
        assert app.pid != first
        assert app.restarts == 1


def test_a_revoked_token_ends_its_socket_whatever_the_handler_does(echo: Hosted) -> None:
    text = token("acme/echo")

    def talk() -> tuple[list[object], int]:
        with echo.client("acme/echo/hold", text) as client:
            client.send(prompt="waits")
            return end_of(client)

    ended = gevent.get_hub().threadpool.spawn(talk)
    until(lambda: echo.apps[APP].open_streams == 1)
    revoke(echo.door, text)
    messages, code = ended.get()
    assert [message["error"] for message in messages] == ["UNAUTHORIZED"]
    assert code == CloseCode.UNAUTHORIZED
    until(lambda: echo.apps[APP].open_streams == 0)


def test_only_inputs_that_were_answered_with_a_result_count(echo: Hosted) -> None:
    text = token("acme/echo", max_requests=2)

    def talk() -> tuple[list[object], list[object], int]:
        with echo.client("acme/echo/realtime", text) as client:
            answers = [client.ask(prompt=prompt).get("output") for prompt in ("one", 7, "two")]
            client.send(prompt="three")
            return answers, *end_of(client)

    answers, messages, code = echo.in_thread(talk)
    assert answers == ["one", None, "two"]
    assert [message["error"] for message in messages] == ["LIMIT_EXCEEDED"]
    assert code == CloseCode.LIMIT_EXCEEDED


def test_what_was_taken_before_the_limit_is_answered_first(echo: Hosted) -> None:
    text = token("acme/echo", max_requests=3)

    def talk() -> tuple[list[object], int]:
        with echo.client("acme/echo/realtime", text) as client:
            for number in range(6):
                client.send(prompt=str(number))
            return end_of(client)

    messages, code = echo.in_thread(talk)
    assert [message.get("output") for message in messages] == ["0", "1", "2", None]
    assert code == CloseCode.LIMIT_EXCEEDED


def test_requests_that_were_given_up_count_for_nothing(echo: Hosted) -> None:
    text = token("acme/echo", max_requests=1)

    def leave() -> None:
        with echo.client("acme/echo/hold", text) as client:
            client.send(prompt="never answered")
            client.connection.ping().wait()

    def talk() -> object:
        with echo.client("acme/echo/realtime", text) as client:
            return client.ask(prompt="answered").get("output")

    for _ in range(3):
        echo.in_thread(leave)
        until(lambda: echo.apps[APP].open_streams == 0)
    assert echo.in_thread(talk) == "answered"


def test_draining_answers_what_was_taken_and_closes_with_1012() -> None:
    read: list[str] = []
    with hosted(drain_grace_s=0.2, echo="Echo") as running:

        def talk(path: str) -> tuple[list[object], int]:
            with running.client(path) as client:
                client.send(prompt="taken")
                client.connection.ping().wait()
                read.append(path)
                return end_of(client)

        realtime = gevent.get_hub().threadpool.spawn(talk, "acme/echo/hold")
        raw = gevent.get_hub().threadpool.spawn(talk, "acme/echo/deaf")
        until(lambda: len(read) == 2)
        settle()
        running.door.realtime.drain()
        messages, code = raw.get()
        assert (messages, code) == ([], CloseCode.SERVICE_RESTART)
        running.post(APP, "/release")
        messages, code = realtime.get()
        assert [message["output"] for message in messages] == ["taken"]
        assert code == CloseCode.SERVICE_RESTART


def test_a_raw_socket_lasts_no_longer_than_a_session_may() -> None:
    with hosted(rules=SessionRules(max_session_s=0.3), echo="Echo") as running:

        def talk() -> tuple[list[object], int]:
            with running.client("acme/echo/echo") as client:
                return end_of(client)

        assert running.in_thread(talk) == ([], CloseCode.NORMAL)


def test_an_app_inherits_no_secret_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    secrets = {"RUNNER_AUTHSVC_KEY", "AUTHSVC_DATABASE_URL", "OTEL_EXPORTER_OTLP_HEADERS"}
    for name in (*secrets, "RUNNER_MODEL", "MY_OWN_KEY"):
        monkeypatch.setenv(name, "x")
    with hosted(echo="Echo") as running:
        names = set(json.loads(running.post(APP, "/environment")[1]))
    assert {"RUNNER_MODEL", "MY_OWN_KEY"} <= names
    assert secrets & names == set()


def test_a_handler_is_told_who_calls(echo: Hosted) -> None:
    def talk() -> object:
        with echo.client("acme/echo/caller-of-socket") as client:
            return json.loads(client.connection.recv())

    assert json.loads(echo.post(APP, "/caller")[1]) == "192.0.2.7"
    assert echo.in_thread(talk) == "127.0.0.1"


def test_a_request_waits_for_setup(echo: Hosted) -> None:
    app = HostedApp("acme/slow", f"{SAMPLES}:Slow")
    app.start()
    try:
        assert app.state is AppState.STARTING
        assert app.http("/") is not None
        assert app.state is AppState.READY
    finally:
        app.stop(10)
    with pytest.raises(AppUnavailable, match="shutting down"):
        app.http("/")


@pytest.mark.parametrize(
    ("target", "words"),
    [
        ("tests.runner.hosting.no_such_module:App", "cannot be imported: ModuleNotFoundError"),
        (f"{SAMPLES}:NoApp", "has no class NoApp that is derived from runner.App"),
        (f"{SAMPLES}:Missing", "has no class Missing"),
    ],
)
def test_what_can_never_be_served_is_given_up_with_a_remedy(target: str, words: str) -> None:
    app = HostedApp("acme/bad", target)
    app.start()
    try:
        assert app.given_up.wait(60)
        assert words in app.detail
        with pytest.raises(AppUnavailable, match="its log on the server says why"):
            app.http("/")
    finally:
        app.stop()


def test_an_app_whose_setup_fails_is_tried_again_and_then_said_to_have_failed() -> None:
    app = HostedApp("acme/broken", f"{SAMPLES}:Broken", back_off_s=[0])
    app.start()
    try:
        until(lambda: app.state is AppState.FAILED)
        assert app.restarts >= 4
        assert not app.given_up.is_set()
        with pytest.raises(AppUnavailable):
            app.http("/")
    finally:
        app.stop()
