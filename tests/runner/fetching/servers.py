"""Small HTTP servers that say exactly the bytes that a test wants, well-behaved or not."""

import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

Say = Callable[[socket.socket, bytes], None]
"""Answers one connection; gets the head of its request."""

PICTURE = b"\x89PNG\r\n\x1a\n and so on"


@dataclass
class Server:
    port: int
    heads: list[bytes] = field(default_factory=list)
    """Of the requests so far."""

    def url(self, path: str = "/a.png", host: str = "127.0.0.1", scheme: str = "http") -> str:
        return f"{scheme}://{host}:{self.port}{path}"


@contextmanager
def serving(say: Say, address: str = "127.0.0.1", tls: ssl.SSLContext | None = None, port: int = 0) -> Iterator[Server]:
    with socket.create_server((address, port)) as listener:
        server = Server(listener.getsockname()[1])
        threads: list[threading.Thread] = []

        def answer(connection: socket.socket) -> None:
            with suppress(OSError), connection:
                connection.settimeout(30)
                stream = connection if tls is None else tls.wrap_socket(connection, server_side=True)
                with stream:
                    head = b""
                    while b"\r\n\r\n" not in head and (data := stream.recv(65536)):
                        head += data
                    server.heads.append(head)
                    say(stream, head)

        def accept() -> None:
            with suppress(OSError):
                while True:
                    thread = threading.Thread(target=answer, args=(listener.accept()[0],), daemon=True)
                    threads.append(thread)
                    thread.start()

        accepting = threading.Thread(target=accept, daemon=True)
        accepting.start()
        try:
            yield server
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            accepting.join(30)
            for thread in threads:
                thread.join(30)


def response(body: bytes = PICTURE, status: str = "200 OK", **headers: str) -> Say:
    fields = {"Content_Length": str(len(body))} | headers
    lines = [f"HTTP/1.1 {status}", *(f"{name.replace('_', '-')}: {value}" for name, value in fields.items()), "", ""]

    def say(connection: socket.socket, _: bytes) -> None:
        connection.sendall("\r\n".join(lines).encode() + body)

    return say


def redirect(location: str, status: str = "302 Found") -> Say:
    return response(b"", status, Location=location)
