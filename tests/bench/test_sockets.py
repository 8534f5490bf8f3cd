"""The load generator counts whole answers of a real WebSocket server, whatever pieces they come in."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from websockets.sync.server import ServerConnection, serve

from bench.sockets import Client, Unexpected, ask_once, drive, frame, open_socket

PATHS = ["/realtime"] * 3


class Answers:
    """A server that answers every message with what `say` makes of it."""

    def __init__(self, say):
        self.say = say
        self.heard = []

    def __call__(self, connection: ServerConnection) -> None:
        for message in connection:
            self.heard.append(message)
            for answer in self.say(message):
                connection.send(answer)


@contextmanager
def served(answers) -> Iterator[int]:
    with serve(answers, "127.0.0.1", 0, compression=None) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server.socket.getsockname()[1]
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.parametrize("size", [0, 1, 125, 126, 65535, 65536, 3_000_000])
def test_every_answer_counts_once_whatever_its_size(size):
    answers = Answers(lambda _: [b"x" * size])
    with served(answers) as port:
        run = drive("127.0.0.1", port, PATHS, frame(b"a question"), seconds=0.05)

    assert len(run.latencies_s) == len(answers.heard) >= len(PATHS)
    assert all(latency > 0 for latency in run.latencies_s)
    assert run.per_second == len(run.latencies_s) / run.seconds


@pytest.mark.parametrize("payload", [b"", b"x", b"x" * 125, b"x" * 126, bytes(range(256)) * 200])
def test_a_server_reads_what_was_put_into_a_frame(payload):
    answers = Answers(lambda message: [message])
    with served(answers) as port, open_socket("127.0.0.1", port, "/") as connection:
        ask_once(connection, frame(payload))
        ask_once(connection, frame(payload))

    assert answers.heard == [payload, payload]


def test_any_other_answer_ends_the_run():
    with (
        served(Answers(lambda _: ["an error in words"])) as port,
        pytest.raises(Unexpected, match=r"a frame that begins .*an error in words"),
    ):
        drive("127.0.0.1", port, PATHS, frame(b"a question"), seconds=0.05)


def test_an_answer_too_many_is_seen():
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(b"\x82\x01a\x82\x01b")
        with pytest.raises(Unexpected, match="more than one"):
            Client(ours).has_answer()


def test_a_server_that_hangs_up_ends_the_run():
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(b"\x82\x05a")
        client = Client(ours)
        assert not client.has_answer()
        theirs.close()
        with pytest.raises(Unexpected, match="hung up"):
            client.has_answer()


def test_a_refused_handshake_is_said():
    def refuse(connection, request):
        return connection.respond(403, "no")

    with serve(Answers(lambda _: []), "127.0.0.1", 0, process_request=refuse) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            with pytest.raises(Unexpected, match="403"):
                open_socket("127.0.0.1", server.socket.getsockname()[1], "/")
        finally:
            server.shutdown()
            thread.join()
