"""The picture and the mask that come along with an input: bytes, or data URIs. Nothing is ever fetched."""

import binascii
import re
from typing import Final, NamedTuple

from runner.engine.request import InvalidRequest
from schemas import limits
from schemas.images import RealtimeInput

_DATA_URI: Final = re.compile(r"data:[^,]{0,200},", re.ASCII | re.IGNORECASE)
_FETCHED: Final = re.compile(r"[a-z][a-z0-9+.-]{0,20}://", re.ASCII | re.IGNORECASE)


class Picture(NamedTuple):
    """An encoded picture, not yet looked into, and the field of the input that it came in."""

    content: bytes
    field: str


def picture_of(received: RealtimeInput) -> Picture | None:
    """The picture to start from; None for text-to-image.

    Raises:
        InvalidRequest: `image_url` is neither a base64 data URI nor base64.
    """
    return _sent("image", received.image_bytes, received.image_url)


def mask_of(received: RealtimeInput) -> Picture | None:
    """The mask; None unless it is inpainting.

    Raises:
        InvalidRequest: `mask_url` is neither a base64 data URI nor base64.
    """
    return _sent("mask", received.mask_bytes, received.mask_url)


def _sent(name: str, content: bytes | None, uri: str | None) -> Picture | None:
    if content is not None:
        return Picture(content, f"{name}_bytes")
    return None if uri is None else Picture(decode_data_uri(uri, name), f"{name}_url")


def decode_data_uri(uri: str, name: str = "image") -> bytes:
    """The bytes of a base64 data URI (RFC 2397), or of bare base64, that came in `{name}_url`.

    Raises:
        InvalidRequest: a URL to fetch, another encoding, broken base64, or too large.
    """
    field = f"{name}_url"
    if _FETCHED.match(uri):
        message = f"this server fetches no URLs; send the picture as {name}_bytes or as a data URI"
        raise InvalidRequest(field, message, "url_scheme")
    header = _DATA_URI.match(uri)
    if header and not header[0].lower().endswith(";base64,"):
        raise InvalidRequest(field, "the data URI must be base64: data:image/png;base64,…", "image_load_error")
    return _decode_base64(uri[header.end() :] if header else uri, name)


def _decode_base64(text: str, name: str) -> bytes:
    try:
        picture = binascii.a2b_base64(text, strict_mode=True)
    # ValueError: a character beyond ASCII. binascii.Error is one too.
    except ValueError:
        message = f"not base64; send data:image/png;base64,… or {name}_bytes"
        raise InvalidRequest(f"{name}_url", message, "image_load_error") from None
    if not 0 < len(picture) <= limits.IMAGE_BYTES_MAX:
        message = f"the picture must have 1 to {limits.IMAGE_BYTES_MAX} bytes"
        raise InvalidRequest(f"{name}_url", message, "image_too_large" if picture else "image_load_error")
    return picture
