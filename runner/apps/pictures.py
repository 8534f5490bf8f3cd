"""The picture that comes along with an input: bytes, or a data URI. Nothing is ever fetched."""

import binascii
import re
from typing import Final

from runner.engine.request import InvalidRequest
from schemas import limits
from schemas.images import RealtimeInput

_DATA_URI: Final = re.compile(r"data:[^,]{0,200},", re.ASCII | re.IGNORECASE)
_FETCHED: Final = re.compile(r"[a-z][a-z0-9+.-]{0,20}://", re.ASCII | re.IGNORECASE)


def picture_of(received: RealtimeInput) -> bytes | None:
    """The encoded picture of an input, not yet looked into; None for text-to-image.

    Raises:
        InvalidRequest: `image_url` is neither a base64 data URI nor base64.
    """
    if received.image_bytes is not None:
        return received.image_bytes
    return None if received.image_url is None else decode_data_uri(received.image_url)


def picture_field(received: RealtimeInput) -> str:
    """The field that an error about the picture belongs to."""
    return "image_url" if received.image_url is not None else "image_bytes"


def decode_data_uri(uri: str) -> bytes:
    """The bytes of a base64 data URI (RFC 2397), or of bare base64.

    Raises:
        InvalidRequest: a URL to fetch, another encoding, broken base64, or too large.
    """
    if _FETCHED.match(uri):
        raise InvalidRequest(
            "image_url", "this server fetches no URLs; send the picture as image_bytes or as a data URI", "url_scheme"
        )
    header = _DATA_URI.match(uri)
    if header and not header[0].lower().endswith(";base64,"):
        raise InvalidRequest("image_url", "the data URI must be base64: data:image/png;base64,…", "image_load_error")
    return _decode_base64(uri[header.end() :] if header else uri)


def _decode_base64(text: str) -> bytes:
    try:
        picture = binascii.a2b_base64(text, strict_mode=True)
    # ValueError: a character beyond ASCII. binascii.Error is one too.
    except ValueError:
        raise InvalidRequest(
            "image_url", "not base64; send data:image/png;base64,… or image_bytes", "image_load_error"
        ) from None
    if not 0 < len(picture) <= limits.IMAGE_BYTES_MAX:
        message = f"the picture must have 1 to {limits.IMAGE_BYTES_MAX} bytes"
        raise InvalidRequest("image_url", message, "image_too_large" if picture else "image_load_error")
    return picture
