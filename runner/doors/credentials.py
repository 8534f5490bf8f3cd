"""The credentials of a handshake, as they were sent: found and told apart, not yet believed."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import parse_qs, unquote_plus

TOKEN_PARAMETER: Final = "fal_jwt_token"  # noqa: S105 - the parameter's name, fixed by the official clients

_QUERY_FIELDS_MAX: Final = 32
_API_KEY: Final = re.compile(r"[!-9;-~]{1,128}:[!-9;-~]{1,256}")  # printable ASCII, one colon


@dataclass(frozen=True, slots=True)
class QueryToken:
    """`?fal_jwt_token=…`: how browsers authenticate. Never shown in a repr or a log."""

    token: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class BearerToken:
    """`Authorization: Bearer …` (RFC 6750 §2.1)."""

    token: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class ApiKey:
    """`Authorization: Key <key_id>:<key_secret>`: fal_client with `use_jwt=False`."""

    key: str = field(repr=False)


Credentials = QueryToken | BearerToken | ApiKey


class MalformedCredentials(ValueError):
    """Credentials of no form that we know. Its text is for the peer, and repeats nothing of them."""


def read(query: str, authorization: str | None) -> Credentials | None:
    """The credentials of a request, or None. A token in the query goes before the header.

    Raises:
        MalformedCredentials: an Authorization header that is neither `Key` nor `Bearer`, or a damaged key.
    """
    tokens = _parameters(query).get(TOKEN_PARAMETER)
    if tokens is not None:
        # Several: no reader could say which one counts, so none does. An empty token is refused as a token.
        return QueryToken(tokens[0] if len(tokens) == 1 else "")
    return None if authorization is None else _read_header(authorization)


def parameter(query: str, name: str) -> str | None:
    """The value of a query parameter, or None.

    Raises:
        ValueError: it is there more than once, and no reader could say which one counts; the text is for the peer.
    """
    values = _parameters(query).get(name, [])
    if len(values) > 1:
        raise ValueError("must be there once")
    return values[0] if values else None


def without(query: str) -> str:
    """A raw query string without its credentials, for whoever answers the request."""
    return "&".join(part for part in query.split("&") if unquote_plus(part.partition("=")[0]) != TOKEN_PARAMETER)


_KEPT_BACK: Final = frozenset({"authorization", "proxy-authorization", "cookie"})


def headers_of(environ: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    """The headers of a WSGI request, names in lower case, without credentials."""
    named = ((name[5:].replace("_", "-").lower(), str(value)) for name, value in environ.items() if name[:5] == "HTTP_")
    content = ((name, environ[key]) for name, key in _CONTENT if environ.get(key))
    return (*(pair for pair in named if pair[0] not in _KEPT_BACK), *content)


_CONTENT: Final = (("content-type", "CONTENT_TYPE"), ("content-length", "CONTENT_LENGTH"))


def _parameters(query: str) -> dict[str, list[str]]:
    try:
        return parse_qs(query, keep_blank_values=True, max_num_fields=_QUERY_FIELDS_MAX)
    except ValueError:  # more fields than any client of ours sends
        return {}


def _read_header(authorization: str) -> Credentials:
    scheme, _, value = authorization.strip().partition(" ")
    value = value.strip()
    match scheme.lower():  # RFC 9110 §11.1: the scheme's case does not matter
        case "bearer":
            return BearerToken(value)
        case "key" if _API_KEY.fullmatch(value):
            return ApiKey(value)
        case "key":
            # fal's own words.
            raise MalformedCredentials("Invalid Key Authorization header format. Expected '<key_id>:<key_secret>'.")
    raise MalformedCredentials("Authorization must be Key <key_id>:<key_secret> or Bearer <token>.")
