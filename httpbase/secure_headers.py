"""What every answer says to browsers and caches: keep nothing, run nothing, guess nothing, tell nobody.

A view that knows better says so itself: what it sets stays.
"""

from typing import Final

from flask import Flask, Response, request

_DEFAULTS: Final = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
    "Cache-Control": "no-store",
}
_STRICT_TRANSPORT: Final = f"max-age={365 * 24 * 3600}"


def register(app: Flask) -> None:
    """Adds the headers to every answer of an application."""
    app.after_request(_add)


def _add(response: Response) -> Response:
    # In one pass: `setdefault` would look through all headers for each of ours.
    present = {name.lower() for name, _ in response.headers}
    for name, value in _DEFAULTS.items():
        if name.lower() not in present:
            response.headers.add(name, value)
    # Over plain HTTP browsers ignore it (RFC 6797 §7.2); a proxy that is trusted says which it was.
    if request.is_secure:
        response.headers.setdefault("Strict-Transport-Security", _STRICT_TRANSPORT)
    return response
