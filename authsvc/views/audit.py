"""What happened and what it adds up to: `GET /audit`, `GET /usage`, and the runners' `POST /events`."""

from typing import Any, Final
from urllib.parse import urlencode

from flask import Blueprint, Response, request

from authsvc.context import context
from authsvc.errors import InsufficientScope
from authsvc.ledger import audit, usage
from authsvc.ledger.audit import Event
from authsvc.store.models import ApiKey
from authsvc.views.access import require_key
from authsvc.views.bodies import answer, read_json
from authsvc.views.queries import parameters, read_query
from schemas.events import AuditPage, AuditQuery, SessionEvent, SessionReport, Usage, UsageQuery
from schemas.keys import Role
from schemas.openapi import Answer, Operation

blueprint = Blueprint("audit", __name__)

EARLY_S: Final = 300
LATE_S: Final = 7 * 24 * 3600

_CSV: Final = "text/csv"


@blueprint.get("/audit")
def events() -> Response:
    """Events, newest first."""
    app = context()
    with app.database.reading() as session:
        require_key(session, Role.ADMIN)
        return answer(audit.page(session, read_query(AuditQuery)))


@blueprint.get("/usage")
def used() -> Response:
    """Usage by day, key and app."""
    app = context()
    with app.database.reading() as session:
        key = require_key(session, Role.ADMIN, Role.MINT)
        query = _own(key, read_query(UsageQuery))
        found = usage.page(session, query, now=app.clock())
    return _as_csv(found) if _wants_csv(query) else answer(found)


@blueprint.post("/events")
def report() -> Response:
    """Keeps what a runner reports; nothing is answered before it is committed."""
    app = context()
    with app.database.reading() as session:
        actor = require_key(session, Role.RUNNER).id
    now = app.clock()
    reported = [_event(event, actor, now) for event in read_json(SessionReport).events]
    with app.database.counting() as session:
        audit.write(session, reported)
    return Response(status=204, headers={"Cache-Control": "no-store"})


def _own(key: ApiKey, query: UsageQuery) -> UsageQuery:
    """The query, for a key without the role `admin` about itself alone."""
    if Role.ADMIN in key.roles:
        return query
    if query.key_id not in (None, key.id):
        raise InsufficientScope("A key without the role admin sees its own usage alone. Leave key_id out.")
    return query.model_copy(update={"key_id": key.id})


def _wants_csv(query: UsageQuery) -> bool:
    if query.format is not None:
        return query.format == "csv"
    return request.accept_mimetypes.best_match(["application/json", _CSV]) == _CSV


def _as_csv(found: Usage) -> Response:
    headers = {"Cache-Control": "no-store", "Content-Disposition": 'attachment; filename="usage.csv"'}
    if found.next is not None:
        query = urlencode({**request.args, "after": found.next})
        headers["Link"] = f'<{request.path}?{query}>; rel="next"'  # RFC 8288
    return Response(usage.csv_text(found.usage), 200, headers, content_type=f"{_CSV}; charset=utf-8")


def _event(reported: SessionEvent, actor: str, now: float) -> Event:
    told = {
        "code": reported.close_code,
        "duration_s": reported.duration_s,
        "images": reported.images,
        "pixels": reported.pixels,
    }
    detail: dict[str, Any] = {name: value for name, value in told.items() if value is not None}
    at = reported.at
    if not now - LATE_S <= at <= now + EARLY_S:
        # A runner whose clock is wrong must not put usage into a day that nobody looks at.
        at, detail["reported_at"] = int(now), at
    return Event(
        event_id=str(reported.event_id),
        kind=reported.kind,
        at=at,
        actor=actor,
        key_id=reported.key_id,
        subject=reported.subject,
        jti=reported.jti,
        app=reported.app,
        address=reported.address,
        detail=detail,
    )


OPERATIONS: Final = (
    Operation(
        "GET",
        "/audit",
        operation_id="listEvents",
        summary="What happened",
        description="The audit log, newest first. For keys with the role `admin`.",
        tags=("audit",),
        parameters=parameters(AuditQuery),
        answers={200: Answer("Events.", AuditPage)},
        problems=(401, 403, 422, 503),
        security=("key",),
    ),
    Operation(
        "GET",
        "/usage",
        operation_id="getUsage",
        summary="What was used",
        description=(
            "The audit log added up by day, key and app. A key with the role `admin` sees all of it, one with the "
            "role `mint` what it used itself. With `?format=csv` or `Accept: text/csv` the answer is CSV."
        ),
        tags=("audit",),
        parameters=parameters(UsageQuery),
        answers={200: Answer("Usage.", Usage, alternatives={_CSV: {"type": "string"}})},
        problems=(401, 403, 422, 503),
        security=("key",),
    ),
    Operation(
        "POST",
        "/events",
        operation_id="reportEvents",
        summary="Report what happened on sockets",
        description=(
            "For runners: keys with the role `runner`. Send a report again when there was no answer: an event that "
            "is there already is not added again."
        ),
        tags=("audit",),
        request=SessionReport,
        answers={204: Answer("Every event is kept.")},
        problems=(401, 403, 413, 415, 422, 503),
        security=("key",),
    ),
)
