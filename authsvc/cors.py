"""Which pages of other origins may read our answers: those of an exact list, and by default none.

Flask-CORS writes the headers. It takes an entry with `[`, as in an IPv6 address, for a regular expression, matches
those from the front only (so `https://good.example` lets `https://good.example.evil` in) and ignores case. So it gets
patterns that match one origin whole, as browsers write it.
"""

import re
from collections.abc import Sequence
from typing import Final

from flask import Flask, Response
from flask_cors import CORS

_MAX_AGE_S: Final = 600
_READABLE: Final = ("RateLimit", "RateLimit-Policy", "Retry-After", "X-Fal-Error-Type", "X-Request-Id")


def register(app: Flask, origins: Sequence[str]) -> None:
    """Lets pages of these origins read what an application answers; without any, nothing changes."""
    if not origins:
        return
    CORS(
        app,
        origins=[re.compile(re.escape(origin) + r"\Z") for origin in origins],
        methods=["GET", "POST", "PATCH"],
        allow_headers=["Authorization", "Content-Type"],
        expose_headers=_READABLE,
        max_age=_MAX_AGE_S,
        supports_credentials=False,
        allow_private_network=False,
        always_send=False,
        vary_header=False,  # it would say so to listed origins alone
        intercept_exceptions=False,  # our error handlers' answers come by like all others
    )
    app.after_request(_vary)


def _vary(response: Response) -> Response:
    """An answer to one origin, or to none, must not be taken from a cache for another (RFC 9110 §12.5.5)."""
    response.vary.add("Origin")
    return response
