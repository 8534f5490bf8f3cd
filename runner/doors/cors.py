"""Which pages may call over HTTP from a browser, and what of an answer they may read (Fetch standard, §3.2)."""

import re
from dataclasses import dataclass
from typing import Final

from runner.apps.serving import Headers

MAX_AGE_S: Final = 600
"""As fal's (contract §4, CORS)."""

EXPOSED: Final = ", ".join(
    (
        "x-fal-request-id",
        "x-fal-error-type",
        "x-fal-request-timeout-type",
        "x-fal-billable-units",
        "x-fal-retryable",
        "x-request-id",
        "retry-after",
    )
)
_USUAL_HEADERS: Final = "accept, authorization, content-type"
_NAMES: Final = re.compile(r"[0-9A-Za-z!#$%&'*+.^_`|~-]+( *, *[0-9A-Za-z!#$%&'*+.^_`|~-]+)*", re.ASCII)
_NAMES_MAX_CHARS: Final = 2048


@dataclass(frozen=True, slots=True)
class CorsPolicy:
    """Origins that may call; None: all. Cookies play no part, so no credentials are allowed."""

    origins: tuple[str, ...] | None = None

    def headers(self, origin: str | None) -> Headers:
        """What an answer says to the page; nothing where it may not read it."""
        if self.origins is None:
            return (("access-control-allow-origin", "*"), ("access-control-expose-headers", EXPOSED))
        if origin is None or origin not in self.origins:
            return (("vary", "Origin"),)
        return (
            ("access-control-allow-origin", origin),
            ("access-control-expose-headers", EXPOSED),
            ("vary", "Origin"),
        )

    def preflight(self, origin: str | None, wanted_headers: str) -> Headers:
        """The answer to OPTIONS, any header of the caller's among what it may send: fal's grow with its clients."""
        is_list = len(wanted_headers) <= _NAMES_MAX_CHARS and _NAMES.fullmatch(wanted_headers.strip())
        return (
            *(pair for pair in self.headers(origin) if pair[0] not in ("access-control-expose-headers", "vary")),
            ("access-control-allow-methods", "POST, OPTIONS"),
            ("access-control-allow-headers", wanted_headers.strip() if is_list else _USUAL_HEADERS),
            ("access-control-max-age", str(MAX_AGE_S)),
            ("vary", "Origin, Access-Control-Request-Headers"),
        )
