"""Revocation (RFC 7009), introspection (RFC 7662), and the list of revocations that runners read.

Both RFCs send forms and answer errors as `{"error": …}`; everybody else here sends JSON and gets `schemas.errors`.
These two paths take both kinds of body, and their errors are ours with the RFC's `error` beside it.
"""

import logging
from http import HTTPStatus
from typing import Final, TypeVar
from urllib.parse import parse_qsl

from flask import Blueprint, Response, json, request
from pydantic import BaseModel, ValidationError
from sqlalchemy.exc import SQLAlchemyError
from werkzeug.exceptions import BadRequest, RequestEntityTooLarge

from authsvc import limiting
from authsvc.context import context
from authsvc.domain import quotas, revocations, revoking, signing_keys
from authsvc.errors import InsufficientScope
from authsvc.store.models import ApiKey
from authsvc.views.access import require_key
from authsvc.views.bodies import answer, read_json
from httpbase.errors import InvalidBody
from schemas import limits
from schemas.keys import Role
from schemas.openapi import FORM, JSON, Answer, Operation
from schemas.revocation import (
    Introspection,
    IntrospectionRequest,
    RevocationAnswer,
    RevocationList,
    RevocationRequest,
)

logger = logging.getLogger(__name__)
blueprint = Blueprint("revocation", __name__)

Model = TypeVar("Model", bound=BaseModel)

_FIELDS_MAX: Final = 32
_NOT_YOURS: Final = "The key did not mint that. A key of the role admin may revoke any token."


@blueprint.post("/tokens/revoke")
def revoke() -> Response:
    """Revokes; 200 for what is unknown, expired or no token at all (RFC 7009 §2.2)."""
    app, now = context(), context().clock()
    with app.database.reading() as session:
        key = require_key(session, Role.MINT, Role.ADMIN)
    wanted = _read_body(RevocationRequest)
    try:
        with app.database.writing() as session:
            done = revoking.revoke(session, app.settings, wanted, now=now, actor=key.id, only=_own(key))
    except revoking.NotYours:
        raise InsufficientScope(_NOT_YOURS) from None
    except quotas.QuotaExhausted:
        raise _too_many(now) from None
    except revocations.StillToCome:
        raise InvalidBody.field("issued_before", "must not be in the future") from None
    return answer(done)


@blueprint.post("/tokens/introspect")
def introspect() -> Response:
    """Says whether a token is active, and what it says if so."""
    app = context()
    with app.database.reading() as session:
        key = require_key(session, Role.MINT, Role.ADMIN)
        wanted = _read_body(IntrospectionRequest)
        found = revoking.introspect(session, app.settings, wanted.token, now=app.clock(), only=_own(key))
    headers = {"Cache-Control": "no-store"}
    return Response(found.model_dump_json(exclude_none=True), 200, headers, content_type=JSON)


@blueprint.get("/revocations")
def revoked() -> Response:
    """Publishes what is revoked. It names nothing but hashes, and is asked for twice a second by every runner."""
    app, now = context(), context().clock()
    with app.database.reading() as session:
        page = revocations.listing(session, request.args.get("after", ""), now=now)
        page.key_set = signing_keys.version(session, now=now)
        is_overdue = revocations.overdue(session, now=now)
    if is_overdue:
        _prune(now)
    response = Response(page.model_dump_json(), 200, {"Cache-Control": "no-cache"}, content_type=JSON)
    response.add_etag()
    response.make_conditional(request)
    return response


@blueprint.after_request
def _name_error(response: Response) -> Response:
    """Puts the RFC's word for an error beside our body (RFC 6749 §5.2, RFC 6750 §3.1)."""
    if response.status_code >= HTTPStatus.BAD_REQUEST and response.is_json and request.path != "/revocations":
        response.set_data(json.dumps({**response.get_json(), "error": _error(response.status_code)}))
    return response


def _error(status: int) -> str:
    match status:
        case HTTPStatus.UNAUTHORIZED:
            return "invalid_client"
        case HTTPStatus.FORBIDDEN:
            return "insufficient_scope"
        case HTTPStatus.TOO_MANY_REQUESTS | HTTPStatus.SERVICE_UNAVAILABLE:
            return "temporarily_unavailable"
    return "server_error" if status >= HTTPStatus.INTERNAL_SERVER_ERROR else "invalid_request"


def _too_many(now: float) -> limiting.LimitReached:
    standing = limiting.note_quota(revoking.OWN_A_DAY, revoking.OWN_A_DAY, quotas.seconds_left(now))
    return limiting.LimitReached(
        f"The key has revoked {revoking.OWN_A_DAY} tokens and subjects today, the most that a key without the role "
        "admin may. Name key_id to revoke everything that it minted so far, or have an administrator revoke.",
        standing,
    )


def _own(key: ApiKey) -> str | None:
    """The key whose tokens a caller may touch; None: an administrator's reaches all."""
    return None if Role.ADMIN in key.roles else key.id


def _read_body(model: type[Model]) -> Model:
    return _read_form(model) if request.mimetype == FORM else read_json(model)


def _read_form(model: type[Model]) -> Model:
    """Reads a form as RFC 6749 §3.2 has it: unknown fields are ignored, and none may be there twice."""
    body = request.get_data(cache=False)
    if len(body) > limits.HTTP_BODY_MAX_BYTES:
        raise RequestEntityTooLarge
    try:
        pairs = parse_qsl(body.decode("utf-8"), strict_parsing=bool(body), max_num_fields=_FIELDS_MAX, errors="strict")
    except ValueError:
        raise BadRequest("The body is not a form of at most 32 fields in UTF-8.") from None
    fields = {name: value for name, value in pairs if name in model.model_fields}
    if len(fields) < sum(name in fields for name, _ in pairs):
        raise BadRequest("A field is there more than once; send each once.")
    try:
        return model.model_validate_strings(fields)
    except ValidationError as error:
        raise BadRequest("; ".join(_fault(entry.loc, entry.msg) for entry in InvalidBody.of(error).fields)) from None


def _fault(loc: list[str | int], message: str) -> str:
    return f"{'.'.join(map(str, loc[1:]))}: {message}"


def _prune(now: float) -> None:
    """Deletes what has expired. That can wait, so a database that only reads costs nobody the list."""
    try:
        with context().database.writing() as session:
            revocations.prune(session, now=now)
    except SQLAlchemyError:
        logger.info("expired revocations stay for now: the database takes no writes")


_PROBLEMS: Final = (400, 401, 403, 413, 415, 422, 503)

OPERATIONS: Final = (
    Operation(
        "POST",
        "/tokens/revoke",
        operation_id="revokeTokens",
        summary="Revoke tokens",
        description="Runners refuse them from then on and close their sockets within a second. A key of the role mint "
        "reaches the tokens that it minted, one of the role admin all. What is unknown, expired or garbage is answered "
        "with 200 too (RFC 7009 §2.2). Errors carry RFC 6749's `error` beside the other members.",
        tags=("tokens",),
        request=RevocationRequest,
        request_example={"subject": "user-42"},
        request_types=(JSON, FORM),
        answers={200: Answer("What the list says of them now.", RevocationAnswer)},
        problems=_PROBLEMS,
        security=("key",),
    ),
    Operation(
        "POST",
        "/tokens/introspect",
        operation_id="introspectToken",
        summary="See what a token says, if it is active",
        description="RFC 7662. A key of the role mint sees the tokens that it minted; any other is not active for it.",
        tags=("tokens",),
        request=IntrospectionRequest,
        request_types=(JSON, FORM),
        answers={200: Answer("Not active: `active` alone.", Introspection)},
        problems=_PROBLEMS,
        security=("key",),
    ),
    Operation(
        "GET",
        "/revocations",
        operation_id="getRevocations",
        summary="What is revoked",
        description="For runners. Ask for `next` as `after` at once while there is `more`, else after a moment; take "
        "the ETag along.",
        tags=("keys",),
        parameters=(
            {
                "name": "after",
                "in": "query",
                "schema": {"type": "string"},
                "description": "`next` of the page before; an unknown one starts anew.",
            },
        ),
        answers={
            200: Answer("A page of at most 1000 entries.", RevocationList),
            304: Answer("Nothing new since the answer of that ETag."),
        },
        problems=(503,),
    ),
)
