"""The one error body of the site's API: `schemas.errors.Problem`."""

import secrets
from http import HTTPStatus

from flask import Response, jsonify

from schemas.errors import FieldError, Problem

ERROR_TYPES = {
    HTTPStatus.UNAUTHORIZED: "unauthorized",
    HTTPStatus.FORBIDDEN: "forbidden",
    HTTPStatus.NOT_FOUND: "not_found",
    HTTPStatus.METHOD_NOT_ALLOWED: "method_not_allowed",
    HTTPStatus.UNPROCESSABLE_ENTITY: "validation_error",
    HTTPStatus.TOO_MANY_REQUESTS: "rate_limited",
    HTTPStatus.INTERNAL_SERVER_ERROR: "internal_error",
    HTTPStatus.BAD_GATEWAY: "bad_gateway",
    HTTPStatus.SERVICE_UNAVAILABLE: "unavailable",
}


def problem(status: HTTPStatus, detail: str | list[FieldError]) -> Response:
    """An error answer; `detail` is a sentence, or one entry for each field."""
    body = Problem(
        type="about:blank",  # RFC 9457 §4.2.1: the status says what kind of problem this is
        title=status.phrase,
        status=status,
        detail=detail,
        instance=f"urn:request:{secrets.token_hex(8)}",
        error_type=ERROR_TYPES.get(status, "bad_request"),
    )
    response = jsonify(body.model_dump(mode="json"))
    response.status_code = status
    return response
