"""`GET /metrics` in Prometheus' text form, as both services answer it."""

from typing import Final

from flask import Blueprint, Response
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4

from schemas.openapi import Answer, Operation


def blueprint(registry: CollectorRegistry) -> Blueprint:
    """The route.

    Args:
        registry: Its collectors are asked each time, so what they say must be cheap.
    """
    routes = Blueprint("metrics", __name__)

    @routes.get("/metrics")
    def metrics() -> Response:
        # Prometheus 2 knows no later version than 0.0.4; with names like ours 1.0.0 is no different.
        return Response(generate_latest(registry), content_type=CONTENT_TYPE_PLAIN_0_0_4)

    return routes


OPERATIONS: Final = (
    Operation(
        "GET",
        "/metrics",
        operation_id="getMetrics",
        summary="What does the service do?",
        description="Prometheus' text form. Not there where `AUTHSVC_METRICS` or `RUNNER_METRICS` is false.",
        tags=("metrics",),
        answers={200: Answer("Metrics of the service.", str, content_type="text/plain")},
        problems=(404,),
    ),
)
