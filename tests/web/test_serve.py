"""`python -m web serve` as a process."""

import signal
import socket
from contextlib import ExitStack
from urllib.request import urlopen

from tests.processes import module, run_module, start_process

ENV = {"WEB_API_KEY": "id:secret", "WEB_PASSWORD": "open sesame", "WEB_AUTHSVC_URL": "http://127.0.0.1:9"}


def test_it_prints_its_address_once_it_listens_and_stops_at_sigterm() -> None:
    with start_process(module("web", "serve", "--port", "0"), ENV, ready_pattern=r"ready on (?P<url>\S+)") as process:
        with urlopen(f"{process.url}/health/live") as response:
            assert response.status == 200
            assert "Server" not in response.headers
        assert process.url.startswith("http://127.0.0.1:")  # not to the network unless asked
        process.send_signal(signal.SIGTERM)
        assert process.wait() == 0
        assert "secret" not in process.text
        assert "sesame" not in process.text


def test_what_is_missing_is_named_with_its_variable() -> None:
    ended = run_module("web", "serve", "--port", "0")
    assert ended.returncode == 2
    assert "WEB_API_KEY: Field required" in ended.stderr
    assert "WEB_PASSWORD: Field required" in ended.stderr


def test_a_taken_port_is_said_in_one_line() -> None:
    with start_process(module("web", "serve", "--port", "0"), ENV) as process:
        second = run_module("web", "serve", "--port", str(process.port), env=ENV)
    assert second.returncode == 1
    assert second.stderr.strip() == f"Error: cannot listen on 127.0.0.1 port {process.port}: Address already in use"


def test_a_body_too_large_is_refused_before_it_is_taken_in() -> None:
    with (
        start_process(module("web", "serve", "--port", "0"), ENV) as process,
        socket.create_connection(("127.0.0.1", process.port), timeout=30) as client,
    ):
        client.sendall(b"POST /login HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000000\r\n\r\n")
        assert client.recv(4096).startswith(b"HTTP/1.1 413")


def test_half_sent_requests_leave_room_for_whole_ones() -> None:
    with start_process(module("web", "serve", "--port", "0"), ENV) as process, ExitStack() as open_sockets:
        for _ in range(150):  # more than waitress's own limit of 100
            half = open_sockets.enter_context(socket.create_connection(("127.0.0.1", process.port)))
            half.sendall(b"POST /login HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\nhalf")
        with urlopen(f"{process.url}/health/live", timeout=30) as response:
            assert response.status == 200
