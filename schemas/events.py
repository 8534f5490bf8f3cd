"""What happened: events as runners report them and auditors read them, and what they add up to."""

from enum import StrEnum
from typing import Any
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field

from schemas import limits


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


class SessionEvent(BaseModel):
    """A socket was opened or closed. Sending an event again changes nothing: `event_id` names it."""

    model_config = ConfigDict(extra="forbid")

    event_id: UUID
    kind: EventKind = Field(description="`connected` or `closed`.")
    at: int = Field(ge=0, description="Unix time, seconds.")
    app: str = Field(max_length=limits.APP_MAX_CHARS, description="`owner/alias`.")
    key_id: str | None = Field(default=None, max_length=64)
    subject: str | None = Field(default=None, max_length=limits.SUBJECT_MAX_CHARS)
    jti: str = Field(max_length=64)
    address: str | None = Field(default=None, max_length=64, description="The client's.")
    close_code: int | None = Field(default=None, ge=1000, le=4999)
    duration_s: float | None = Field(default=None, ge=0)
    images: int | None = Field(default=None, ge=0)
    pixels: int | None = Field(default=None, ge=0)


class SessionReport(BaseModel):
    """What a runner sends."""

    model_config = ConfigDict(extra="forbid")

    events: list[SessionEvent] = Field(min_length=1, max_length=limits.EVENTS_PER_REPORT_MAX)


class AuditEvent(BaseModel):
    """One event of the audit log. It never holds a token or a secret."""

    id: int
    event_id: UUID
    kind: EventKind
    at: int
    actor: str | None = Field(description="The key id of who did it; `cli` for the command line; None: nobody known.")
    key_id: str | None
    subject: str | None
    jti: str | None
    app: str | None
    address: str | None
    detail: dict[str, Any]


class AuditPage(BaseModel):
    """Events, newest first. `next` continues as `?before=`; None: there are no more."""

    events: list[AuditEvent]
    next: int | None


class UsageRow(BaseModel):
    """What one key did on one app in one day (UTC)."""

    day: str = Field(description="YYYY-MM-DD.")
    key_id: str
    app: str
    tokens: int
    refused: int
    connections: int
    seconds: float
    images: int
    pixels: int


class Usage(BaseModel):
    """Rows by day, key and app."""

    usage: list[UsageRow]
