"""Unary realtime sessions of hosted apps, over real sockets."""

import asyncio
import json
import sys
import threading
from collections.abc import AsyncIterator
from typing import Any

import msgpack
import pytest
from fastapi import HTTPException
from pydantic import BaseModel, field_validator

import runner as fal
from runner.exceptions import AppException, FieldException
from tests.runner.hosting.serving import TIMEOUT, serving


class Input(BaseModel):
    prompt: str
    request_id: str = ""


class Output(BaseModel):
    output: str


class Echo(fal.App):
    @fal.realtime("/realtime")
    def generate(self, input: Input) -> Output:
        return Output(output=input.prompt)

    @fal.realtime("/async/realtime")
    async def generate_async(self, input: Input) -> Output:
        await asyncio.sleep(0)
        return Output(output=input.prompt)

    @fal.realtime("/dict/realtime")
    def generate_dict(self, input: dict[str, Any]) -> dict[str, Any]:
        return {"got": input}

    @fal.realtime("/pictures/realtime")
    async def pictures(self, input: dict[str, Any]) -> dict[str, Any]:
        return {"content": input["image_bytes"][::-1]}


@pytest.fixture(scope="module")
def echo():
    with serving(Echo) as served:
        yield served


@pytest.mark.parametrize("path", ["/realtime", "/async/realtime"])
def test_every_input_has_its_output_in_order(echo, path):
    with echo.socket(path) as peer:
        for number in range(300):
            peer.send(prompt=str(number))
        assert [peer.receive() for _ in range(300)] == [{"output": str(number)} for number in range(300)]


def test_json_text_is_an_input_too_and_results_are_binary(echo):
    with echo.socket() as peer:
        peer.connection.send('{"prompt": "text"}')
        assert msgpack.unpackb(peer.connection.recv(20)) == {"output": "text"}


def test_without_a_model_the_handler_gets_the_map(echo):
    with echo.socket("/dict/realtime") as peer:
        assert peer.ask(a=1, b=[True, b"\xff"]) == {"got": {"a": 1, "b": [True, b"\xff"]}}


def test_bytes_stay_bytes(echo):
    with echo.socket("/pictures/realtime") as peer:
        assert peer.ask(image_bytes=b"\x01" * 60_000 + b"\x02") == {"content": b"\x02" + b"\x01" * 60_000}


def test_a_bad_input_is_told_by_its_fields_and_the_session_lives_on(echo):
    with echo.socket() as peer:
        error = peer.ask(text="cat", request_id="r1")
        assert (error["type"], error["error"], error["request_id"]) == ("x-fal-error", "VALIDATION_ERROR", "r1")
        assert error["detail"] == [{"loc": ["body", "prompt"], "msg": "Field required", "type": "missing"}]
        for garbage in (b"\xc1", b"\x93\x01\x02\x03", "no json"):
            peer.connection.send(garbage)
            assert peer.receive()["detail"][0]["type"] == "decode_error"
        assert peer.ask(prompt="still here") == {"output": "still here"}
    assert echo.marks[-4:] == [{"runner.failed": 1}] * 4


class Failing(fal.App):
    @fal.realtime("/realtime")
    def generate(self, input: Input) -> Any:
        match input.prompt:
            case "boom":
                raise RuntimeError("secret path /etc")
            case "field":
                raise FieldException("prompt", "is rude", type="content_policy_violation")
            case "app":
                raise AppException("the queue is full", 503)
            case "list":
                return [1]
            case "unsayable":
                return {"at": object()}
            case "stop":
                raise StopIteration
            case "exit":
                raise SystemExit(3)
        return {"ok": True}

    @fal.realtime("/async/realtime")
    async def generate_async(self, input: Input) -> Any:
        match input.prompt:
            case "exit":
                sys.exit(3)
            case "structured":
                raise HTTPException(409, {"code": 7})
        return {"ok": True}

    @fal.realtime("/streaming/realtime")
    async def generate_stream(self, input: Input) -> AsyncIterator[Any]:
        yield {"ok": True}
        sys.exit(3)

    @fal.realtime("/validator/realtime")
    async def validated(self, input: "Exploding") -> Any:
        return {}


class Exploding(BaseModel):
    prompt: str

    @field_validator("prompt")
    @classmethod
    def explode(cls, value: str) -> str:
        raise KeyError(value)


def test_what_a_handler_raises_costs_one_answer_and_tells_nothing(caplog):
    with serving(Failing) as served, served.socket() as peer:
        for prompt in ("boom", "list", "unsayable", "stop", "exit"):
            error = peer.ask(prompt=prompt, request_id=prompt)
            assert (error["error"], error["request_id"]) == ("INTERNAL_ERROR", prompt)
            assert "secret" not in json.dumps(error)
            assert error["error_id"] in caplog.text
        error = peer.ask(prompt="field")
        assert error["error"] == "VALIDATION_ERROR"
        assert error["detail"] == [{"loc": ["body", "prompt"], "msg": "is rude", "type": "content_policy_violation"}]
        error = peer.ask(prompt="app")
        assert (error["error"], error["reason"]) == ("UNAVAILABLE", "the queue is full")
        assert peer.ask(prompt="fine") == {"ok": True}


def test_a_handler_that_ends_the_process_ends_its_own_answer_alone(caplog):
    with serving(Failing) as served, served.socket("/async/realtime") as peer:
        assert peer.ask(prompt="exit")["error_id"] in caplog.text
        with served.socket("/streaming/realtime") as stream:
            assert stream.ask(prompt="x") == {"ok": True}
            assert stream.receive()["error_id"] in caplog.text
        assert peer.ask(prompt="fine") == {"ok": True}


def test_an_error_that_is_no_text_is_told_as_json():
    with serving(Failing) as served, served.socket("/async/realtime") as peer:
        error = peer.ask(prompt="structured")
        assert (error["error"], error["reason"]) == ("VALIDATION_ERROR", '{"code":7}')


def test_a_validator_that_fails_costs_one_answer(caplog):
    with serving(Failing) as served, served.socket("/validator/realtime") as peer:
        assert peer.ask(prompt="x")["error_id"] in caplog.text
        assert peer.ask()["error"] == "VALIDATION_ERROR"


class Gated(fal.App):
    """Handlers that tell when they begin and wait until they are let go."""

    def setup(self) -> None:
        self.begun = threading.Semaphore(0)
        self.gate = threading.Event()
        self.batches: list[list[str]] = []

    def hold(self) -> None:
        self.begun.release()
        assert self.gate.wait(20)

    @fal.realtime("/realtime", buffering=2)
    def buffered(self, input: Input) -> Output:
        self.hold()
        return Output(output=input.prompt)

    @fal.realtime("/plain/realtime")
    def plain(self, input: Input) -> Output:
        self.hold()
        return Output(output=input.prompt)

    @fal.realtime("/free/realtime")
    def free(self, input: Input) -> Output:
        return Output(output=input.prompt)

    @fal.realtime("/batched/realtime", max_batch_size=4)
    def batched(self, first: Input, *rest: Input) -> dict[str, Any]:
        if first.prompt == "hold":
            self.hold()
        return {"batch": [each.prompt for each in (first, *rest)]}


@pytest.mark.parametrize(("path", "terms"), [("/realtime", {}), ("/plain/realtime", {"max_buffering": 2})])
def test_newer_inputs_replace_older_ones(path, terms):
    app = Gated()
    with serving(app, **terms) as served, served.socket(path) as peer:
        peer.send(prompt="f0")
        assert app.begun.acquire(timeout=20)
        for number in range(1, 8):
            peer.send(prompt=f"f{number}")
        served.gateway.wait_read(path, 8)
        app.gate.set()
        answers = [peer.receive() for _ in range(3)]
        assert [answer["output"] for answer in answers] == ["f0", "f6", "f7"]
        assert [answer.get("dropped_inputs", 0) for answer in answers] == [5, 0, 0]
    assert served.marks[0] == {"runner.dropped": 5}


def test_inputs_that_wait_are_batched():
    app = Gated()
    with serving(app) as served, served.socket("/batched/realtime") as peer:
        peer.send(prompt="hold")
        assert app.begun.acquire(timeout=20)
        for number in range(10):
            peer.send(prompt=str(number))
        served.gateway.wait_read("/batched/realtime", 11)
        app.gate.set()
        batches = [peer.receive()["batch"] for _ in range(4)]
        assert batches == [["hold"], list("0123"), list("4567"), list("89")]


def test_a_blocking_handler_stalls_no_other_session():
    app = Gated()
    with serving(app) as served, served.socket("/plain/realtime") as stuck:
        stuck.send(prompt="first")
        assert app.begun.acquire(timeout=20)
        with served.socket("/free/realtime") as free:
            for number in range(20):
                assert free.ask(prompt=str(number)) == {"output": str(number)}
        app.gate.set()
        assert stuck.receive() == {"output": "first"}


def test_blocking_handlers_of_several_sockets_run_at_once():
    app = Gated()
    with serving(app) as served, served.socket("/plain/realtime") as one, served.socket("/plain/realtime") as two:
        one.send(prompt="one")
        two.send(prompt="two")
        assert app.begun.acquire(timeout=20)
        assert app.begun.acquire(timeout=20)
        app.gate.set()
        assert (one.receive(), two.receive()) == ({"output": "one"}, {"output": "two"})


class Cancelled(fal.App):
    def setup(self) -> None:
        self.begun = threading.Event()
        self.cancelled = threading.Event()

    @fal.realtime("/realtime")
    async def generate(self, input: Input) -> Output:
        self.begun.set()
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            self.cancelled.set()
            raise
        return Output(output="late")


def test_a_peer_that_leaves_cancels_its_handler():
    app = Cancelled()
    with serving(app) as served:
        with served.socket() as peer:
            peer.send(prompt="x")
            assert app.begun.wait(20)
        assert app.cancelled.wait(20)


class Timed(fal.App):
    @fal.realtime("/realtime", session_timeout=0.3)
    def generate(self, input: Input) -> Output:
        return Output(output=input.prompt)

    @fal.realtime("/default/realtime")
    async def default(self, input: Input) -> Output:
        return Output(output=input.prompt)


def test_an_idle_session_ends_with_timeout():
    with serving(Timed, idle_timeout_s=0.2) as served:
        for path in ("/realtime", "/default/realtime"):
            with served.socket(path) as peer:
                assert peer.ask(prompt="x") == {"output": "x"}
                assert peer.rest() == ([TIMEOUT], 1000)


def test_the_scope_says_how_long_a_session_lives():
    with serving(Timed, max_session_s=0.2, idle_timeout_s=None) as served, served.socket("/default/realtime") as peer:
        assert peer.rest() == ([], 1000)


class Coded(fal.App):
    @staticmethod
    def decode(message: bytes) -> Any:
        return json.loads(message)

    @staticmethod
    def encode(output: Any) -> str:
        if output["output"] == "unsayable":
            raise ValueError("secret")
        return json.dumps(output)

    @fal.realtime("/realtime", content_type="application/json", decode_message=decode, encode_message=encode)
    def generate(self, input: Input) -> Output:
        return Output(output=input.prompt)

    @fal.realtime("/async/realtime", decode_message=decode, encode_message=encode)
    async def generate_async(self, input: Input) -> Output:
        return Output(output=input.prompt)


@pytest.mark.parametrize("path", ["/realtime", "/async/realtime"])
def test_a_codec_of_its_own(path, caplog):
    with serving(Coded) as served, served.socket(path) as peer:
        for message in ('{"prompt": "text"}', b'{"prompt": "text"}'):
            peer.connection.send(message)
            assert peer.connection.recv(20) == '{"output": "text"}'
        peer.connection.send(b"\xc1")
        assert peer.receive()["detail"][0]["type"] == "decode_error"
        peer.connection.send('{"prompt": "unsayable"}')
        assert peer.receive()["error_id"] in caplog.text
        peer.connection.send('{"prompt": "on"}')
        assert peer.receive() == {"output": "on"}


def test_drain_answers_what_was_taken_and_closes_with_service_restart():
    app = Gated()
    with serving(app) as served, served.socket("/plain/realtime") as peer:
        for number in range(3):
            peer.send(prompt=str(number))
        assert app.begun.acquire(timeout=20)
        served.gateway.wait_read("/plain/realtime", 3)
        served.gateway.drain()
        served.gateway.wait_read("/plain/realtime", 4)
        app.gate.set()
        assert peer.rest() == ([{"output": str(number)} for number in range(3)], 1012)


class Hostile(dict[str, Any]):
    def get(self, *_: Any) -> Any:
        raise RuntimeError("secret")


class Odd(fal.App):
    @fal.realtime("/realtime", decode_message=lambda message: Hostile())
    def generate(self, input: Any) -> Any:
        return {}


def test_what_nobody_foresaw_closes_the_one_socket_with_1011_and_an_id(caplog):
    with serving(Odd) as served, served.socket() as peer:
        peer.send(prompt="x")
        assert peer.rest() == ([], 1011)
        assert peer.connection.close_reason in caplog.text
        with served.socket() as other:
            assert other.connection.ping().wait(20)


def test_a_server_that_stops_cancels_its_sessions():
    """uvicorn closes with 1012 and then cancels what still runs."""
    app = Cancelled()
    with serving(app) as served, served.socket() as peer:
        peer.send(prompt="x")
        assert app.begun.wait(20)
        served.stop()
        assert peer.rest() == ([], 1012)
        assert app.cancelled.wait(20)


class Styled(BaseModel):
    prompt: str
    style: str = ""

    def can_batch(self, other: "Styled", size: int) -> bool:
        if other.style == "broken":
            raise RuntimeError("secret")
        return other.style == self.style and size < 3


class Batched(fal.App):
    def setup(self) -> None:
        self.begun, self.gate = threading.Event(), threading.Event()

    @fal.realtime("/realtime", max_batch_size=10)
    async def generate(self, first: Styled, *rest: Styled) -> dict[str, Any]:
        if first.prompt == "hold":
            self.begun.set()
            await asyncio.to_thread(self.gate.wait, 20)
        return {"batch": [each.prompt for each in (first, *rest)]}


def test_the_first_input_says_which_others_may_join_its_batch(caplog):
    app = Batched()
    with serving(app) as served, served.socket() as peer:
        peer.send(prompt="hold")
        assert app.begun.wait(20)
        inputs = [(each, "noir") for each in "abcd"] + [("e", "cute"), ("f", "broken"), ("g", "noir")]
        for prompt, style in inputs:
            peer.send(prompt=prompt, style=style)
        served.gateway.wait_read("/realtime", 8)
        app.gate.set()
        batches = [peer.receive()["batch"] for _ in range(6)]
        assert batches == [["hold"], ["a", "b", "c"], ["d"], ["e"], ["f"], ["g"]]
        assert "can_batch failed" in caplog.text


def test_reading_pauses_while_many_inputs_wait():
    app = Gated()
    with serving(app) as served, served.socket("/plain/realtime") as peer:
        sender = threading.Thread(target=lambda: [peer.send(prompt=str(number)) for number in range(600)])
        sender.start()
        served.gateway.wait_read("/plain/realtime", 256)  # and one more, after which it does not ask for another
        assert app.begun.acquire(timeout=20)
        with served.socket("/free/realtime") as free:
            assert free.ask(prompt="on") == {"output": "on"}
        assert served.gateway.read["/plain/realtime"] == 256
        app.gate.set()
        assert [peer.receive()["output"] for _ in range(600)] == [str(number) for number in range(600)]
        sender.join(20)


def test_answers_keep_their_order_on_many_sockets_at_once(echo):
    def talk(path: str, errors: list[Any]) -> None:
        with echo.socket(path) as peer:
            for number in range(100):
                peer.send(**({"prompt": str(number)} if number % 10 else {"request_id": str(number)}))
            answers = [peer.receive() for _ in range(100)]
        got = [answer.get("output", answer.get("request_id")) for answer in answers]
        errors += [] if got == [str(number) for number in range(100)] else [got]

    errors: list[Any] = []
    paths = ["/realtime", "/async/realtime"] * 8
    talkers = [threading.Thread(target=talk, args=(path, errors)) for path in paths]
    for talker in talkers:
        talker.start()
    for talker in talkers:
        talker.join(60)
    assert errors == []


class Refusing(fal.App):
    @fal.realtime("/realtime")
    async def generate(self, input: Input) -> Any:
        raise HTTPException(int(input.prompt), "because")

    @fal.realtime("/wrapped/realtime", encode_message=lambda output: 7)  # type: ignore[arg-type,return-value]
    def wrapped(self, input: Input) -> Any:
        return {}


@pytest.mark.parametrize(
    ("status", "error"),
    [(401, "UNAUTHORIZED"), (403, "FORBIDDEN"), (404, "NOT_FOUND"), (418, "VALIDATION_ERROR"), (429, "LIMIT_EXCEEDED")],
)
def test_an_http_exception_is_told_in_the_words_of_the_protocol(status, error):
    with serving(Refusing) as served, served.socket() as peer:
        answer = peer.ask(prompt=str(status))
        assert (answer["error"], answer["reason"]) == (error, "because")


def test_an_encoder_that_makes_no_message_costs_one_answer(caplog):
    with serving(Refusing) as served, served.socket("/wrapped/realtime") as peer:
        assert peer.ask(prompt="x")["error_id"] in caplog.text
        assert "encode_message must return bytes or str, not int" in caplog.text
