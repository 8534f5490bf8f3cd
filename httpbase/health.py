"""Whether a service lives, and whether it serves."""

from collections.abc import Callable, Sequence
from typing import Any, Final, Literal

from flask import Blueprint
from werkzeug.exceptions import ServiceUnavailable

from httpbase.errors import RETRY_AFTER_S
from schemas.openapi import Answer, Operation
from schemas.service import Health, HealthReport, PartHealth


def blueprint(obstacle: Callable[[], str | None], parts: Callable[[], Sequence[PartHealth]] | None = None) -> Blueprint:
    """The health routes.

    Args:
        obstacle: Says in one sentence why no request can be served now, or None. Must not block.
        parts: How each of the service's processes is, for `GET /health`; None: there is no such route. Must not block.
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

    if parts is not None:

        @routes.get("/health")
        def report() -> dict[str, Any]:
            reason = obstacle()
            status: Literal["ok", "unavailable"] = "unavailable" if reason else "ok"
            found = HealthReport(status=status, reason=reason, parts=list(parts()))
            return found.model_dump(exclude_none=True)

    return routes


REPORT: Final = Operation(
    "GET",
    "/health",
    operation_id="getHealth",
    summary="How is it?",
    description="For people and dashboards: what each process does, and how far a start is. Always 200.",
    tags=("health",),
    answers={200: Answer("How it is.", HealthReport)},
)
"""Of services that say how their parts are."""


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
