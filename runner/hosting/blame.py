"""What the peer of a realtime socket is told about an exception of a handler. Never more than the app chose to say."""

import logging
import uuid
from typing import Any, Final

from pydantic_core import to_json
from starlette.exceptions import HTTPException

from runner.apps.exceptions import AppException, FieldException, RequestCancelledException
from runner.protocol import failures
from runner.protocol.failures import Failure
from schemas.errors import RealtimeErrorCode

log = logging.getLogger(__name__)

_CODES: Final = {
    401: RealtimeErrorCode.UNAUTHORIZED,
    403: RealtimeErrorCode.FORBIDDEN,
    404: RealtimeErrorCode.NOT_FOUND,
    429: RealtimeErrorCode.LIMIT_EXCEEDED,
    503: RealtimeErrorCode.UNAVAILABLE,
}


def failure_of(error: Exception | SystemExit) -> Failure:
    """The failure; an error that the app did not foresee is logged under the id that the peer gets."""
    match error:
        case FieldException():
            return failures.invalid_field(error.field, error.message, error.type)
        case AppException():
            return Failure(_code(error.status_code), error.message)
        case RequestCancelledException():
            return Failure(RealtimeErrorCode.INTERNAL_ERROR, error.message)
        case HTTPException() if error.status_code < 500:
            return Failure(_code(error.status_code), _text(error.detail))
    error_id = uuid.uuid4().hex
    log.error("endpoint failed (%s)", error_id, exc_info=error)
    return failures.internal(error_id)


def _text(detail: Any) -> str:
    """FastAPI lets apps say more than text; JSON is what they would have seen of it over HTTP."""
    return detail if isinstance(detail, str) else to_json(detail, fallback=str).decode()


def _code(status: int) -> RealtimeErrorCode:
    if status in _CODES:
        return _CODES[status]
    return RealtimeErrorCode.VALIDATION_ERROR if 400 <= status < 500 else RealtimeErrorCode.INTERNAL_ERROR
