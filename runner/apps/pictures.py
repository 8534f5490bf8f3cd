"""The picture and the mask that come along with an input: bytes, data URIs, or addresses to fetch them from."""

import binascii
import re
from collections.abc import Callable
from typing import Final, NamedTuple

from runner.engine.request import InvalidRequest
from schemas import limits
from schemas.images import Source

_DATA_URI: Final = re.compile(r"data:[^,]{0,200},", re.ASCII | re.IGNORECASE)
_SCHEME: Final = re.compile(r"[a-z][a-z0-9+.-]{0,20}://", re.ASCII | re.IGNORECASE)

Fetch = Callable[[str, str], bytes]
"""From a URL, and the field that it came in, to an encoded picture. Blocks its greenlet; raises InvalidRequest."""


class Picture(NamedTuple):
    """An encoded picture, not yet looked into, and the field of the input that it came in."""

    content: bytes
    field: str


def fetch_nothing(_: str, field: str) -> bytes:
    """Refuses a URL: what an app does that was told of no other way.

    Raises:
        InvalidRequest: always.
    """
    message = f"this server fetches no URLs; send {_as_data_uri(field)}"
    raise InvalidRequest(field, message, "url_scheme")


def read(source: Source | None, fetch: Fetch = fetch_nothing) -> Picture | None:
    """The picture that a source is or leads to; None without one.

    Raises:
        InvalidRequest: it is neither a base64 data URI nor base64, or cannot be fetched.
    """
    if source is None:
        return None
    field, content = source
    if isinstance(content, bytes):
        return Picture(content, field)
    if _SCHEME.match(content):
        return Picture(fetch(content, field), field)
    return Picture(decode_data_uri(content, field), field)


def decode_data_uri(uri: str, field: str = "image_url") -> bytes:
    """The bytes of a base64 data URI (RFC 2397), or of bare base64, that came in `field`.

    Raises:
        InvalidRequest: another encoding, broken base64, or too large.
    """
    header = _DATA_URI.match(uri)
    if header and not header[0].lower().endswith(";base64,"):
        raise InvalidRequest(field, "the data URI must be base64: data:image/png;base64,…", "image_load_error")
    return _decode_base64(uri[header.end() :] if header else uri, field)


def _decode_base64(text: str, field: str) -> bytes:
    try:
        picture = binascii.a2b_base64(text, strict_mode=True)
    # ValueError: a character beyond ASCII. binascii.Error is one too.
    except ValueError:
        raise InvalidRequest(field, f"not base64; send {_as_data_uri(field)}", "image_load_error") from None
    if not 0 < len(picture) <= limits.IMAGE_BYTES_MAX:
        message = f"the picture must have 1 to {limits.IMAGE_BYTES_MAX} bytes"
        raise InvalidRequest(field, message, "image_too_large" if picture else "image_load_error")
    return picture


def _as_data_uri(field: str) -> str:
    in_bytes = f"{field.removesuffix('_url')}_bytes"
    return f"the picture as a data URI, data:image/png;base64,…, or on a WebSocket as {in_bytes}"
