"""The strict reading of a compact JWS (RFC 7515 §7.1), before any library is asked.

Libraries forgive what lets two readers see two different tokens: base64 padding, white space, trailing bits,
duplicate JSON members, UTF-16, `NaN`. None of these is forgiven here, and sizes are bounded first.
"""

import base64
import binascii
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, NoReturn

from schemas import limits
from tokens.errors import MalformedToken, TokenTooLarge

_COMPACT: Final = re.compile(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+", re.ASCII)


@dataclass(frozen=True, slots=True)
class CompactToken:
    """A token that is well formed. Nothing in it may be believed until its signature is verified."""

    text: str
    header: dict[str, Any]
    payload: dict[str, Any]


def parse(token: str) -> CompactToken:
    """Reads a token strictly.

    Raises:
        TokenTooLarge: over 4 kB, or a header over 512 B.
        MalformedToken: anything but three base64url segments, the first two of them JSON objects.
    """
    if len(token) > limits.TOKEN_MAX_BYTES:
        raise TokenTooLarge(f"the token is over {limits.TOKEN_MAX_BYTES} bytes")
    if _COMPACT.fullmatch(token) is None:
        raise MalformedToken("not a token: a JWT has three base64url segments")
    header, payload, _ = map(decode_segment, token.split("."))
    if len(header) > limits.TOKEN_HEADER_MAX_BYTES:
        raise TokenTooLarge(f"the header is over {limits.TOKEN_HEADER_MAX_BYTES} bytes")
    return CompactToken(token, _object(header, "header"), _object(payload, "payload"))


def decode_segment(segment: str) -> bytes:
    """Decodes base64url in its one canonical form: no padding and no bits left over (RFC 4648 §3.5)."""
    try:
        decoded = base64.urlsafe_b64decode(segment + "=" * (-len(segment) % 4))
    except binascii.Error:
        raise MalformedToken("a segment is not base64url") from None
    if encode_segment(decoded) != segment:
        raise MalformedToken("a segment is not canonical base64url")
    return decoded


def encode_segment(data: bytes) -> str:
    """Encodes as base64url without padding (RFC 7515 §2)."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode("ascii")


def _object(data: bytes, part: str) -> dict[str, Any]:
    value = load_json(data, part)
    if not isinstance(value, dict):
        raise MalformedToken(f"the {part} is not a JSON object")
    return value


def load_json(data: bytes, part: str) -> Any:
    """Reads UTF-8 JSON that means one thing only.

    Raises:
        MalformedToken: not UTF-8 JSON, a duplicate member, a constant that JSON does not have, or nested
            deeper than the interpreter goes.
    """
    try:
        # Decoded here because `json.loads` guesses UTF-16 and UTF-32 when it is given bytes.
        return json.loads(data.decode("utf-8"), object_pairs_hook=_unique_members, parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        raise MalformedToken(f"the {part} is not strict JSON") from None


def _unique_members(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError("duplicate member")
    return members


def _refuse_constant(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not JSON")
