"""Where a request's body ends: asked before anything of it is read.

A server and the proxy before it that disagree about this take one's body for the other's next request
("request smuggling", RFC 9112 §11.2). pywsgi resolves what is ambiguous; here it is refused.
"""

import re
from collections.abc import Callable, Iterator
from email.errors import FirstHeaderLineIsContinuationDefect, MissingHeaderBodySeparatorDefect
from errno import EMSGSIZE
from http.client import HTTPMessage
from typing import BinaryIO, Final

from gevent.pywsgi import OldMessage

_DIGITS: Final = re.compile(r"[0-9]{1,19}")  # 19 digits hold a 63-bit length
_OWS: Final = " \t"  # RFC 9110 §5.6.3; `str.strip` alone takes a vertical tab too
# What Python's parser leaves of a line without a name, or with a space before its colon: it reads no header after it.
_DEFECTS: Final = (FirstHeaderLineIsContinuationDefect, MissingHeaderBodySeparatorDefect)


_FRAMING_TURN_BYTES: Final = 512  # some 0.2 ms

HEADERS_MAX: Final = 100
HEADERS_MAX_BYTES: Final = 65_536

# RFC 9112 §5: a token, a colon right behind it, and a value. A line that continues another (§5.2) is none.
# The blanks around a value are not told apart here: in a line full of them that takes quadratic time.
_FIELD: Final = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):([^\0\r\n]*)\r?\n")
_END: Final = (b"\r\n", b"\n")


class MalformedHeader(ValueError):
    """A line that is no header, or more of them than anybody sends."""


def read_headers(stream: BinaryIO) -> Iterator[tuple[str, str]]:
    """Reads the headers of a request with the blank line behind them; Python's own parser is one for e-mail.

    Raises:
        MalformedHeader: a line is no header of RFC 9112, the end is missing, or there is too much.
    """
    left = HEADERS_MAX_BYTES
    for _ in range(HEADERS_MAX + 1):
        line = stream.readline(left)
        if line in _END:
            return
        field = _FIELD.fullmatch(line)
        if field is None:
            raise MalformedHeader
        left -= len(line)
        yield field[1].decode("latin-1"), field[2].strip(_OWS.encode()).decode("latin-1")
    raise MalformedHeader


def read_message(stream: BinaryIO) -> OldMessage:
    """The headers of a request, in the form that pywsgi's handlers want, unless they leave open where the body ends.

    What is left open pywsgi would resolve its own way; and its parser, one for e-mail, takes a lone CR for the end of
    a line and holds 6 MiB.

    Raises:
        MalformedHeader: see `read_headers`.
        AmbiguousBody: see `check_framing`.
    """
    headers = OldMessage()
    for name, value in read_headers(stream):
        headers.set_raw(name, value)
    check_framing(headers)
    return headers


class AmbiguousBody(ValueError):
    """The headers do not say in exactly one way where the body ends."""


def check_framing(headers: HTTPMessage) -> None:
    """Accepts what RFC 9112 §6 leaves no doubt about: no body, one length, or chunks.

    Raises:
        AmbiguousBody: a Content-Length that is repeated, no number or beside a Transfer-Encoding, a
            Transfer-Encoding that is not exactly `chunked`, or a line that is no header. Or a Host that is repeated
            (RFC 9112 §3.2): a proxy may have decided by the other one who is asked.
    """
    if any(isinstance(defect, _DEFECTS) for defect in headers.defects):
        raise AmbiguousBody
    if len(headers.get_all("Host", [])) > 1:
        raise AmbiguousBody
    lengths = headers.get_all("Content-Length", [])
    encodings = headers.get_all("Transfer-Encoding", [])
    if encodings and (lengths or [encoding.strip(_OWS).lower() for encoding in encodings] != ["chunked"]):
        raise AmbiguousBody
    if lengths and not (len(lengths) == 1 and _DIGITS.fullmatch(lengths[0].strip(_OWS))):
        raise AmbiguousBody


class TooMuchFraming(OSError):
    """More is said about the chunks of a body than anybody has to say."""


class FramingReader:
    """What pywsgi's `Input` reads a body from, so that the framing of chunks (RFC 9112 §7.1) has a bound.

    `Input` goes through sizes, extensions and trailers byte by byte and takes trailers for as long as they come. As
    the data are there already it never waits: nobody else, not even a timeout, would have a turn.

    Args:
        reader: Where the bytes come from.
        max_bytes: Of framing, since the last `forget`.
        let_others_in: Called now and then.
    """

    def __init__(self, reader: BinaryIO, max_bytes: int, let_others_in: Callable[[], None]) -> None:
        self._reader = reader
        self._max_bytes = max_bytes
        self._let_others_in = let_others_in
        self._bytes = 0

    def forget(self) -> None:
        """Counts anew."""
        self._bytes = 0

    def read(self, size: int) -> bytes:
        """As the reader's.

        Raises:
            TooMuchFraming: it is over the bound.
        """
        if size == 1:
            self._bytes += 1
            if self._bytes > self._max_bytes:
                raise TooMuchFraming(EMSGSIZE, "more framing than body")  # pywsgi looks at the number
            if self._bytes % _FRAMING_TURN_BYTES == 0:
                self._let_others_in()
        return self._reader.read(size)

    def readline(self, size: int = -1) -> bytes:
        """As the reader's."""
        return self._reader.readline(size)
