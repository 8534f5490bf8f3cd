"""What an origin is, as browsers write it in `Origin`. Pure decisions on strings."""

from typing import Final
from urllib.parse import urlsplit

_DEFAULT_PORTS: Final = {"http": 80, "https": 443}
_NEVER: Final = frozenset("@*\\ ")
_REMEDY: Final = "write origins with commas between, as browsers send them, such as https://app.example.com"


class InvalidOrigins(ValueError):
    """The list is not one of origins; the text says what to write."""


def parse_origins(text: str) -> tuple[str, ...]:
    """Reads a list of origins (RFC 6454 §6.2).

    Raises:
        InvalidOrigins: an entry is no origin, or one that no browser would send.
    """
    origins = tuple(entry.strip() for entry in text.split(",") if entry.strip())
    if not all(map(_is_origin, origins)):
        raise InvalidOrigins(_REMEDY)
    return origins


def is_allowed(origin: str | None, allowed: tuple[str, ...], *, may_be_missing: bool) -> bool:
    """Whether a request may come from where its `Origin` says.

    Origins are compared as they are written (RFC 6454 §4, §5): `null`, another case or port, and one with an allowed
    origin inside it are others.

    Args:
        origin: The header; None: there is none, which no browser leaves out of a WebSocket handshake.
        allowed: As `parse_origins` gives them; empty: all are, for tokens are no cookies and come along with nobody.
        may_be_missing: Whether programs that are no browsers may come.
    """
    if origin is None:
        return may_be_missing
    return not allowed or origin in allowed


def _is_origin(text: str) -> bool:
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:
        return False
    return (
        parts.scheme in _DEFAULT_PORTS
        and bool(parts.hostname)
        and text == f"{parts.scheme}://{parts.netloc}" == text.lower()
        and text.isascii()
        and not _NEVER & set(text)
        and not parts.netloc.endswith(":")
        and port != _DEFAULT_PORTS[parts.scheme]
    )
