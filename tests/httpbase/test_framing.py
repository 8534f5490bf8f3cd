"""Where a body ends: said in one way, or refused."""

import io
from http.client import parse_headers

import pytest

from httpbase.framing import (
    HEADERS_MAX,
    HEADERS_MAX_BYTES,
    AmbiguousBody,
    MalformedHeader,
    check_framing,
    read_headers,
)

HOST = [("host", "a")]
TWICE = [("X-Twice", "1"), ("X-Twice", "2")]


def check(head: bytes) -> None:
    check_framing(parse_headers(io.BytesIO(head + b"\r\n\r\n")))


@pytest.mark.parametrize(
    "head",
    [
        b"Host: a",
        b"Content-Length: 0",
        b"Content-Type: multipart/form-data",
        b"content-length:  17 ",
        b"Content-Length: 9223372036854775807",
        b"Transfer-Encoding: chunked",
        b"transfer-encoding: Chunked ",
    ],
)
def test_one_way_to_say_it_is_accepted(head: bytes) -> None:
    check(head)


@pytest.mark.parametrize(
    "head",
    [
        b"Content-Length: 5\r\nContent-Length: 6",
        b"Content-Length: 5\r\nContent-Length: 5",
        b"Content-Length: 5, 5",
        b"Content-Length:",
        b"Content-Length: +5",
        b"Content-Length: -5",
        b"Content-Length: 0x5",
        b"Content-Length: 1_0",
        b"Content-Length: 5 5",
        b"Content-Length: \xb2",
        b"Content-Length: " + b"9" * 20,
        b"Content-Length: 5\r\nTransfer-Encoding: chunked",
        b"Transfer-Encoding: chunked\r\nContent-Length: 5",
        b"Transfer-Encoding: xchunked",
        b"Transfer-Encoding: \x0bchunked",
        b"Transfer-Encoding: identity",
        b"Transfer-Encoding: gzip, chunked",
        b"Transfer-Encoding: chunked, chunked",
        b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
        b"Transfer-Encoding: identity\r\nTransfer-Encoding: chunked",
        b"Transfer-Encoding : chunked",
        b"Host: a\r\nHost: b",
        b"Host: a\r\nhost: a",
        b" folded: first",
        b"no header",
        b"Transfer-Encoding:\r\n chunked\r\nContent-Length: 5",
    ],
)
def test_doubt_is_refused(head: bytes) -> None:
    with pytest.raises(AmbiguousBody):
        check(head)


def read(head: bytes) -> list[tuple[str, str]]:
    stream = io.BytesIO(head + b"\r\n\r\nbody")
    headers = list(read_headers(stream))
    assert stream.read() == b"body"
    return headers


@pytest.mark.parametrize(
    ("head", "headers"),
    [
        (b"Host: a", [("Host", "a")]),
        (b"host:a\r\nX-Empty:\r\nX-Twice: 1\r\nX-Twice:\t 2 \t", [*HOST, ("X-Empty", ""), *TWICE]),
        (b"X-Latin: \xe9: b", [("X-Latin", "\xe9: b")]),
        (b"Host: a\nX-Bare: newline", [("Host", "a"), ("X-Bare", "newline")]),
        (b"\r\n".join([b"A: b"] * HEADERS_MAX), [("A", "b")] * HEADERS_MAX),
        # A pattern that tries every split of the blanks would take minutes for this, with the service at a stand.
        (b"A: b" + b" " * 65_000 + b"c", [("A", "b" + " " * 65_000 + "c")]),
    ],
)
def test_headers_are_read_as_they_stand(head: bytes, headers: list[tuple[str, str]]) -> None:
    assert read(head) == headers


@pytest.mark.parametrize(
    "head",
    [
        b"no header",
        b": nameless",
        b"Name : a",
        b"Na me: a",
        b" Name: a",
        b"Host: a\r\n folded",
        b"Host: a\rX-Hidden: b",
        b"Host: a\0b",
        b"N\xe4me: a",
        b"\r\n".join([b"A: b"] * (HEADERS_MAX + 1)),
        b"Long: " + b"a" * HEADERS_MAX_BYTES,
    ],
)
def test_what_is_no_header_is_refused(head: bytes) -> None:
    with pytest.raises(MalformedHeader):
        read(head)


def test_headers_without_an_end_are_refused() -> None:
    with pytest.raises(MalformedHeader):
        list(read_headers(io.BytesIO(b"Host: a\r\n")))
