"""The kinds of problem that both services report over HTTP, one a status (RFC 9457 §3.1.1, §3.1.3)."""

from dataclasses import dataclass
from typing import Final

from schemas.errors import FieldError, Problem


@dataclass(frozen=True, slots=True)
class ProblemKind:
    """What every problem of one kind has in common.

    `type` is relative: it resolves against the service that answered, which explains its problems there.
    """

    slug: str
    title: str
    error_type: str
    remedy: str

    @property
    def type(self) -> str:
        """The `type` member: where the kind is explained."""
        return f"/problems/{self.slug}"


KINDS: Final = {
    400: ProblemKind(
        "bad-request", "The request is not valid HTTP for this service.", "bad_request", "Mend the request."
    ),
    401: ProblemKind(
        "unauthorized",
        "The credentials are missing or not valid.",
        "unauthorized",
        "Send `Authorization: Key <key_id>:<key_secret>` with a key that has not been revoked.",
    ),
    403: ProblemKind(
        "forbidden",
        "The credentials do not allow this.",
        "forbidden",
        "Ask for apps inside the key's scope, or create a key with a wider one.",
    ),
    404: ProblemKind(
        "not-found", "There is nothing at this path.", "not_found", "Look the path up in the documentation."
    ),
    405: ProblemKind(
        "method-not-allowed",
        "The path does not take this method.",
        "method_not_allowed",
        "Use a method that the Allow header lists.",
    ),
    408: ProblemKind(
        "request-timeout", "The request was not sent in time.", "request_timeout", "Send it again, without pauses."
    ),
    409: ProblemKind(
        "conflict",
        "What is there now does not allow this.",
        "conflict",
        "Look at the state that `detail` names, change it, and try again.",
    ),
    413: ProblemKind("content-too-large", "The body is too large.", "content_too_large", "Send a smaller body."),
    415: ProblemKind(
        "unsupported-media-type",
        "The body is of a type that this path does not read.",
        "unsupported_media_type",
        "Send JSON with `Content-Type: application/json`.",
    ),
    422: ProblemKind(
        "validation-error",
        "The body does not fit the schema.",
        "validation_error",
        "Mend the fields that `detail` lists.",
    ),
    426: ProblemKind(
        "upgrade-required",
        "The path answers to WebSockets only.",
        "upgrade_required",
        "Open a WebSocket; a proxy on the way must pass the headers `Connection` and `Upgrade` on.",
    ),
    429: ProblemKind(
        "too-many-requests",
        "A limit is reached.",
        "rate_limited",
        "Wait for the seconds that Retry-After says; `detail` names the limit.",
    ),
    499: ProblemKind(
        "client-closed-request",
        "The client left before it was answered.",
        "client_disconnected",
        "Keep the connection open until the answer is there.",
    ),
    500: ProblemKind(
        "internal-error",
        "The service failed on this request.",
        "internal_error",
        "Look for the id in `instance` in the service's log.",
    ),
    502: ProblemKind(
        "bad-gateway",
        "What answers here gave no complete answer.",
        "runner_incomplete_response",
        "Try again; if it stays so, look for the id in `instance` in the service's log.",
    ),
    503: ProblemKind(
        "unavailable",
        "The service cannot answer just now.",
        "unavailable",
        "Try again after the seconds that Retry-After says.",
    ),
    504: ProblemKind(
        "gateway-timeout",
        "The answer took longer than it may.",
        "gateway_timeout",
        "Ask for less, or allow more time with `x-fal-request-timeout`.",
    ),
}

RETRYABLE: Final = frozenset({429, 502, 503, 504})
"""Where the same request may succeed a little later; fal's JS client tries these again (its retry.ts)."""


def problem(status: int, detail: str | list[FieldError], error_id: str) -> Problem:
    """Builds the error body of a status in `KINDS`; `error_id` is what the log line says too."""
    kind = KINDS[status]
    return Problem(
        type=kind.type,
        title=kind.title,
        status=status,
        detail=detail,
        instance=f"urn:uuid:{error_id}",
        error_type=kind.error_type,
    )
