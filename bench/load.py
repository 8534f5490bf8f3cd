"""A load generator for one core: connections that send a request when the last answer has come, on one selector.

Written on bare sockets, so that it takes a small part of the time that a server takes for an answer.
"""

import selectors
import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import cycle

_LENGTH = b"content-length:"


class Unexpected(Exception):
    """A server answered something else than it should; the message is the answer's head."""


@dataclass
class Client:
    """One connection."""

    connection: socket.socket
    sent_at: float = 0.0
    received: bytearray = field(default_factory=bytearray)


@dataclass(frozen=True)
class Run:
    """What a run measured."""

    seconds: float
    latencies_s: list[float]

    @property
    def per_second(self) -> float:
        """Answers a second."""
        return len(self.latencies_s) / self.seconds


def drive(port: int, requests: Sequence[bytes], *, connections: int, seconds: float, status: bytes) -> Run:
    """Sends `requests` in turn, over and over, for some seconds.

    Args:
        port: Where the server listens on 127.0.0.1.
        requests: Whole HTTP/1.1 requests that keep the connection.
        connections: How many requests are under way at once.
        seconds: How long.
        status: What every answer must begin with, for example b"HTTP/1.1 201".

    Raises:
        Unexpected: an answer began with something else, or the server hung up.
    """
    selector = selectors.DefaultSelector()
    texts = cycle(requests)
    for _ in range(connections):
        connection = socket.create_connection(("127.0.0.1", port), timeout=30)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        selector.register(connection, selectors.EVENT_READ, Client(connection))
    clients: list[Client] = [key.data for key in selector.get_map().values()]
    latencies: list[float] = []
    started = time.perf_counter()
    ends = started + seconds
    for client in clients:
        _send(client, next(texts))
    waiting = len(clients)
    while waiting:
        for key, _ in selector.select(timeout=30):
            client = key.data
            if not _is_answered(client, status):
                continue
            now = time.perf_counter()
            latencies.append(now - client.sent_at)
            if now < ends:
                _send(client, next(texts))
            else:
                waiting -= 1
                selector.unregister(client.connection)
                client.connection.close()
    return Run(time.perf_counter() - started, latencies)


def _send(client: Client, text: bytes) -> None:
    client.sent_at = time.perf_counter()
    client.connection.sendall(text)


def _is_answered(client: Client, status: bytes) -> bool:
    chunk = client.connection.recv(65536)
    client.received += chunk
    head, blank, body = bytes(client.received).partition(b"\r\n\r\n")
    if not chunk or (blank and not head.startswith(status)):
        raise Unexpected(head.decode("latin-1") or "the server hung up")
    if not blank:
        return False
    lowered = head.lower()
    at = lowered.index(_LENGTH) + len(_LENGTH)
    if len(body) < int(lowered[at:].split(b"\r\n", 1)[0]):
        return False
    client.received.clear()
    return True
