"""The error body of HTTP, the error messages of sockets, and the close codes.

One HTTP body for both services: fal's `detail` (a sentence, or pydantic's field list) and `error_type`,
with RFC 9457's `type title status instance` beside them. It is `application/json` because the official
JS client does not parse `application/problem+json`.
"""

from enum import IntEnum, StrEnum
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field


class FieldError(BaseModel):
    """One field that a user can mend: where it is, what is wrong, and pydantic's machine name for it."""

    model_config = ConfigDict(extra="allow")

    loc: list[str | int]
    msg: str
    type: str


class Problem(BaseModel):
    """The body of every non-2xx answer (RFC 9457 §3.1 with fal's members)."""

    type: str = Field(description="Names the kind of problem; resolves to its page in the documentation.")
    title: str = Field(description="The same words for every problem of one `type`.")
    status: int
    detail: str | list[FieldError] = Field(description="What happened and what to do, or one entry a field.")
    instance: str = Field(description="Identifies this occurrence; the log line carries the same id.")
    error_type: str = Field(description="fal's machine-readable code.")


class RealtimeErrorCode(StrEnum):
    """`error` of an `x-fal-error` message. TIMEOUT and INTERNAL_ERROR are fal's, the rest are ours."""

    TIMEOUT = "TIMEOUT"
    INTERNAL_ERROR = "INTERNAL_ERROR"
    VALIDATION_ERROR = "VALIDATION_ERROR"
    UNAUTHORIZED = "UNAUTHORIZED"
    FORBIDDEN = "FORBIDDEN"
    NOT_FOUND = "NOT_FOUND"
    LIMIT_EXCEEDED = "LIMIT_EXCEEDED"
    UNAVAILABLE = "UNAVAILABLE"


class RealtimeErrorMessage(BaseModel):
    """A control message, sent as JSON text whatever the codec (contract §2c).

    `detail` is pydantic's field list for VALIDATION_ERROR; `error_id` links an INTERNAL_ERROR to the log.
    """

    type: Literal["x-fal-error"] = "x-fal-error"
    error: RealtimeErrorCode
    reason: str
    detail: list[dict[str, Any]] | None = None
    request_id: str | None = None
    error_id: str | None = None
    retry_after_s: float | None = Field(
        default=None, ge=0, description="UNAVAILABLE: when to send the input again, if that can be told."
    )


TIMEOUT_REASON = "no inputs, reconnect when needed!"
"""fal's exact words (contract §2c)."""


class CloseCode(IntEnum):
    """The close codes that we send. 4000-4099 say: do not reconnect with the same token."""

    NORMAL = 1000
    GOING_AWAY = 1001
    PROTOCOL_ERROR = 1002
    UNSUPPORTED_DATA = 1003
    INVALID_DATA = 1007
    POLICY_VIOLATION = 1008
    MESSAGE_TOO_BIG = 1009
    INTERNAL_ERROR = 1011
    SERVICE_RESTART = 1012
    TRY_AGAIN_LATER = 1013
    BAD_REQUEST = 4000
    UNAUTHORIZED = 4001
    FORBIDDEN = 4003
    NOT_FOUND = 4004
    LIMIT_EXCEEDED = 4029
