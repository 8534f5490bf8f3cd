"""Whether a service lives, and whether it serves."""

from collections.abc import Callable
from typing import Final

from flask import Blueprint
from werkzeug.exceptions import ServiceUnavailable

from httpbase.errors import RETRY_AFTER_S
from schemas.openapi import Answer, Operation
from schemas.service import Health


def blueprint(obstacle: Callable[[], str | None]) -> Blueprint:
    """The health routes.

    Args:
        obstacle: Says in one sentence why no request can be served now, or None. Must not block.
    """
    routes = Blueprint("health", __name__)

    @routes.get("/health/live")
    def live() -> dict[str, str]:
        return Health(status="ok").model_dump()

    @routes.get("/health/ready")
    def ready() -> dict[str, str]:
        if reason := obstacle():
            raise ServiceUnavailable(reason, retry_after=RETRY_AFTER_S)
        return Health(status="ok").model_dump()

    return routes


OPERATIONS: Final = (
    Operation(
        "GET",
        "/health/live",
        operation_id="getLive",
        summary="Is the process alive?",
        description="Restart the process when this does not answer.",
        tags=("health",),
        answers={200: Answer("It is.", Health)},
    ),
    Operation(
        "GET",
        "/health/ready",
        operation_id="getReady",
        summary="Does it serve?",
        description="Send no requests here while this does not answer 200; `detail` says what is missing.",
        tags=("health",),
        answers={200: Answer("It does.", Health)},
        problems=(503,),
    ),
)
