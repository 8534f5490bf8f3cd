"""The OpenAPI description of the runner's HTTP."""

import inspect
from collections.abc import Iterator
from typing import Any, Final

from httpbase import health, metrics
from runner.apps import fast_lcm_diffusion, fast_turbo_diffusion
from runner.apps.fast_lcm_diffusion import FastLcmDiffusion
from runner.apps.fast_turbo_diffusion import FastTurboDiffusion
from runner.apps.framework import App, HttpDeclaration, Mode, declarations, signature_of
from runner.doors import files
from runner.doors.answer_head import EVENT_STREAM
from schemas import openapi
from schemas.openapi import Answer, Operation

_APP_PROBLEMS: Final = (401, 403, 413, 415, 422, 429, 500, 503, 504)
_EVENTS: Final = "Each `data:` of the stream is such an object; the last is the result."
_TIMEOUT: Final = {
    "name": "x-fal-request-timeout",
    "in": "header",
    "description": "Seconds, more than 0.1, after which to give up with 504.",
    "schema": {"type": "number", "exclusiveMinimum": 0.1},
}

SECURITY_SCHEMES: Final[dict[str, dict[str, Any]]] = {
    "key": {
        "type": "apiKey",
        "in": "header",
        "name": "Authorization",
        "description": "The word `Key`, a space, and an API key: `Key <key_id>:<key_secret>`.",
    },
    "bearer": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT", "description": "A token of authsvc."},
    "token": {
        "type": "apiKey",
        "in": "query",
        "name": "fal_jwt_token",
        "description": "A token of authsvc, where headers cannot be sent.",
    },
}
"""Any one of them lets a caller in; `/asyncapi.json` names them alike."""


def of_app(app_id: str, app: type[App]) -> Iterator[Operation]:
    """What an app answers over HTTP."""
    for declared in declarations(app):
        if not isinstance(declared, HttpDeclaration):
            continue
        handler = getattr(app, declared.handler)
        mode, received, given = signature_of(handler)
        is_stream = mode is Mode.SERVER_STREAMING
        summary = (inspect.getdoc(handler) or declared.handler).splitlines()[0]
        yield Operation(
            "POST",
            f"/{app_id}{declared.path}".rstrip("/"),
            operation_id=f"{app_id.partition('/')[2]}_{declared.handler}",
            summary=summary,
            description=_EVENTS if is_stream else summary,
            tags=(app_id,),
            answers={200: Answer("Events.", given, EVENT_STREAM) if is_stream else Answer("The result.", given)},
            problems=_APP_PROBLEMS,
            request=received,
            parameters=(_TIMEOUT,),
            security=tuple(SECURITY_SCHEMES),
        )


OPERATIONS: Final = (
    *of_app(fast_lcm_diffusion.APP_ID, FastLcmDiffusion),
    *of_app(fast_turbo_diffusion.APP_ID, FastTurboDiffusion),
    health.REPORT,
    *health.OPERATIONS,
    *files.OPERATIONS,
    *metrics.OPERATIONS,
)


def document() -> dict[str, Any]:
    """The description as a JSON document."""
    return openapi.build(
        title="runner",
        version="1",
        description=(
            "Serves realtime image generation. WebSockets OpenAPI cannot describe, see `/asyncapi.json`: "
            "open `/{owner}/{alias}/realtime?fal_jwt_token=…` with one of fal's official clients."
        ),
        operations=OPERATIONS,
        security_schemes=SECURITY_SCHEMES,
    )
