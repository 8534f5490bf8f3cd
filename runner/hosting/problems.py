"""Error bodies of an app's HTTP: fal's `detail` (contract §4), with our members beside it."""

import logging
import uuid
from collections.abc import Iterable, Mapping
from http import HTTPStatus
from typing import Any, Final

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from pydantic_core import to_json
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from runner.apps.exceptions import AppException, FieldException, RequestCancelledException
from runner.protocol import failures
from schemas.errors import FieldError, Problem
from schemas.problems import KINDS, RETRYABLE, problem

log = logging.getLogger(__name__)

CLIENT_CLOSED_REQUEST: Final = 499
"""No status of RFC 9110; proxies and fal use it for work that its client cancelled."""

JSON: Final = "application/json"

_INTERNAL: Final = "the app failed on this request: its log has the cause under the id in `instance`"


def register(application: FastAPI) -> None:
    """Puts every error of an application into the one form."""
    # Starlette types a handler by the widest exception there is, and each of ours takes one kind.
    handlers: dict[type[Exception], Any] = {
        HTTPException: _http_error,
        RequestValidationError: _invalid_request,
        AppException: _app_error,
        FieldException: _field_error,
        RequestCancelledException: _cancelled,
        Exception: _internal_error,
    }
    for kind, handler in handlers.items():
        application.add_exception_handler(kind, handler)


def error_id_of(request: Request) -> str:
    """The request's own id where it is a UUID, so that one id leads through all logs; else a new one."""
    try:
        return str(uuid.UUID(request.headers.get("x-fal-request-id", "")))
    except ValueError:
        return str(uuid.uuid4())


def _response(
    error_id: str, status: int, detail: Any, headers: Mapping[str, str] | None = None, error_type: str | None = None
) -> Response:
    """The error body, and in headers what fal's clients read there; those of the app's own win.

    `detail` is text or a list of fields; FastAPI lets apps say anything else that JSON can as well.
    """
    body = _problem(status, error_id)
    body.error_type = error_type or body.error_type
    said = {
        "x-fal-error-type": body.error_type,
        "x-fal-billable-units": "0",
        "x-fal-retryable": str(status in RETRYABLE).lower(),
        **{name.lower(): value for name, value in (headers or {}).items()},
    }
    return Response(to_json({**dict(body), "detail": detail}, fallback=str), status, said, JSON)


def _problem(status: int, error_id: str) -> Problem:
    """All but its `detail`."""
    if status in KINDS:
        return problem(status, "", error_id)
    # An app chooses its statuses freely. about:blank: the title is the status's own (RFC 9457 §4.2.1).
    return Problem(
        type="about:blank",
        title=_phrase(status),
        status=status,
        detail="",
        instance=f"urn:uuid:{error_id}",
        error_type="bad_request" if status < HTTPStatus.INTERNAL_SERVER_ERROR else "internal_error",
    )


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return f"Status {status}"


async def _http_error(request: Request, error: HTTPException) -> Response:
    if error.status_code < HTTPStatus.BAD_REQUEST:
        return Response(status_code=error.status_code, headers=error.headers)  # a redirect that was raised
    is_plain = error.status_code == HTTPStatus.NOT_FOUND and error.detail == HTTPStatus.NOT_FOUND.phrase
    detail = f"Path {request.url.path} not found" if is_plain else error.detail  # fal's words
    return _response(error_id_of(request), error.status_code, detail, error.headers)


async def _invalid_request(request: Request, error: RequestValidationError) -> Response:
    return _response(error_id_of(request), 422, field_errors(error.errors()))


def field_errors(entries: Iterable[Mapping[str, Any]]) -> list[FieldError]:
    """Pydantic's list as FastAPI has it, without large values and addresses."""
    return [failures.field_error(dict(entry)) for entry in list(entries)[: failures.DETAIL_MAX]]


async def _app_error(request: Request, error: AppException) -> Response:
    return _response(error_id_of(request), error.status_code, error.message)


async def _field_error(request: Request, error: FieldException) -> Response:
    entry = FieldError(loc=["body", error.field], msg=error.message, type=error.type)
    units = {"x-fal-billable-units": _units(error.billable_units)}
    return _response(error_id_of(request), error.status_code, [entry], units)


def _units(units: float | str | None) -> str:
    return format(float(units or 0), ".0f" if isinstance(units, int) or not units else ".8f")


async def _cancelled(request: Request, error: RequestCancelledException) -> Response:
    # The client asked for it; one that just went away is told nothing.
    return _response(error_id_of(request), CLIENT_CLOSED_REQUEST, error.message, error_type="client_cancelled")


async def _internal_error(request: Request, error: Exception) -> Response:
    # Starlette asks for this also where an answer is under way already, and then drops it.
    error_id = error_id_of(request)
    log.error("request failed (%s)", error_id, exc_info=error)
    return _response(error_id, 500, _INTERNAL)
