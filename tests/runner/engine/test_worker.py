"""The worker as a process of its own, spoken to over a bare socket."""

import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
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
    decode_message,
    encode_message,
)
from tests.runner.engine.conftest import request
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
        """The next message but for Progress, which depends on the time; None at the end."""
        while isinstance(message := self.hear_anything(), Progress):
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
    assert Loading("loading step.onnx") in loading
    assert isinstance(ready, Ready)
    assert ready.card.name == "tiny"


def test_requests_are_drawn_in_order(ready: Conversation) -> None:
    ready.say(*(Generate(number, request(seed=number)) for number in (5, 3, 4)))
    heard = [ready.hear() for _ in range(6)]
    assert [(type(message), message.id) for message in heard] == [
        (kind, number) for number in (5, 3, 4) for kind in (Started, Finished)
    ]
    assert heard[5].result.timings["queue"] > 0


def test_a_queued_request_can_be_cancelled_while_another_runs(ready: Conversation, fifo: Fifo) -> None:
    ready.say(Generate(1, request(prompt=fifo.prompt)), Generate(2, request()), Generate(3, request()))
    fifo.wait_for_worker()
    ready.say(Cancel(2), Cancel(1))  # in this order: once 1 knows, so does the queue
    assert [ready.hear(), ready.hear()] == [Started(1), Started(3)]
    assert isinstance(ready.hear(), Finished)
    fifo.release()


def test_a_running_request_can_be_cancelled(ready: Conversation, fifo: Fifo) -> None:
    ready.say(Generate(1, request(prompt=fifo.prompt)), Generate(2, request()))
    fifo.wait_for_worker()
    ready.say(Cancel(1))
    assert [ready.hear(), ready.hear()] == [Started(1), Started(2)]
    fifo.release()


def test_a_slow_request_is_known_to_get_further(ready: Conversation, fifo: Fifo) -> None:
    ready.say(Generate(1, request(prompt=fifo.prompt)))
    fifo.wait_for_worker()
    assert [ready.hear_anything() for _ in range(3)] == [Started(1), Progress(1), Progress(1)]
    ready.say(Cancel(1))
    fifo.release()


@pytest.mark.parametrize("prompt", ["fail", "memory"])
def test_the_unforeseen_is_logged_under_an_id_and_the_next_request_is_drawn(tiny_bundle: Path, prompt: str) -> None:
    with worker(tiny_bundle, stderr=subprocess.PIPE) as conversation:
        conversation.hear_until_ready()
        conversation.say(Generate(1, request(prompt=prompt)), Generate(2, request()))
        _, failed, *next_one = (conversation.hear() for _ in range(4))
        conversation.socket.close()
        log = conversation.process.stderr.read().decode()
    assert isinstance(failed, Failed)
    assert failed.error_id in log
    assert "Traceback" in log
    assert [type(message) for message in next_one] == [Started, Finished]


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


def test_ctrl_c_is_the_gateways_business(ready: Conversation) -> None:
    ready.process.send_signal(signal.SIGINT)
    ready.say(Generate(1, request()))
    assert [type(ready.hear()), type(ready.hear())] == [Started, Finished]


def test_sigterm_stops_it(ready: Conversation) -> None:
    ready.process.terminate()
    assert ready.process.wait(PATIENCE_S) == -signal.SIGTERM


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
