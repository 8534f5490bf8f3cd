"""What a request can end in besides a result, in words that are safe to send (never `str(exc)`)."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil, isfinite
from typing import Any, Final

from pydantic import ValidationError

from schemas.errors import FieldError, RealtimeErrorCode, RealtimeErrorMessage

DETAIL_MAX: Final = 32
"""Field errors in one message."""

INPUT_ECHO_MAX_CHARS: Final = 40
"""Longer inputs are not repeated in a field error: a key in the wrong field may be one, and errors get logged."""

_VALUE_ERROR_PREFIX: Final = "Value error, "


@dataclass(frozen=True, slots=True)
class Failure:
    """An error message in the making; `detail` lists the fields to mend."""

    code: RealtimeErrorCode
    reason: str
    detail: tuple[FieldError, ...] = ()
    error_id: str | None = None
    retry_after_s: float | None = None

    def message(self, request_id: str | None = None) -> RealtimeErrorMessage:
        """The message for the peer, paired with the request that failed."""
        detail = [entry.model_dump() for entry in self.detail] or None
        return RealtimeErrorMessage(
            error=self.code,
            reason=self.reason,
            detail=detail,
            request_id=request_id,
            error_id=self.error_id,
            retry_after_s=self.retry_after_s,
        )


def undecodable(reason: str) -> Failure:
    """The message is no map of fields; `reason` is a `DecodeError`'s text."""
    return _invalid([FieldError(loc=["body"], msg=reason, type="decode_error")])


def invalid_field(field: str, message: str, kind: str = "value_error", where: str = "body") -> Failure:
    """One field is wrong in a way that its schema cannot say."""
    return _invalid([FieldError(loc=[where, field], msg=message, type=kind)])


def invalid_input(error: ValidationError, received: Mapping[str, Any]) -> Failure:
    """Pydantic's field list for the map that was `received`, without its large values."""
    entries = error.errors(include_url=False)[:DETAIL_MAX]
    return _invalid([_field_error_in(received, dict(entry)) for entry in entries])


def field_error(entry: dict[str, Any]) -> FieldError:
    """One of pydantic's errors, without its address and large values."""
    message = entry["msg"].removeprefix(_VALUE_ERROR_PREFIX)
    return FieldError(loc=list(entry["loc"]), msg=message, type=entry["type"], **_echo(entry))


def unavailable() -> Failure:
    """The engine cannot take the request now."""
    reason = "the model is starting, restarting or overloaded: send the input again in a few seconds"
    return Failure(RealtimeErrorCode.UNAVAILABLE, reason)


def busy(retry_after_s: float) -> Failure:
    """The engine has more to do than it gets done in time; room is likely after so many seconds."""
    seconds = ceil(retry_after_s)
    reason = f"busy: more waits for the model than it draws in time, send the input again in {seconds} s"
    return Failure(RealtimeErrorCode.UNAVAILABLE, reason, retry_after_s=float(seconds))


def limit_exceeded(reason: str) -> Failure:
    """A limit of the token is used up; `reason` names it and the remedy."""
    return Failure(RealtimeErrorCode.LIMIT_EXCEEDED, reason)


def overcrowded() -> Failure:
    """This runner counts the requests of as many tokens as it can."""
    return Failure(RealtimeErrorCode.UNAVAILABLE, "too many tokens with max_requests are in use, try again later")


def internal(error_id: str) -> Failure:
    """Something failed that the peer cannot mend; `error_id` stands beside its cause in the log."""
    reason = "the request failed on the server: its log has the cause under this error_id"
    return Failure(RealtimeErrorCode.INTERNAL_ERROR, reason, error_id=error_id)


def _invalid(entries: list[FieldError]) -> Failure:
    return Failure(RealtimeErrorCode.VALIDATION_ERROR, _sentence(entries), tuple(entries))


def _sentence(entries: list[FieldError]) -> str:
    first, others = entries[0], len(entries) - 1
    field = ".".join(map(str, first.loc[1:]))
    more = f" (and {others} more, see detail)" if others else ""
    return f"{field}: {first.msg}{more}" if field else f"{first.msg}{more}"


def _field_error_in(received: Mapping[str, Any], entry: dict[str, Any]) -> FieldError:
    loc = _path_in(received, entry["loc"], ends_in_absence=entry["type"] == "missing")
    return field_error({**entry, "loc": ("body", *loc)})


def _path_in(received: Any, loc: tuple[str | int, ...], *, ends_in_absence: bool) -> list[str | int]:
    """`loc` without the names of union members that pydantic puts between the keys of the input."""
    path: list[str | int] = []
    for key in loc:
        if _has(received, key):
            path.append(key)
            received = received[key]
    return [*path, loc[-1]] if ends_in_absence else path


def _has(container: Any, key: str | int) -> bool:
    if isinstance(container, list):
        return isinstance(key, int) and key < len(container)
    return isinstance(container, dict) and key in container


def _echo(entry: dict[str, Any]) -> dict[str, Any]:
    """`input` and `ctx` as far as they are small plain values: pictures and prompts are not sent back."""
    echo: dict[str, Any] = {}
    if entry["type"] != "missing" and _is_small(entry.get("input", ...)):
        echo["input"] = entry["input"]
    if context := {key: value for key, value in entry.get("ctx", {}).items() if _is_small(value)}:
        echo["ctx"] = context
    return echo


def _is_small(value: Any) -> bool:
    """Whether JSON can say it in a few characters: an app's own codec lets through what ours refuses."""
    if isinstance(value, str):
        return len(value) <= INPUT_ECHO_MAX_CHARS and not any("\ud800" <= each <= "\udfff" for each in value)
    if isinstance(value, float):
        return isfinite(value)
    return value is None or isinstance(value, bool | int)
