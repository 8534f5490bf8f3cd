"""The OpenAPI description of authsvc: the operations that stand beside the views."""

from dataclasses import replace
from http import HTTPStatus
from typing import Any, Final

from authsvc.limiting import FREE_PATHS
from authsvc.views import audit, jwks, keys, redemption, revocation, signing_keys, tokens
from httpbase import health, metrics
from schemas import openapi

_OPERATIONS: Final = (
    *tokens.OPERATIONS,
    *revocation.OPERATIONS,
    *redemption.OPERATIONS,
    *jwks.OPERATIONS,
    *keys.OPERATIONS,
    *signing_keys.OPERATIONS,
    *audit.OPERATIONS,
    *health.OPERATIONS,
    *metrics.OPERATIONS,
)

OPERATIONS: Final = tuple(
    operation
    if operation.path in FREE_PATHS and not operation.security
    else replace(operation, problems=sorted({*operation.problems, HTTPStatus.TOO_MANY_REQUESTS.value}))
    for operation in _OPERATIONS
)
"""Each with what any request may be answered: 429 where requests are counted."""

SECURITY_SCHEMES: Final[dict[str, dict[str, Any]]] = {
    "key": {
        "type": "apiKey",
        "in": "header",
        "name": "Authorization",
        "description": (
            "The word `Key`, a space, and the key as `python -m authsvc keys create` prints it: "
            "`Key <key_id>:<key_secret>`."
        ),
    }
}


def document() -> dict[str, Any]:
    """The description as a JSON document."""
    return openapi.build(
        title="authsvc",
        version="1",
        description="Mints short-lived tokens that open realtime sockets, and publishes the keys to verify them.",
        operations=OPERATIONS,
        security_schemes=SECURITY_SCHEMES,
    )
