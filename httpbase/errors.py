"""Every answer that is not 2xx is made here, with one body: `schemas.errors.Problem`.

An error names what the caller can mend. What went wrong inside goes to the log alone, under the id that the
caller sees in `instance`.
"""

import logging
from collections.abc import Iterable, Sequence
from typing import Any, Final

from flask import Flask, Response, current_app, request
from flask.typing import ResponseReturnValue
from pydantic import ValidationError
from werkzeug.exceptions import HTTPException, InternalServerError

from httpbase import arrival
from httpbase.logs import loggable_path, request_level
from schemas.errors import FieldError
from schemas.problems import KINDS, problem

logger = logging.getLogger(__name__)

RETRY_AFTER_S: Final = 5

Headers = Iterable[tuple[str, str]]


class InvalidBody(HTTPException):
    """422 with one entry a field, as FastAPI gives it."""

    code = 422

    def __init__(self, fields: Sequence[FieldError]) -> None:
        super().__init__("; ".join(field.msg for field in fields))
        self.fields = list(fields)

    @classmethod
    def of(cls, error: ValidationError) -> "InvalidBody":
        """Takes over pydantic's list, without the input: it may be long, or secret."""
        return cls([_field_error(entry) for entry in error.errors(include_url=False, include_input=False)])

    @classmethod
    def field(cls, name: str, message: str) -> "InvalidBody":
        """Blames one field."""
        return cls([FieldError(loc=["body", name], msg=message, type="value_error")])


def _field_error(entry: Any) -> FieldError:
    loc, message = list(entry["loc"]), str(entry["msg"]).removeprefix("Value error, ")
    # A check of the whole body says which field to mend in front of its message.
    field, colon, rest = message.partition(": ")
    if entry["type"] == "value_error" and not loc and colon:
        loc, message = [field], rest
    return FieldError(loc=["body", *loc], msg=message, type=entry["type"])


def register(app: Flask) -> None:
    """Puts every error of an application into the one form."""
    app.register_error_handler(HTTPException, http_error)
    app.register_error_handler(InternalServerError, _wrapped_error)
    # Whatever else escapes a view is our fault: the caller gets an id and the log gets the rest.
    app.register_error_handler(Exception, internal_error)


def http_error(error: HTTPException) -> Response:
    """What a view refuses, under the id of the request."""
    status = error.code if error.code in KINDS else 400
    detail = error.fields if isinstance(error, InvalidBody) else _sentence(error, status)
    headers = [(name, value) for name, value in error.get_headers() if name != "Content-Type"]
    error_id = arrival.error_id()
    level, path = request_level(request.path), loggable_path(request.path)
    logger.log(level, "refused %s %r with %d (error id %s)", request.method, path, status, error_id)
    return problem_response(status, detail, error_id, headers)


def _wrapped_error(error: InternalServerError) -> ResponseReturnValue:
    """What fails outside a view, in a hook or a handler, comes in Flask's wrapping: answered as it would be inside."""
    if isinstance(error.original_exception, Exception):
        return current_app.handle_user_exception(error.original_exception)
    return http_error(error)


def _sentence(error: HTTPException, status: int) -> str:
    """Our own words where a view chose them, the kind's remedy where the framework raised the error."""
    chosen = error.description if error.description != type(error).description else None
    return chosen or KINDS[status].remedy


def internal_error(error: Exception) -> Response:
    """500: a defect of ours, which the log has whole and the caller by an id alone."""
    error_id = arrival.error_id()
    logger.error("unexpected failure (error id %s)", error_id, exc_info=error)
    return problem_response(500, f"Internal Server Error. The log has it as {error_id}.", error_id)


def problem_response(status: int, detail: str | list[FieldError], error_id: str, headers: Headers = ()) -> Response:
    """The answer with the one error body."""
    body = problem(status, detail, error_id)
    response = Response(body.model_dump_json(), status, list(headers), content_type="application/json")
    response.headers["X-Fal-Error-Type"] = body.error_type  # what the official Python client reads
    response.headers["Cache-Control"] = "no-store"
    return response
