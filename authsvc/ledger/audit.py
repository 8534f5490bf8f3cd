"""The audit log: events are added and read, never changed, and add up to what each key used.

An event never holds a token or a secret. What an administrator changes is recorded in the transaction that changes
it (`record`); what happens by the hundred a second goes through `authsvc.ledger.audit_buffer`, which writes many at
once.
"""

import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from authsvc.ledger import usage
from authsvc.store.inserting import insert
from authsvc.store.models import AuditEventRow
from schemas.events import AuditEvent, AuditPage, AuditQuery, EventKind

COMMAND_LINE: Final = "cli"
"""The actor of a change that was made at the command line."""

PRUNE_BATCH: Final = 1000
_CHARS: Final = {
    column: int(getattr(AuditEventRow.__table__.c[column].type, "length", 0))
    for column in ("actor", "key_id", "subject", "jti", "app", "address")
}


@dataclass(slots=True, kw_only=True)  # not frozen: that takes several times as long to make, at every mint
class Event:
    """What happened. Nobody changes it once it is made.

    `at` is unix time in seconds. `count` is how many happenings of one kind the event stands for: refusals in a
    flood are not written one by one.
    """

    kind: EventKind
    at: int
    actor: str | None = None
    key_id: str | None = None
    subject: str | None = None
    jti: str | None = None
    app: str | None = None
    address: str | None = None
    detail: Mapping[str, Any] = field(default_factory=dict)
    count: int = 1
    event_id: str = field(default_factory=lambda: str(uuid.uuid4()))


def record(
    session: Session,
    kind: EventKind,
    *,
    now: float,
    actor: str | None = None,
    key_id: str | None = None,
    subject: str | None = None,
    jti: str | None = None,
    app: str | None = None,
    address: str | None = None,
    detail: Mapping[str, Any] | None = None,
) -> None:
    """Adds one event in the caller's transaction: either both are kept, the change and its event, or neither.

    Args:
        session: A session that writes.
        kind: What happened.
        now: Unix time, seconds.
        actor: The id of the key whose holder did it, or `COMMAND_LINE`; None: nobody known.
        key_id: The key that it concerns.
        subject: The subject that it concerns.
        jti: The token that it concerns, by its name.
        app: The app that it concerns.
        address: The caller's.
        detail: What else is worth knowing, as JSON. Never a token, never a secret.
    """
    event = Event(
        kind=kind,
        at=int(now),
        actor=actor,
        key_id=key_id,
        subject=subject,
        jti=jti,
        app=app,
        address=address,
        detail=detail or {},
    )
    write(session, [event])


def write(session: Session, events: Sequence[Event]) -> int:
    """Adds events and adds them up, in one transaction; one whose `event_id` is there already changes nothing.

    Returns:
        How many were new.
    """
    if not events:
        return 0
    statement = insert(session, AuditEventRow).on_conflict_do_nothing(index_elements=["event_id"])
    rows = [_row(event) for event in events]
    new = set(session.scalars(statement.returning(AuditEventRow.event_id), rows))
    usage.add(session, _once(events, new))
    return len(new)


def only_app(apps: Sequence[str]) -> str | None:
    """The app of an event about a token: None where the token opens several, which then stand in `detail`."""
    return apps[0] if len(apps) == 1 else None


def page(session: Session, query: AuditQuery) -> AuditPage:
    """The events that a query asks for, newest first."""
    found = select(AuditEventRow).order_by(AuditEventRow.id.desc()).limit(query.limit + 1)
    for column in ("kind", "key_id", "subject", "jti"):
        value = getattr(query, column)
        if value is not None:
            found = found.where(getattr(AuditEventRow, column) == value)
    if query.at_from is not None:
        found = found.where(AuditEventRow.at >= query.at_from)
    if query.at_to is not None:
        found = found.where(AuditEventRow.at <= query.at_to)
    if query.before is not None:
        found = found.where(AuditEventRow.id < query.before)
    rows = list(session.scalars(found))
    shown = rows[: query.limit]
    return AuditPage(
        events=[AuditEvent.model_validate(row) for row in shown],
        next=shown[-1].id if len(rows) > len(shown) else None,
    )


def prune(session: Session, *, before: int) -> int:
    """Deletes up to `PRUNE_BATCH` events older than `before`, the oldest first; usage stays.

    Returns:
        How many: `PRUNE_BATCH` means that there may be more. Few at a time, so that nobody waits long for the lock.
    """
    oldest = select(AuditEventRow.id).where(AuditEventRow.at < before).order_by(AuditEventRow.at).limit(PRUNE_BATCH)
    # Two processes that prune at once must not wait for each other; SQLite, where one writes at a time, leaves it out.
    ids = list(session.scalars(oldest.with_for_update(skip_locked=True)))
    session.execute(delete(AuditEventRow).where(AuditEventRow.id.in_(ids)))
    return len(ids)


def _row(event: Event) -> dict[str, Any]:
    texts = {column: _fitting(getattr(event, column), chars) for column, chars in _CHARS.items()}
    detail = dict(event.detail) if event.count == 1 else {**event.detail, "count": event.count}
    return {"event_id": event.event_id, "kind": event.kind.value, "at": event.at, "detail": detail, **texts}


def _fitting(text: str | None, chars: int) -> str | None:
    """What the column can hold: PostgreSQL refuses longer text and U+0000, and an event must not be lost for that."""
    return text if text is None else text.replace("\0", "")[:chars]


def _once(events: Iterable[Event], new: set[str]) -> list[Event]:
    """The events that were new; of two with one id in the same report, one."""
    return list({event.event_id: event for event in events if event.event_id in new}.values())
