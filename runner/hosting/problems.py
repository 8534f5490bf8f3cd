"""Error bodies of an app's HTTP: fal's `detail` (contract §4), with our members beside it."""

import logging
import uuid
from collections.abc import Iterable, Mapping
from http import HTTPStatus
from typing import Any, Final

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from runner.apps.exceptions import AppException, FieldException, RequestCancelledException
from runner.protocol import failures
from schemas.errors import FieldError, Problem
from schemas.problems import KINDS, problem

log = logging.getLogger(__name__)

CLIENT_CLOSED_REQUEST: Final = 499
"""No status of RFC 9110; proxies and fal use it for work that its client cancelled."""

JSON: Final = "application/json"

UNBILLED: Final = {"x-fal-billable-units": "0"}

_INTERNAL: Final = "the app failed on this request: its log has the cause under the id in `instance`"
_ERROR_TYPES: Final = {502: "runner_server_error", 504: "request_timeout"}


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
    request: Request, status: int, detail: str | list[FieldError], headers: Mapping[str, str] | None = None
) -> Response:
    body = _problem(status, detail, error_id_of(request))
    return Response(body.model_dump_json(), status, dict(headers or {}), JSON)


def _problem(status: int, detail: str | list[FieldError], error_id: str) -> Problem:
    if status in KINDS:
        return problem(status, detail, error_id)
    # An app chooses its statuses freely. about:blank: the title is the status's own (RFC 9457 §4.2.1).
    fallback = "bad_request" if status < HTTPStatus.INTERNAL_SERVER_ERROR else "internal_error"
    return Problem(
        type="about:blank",
        title=_phrase(status),
        status=status,
        detail=detail,
        instance=f"urn:uuid:{error_id}",
        error_type=_ERROR_TYPES.get(status, fallback),
    )


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Client Closed Request" if status == CLIENT_CLOSED_REQUEST else f"Status {status}"


async def _http_error(request: Request, error: HTTPException) -> Response:
    if error.status_code < HTTPStatus.BAD_REQUEST or error.status_code == HTTPStatus.NOT_MODIFIED:
        return Response(status_code=error.status_code, headers=error.headers)  # a redirect that was raised
    headers = dict(error.headers or {})
    if error.status_code != HTTPStatus.NOT_FOUND or error.detail != HTTPStatus.NOT_FOUND.phrase:
        return _response(request, error.status_code, str(error.detail), headers)
    # fal's words. What is not there costs nothing.
    return _response(request, error.status_code, f"Path {request.url.path} not found", {**headers, **UNBILLED})


async def _invalid_request(request: Request, error: RequestValidationError) -> Response:
    return _response(request, 422, field_errors(error.errors()), UNBILLED)


def field_errors(entries: Iterable[Mapping[str, Any]]) -> list[FieldError]:
    """Pydantic's list as FastAPI has it, without large values and addresses."""
    return [failures.field_error(dict(entry)) for entry in list(entries)[: failures.DETAIL_MAX]]


async def _app_error(request: Request, error: AppException) -> Response:
    return _response(request, error.status_code, error.message)


async def _field_error(request: Request, error: FieldException) -> Response:
    entry = FieldError(loc=["body", error.field], msg=error.message, type=error.type)
    return _response(request, error.status_code, [entry], {"x-fal-billable-units": _units(error.billable_units)})


def _units(units: float | str | None) -> str:
    return format(float(units or 0), ".0f" if isinstance(units, int) or not units else ".8f")


async def _cancelled(request: Request, error: RequestCancelledException) -> Response:
    body = _problem(CLIENT_CLOSED_REQUEST, error.message, error_id_of(request))
    body.error_type = "client_cancelled"  # the client asked for it; one that just went away is told nothing
    return Response(body.model_dump_json(), CLIENT_CLOSED_REQUEST, media_type=JSON)


async def _internal_error(request: Request, error: Exception) -> Response:
    # Starlette asks for this also where an answer is under way already, and then drops it.
    error_id = error_id_of(request)
    log.error("request failed (%s)", error_id, exc_info=error)
    return Response(problem(500, _INTERNAL, error_id).model_dump_json(), 500, media_type=JSON)
