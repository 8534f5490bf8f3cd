"""The OpenAPI description of authsvc: the operations that stand beside the views."""

from typing import Any, Final

from authsvc.views import jwks, tokens
from httpbase import health
from schemas import openapi

OPERATIONS: Final = (*tokens.OPERATIONS, *jwks.OPERATIONS, *health.OPERATIONS)

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
