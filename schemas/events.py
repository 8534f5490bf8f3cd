"""What happened: events as runners report them and auditors read them, and what they add up to."""

import datetime
import re
from enum import StrEnum
from typing import Annotated, Any, Final, Literal
from uuid import UUID

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints

from schemas import limits
from schemas.numbers import whole_numbers
from schemas.tokens import AppId, Id, Subject

_DIGITS: Final = re.compile(r"[0-9]{1,19}", re.ASCII)
_DAY: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", re.ASCII)
_SESSION_S: Final = 2 * limits.SESSION_MAX_S  # twice: a socket takes a while to close
_IMAGES: Final = 10**9
_PIXELS: Final = 10**15


class EventKind(StrEnum):
    """The kinds of audit event."""

    MINTED = "minted"
    REFUSED = "refused"
    REDEEMED = "redeemed"
    REVOKED = "revoked"
    ROTATED = "rotated"
    KEY_CREATED = "key_created"
    KEY_CHANGED = "key_changed"
    CONNECTED = "connected"
    CLOSED = "closed"
    PRUNED = "pruned"


class SessionEvent(BaseModel):
    """A socket was opened or closed. Sending an event again changes nothing: `event_id` names it."""

    model_config = ConfigDict(extra="forbid")

    event_id: UUID
    kind: Literal[EventKind.CONNECTED, EventKind.CLOSED]
    at: int = Field(strict=True, ge=0, le=limits.TIME_MAX_S, description="Unix time, seconds.")
    app: AppId = Field(description="`owner/alias`.")
    key_id: Id | None = Field(default=None, description="The key that the token was minted with.")
    subject: Subject | None = None
    jti: Id
    address: Annotated[str, StringConstraints(max_length=64, pattern=r"^[!-~]+$")] | None = Field(
        default=None, description="The client's."
    )
    close_code: int | None = Field(default=None, strict=True, ge=1000, le=4999)
    duration_s: float | None = Field(default=None, strict=True, ge=0, le=_SESSION_S, allow_inf_nan=False)
    images: int | None = Field(default=None, strict=True, ge=0, le=_IMAGES)
    pixels: int | None = Field(default=None, strict=True, ge=0, le=_PIXELS)

    _whole = whole_numbers("at", "close_code", "images", "pixels")


class SessionReport(BaseModel):
    """What a runner sends."""

    model_config = ConfigDict(extra="forbid")

    events: list[SessionEvent] = Field(min_length=1, max_length=limits.EVENTS_PER_REPORT_MAX)


def _whole(value: Any) -> Any:
    """A query is text, and pydantic would read `1.0` and `1_0` as numbers too."""
    if isinstance(value, str) and not _DIGITS.fullmatch(value):
        raise ValueError("write a whole number, in digits")
    return value


def _date(value: Any) -> Any:
    """Pydantic would read a unix time as a day too."""
    if isinstance(value, str) and not _DAY.fullmatch(value):
        raise ValueError("write a day as YYYY-MM-DD")
    return value


# The bounds stand before the validator, or the JSON schema would not have them.
_Time = Annotated[int, Field(ge=0, le=limits.TIME_MAX_S), BeforeValidator(_whole)]
_EventNumber = Annotated[int, Field(ge=1, le=limits.PINNED_MAX), BeforeValidator(_whole)]
_AuditLimit = Annotated[int, Field(ge=1, le=limits.AUDIT_PAGE_MAX), BeforeValidator(_whole)]
_UsageLimit = Annotated[int, Field(ge=1, le=limits.USAGE_PAGE_MAX), BeforeValidator(_whole)]
_Day = Annotated[datetime.date, BeforeValidator(_date)]


class AuditQuery(BaseModel):
    """Which events to show. Times are unix seconds."""

    model_config = ConfigDict(extra="forbid")

    kind: EventKind | None = Field(default=None, description="Events of this kind.")
    key_id: Id | None = Field(default=None, description="Events that concern this key.")
    subject: Subject | None = Field(default=None, description="Events that concern this subject.")
    jti: Id | None = Field(default=None, description="Events that concern this token.")
    at_from: _Time | None = Field(default=None, alias="from", description="Not before this second.")
    at_to: _Time | None = Field(default=None, alias="to", description="Not after this second.")
    before: _EventNumber | None = Field(
        default=None, description="Events with a smaller id: `next` of the page before."
    )
    limit: _AuditLimit = Field(default=100, description="How many.")


class AuditEvent(BaseModel):
    """One event of the audit log. It never holds a token or a secret."""

    model_config = ConfigDict(from_attributes=True)

    id: int
    event_id: UUID
    kind: EventKind
    at: int = Field(description="Unix time, seconds.")
    actor: str | None = Field(
        description="The id of the key whose holder did it; `cli` for the command line; null: nobody known."
    )
    key_id: str | None
    subject: str | None
    jti: str | None
    app: str | None
    address: str | None
    detail: dict[str, Any]


class AuditPage(BaseModel):
    """Events, newest first. `next` continues as `?before=`; null: there are no more."""

    events: list[AuditEvent]
    next: int | None


class Pruned(BaseModel):
    """What `audit prune` deleted."""

    deleted: int
    before: int = Field(description="Unix time, seconds: events from then on are kept.")


class UsageQuery(BaseModel):
    """Which usage to show."""

    model_config = ConfigDict(extra="forbid")

    first_day: _Day | None = Field(
        default=None, alias="from", description="The first day (UTC). By default 30 days before the last."
    )
    last_day: _Day | None = Field(default=None, alias="to", description="The last day (UTC). By default today.")
    key_id: Id | None = Field(default=None, description="Usage of this key.")
    app: AppId | None = Field(default=None, description="Usage of this app, `owner/alias`.")
    after: Annotated[str, StringConstraints(max_length=300, pattern=r"^[0-9]{4}-[0-9]{2}-[0-9]{2},[!-~]*$")] | None = (
        Field(default=None, description="Rows behind this one: `next` of the page before.")
    )
    limit: _UsageLimit = Field(default=1000, description="How many rows.")
    format: Literal["json", "csv"] | None = Field(
        default=None, description="By default what the Accept header prefers, `application/json` or `text/csv`."
    )


class UsageRow(BaseModel):
    """What one key did on one app in one day."""

    model_config = ConfigDict(from_attributes=True)

    day: str = Field(description="YYYY-MM-DD, UTC.")
    key_id: str = Field(description="Empty: no key, or one that nobody knows.")
    app: str = Field(description="`owner/alias`. Empty: several, or a refusal: a refused request can name anything.")
    tokens: int = Field(description="Minted.")
    refused: int = Field(description="Requests for a token that were refused.")
    connections: int = Field(description="Sockets that were opened.")
    seconds: float = Field(description="How long the sockets that closed were open.")
    images: int = Field(description="Pictures that were sent.")
    pixels: int = Field(description="Width times height of all of them.")


class Usage(BaseModel):
    """Rows by day, key and app. `next` continues as `?after=`; null: there are no more."""

    usage: list[UsageRow]
    next: str | None
