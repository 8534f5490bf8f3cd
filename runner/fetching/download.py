"""One download, blocking: every connection of it goes to an address that was looked at, and all of it has one end."""

import socket
import ssl
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

import httpcore
import httpx

from runner.fetching.addresses import Reach

URL_MAX_CHARS: Final = 4096
REDIRECTS_MAX: Final = 3

_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
_HEADERS: Final = (
    (b"User-Agent", b"lcm-realtime"),
    (b"Accept", b"image/jpeg, image/png, image/webp"),
    # Nothing is unpacked, so there is no bomb to go off.
    (b"Accept-Encoding", b"identity"),
    (b"Connection", b"close"),
)

Resolve = Callable[[str, int], Sequence[str]]
"""From a host and a port to addresses, as text. Raises OSError."""


class DownloadFailed(Exception):
    """The picture did not come. The text is for the log: users learn no more than that."""


class DownloadTooLarge(DownloadFailed):
    """There is more than the bound."""


def system_addresses(host: str, port: int) -> list[str]:
    """All addresses of a host, as the system resolves it: `127.1` and `0x7f000001` are 127.0.0.1 here as well."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(address[0]) for *_, address in found))


class Downloader:
    """Downloads what a URL leads to. Thread-safe; keeps no connection, cookie or credential.

    Args:
        reach: What may be reached.
        max_bytes: Of a body.
        timeout_s: For all of it, redirects included.
        resolve: Asked once for each connection, which then goes to nothing but what it said.
        trust: Which certificates are good; None: those of the public internet, or of `SSL_CERT_FILE`.
    """

    def __init__(
        self,
        reach: Reach,
        *,
        max_bytes: int,
        timeout_s: float,
        resolve: Resolve = system_addresses,
        trust: ssl.SSLContext | None = None,
    ) -> None:
        self._reach = reach
        self._max_bytes = max_bytes
        self._timeout_s = timeout_s
        self._resolve = resolve
        self._trust = httpx.create_ssl_context() if trust is None else trust

    def __call__(self, url: str) -> bytes:
        """The body that `url`, or where it redirects to, answers with.

        Raises:
            DownloadFailed: the address may not be reached, or does not answer with a body in time.
            DownloadTooLarge: the body has more than `max_bytes`.
        """
        deadline = _Deadline(self._timeout_s)
        try:
            return self._follow(self._checked(url), deadline)
        except DownloadFailed:
            raise
        # Strangers' servers find ways to fail that no list of ours has: sockets, TLS, HTTP, names, encodings.
        except Exception as error:
            raise DownloadFailed(type(error).__name__) from error  # their words may hold the URL, and that a secret

    def _follow(self, url: httpx.URL, deadline: "_Deadline") -> bytes:
        for _ in range(1 + REDIRECTS_MAX):
            network = _CheckedNetwork(self._reach, self._resolve, deadline)
            with (
                httpcore.ConnectionPool(self._trust, network_backend=network, max_keepalive_connections=0) as pool,
                pool.stream("GET", _target(url), headers=[(b"Host", url.netloc), *_HEADERS]) as response,
            ):
                location = _location(response)
                if location is None:
                    return self._body(response)
                url = self._checked(url.join(location))
        raise DownloadFailed(f"more than {REDIRECTS_MAX} redirects")

    def _checked(self, url: str | httpx.URL) -> httpx.URL:
        if len(str(url)) > URL_MAX_CHARS:
            raise DownloadFailed("the URL is too long")
        parsed = httpx.URL(url)
        if parsed.scheme not in ("http", "https") or not parsed.host:
            raise DownloadFailed("not an http or https URL")
        if parsed.userinfo:
            raise DownloadFailed("the URL has credentials in it")
        if _port(parsed) not in self._reach.ports:
            raise DownloadFailed(f"port {_port(parsed)} is not allowed")
        return parsed

    def _body(self, response: httpcore.Response) -> bytes:
        if response.status != 200:
            raise DownloadFailed(f"status {response.status}")
        headers = dict(_lowered(response.headers))
        if headers.get(b"content-encoding", b"identity").lower() != b"identity":
            raise DownloadFailed("packed, though that was not accepted")
        if int(headers.get(b"content-length", b"0")) > self._max_bytes:
            raise DownloadTooLarge("Content-Length")
        body = bytearray()
        for chunk in response.iter_stream():
            body += chunk
            if len(body) > self._max_bytes:
                raise DownloadTooLarge("body")
        return bytes(body)


def _port(url: httpx.URL) -> int:
    return url.port or {"http": 80, "https": 443}[url.scheme]


def _target(url: httpx.URL) -> httpcore.URL:
    # httpcore adds no normalisation of its own: it connects to the host that was looked at.
    return httpcore.URL(scheme=url.raw_scheme, host=url.raw_host, port=_port(url), target=url.raw_path)


def _location(response: httpcore.Response) -> str | None:
    if response.status not in _REDIRECTS:
        return None
    location = dict(_lowered(response.headers)).get(b"location")
    if location is None:
        raise DownloadFailed("a redirect to nowhere")
    return location.decode("ascii")


def _lowered(headers: Iterable[tuple[bytes, bytes]]) -> Iterable[tuple[bytes, bytes]]:
    return ((name.lower(), value) for name, value in headers)


class _Deadline:
    """One time limit for many steps."""

    def __init__(self, seconds: float) -> None:
        self._end = time.monotonic() + seconds

    def left(self) -> float:
        """Seconds until then.

        Raises:
            DownloadFailed: none are left.
        """
        left = self._end - time.monotonic()
        if left <= 0:
            raise DownloadFailed("took too long")
        return left


class _CheckedNetwork(httpcore.NetworkBackend):
    """Connects to the very address that was looked at: a name that resolves anew has nothing to say in between."""

    def __init__(self, reach: Reach, resolve: Resolve, deadline: _Deadline) -> None:
        self._reach = reach
        self._resolve = resolve
        self._deadline = deadline
        self._plain = httpcore.SyncBackend()

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.NetworkStream:
        addresses = self._resolve(host, port)
        # One that is not allowed spoils the rest: an honest name does not lead inside and outside.
        if not addresses or not all(self._reach.allows(host, address) for address in addresses):
            raise DownloadFailed("the address is not public")
        for address in addresses[:-1]:
            try:
                return self._connect(address, port)
            except (httpcore.ConnectError, httpcore.ConnectTimeout):
                continue
        return self._connect(addresses[-1], port)

    def _connect(self, address: str, port: int) -> httpcore.NetworkStream:
        return _TimedStream(self._plain.connect_tcp(address, port, timeout=self._deadline.left()), self._deadline)


class _TimedStream(httpcore.NetworkStream):
    """A connection none of whose steps takes longer than is left in all."""

    def __init__(self, stream: httpcore.NetworkStream, deadline: _Deadline) -> None:
        self._stream = stream
        self._deadline = deadline

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return self._stream.read(max_bytes, self._deadline.left())

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._stream.write(buffer, self._deadline.left())

    def close(self) -> None:
        self._stream.close()

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        stream = self._stream.start_tls(ssl_context, server_hostname, self._deadline.left())
        return _TimedStream(stream, self._deadline)

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)
