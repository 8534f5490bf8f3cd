"""An app's HTTP, raw sockets, description and life, under a real server."""

import asyncio
import gc
import socket
import sys
import threading
import uuid
from typing import Any

import httpx
import pytest
from fastapi import BackgroundTasks, HTTPException
from openapi_spec_validator import OpenAPIV31SpecValidator
from pydantic import BaseModel, Field
from websockets.exceptions import ConnectionClosed

import runner as fal
from examples.realtime_app import RealtimeApp
from runner.apps.framework import App, DeclarationError
from runner.exceptions import AppException, FieldException, RequestCancelledException
from runner.hosting.application import build
from runner.hosting.hangup import respond_until_hangup
from tests.runner.hosting.serving import serving


class Input(BaseModel):
    prompt: str = Field(max_length=5)
    number: float = 0.0


class Output(BaseModel):
    output: str


class Full(App):
    def setup(self) -> None:
        self.thread = threading.current_thread()

    @fal.endpoint("/")
    def generate(self, input: Input) -> Output:
        return Output(output=input.prompt)

    @fal.endpoint("/async")
    async def generate_async(self, input: Input) -> Output:
        return Output(output=input.prompt)

    @fal.endpoint("/fail")
    def fail(self, input: Input) -> Output:
        match input.prompt:
            case "app":
                raise AppException("no such style", 418)
            case "field":
                raise FieldException("prompt", "is rude")
            case "paid":
                raise FieldException("prompt", "is rude", billable_units=1.5)
            case "left":
                raise RequestCancelledException
            case "gone":
                raise AppException("not there", 404)
            case "odd":
                raise AppException("odd", 599)
            case "exit":
                sys.exit(3)
            case "moved":
                raise HTTPException(307, headers={"location": "/elsewhere"})
            case "http":
                raise HTTPException(403, "not for you")
            case "busy":
                raise HTTPException(503, {"code": 7}, headers={"Retry-After": "5"})
        raise RuntimeError("secret")

    @fal.endpoint("/stream")
    def stream(self, input: Input) -> fal.StreamingResponse:
        return fal.StreamingResponse((f"data: {part}\n\n" for part in "abc"), media_type="text/event-stream")

    @fal.endpoint("/broken-stream")
    def broken_stream(self, input: Input) -> fal.StreamingResponse:
        def parts() -> Any:
            yield "data: a\n\n"
            raise RuntimeError("secret")

        return fal.StreamingResponse(parts())

    @fal.endpoint("/headers")
    async def headers(self, request: fal.Request) -> dict[str, str]:
        return {"style": request.headers["x-style"]}

    @fal.endpoint("/context")
    def context(self, input: Input) -> list[Any]:
        assert self.current_request is not None
        return [self.current_request.request_id, self.current_request.headers["x-style"]]

    @fal.realtime("/realtime", buffering=3, session_timeout=5, max_batch_size=2)
    def generate_rt(self, input: Input, *rest: Input) -> Output:
        """Draws."""
        return Output(output=input.prompt)

    @fal.endpoint("/ws", is_websocket=True)
    async def generate_ws(self, websocket: fal.WebSocket) -> None:
        await websocket.accept()
        while True:
            text = await websocket.receive_text()
            if text == "boom":
                raise RuntimeError("secret")
            if text == "exit":
                sys.exit(3)
            if text == "return":
                return
            if text == "close":
                await websocket.close(4321, "bye")
                return
            await websocket.send_json({"got": text, "query": websocket.query_params.get("q")})

    def health(self) -> dict[str, Any]:
        return {"status": "splendid"}


@pytest.fixture(scope="module")
def full():
    with serving(Full) as served:
        yield served


@pytest.fixture
def client(full):
    with httpx.Client(base_url=full.url) as client:
        yield client


@pytest.mark.parametrize("path", ["/", "/async"])
def test_an_endpoint_answers_post(client, path):
    assert client.post(path, json={"prompt": "cat"}).json() == {"output": "cat"}


def test_setup_runs_first_and_health_is_the_apps_own(client):
    assert client.get("/health").json() == {"status": "splendid"}


def test_streams_and_requests_are_fastapis(client):
    assert client.post("/stream", json={"prompt": "x"}).text == "data: a\n\ndata: b\n\ndata: c\n\n"
    assert client.post("/headers", headers={"x-style": "noir"}).json() == {"style": "noir"}


def test_a_handler_can_ask_for_its_request(client):
    headers = {"x-style": "noir", "x-fal-request-id": "some-id"}
    assert client.post("/context", json={"prompt": "x"}, headers=headers).json() == ["some-id", "noir"]
    assert Full().current_request is None


def problem(response: httpx.Response, status: int) -> dict[str, Any]:
    body = response.json()
    assert response.status_code == body["status"] == status
    assert response.headers["content-type"] == "application/json"
    assert response.headers["x-fal-error-type"] == body["error_type"]
    assert response.headers["x-fal-retryable"] in ("true", "false")
    assert "x-fal-billable-units" in response.headers
    assert set(body) == {"type", "title", "status", "detail", "instance", "error_type"}
    return body


def test_an_invalid_body_is_told_by_its_fields(client):
    response = client.post("/", json={"prompt": "much too long" * 50})
    assert problem(response, 422)["detail"] == [
        {
            "loc": ["body", "prompt"],
            "msg": "String should have at most 5 characters",
            "type": "string_too_long",
            "ctx": {"max_length": 5},
        }
    ]
    assert response.headers["x-fal-billable-units"] == "0"


def test_a_body_that_json_could_not_echo_is_refused_all_the_same(client):
    def post(body: bytes) -> httpx.Response:
        return client.post("/", content=body, headers={"content-type": "application/json"})

    assert problem(post(b"{"), 422)["detail"][0]["type"] == "json_invalid"
    assert len(problem(post(b'{"prompt": NaN, "number": "\\ud800"}'), 422)["detail"]) == 2
    assert problem(post(b"\xff\xfe\xfa"), 400)["error_type"] == "bad_request"


def test_what_a_handler_raises(client, caplog):
    def fail(prompt: str) -> httpx.Response:
        return client.post("/fail", json={"prompt": prompt})

    assert problem(fail("app"), 418)["detail"] == "no such style"
    assert problem(fail("left"), 499)["error_type"] == "client_cancelled"
    assert problem(fail("gone"), 404)["detail"] == "not there"
    assert problem(fail("odd"), 599)["type"] == "about:blank"
    assert problem(fail("http"), 403)["detail"] == "not for you"
    busy = fail("busy")
    assert problem(busy, 503)["detail"] == {"code": 7}
    assert (busy.headers["retry-after"], busy.headers["x-fal-retryable"]) == ("5", "true")
    assert fail("moved").headers["location"] == "/elsewhere"
    field = fail("field")
    assert problem(field, 422)["detail"] == [{"loc": ["body", "prompt"], "msg": "is rude", "type": "value_error"}]
    assert field.headers["x-fal-billable-units"] == "0"
    assert fail("paid").headers["x-fal-billable-units"] == "1.50000000"
    internal = problem(fail("boom"), 500)
    assert "secret" not in str(internal)
    assert internal["instance"].removeprefix("urn:uuid:") in caplog.text


def test_a_handler_that_ends_the_process_ends_its_own_answer_alone(full, client, caplog):
    with full.socket("/ws") as peer:
        assert client.post("/fail", json={"prompt": "exit"}).status_code == 500
        assert "a handler called sys.exit" in caplog.text
        peer.connection.send("exit")
        assert peer.rest() == ([], 1011)
    assert client.post("/", json={"prompt": "cat"}).json() == {"output": "cat"}


def test_a_stream_that_breaks_is_cut_and_logged(client, caplog):
    with pytest.raises(httpx.RemoteProtocolError):
        client.post("/broken-stream", json={"prompt": "x"})
    assert "request failed (" in caplog.text


def test_an_internal_error_has_the_requests_id(client, caplog):
    request_id = str(uuid.uuid4())
    response = client.post("/fail", json={"prompt": "x"}, headers={"x-fal-request-id": request_id})
    assert response.json()["instance"] == f"urn:uuid:{request_id}"
    assert f"({request_id})" in caplog.text


def test_what_is_not_there(client):
    response = client.post("/zzz", json={})
    assert problem(response, 404)["detail"] == "Path /zzz not found"
    assert response.headers["x-fal-billable-units"] == "0"
    response = client.get("/async")
    assert problem(response, 405)["error_type"] == "method_not_allowed"
    assert response.headers["allow"] == "POST"


def test_the_description_is_openapi_with_fals_words(client):
    document = client.get("/openapi.json").json()
    OpenAPIV31SpecValidator(document).validate()
    paths = "/ /async /fail /stream /broken-stream /headers /context /health /realtime /ws"
    assert document["x-fal-order-paths"] == paths.split()
    realtime = document["paths"]["/realtime"]
    assert realtime["x-fal-protocol"] == {
        "type": "realtime",
        "operationId": "generate_rt",
        "config": {"buffering": 3, "sessionTimeout": 5, "maxBatchSize": 2},
        "contentType": "application/msgpack",
        "realtimeMode": "unary",
    }
    schema = realtime["post"]["requestBody"]["content"]["application/json"]["schema"]
    assert schema == {"$ref": "#/components/schemas/Input"}
    assert realtime["post"]["description"] == "Draws."
    assert document["paths"]["/ws"]["x-fal-protocol"]["type"] == "websocket"
    assert document["components"]["schemas"]["Input"]["x-fal-order-properties"] == ["prompt", "number"]


def test_a_raw_socket_is_starlettes(full, caplog):
    with full.socket("/ws?q=1") as peer:
        peer.connection.send("hello")
        assert peer.receive() == {"got": "hello", "query": "1"}
        peer.connection.send("close")
        with pytest.raises(ConnectionClosed, match=r"4321.*bye"):
            peer.receive()
    with full.socket("/ws") as peer:
        peer.connection.send("return")
        assert peer.rest() == ([], 1000)
    with full.socket("/ws") as peer:
        peer.connection.send("boom")
        assert peer.rest() == ([], 1011)
        assert peer.connection.close_reason in caplog.text
        assert len(peer.connection.close_reason) == 32


class Gone(App):
    def setup(self) -> None:
        self.seen: list[str] = []
        self.done = threading.Event()

    @fal.endpoint("/ws", is_websocket=True)
    async def socket(self, websocket: fal.WebSocket) -> None:
        await websocket.accept()
        try:
            await websocket.receive_text()
        except fal.WebSocketDisconnect as left:
            self.seen.append(f"left with {left.code}")
            raise
        finally:
            self.done.set()


def test_a_raw_socket_learns_that_its_peer_left(caplog):
    app = Gone()
    with serving(app) as served:
        with served.socket("/ws"):
            pass
        assert app.done.wait(20)
    assert app.seen == ["left with 1000"]
    assert "failed" not in caplog.text


class Slow(App):
    def setup(self) -> None:
        self.begun, self.cancelled, self.afterwards = threading.Event(), threading.Event(), threading.Event()

    @fal.endpoint("/")
    async def wait(self, input: Input) -> Output:
        self.begun.set()
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            self.cancelled.set()
            raise
        return Output(output="late")

    @fal.endpoint("/stream")
    async def stream(self, input: Input) -> fal.StreamingResponse:
        async def parts() -> Any:
            try:
                while True:
                    yield b"x" * 1000
                    await asyncio.sleep(0.001)
            finally:
                self.cancelled.set()

        self.begun.set()
        return fal.StreamingResponse(parts())

    @fal.endpoint("/bodiless")
    async def bodiless(self) -> Output:
        return await self.wait(Input(prompt=""))

    @fal.endpoint("/thread-stream")
    def thread_stream(self, input: Input) -> fal.StreamingResponse:
        def parts() -> Any:
            try:
                while True:
                    self.begun.set()  # here: one that never began has no `finally`
                    yield b"x" * 1000
            finally:
                self.cancelled.set()

        return fal.StreamingResponse(parts())

    @fal.endpoint("/looking")
    async def looking(self, request: fal.Request, input: Input) -> Output:
        while not await request.is_disconnected():
            self.begun.set()
            await asyncio.sleep(0.001)
        self.afterwards.set()
        return Output(output="late")

    @fal.endpoint("/background")
    async def background(self, input: Input, tasks: BackgroundTasks) -> Output:
        tasks.add_task(self.after)
        return Output(output="now")

    async def after(self) -> None:
        assert await asyncio.to_thread(self.begun.wait, 20)
        self.afterwards.set()


def post_and_leave(served: Any, path: str, app: Slow) -> None:
    with socket.create_connection(("127.0.0.1", served.port)) as client:
        body = b'{"prompt": "x"}'
        head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        client.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
        assert app.begun.wait(20)


@pytest.mark.parametrize("path", ["/", "/bodiless", "/stream"])
def test_a_client_that_leaves_cancels_its_handler(path):
    app = Slow()
    with serving(app) as served:
        post_and_leave(served, path, app)
        assert app.cancelled.wait(20)


def test_a_client_that_leaves_ends_a_stream_that_threads_make():
    app = Slow()
    with serving(app) as served:
        post_and_leave(served, "/thread-stream", app)
        while not app.cancelled.wait(0.05):  # the test's own timeout ends one that never is
            gc.collect()  # Starlette takes no more items, and leaves the generator to the collector


class Blocking(App):
    def setup(self) -> None:
        self.gate, self.begun, self.lock = threading.Event(), threading.Semaphore(0), threading.Lock()
        self.running = self.most = 0

    @fal.endpoint("/")
    def wait(self) -> None:
        with self.lock:
            self.running += 1
            self.most = max(self.most, self.running)
        self.begun.release()
        assert self.gate.wait(20)
        with self.lock:
            self.running -= 1

    @fal.endpoint("/turn")
    async def turn(self) -> None:
        """Answered by the loop, which has looked at what came before."""


def test_clients_that_leave_a_thread_do_not_make_more_threads():
    app, pool = Blocking(), 40  # anyio's
    with serving(app) as served:
        for number in range(pool + 5):
            with socket.create_connection(("127.0.0.1", served.port)) as client:
                client.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n")
                if number < pool:
                    assert app.begun.acquire(timeout=20)
            assert httpx.post(served.url + "/turn").is_success
        app.gate.set()
        for _ in range(5):
            assert app.begun.acquire(timeout=20)
    assert app.most == pool


def test_a_body_is_handed_on_as_it_came_and_so_is_a_client_that_left_in_the_middle_of_it():
    arriving = [
        {"type": "http.request", "body": b"{", "more_body": True},
        {"type": "http.request", "body": b"}", "more_body": True},
        {"type": "http.disconnect"},
    ]
    events, received = iter(arriving), []

    async def receive() -> Any:
        return next(events)

    async def application(scope: Any, receive: Any, send: Any) -> None:
        received.extend([await receive() for _ in range(4)])

    async def send(message: Any) -> None:
        raise AssertionError(message)

    asyncio.run(asyncio.wait_for(respond_until_hangup(application, {}, receive, send, cancels=True), 20))
    assert received == [*arriving, {"type": "http.disconnect"}]


def test_a_handler_may_look_itself_whether_its_client_left():
    app = Slow()
    with serving(app) as served:
        post_and_leave(served, "/looking", app)
        assert app.afterwards.wait(20)


def test_what_runs_after_the_answer_is_not_cancelled():
    app = Slow()
    with serving(app) as served:
        assert httpx.post(served.url + "/background", json={"prompt": "x"}).json() == {"output": "now"}
        app.begun.set()
        assert app.afterwards.wait(20)


def test_the_example_of_fals_documentation():
    with serving(RealtimeApp) as served:
        assert httpx.post(served.url, json={"prompt": "cat"}).json() == {"output": "cat"}
        with served.socket() as peer:
            assert peer.ask(prompt="cat") == {"output": "cat"}
        with served.socket("/echo") as peer:
            peer.connection.send("hi")
            assert [peer.connection.recv(20) for _ in range(3)] == ["hi-0", "hi-1", "hi-2"]
            assert peer.rest() == ([], 1000)


class Lives(App):
    def __init__(self) -> None:
        self.calls: list[str] = []

    async def setup(self) -> None:
        await asyncio.sleep(0)
        self.calls.append("setup")

    async def teardown(self) -> None:
        self.calls.append("teardown")

    @fal.endpoint("/")
    async def handle(self, request: fal.Request) -> list[str]:
        return self.calls


def test_setup_and_teardown_may_be_coroutines():
    app = Lives()
    with serving(app) as served:
        assert httpx.post(served.url).json() == ["setup"]
    assert app.calls == ["setup", "teardown"]


class Broken(App):
    def setup(self) -> None:
        raise RuntimeError("no weights")

    @fal.endpoint("/")
    def handle(self, input: Input) -> Output:
        return Output(output="")


def test_an_app_whose_setup_fails_does_not_start():
    messages: list[Any] = []

    async def run() -> None:
        events = iter([{"type": "lifespan.startup"}])

        async def receive() -> Any:
            return next(events)

        async def send(message: Any) -> None:
            messages.append(message)

        with pytest.raises(RuntimeError, match="no weights"):
            await build(Broken())({"type": "lifespan", "asgi": {"version": "3.0"}, "state": {}}, receive, send)

    asyncio.run(run())
    assert messages[0]["type"] == "lifespan.startup.failed"


def test_what_cannot_be_served_says_what_to_write_instead():
    class Empty(App):
        pass

    class SyncSocket(App):
        @fal.endpoint("/ws", is_websocket=True)
        def handle(self, websocket: fal.WebSocket) -> None: ...

    class NoSocket(App):
        @fal.endpoint("/ws", is_websocket=True)
        async def handle(self, websocket: Any) -> None: ...

    class Unreadable(App):
        @fal.realtime("/realtime")
        def handle(self, input: threading.Thread) -> Any: ...

    class TakesNothing(App):
        @fal.realtime("/realtime")
        def handle(self) -> Any: ...

    class TakesNoBatch(App):
        @fal.realtime("/realtime", max_batch_size=4)
        def handle(self, input: Input) -> Any: ...

    for app, words in {
        Empty: "Empty has no endpoint: put @endpoint or @realtime",
        SyncSocket: r"/ws: write `async def handle\(self, websocket: WebSocket\)",
        NoSocket: r"/ws: write `async def handle\(self, websocket: WebSocket\)",
        Unreadable: "/realtime: pydantic cannot validate its input",
        TakesNothing: r"/realtime: .* write `handle\(self, input: Input\)`",
        TakesNoBatch: r"/realtime: .* write `handle\(self, input: Input, \*rest: Input\)`",
    }.items():
        with pytest.raises(DeclarationError, match=words):
            build(app())
