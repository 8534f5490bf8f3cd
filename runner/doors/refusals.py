"""What a request over HTTP ends in if not in an answer of its endpoint: one error body, whoever refuses.

Its statuses, `error_type`s and headers are fal's (contract §4, Error bodies).
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from math import ceil
from typing import Any, Final

from httpbase.errors import RETRY_AFTER_S
from runner.apps.serving import AppUnavailable, HttpAnswer
from runner.engine.request import EngineBusy, EngineUnavailable, GenerationFailed, InvalidRequest
from runner.protocol import failures
from runner.protocol.failures import Failure
from schemas.errors import FieldError, Problem, RealtimeErrorCode
from schemas.problems import KINDS, RETRYABLE, problem

log = logging.getLogger(__name__)

_STATUSES: Final = {
    RealtimeErrorCode.VALIDATION_ERROR: 422,
    RealtimeErrorCode.UNAUTHORIZED: 401,
    RealtimeErrorCode.FORBIDDEN: 403,
    RealtimeErrorCode.NOT_FOUND: 404,
    RealtimeErrorCode.LIMIT_EXCEEDED: 429,
    RealtimeErrorCode.UNAVAILABLE: 503,
}

NO_STARTED_RUNNER: Final = "runner_scheduling_failure"
NO_CONNECTION: Final = "runner_connection_error"
TIMED_OUT: Final = "request_timeout"


@dataclass(frozen=True, slots=True)
class HttpRefusal:
    """A status, its words and its headers; the body is made for the request that is refused."""

    status: int
    detail: str | tuple[FieldError, ...]
    error_type: str | None = None
    """fal's machine name where it says more than the status."""
    headers: Mapping[str, str] = field(default_factory=dict)
    """Names in lower case."""

    def body(self, request_id: str) -> Problem:
        """The one error body."""
        detail = self.detail if isinstance(self.detail, str) else list(self.detail)
        if self.status in KINDS:
            body = problem(self.status, detail, request_id)
        else:  # an app's own status: what it is like, RFC 9110 §15 says by its hundred
            body = problem(500 if self.status >= 500 else 400, detail, request_id)
            body = body.model_copy(update={"status": self.status})
        return body if self.error_type is None else body.model_copy(update={"error_type": self.error_type})

    def answer(self, request_id: str) -> HttpAnswer:
        """The answer in place of the endpoint's."""
        body = self.body(request_id)
        content = body.model_dump_json().encode()
        headers = {
            "content-type": "application/json",
            "content-length": str(len(content)),
            "cache-control": "no-store",
            "x-fal-error-type": body.error_type,
            "x-fal-billable-units": "0",
            "x-fal-retryable": str(self.status in RETRYABLE).lower(),
            **self.headers,
            "x-fal-request-id": request_id,
        }
        return HttpAnswer(self.status, tuple(headers.items()), [content])

    def event(self, request_id: str) -> bytes:
        """The last event of a stream that had begun."""
        return b"event: error\ndata: " + self.body(request_id).model_dump_json().encode() + b"\n\n"


def of_failure(failure: Failure) -> HttpRefusal:
    """What sockets are told with an `x-fal-error`."""
    status = _STATUSES.get(failure.code, 500)
    if status == 422:
        return HttpRefusal(status, failure.detail)
    if status == 503:
        return unavailable(failure.reason)
    return HttpRefusal(status, failure.reason)


def unavailable(reason: str, error_type: str = NO_STARTED_RUNNER, retry_after_s: float = RETRY_AFTER_S) -> HttpRefusal:
    """Nobody can answer now."""
    # RFC 9110 §10.2.3: whole seconds.
    return HttpRefusal(503, reason, error_type, {"retry-after": str(max(1, ceil(retry_after_s)))})


def of_error(error: Exception, request_id: str) -> HttpRefusal:
    """What a handler or an app raised; what nobody foresaw is logged under the id that the caller gets."""
    match error:
        case InvalidRequest():
            return of_failure(failures.invalid_field(error.field, error.message, error.kind))
        case EngineBusy():
            return unavailable(failures.busy(error.retry_after_s).reason, retry_after_s=error.retry_after_s)
        case EngineUnavailable():
            return unavailable(failures.unavailable().reason)
        case AppUnavailable():
            return unavailable(error.reason, NO_CONNECTION)
        case GenerationFailed():
            log.error("request %s failed: the engine's log has the cause as %s", request_id, error.error_id)
            return internal(request_id)
    return _chosen(error) or _unforeseen(error, request_id)


def internal(request_id: str) -> HttpRefusal:
    """500: the log has the cause, the caller an id."""
    return HttpRefusal(500, f"Internal Server Error. The log has it as {request_id}.")


def _chosen(error: Exception) -> HttpRefusal | None:
    """Fal's AppException and FieldException: an app's own status, in words that it chose for the caller."""
    status, message = getattr(error, "status_code", None), getattr(error, "message", None)
    if not isinstance(status, int) or not 400 <= status <= 599 or not isinstance(message, str):
        return None
    name: Any = getattr(error, "field", None)
    if not isinstance(name, str):
        return HttpRefusal(status, message)
    kind = str(getattr(error, "type", "value_error"))
    return HttpRefusal(status, (FieldError(loc=["body", name], msg=message, type=kind),))


def _unforeseen(error: Exception, request_id: str) -> HttpRefusal:
    log.error("endpoint failed (error id %s)", request_id, exc_info=error)
    return internal(request_id)
