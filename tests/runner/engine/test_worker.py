"""The worker as a process of its own, spoken to over a bare socket."""

import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from runner.engine.framing import FrameDecoder, encode_frame
from runner.engine.messages import (
    Cancel,
    CannotStart,
    Failed,
    Finished,
    FromGateway,
    Generate,
    Loading,
    Message,
    Progress,
    Ready,
    Refused,
    Started,
    Statistics,
    decode_message,
    encode_message,
)
from runner.engine.pipeline import Pipeline
from runner.engine.request import Activity, EngineStatistics
from tests.runner.engine.conftest import difference, request
from tests.runner.engine.processes import FAULTY_WORKER, PATIENCE_S, Fifo
from tests.tiny_bundle import make_tiny_bundle


class Conversation:
    """A worker and our end of its socket."""

    def __init__(self, process: subprocess.Popen, end: socket.socket) -> None:
        self.process = process
        self.socket = end
        self._decoder = FrameDecoder()
        self._heard: list[Message] = []

    def say(self, *messages: FromGateway) -> None:
        self.socket.sendall(b"".join(encode_frame(encode_message(message)) for message in messages))

    def hear(self) -> Message | None:
        """The next message but for Progress and Statistics, which depend on the time; None at the end."""
        while isinstance(message := self.hear_anything(), Progress | Statistics):
            pass
        return message

    def hear_anything(self) -> Message | None:
        while not self._heard:
            data = self.socket.recv(65536)
            if not data:
                return None
            self._heard += map(decode_message, self._decoder.receive_data(data))
        return self._heard.pop(0)

    def hear_until_ready(self) -> list[Message | None]:
        heard = [self.hear()]
        while isinstance(heard[-1], Loading):
            heard.append(self.hear())
        return heard


@contextmanager
def worker(bundle: Path, command=FAULTY_WORKER, **options) -> Iterator[Conversation]:
    ours, theirs = socket.socketpair()
    ours.settimeout(PATIENCE_S)
    arguments = [f"--bundle={bundle}", "--threads=1", f"--socket-fd={theirs.fileno()}"]
    with ours, ExitStack() as stack:
        with theirs:
            process = subprocess.Popen([*command, *arguments], pass_fds=[theirs.fileno()], **options)
        stack.enter_context(process)
        stack.callback(process.kill)
        yield Conversation(process, ours)


@pytest.fixture
def ready(tiny_bundle: Path) -> Iterator[Conversation]:
    with worker(tiny_bundle) as conversation:
        assert isinstance(conversation.hear_until_ready()[-1], Ready)
        yield conversation


@pytest.fixture
def fifo(tmp_path: Path) -> Fifo:
    return Fifo(tmp_path / "fifo")


def test_it_says_how_far_it_is_and_then_what_it_serves(tiny_bundle: Path) -> None:
    command = (sys.executable, "-m", "runner.engine.worker")
    with worker(tiny_bundle, command) as conversation:
        *loading, ready = conversation.hear_until_ready()
    assert Loading(Activity("loading the UNet", 1, 5)) in loading
    assert isinstance(ready, Ready)
    assert ready.card.name == "tiny"


def answers(heard: list[Message]) -> dict[int, Message]:
    """By request: the one answer that each of them got."""
    ends = [message for message in heard if not isinstance(message, Started | Progress | Statistics)]
    assert len({message.id for message in ends}) == len(ends)
    return {message.id: message for message in ends}


def hear_answers(conversation: Conversation, number: int) -> dict[int, Message]:
    """Listen until so many requests are answered."""
    heard: list[Message] = []
    while len(answers(heard)) < number:
        message = conversation.hear()
        assert message is not None, "the worker is gone"
        heard.append(message)
    return answers(heard)


def test_many_requests_are_under_way_at_once_and_each_gets_its_picture(
    ready: Conversation, pipeline: Pipeline, fifo: Fifo
) -> None:
    asked = {number: request(seed=number, num_inference_steps=1 + number % 5) for number in range(2, 9)}
    ready.say(Generate(1, request(prompt=fifo.prompt)))
    fifo.wait_for_worker()
    ready.say(*(Generate(number, one) for number, one in asked.items()))
    # All are taken in hand while the first one's step lasts.
    assert [ready.hear() for _ in range(8)] == [Started(number) for number in range(1, 9)]
    fifo.release()
    answered = hear_answers(ready, 8)
    for number, one in asked.items():
        drawn, expected = answered[number].result.images[0], pipeline.generate(one).images[0]
        assert difference(drawn, expected) < 0.01
        assert answered[number].result.timings["queue"] > 0
    ready.say(Cancel(1))  # of an answered one: no matter


def test_pictures_of_many_requests_share_their_steps(ready: Conversation, fifo: Fifo) -> None:
    ready.say(Generate(1, request(prompt=fifo.prompt)))
    fifo.wait_for_worker()
    ready.say(*(Generate(number, request(seed=number)) for number in range(2, 6)))
    assert [ready.hear().id for _ in range(5)] == [1, 2, 3, 4, 5]
    fifo.release()
    hear_answers(ready, 5)
    counted = hear_statistics(ready, lambda statistics: statistics.answers.get("finished") == 5)
    assert counted.pictures == 5
    assert counted.steps_by_size == {"8x8": 20}
    assert counted.ticks < 10
    assert sum(int(rows) * ticks for rows, ticks in counted.ticks_by_rows.items()) == 20
    assert (counted.waiting_requests, counted.running_requests) == (0, 0)
    assert counted.prompt_cache_misses > 0


def hear_statistics(conversation: Conversation, is_enough: Callable[[EngineStatistics], bool]) -> EngineStatistics:
    while True:
        message = conversation.hear_anything()
        if isinstance(message, Statistics) and is_enough(message.statistics):
            return message.statistics


def test_a_request_that_waits_can_be_cancelled_while_another_runs(
    ready: Conversation, fifo: Fifo, tmp_path: Path
) -> None:
    never = Fifo(tmp_path / "never")  # were it drawn, the worker would be stuck
    ready.say(Generate(1, request(prompt=fifo.prompt)))
    fifo.wait_for_worker()
    ready.say(Generate(2, request(prompt=never.prompt)), Cancel(2), Generate(3, request()))
    assert [ready.hear() for _ in range(3)] == [Started(1), Started(2), Started(3)]
    fifo.release()
    assert hear_answers(ready, 2).keys() == {1, 3}


def test_a_running_request_is_dropped_before_its_next_step(ready: Conversation, fifo: Fifo) -> None:
    ready.say(Generate(1, request(prompt=fifo.prompt)))
    fifo.wait_for_worker()
    ready.say(Cancel(1), Generate(2, request()))
    assert [ready.hear(), ready.hear()] == [Started(1), Started(2)]
    fifo.release()
    assert hear_answers(ready, 1).keys() == {2}
    counted = hear_statistics(ready, lambda statistics: len(statistics.answers) == 2)
    assert counted.steps_by_size == {"8x8": 5}  # four of the second, and of the first the one that it was in
    assert counted.answers == {"cancelled": 1, "finished": 1}


def test_a_slow_request_is_known_to_get_further(ready: Conversation) -> None:
    ready.say(Generate(1, request(prompt="slow", num_inference_steps=8)))
    heard = []
    while not heard or not isinstance(heard[-1], Finished):
        heard.append(ready.hear_anything())
    assert heard.count(Progress(1)) >= 2


@pytest.mark.parametrize("prompt", ["fail", "memory", "break"])
def test_the_unforeseen_is_logged_under_an_id_and_the_others_are_drawn(
    tiny_bundle: Path, prompt: str, fifo: Fifo
) -> None:
    with worker(tiny_bundle, stderr=subprocess.PIPE) as conversation:
        conversation.hear_until_ready()
        conversation.say(Generate(1, request(prompt=fifo.prompt)))
        fifo.wait_for_worker()
        conversation.say(*(Generate(number, request(prompt=prompt if number == 3 else "")) for number in (2, 3, 4)))
        assert [conversation.hear() for _ in range(4)] == [Started(1), Started(2), Started(3), Started(4)]
        fifo.release()
        answered = hear_answers(conversation, 4)
        conversation.socket.close()
        log = conversation.process.stderr.read().decode()
    failed = answered.pop(3)
    assert isinstance(failed, Failed)
    assert failed.error_id in log
    assert "Traceback" in log
    assert {type(message) for message in answered.values()} == {Finished}


def test_too_little_memory_for_a_batch_only_makes_it_smaller(ready: Conversation, fifo: Fifo) -> None:
    ready.say(Generate(1, request(prompt=fifo.prompt)))
    fifo.wait_for_worker()
    ready.say(*(Generate(number, request(prompt="crowd", seed=number)) for number in range(2, 8)))
    assert [ready.hear() for _ in range(7)] == [Started(number) for number in range(1, 8)]
    fifo.release()
    assert {type(message) for message in hear_answers(ready, 7).values()} == {Finished}
    ready.say(Generate(8, request()), Generate(9, request()))
    hear_answers(ready, 2)
    counted = hear_statistics(ready, lambda statistics: statistics.answers.get("finished") == 9)
    # What the memory has taught stays: nothing but the first step ever ran with a neighbour.
    assert counted.ticks_by_rows == {"1": 36}


def test_too_little_memory_for_one_is_said_of_its_size_and_the_worker_lives(ready: Conversation) -> None:
    ready.say(Generate(1, request(prompt="huge", width=128)))
    heard = hear_answers(ready, 1)[1]
    assert isinstance(heard, Refused)
    assert (heard.field, heard.kind) == ("image_size", "out_of_memory")
    assert "128 x 64 pixels do not fit" in heard.message
    assert "smaller" in heard.message
    ready.say(Generate(2, request()))
    assert isinstance(hear_answers(ready, 1)[2], Finished)


def test_pictures_too_large_for_an_answer_are_refused_and_the_worker_lives(ready: Conversation) -> None:
    ready.say(Generate(1, request(prompt="giant")))
    heard = hear_answers(ready, 1)[1]
    assert isinstance(heard, Refused)
    assert (heard.field, heard.kind) == ("image_size", "image_too_large")
    assert "fewer or smaller" in heard.message
    ready.say(Generate(2, request()))
    assert isinstance(hear_answers(ready, 1)[2], Finished)


def test_an_invalid_request_travels_as_such(ready: Conversation) -> None:
    ready.say(Generate(1, request(image=b"GIF89a", image_field="image_url")))
    assert [ready.hear(), ready.hear()] == [
        Started(1),
        Refused(1, "image_url", "not a JPEG, PNG or WebP picture", "image_load_error"),
    ]


def test_it_ends_with_its_gateway_even_in_the_middle_of_a_request(ready: Conversation, fifo: Fifo) -> None:
    ready.say(Generate(1, request(prompt=fifo.prompt)))
    fifo.wait_for_worker()
    ready.socket.close()
    assert ready.process.wait(PATIENCE_S) == 0
    fifo.release()


def test_it_ends_with_its_gateway_while_it_is_still_loading(tiny_bundle: Path) -> None:
    with worker(tiny_bundle) as conversation:
        assert isinstance(conversation.hear(), Loading)
        conversation.socket.close()
        assert conversation.process.wait(PATIENCE_S) == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_when_to_stop_is_the_gateways_business(ready: Conversation, number: signal.Signals) -> None:
    ready.process.send_signal(number)
    ready.say(Generate(1, request()))
    assert [type(ready.hear()), type(ready.hear())] == [Started, Finished]


@pytest.mark.parametrize("words", [b"\xff" * 64, encode_frame(b"\xc1"), encode_frame(encode_message(Started(1)))])
def test_a_gateway_that_makes_no_sense_is_left(tiny_bundle: Path, words: bytes) -> None:
    with worker(tiny_bundle, stderr=subprocess.PIPE) as conversation:
        conversation.hear_until_ready()
        conversation.socket.sendall(words)
        assert conversation.hear() is None
        assert b"does not make sense" in conversation.process.stderr.read()


def test_a_bad_bundle_is_said_before_it_ends(tmp_path: Path) -> None:
    bundle = make_tiny_bundle(tmp_path)
    (bundle / "step.onnx").unlink()
    with worker(bundle) as conversation:
        said = conversation.hear_until_ready()[-1]
        assert isinstance(said, CannotStart)
        assert "step.onnx: is missing. Export the model again" in said.detail
        assert conversation.hear() is None
        assert conversation.process.wait(PATIENCE_S) == 1
