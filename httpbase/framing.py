"""Where a request's body ends: asked before anything of it is read.

A server and the proxy before it that disagree about this take one's body for the other's next request
("request smuggling", RFC 9112 §11.2). pywsgi resolves what is ambiguous; here it is refused.
"""

import re
from email.errors import FirstHeaderLineIsContinuationDefect, MissingHeaderBodySeparatorDefect
from http.client import HTTPMessage
from typing import Final

_DIGITS: Final = re.compile(r"[0-9]{1,19}")  # 19 digits hold a 63-bit length
_OWS: Final = " \t"  # RFC 9110 §5.6.3; `str.strip` alone takes a vertical tab too
# What Python's parser leaves of a line without a name, or with a space before its colon: it reads no header after it.
_DEFECTS: Final = (FirstHeaderLineIsContinuationDefect, MissingHeaderBodySeparatorDefect)


class AmbiguousBody(ValueError):
    """The headers do not say in exactly one way where the body ends."""


def check_framing(headers: HTTPMessage) -> None:
    """Accepts what RFC 9112 §6 leaves no doubt about: no body, one length, or chunks.

    Raises:
        AmbiguousBody: a Content-Length that is repeated, no number or beside a Transfer-Encoding, a
            Transfer-Encoding that is not exactly `chunked`, or a line that is no header.
    """
    if any(isinstance(defect, _DEFECTS) for defect in headers.defects):
        raise AmbiguousBody
    lengths = headers.get_all("Content-Length", [])
    encodings = headers.get_all("Transfer-Encoding", [])
    if encodings and (lengths or [encoding.strip(_OWS).lower() for encoding in encodings] != ["chunked"]):
        raise AmbiguousBody
    if lengths and not (len(lengths) == 1 and _DIGITS.fullmatch(lengths[0].strip(_OWS))):
        raise AmbiguousBody
