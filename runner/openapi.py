"""The OpenAPI description of the runner's HTTP."""

from typing import Any, Final

from httpbase import health, metrics
from schemas import openapi

OPERATIONS: Final = (*health.OPERATIONS, *metrics.OPERATIONS)


def document() -> dict[str, Any]:
    """The description as a JSON document."""
    return openapi.build(
        title="runner",
        version="1",
        description=(
            "Serves realtime image generation. Pictures come over WebSockets, which OpenAPI cannot describe: "
            "open `/{owner}/{alias}/realtime?fal_jwt_token=…` with one of fal's official clients."
        ),
        operations=OPERATIONS,
    )
