"""The streaming modes of hosted apps, over real sockets (contract §3)."""

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from pydantic import BaseModel

import runner as fal
from tests.runner.hosting.serving import TIMEOUT, serving


class Input(BaseModel):
    count: int = 3
    request_id: str = ""


class Output(BaseModel):
    number: int


class Streams(fal.App):
    def setup(self) -> None:
        self.ended = threading.Event()
        self.begun = threading.Event()
        self.sums: list[int] = []
        self.made = 0

    @fal.realtime("/generator/realtime")
    def generator(self, input: Input) -> Iterator[Output]:
        for number in range(input.count):
            yield Output(number=number)

    @fal.realtime("/async-generator/realtime")
    async def async_generator(self, input: Input) -> AsyncIterator[Output]:
        for number in range(input.count):
            yield Output(number=number)

    @fal.realtime("/returned/realtime")
    def returned(self, input: Input) -> Iterator[dict[str, Any]]:
        return iter([{"number": number} for number in range(input.count)])

    @fal.realtime("/awaited/realtime")
    async def awaited(self, input: Input) -> AsyncIterator[Output]:
        return self.async_generator(input)

    @fal.realtime("/failing/realtime")
    async def failing(self, input: Input) -> AsyncIterator[Output]:
        yield Output(number=0)
        raise RuntimeError("secret")

    @fal.realtime("/no-stream/realtime")
    def no_stream(self, input: Input) -> Iterator[Output]:
        return {"number": 1}  # type: ignore[return-value]

    @fal.realtime("/endless/realtime")
    def endless(self, input: Input) -> Iterator[dict[str, Any]]:
        try:
            while True:
                self.made += 1
                self.begun.set()
                yield {"picture": b"\xff" * 100_000}
        finally:
            self.ended.set()

    @fal.realtime("/async-endless/realtime")
    async def async_endless(self, input: Input) -> AsyncIterator[dict[str, Any]]:
        try:
            while True:
                self.begun.set()
                yield {"number": 1}
                await asyncio.sleep(0.001)
        finally:
            self.ended.set()

    @fal.realtime("/sum/realtime", session_timeout=0.3)
    async def sum(self, inputs: AsyncIterator[Input]) -> dict[str, int]:
        total = 0
        async for each in inputs:
            total += each.count
            self.begun.set()
        self.sums.append(total)
        self.ended.set()
        return {"total": total}

    @fal.realtime("/patient-sum/realtime")
    async def patient_sum(self, inputs: AsyncIterator[Input]) -> dict[str, int]:
        return await self.sum(inputs)

    @fal.realtime("/coded/realtime", decode_message=json.loads, encode_message=json.dumps)
    def coded(self, input: Input) -> Iterator[dict[str, int]]:
        yield from ({"number": number} for number in range(input.count))

    @fal.realtime("/double/realtime")
    async def double(self, inputs: AsyncIterator[Input]) -> AsyncIterator[Output]:
        async for each in inputs:
            if each.count < 0:
                return
            for _ in range(2):
                yield Output(number=each.count)

    @fal.realtime("/stuck/realtime")
    async def stuck(self, inputs: AsyncIterator[Input]) -> AsyncIterator[Output]:
        try:
            async for _ in inputs:
                self.begun.set()
                await asyncio.sleep(60)
                yield Output(number=1)
        finally:
            self.ended.set()


@pytest.fixture(scope="module")
def streams():
    with serving(Streams) as served:
        yield served


@pytest.mark.parametrize("path", ["/generator", "/async-generator", "/returned", "/awaited"])
def test_server_streaming_gives_all_outputs_in_order_to_one_input(streams, path):
    with streams.socket(f"{path}/realtime") as peer:
        peer.send(count=200)
        peer.send(count=1)  # nobody asks for a second one
        messages, code = peer.rest()
    assert messages == [*({"number": number} for number in range(200)), TIMEOUT]
    assert code == 1000


def test_a_stream_has_a_codec_of_its_own(streams):
    with streams.socket("/coded/realtime") as peer:
        peer.connection.send('{"count": 2}')
        assert [peer.connection.recv(20) for _ in range(2)] == ['{"number": 0}', '{"number": 1}']


def test_a_bad_input_can_be_mended(streams):
    for path in ("/generator/realtime", "/double/realtime"):
        with streams.socket(path) as peer:
            error = peer.ask(count="many", request_id="r1")
            assert (error["error"], error["request_id"]) == ("VALIDATION_ERROR", "r1")
            assert peer.ask(count=1)["number"] in (0, 1)


@pytest.mark.parametrize(("path", "outputs"), [("/failing", [{"number": 0}]), ("/no-stream", [])])
def test_a_handler_that_fails_ends_its_stream_and_tells_nothing(streams, path, outputs, caplog):
    with streams.socket(f"{path}/realtime") as peer:
        peer.send(count=1)
        (*messages, error), code = peer.rest()
    assert (messages, code) == (outputs, 1000)
    assert error["error"] == "INTERNAL_ERROR"
    assert error["error_id"] in caplog.text
    assert "secret" not in str(error)


def test_client_streaming_answers_when_no_input_comes(streams):
    with streams.socket("/sum/realtime") as peer:
        for count in range(1, 5):
            peer.send(count=count)
        peer.send(count="bad")
        error, *messages = peer.rest()[0]
    assert error["error"] == "VALIDATION_ERROR"
    assert messages == [{"total": 10}, TIMEOUT]


def test_client_streaming_ends_with_its_peer_and_may_keep_what_it_has():
    app = Streams()
    with serving(app, idle_timeout_s=None) as served:
        with served.socket("/patient-sum/realtime") as peer:
            peer.send(count=7)
            assert app.begun.wait(20)
        assert app.ended.wait(20)
    assert app.sums == [7]


def test_bidirectional_runs_freely_and_keeps_order(streams):
    with streams.socket("/double/realtime") as peer:
        for count in range(100):
            peer.send(count=count)
        peer.send(count=-1)
        messages, code = peer.rest()
    assert messages == [*({"number": count // 2} for count in range(200)), TIMEOUT]
    assert code == 1000


@pytest.mark.parametrize("path", ["/endless/realtime", "/async-endless/realtime", "/stuck/realtime"])
def test_a_stream_ends_when_its_peer_leaves(path):
    app = Streams()
    with serving(app) as served:
        with served.socket(path) as peer:
            peer.send(count=1)
            assert app.begun.wait(20)
        assert app.ended.wait(20)


def test_a_peer_that_does_not_read_slows_its_own_stream():
    app = Streams()
    with serving(app) as served, served.socket("/endless/realtime", max_queue=1, close_timeout=0.1) as peer:
        peer.send(count=1)
        assert app.begun.wait(20)
        made = -1
        while made != app.made:  # until the buffers on the way are full
            made = app.made
            assert not app.ended.wait(0.5)
        assert made * 100_000 < 64 * 1024 * 1024


def test_max_session_ends_a_stream_that_would_not_end():
    app = Streams()
    with serving(app, max_session_s=0.3) as served, served.socket("/async-endless/realtime") as peer:
        peer.send(count=1)
        messages, code = peer.rest()
        assert messages[-1] == {"number": 1}
        assert code == 1000
        assert app.ended.wait(20)


def test_drain_ends_the_inputs_and_closes_with_service_restart(streams):
    app = Streams()
    with serving(app) as served, served.socket("/patient-sum/realtime") as peer:
        peer.send(count=5)
        assert app.begun.wait(20)
        served.gateway.drain()
        assert peer.rest() == ([{"total": 5}], 1012)
