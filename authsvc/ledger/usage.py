"""What each key used on each app in each day (UTC): the audit log's events, added up as they are written."""

import csv
import datetime
import io
import time
from collections import defaultdict
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import case, select, tuple_
from sqlalchemy.orm import Session

from authsvc.store.inserting import insert
from authsvc.store.models import DailyUsage
from schemas import limits
from schemas.events import EventKind, Usage, UsageQuery, UsageRow

if TYPE_CHECKING:
    from authsvc.ledger.audit import Event

_SUMS: Final = ("tokens", "refused", "connections", "seconds", "images", "pixels")

_SUM_MAX: Final = limits.PINNED_MAX
"""A runner can report whatever it likes, and what it reports must not stop the others."""

_PRIMARY_KEY: Final = (DailyUsage.day, DailyUsage.key_id, DailyUsage.app)
_FORMULA: Final = ("=", "+", "-", "@")
_DEFAULT_PERIOD: Final = datetime.timedelta(days=30)

_Name = tuple[str, str, str]
"""Day, key id and app."""


def add(session: Session, events: "Iterable[Event]") -> None:
    """Adds events to the sums, in the caller's transaction. Each event must be given once."""
    sums: dict[_Name, dict[str, float]] = defaultdict(lambda: dict.fromkeys(_SUMS, 0))
    for event in events:
        for column, amount in _amounts(event).items():
            of_row = sums[_name(event)]
            of_row[column] = min(of_row[column] + amount, _SUM_MAX)
    if not sums:
        return
    statement = insert(session, DailyUsage)
    added = {column: _sum(getattr(DailyUsage, column), statement.excluded[column]) for column in _SUMS}
    # Sorted: two processes that lock the same rows in two orders would wait for each other.
    rows = [{"day": day, "key_id": key_id, "app": app, **sums[day, key_id, app]} for day, key_id, app in sorted(sums)]
    session.execute(statement.on_conflict_do_update(index_elements=["day", "key_id", "app"], set_=added), rows)


def _sum(old: Any, new: Any) -> Any:
    """Stops at the most: beyond it PostgreSQL would take no event any more, and SQLite make it a number of no use."""
    return case((old > _SUM_MAX - new, _SUM_MAX), else_=old + new)


def day(at: float) -> str:
    """The day of a unix time, YYYY-MM-DD in UTC."""
    return time.strftime("%Y-%m-%d", time.gmtime(at))


def page(session: Session, query: UsageQuery, *, now: float) -> Usage:
    """The sums that a query asks for, by day, key and app."""
    last_day = query.last_day or datetime.date.fromisoformat(day(now))
    first_day = query.first_day or last_day - min(_DEFAULT_PERIOD, last_day - datetime.date.min)
    found = (
        select(DailyUsage)
        .where(DailyUsage.day.between(first_day.isoformat(), last_day.isoformat()))
        .order_by(*_PRIMARY_KEY)
        .limit(query.limit + 1)
    )
    if query.key_id is not None:
        found = found.where(DailyUsage.key_id == query.key_id)
    if query.app is not None:
        found = found.where(DailyUsage.app == query.app)
    if query.after is not None:
        found = found.where(tuple_(*_PRIMARY_KEY) > tuple_(*_position(query.after)))
    rows = [UsageRow.model_validate(row) for row in session.scalars(found)]
    shown = rows[: query.limit]
    return Usage(usage=shown, next=_next(shown[-1]) if len(rows) > len(shown) else None)


def csv_text(rows: Iterable[UsageRow]) -> str:
    """Rows as CSV with a heading (RFC 4180)."""
    text = io.StringIO()
    writer = csv.DictWriter(text, UsageRow.model_fields)
    writer.writeheader()
    writer.writerows({name: _cell(value) for name, value in row} for row in rows)
    return text.getvalue()


def _cell(value: str | float) -> str | float:
    """A text that a spreadsheet would run as a formula is marked as text: runners report ids of any form (CWE-1236)."""
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA) else value


def _next(row: UsageRow) -> str:
    # An app may hold a comma no more than a key id may, so that the position can be taken apart again.
    return f"{row.day},{row.key_id},{row.app}"


def _position(after: str) -> tuple[str, str, str]:
    first, _, rest = after.partition(",")
    key_id, _, app = rest.partition(",")
    return first, key_id, app


def _name(event: "Event") -> _Name:
    # A refused request may name any app, so refusals are not told apart by it: anybody could make rows otherwise.
    app = "" if event.kind is EventKind.REFUSED else "/".join((event.app or "").split("/")[:2])
    return day(event.at), event.key_id or "", app


def _amounts(event: "Event") -> dict[str, Any]:
    match event.kind:
        case EventKind.MINTED:
            return {"tokens": event.count}
        case EventKind.REFUSED:
            return {"refused": event.count}
        case EventKind.CONNECTED:
            return {"connections": event.count}
        case EventKind.CLOSED:
            counted = {"seconds": "duration_s", "images": "images", "pixels": "pixels"}
            return {column: event.detail.get(name) or 0 for column, name in counted.items()}
        case _:
            return {}
