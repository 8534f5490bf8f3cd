"""Where a body ends: said in one way, or refused."""

import io
from http.client import parse_headers

import pytest

from httpbase.framing import AmbiguousBody, check_framing


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
        b" folded: first",
        b"no header",
        b"Transfer-Encoding:\r\n chunked\r\nContent-Length: 5",
    ],
)
def test_doubt_is_refused(head: bytes) -> None:
    with pytest.raises(AmbiguousBody):
        check(head)
