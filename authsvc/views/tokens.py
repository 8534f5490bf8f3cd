"""Minting: `POST /tokens/realtime` for a user's own backend, `POST /tokens/` for the official clients."""

from http import HTTPStatus
from typing import Final

from flask import Blueprint, Response, g, json, request
from werkzeug.exceptions import Forbidden

from authsvc import limiting
from authsvc.context import context
from authsvc.domain import quotas
from authsvc.domain.issuing import Grant, Issued, issue, recorded
from authsvc.settings import Settings
from authsvc.store.database import Database
from authsvc.store.models import ApiKey
from authsvc.views.access import require_minter
from authsvc.views.bodies import read_json
from httpbase.errors import InvalidBody
from schemas.events import EventKind
from schemas.openapi import Answer, Operation
from schemas.tokens import TokenRequest, TokenResponse
from tokens.errors import OutOfScope, TokenTooLarge
from tokens.keys import SigningKey

blueprint = Blueprint("tokens", __name__)


# Both spellings of a path are routes of their own: Flask would redirect, which the official async Python client
# does not follow, or answer 404 to the wrong method.
@blueprint.post("/tokens/realtime")
@blueprint.post("/tokens/realtime/")
def mint_realtime() -> Response:
    """Answers an object, as fal's documentation has it."""
    issued = _mint()
    claims = issued.claims
    body = TokenResponse(
        token=issued.token,
        expires_at=claims.exp,
        expires_in=claims.exp - claims.iat,
        allowed_apps=claims.apps,
        jti=claims.jti,
        subject=claims.sub,
        one_time=claims.one_time is not None,
        limits=issued.limits,
    )
    return _created(body.model_dump_json())


@blueprint.post("/tokens")
@blueprint.post("/tokens/")
def mint_legacy() -> Response:
    """Answers the bare token as a JSON string: the official JS client takes an object for the token itself."""
    return _created(json.dumps(_mint().token))


@blueprint.after_request
def _record_refusal(response: Response) -> Response:
    """Refusals by key and reason; `authsvc.ledger.refusals` bounds how many of a flood are kept."""
    if HTTPStatus.BAD_REQUEST <= response.status_code < HTTPStatus.INTERNAL_SERVER_ERROR:
        app, key_id = context(), g.get("key_id")
        app.audit.add(
            EventKind.REFUSED,
            now=app.clock(),
            actor=key_id,
            key_id=key_id,
            address=request.remote_addr,
            detail={"reason": response.headers["X-Fal-Error-Type"]},
        )
    return response


def _mint() -> Issued:
    app = context()
    now = app.clock()
    key, signer = require_minter(app.database)
    app.limits.charge(key)
    if key.daily_quota is not None:
        _check_quota(app.database, key.id, key.daily_quota, now)
    issued = _issue(signer, key, read_json(TokenRequest), now)
    if key.daily_quota is not None:
        # Last, when nothing can fail any more: what is not handed out is not counted.
        _count(app.database, key.id, key.daily_quota, now)
    _record(issued, now)
    return issued


def _check_quota(database: Database, key_id: str, quota: int, now: float) -> None:
    with database.reading() as session:
        if quotas.minted_today(session, key_id, now=now) >= quota:
            raise _quota_exhausted(quota, now)


def _issue(signer: SigningKey, key: ApiKey, body: TokenRequest, now: float) -> Issued:
    settings = context().settings
    grant = Grant(subject=key.id, apps=key.apps, limits=key.limits, key_id=key.id)
    try:
        return issue(signer, settings, grant, body, duration_s=_duration_s(body, settings), now=now)
    except OutOfScope as error:
        raise Forbidden(_out_of_scope(error.entry, key)) from None
    except TokenTooLarge:
        raise InvalidBody.field("allowed_apps", "too long together for one token; name fewer") from None


def _count(database: Database, key_id: str, quota: int, now: float) -> None:
    try:
        with database.counting() as session:
            minted = quotas.take(session, key_id, quota, now=now)
    except quotas.QuotaExhausted:
        raise _quota_exhausted(quota, now) from None
    limiting.note_quota(quota, minted, quotas.seconds_left(now))


def _quota_exhausted(quota: int, now: float) -> limiting.LimitReached:
    standing = limiting.note_quota(quota, quota, quotas.seconds_left(now))
    return limiting.LimitReached(
        f"The key's daily quota of {quota} tokens is used up. It starts again at midnight UTC.", standing
    )


def _record(issued: Issued, now: float) -> None:
    claims = issued.claims
    context().audit.add(
        EventKind.MINTED,
        now=now,
        actor=claims.client_id,
        address=request.remote_addr,
        event_id=claims.jti,  # a UUID as good as another, and there already
        **recorded(claims),
    )


def _duration_s(body: TokenRequest, settings: Settings) -> int:
    """The duration asked for; the default one gives way to a ceiling below it, an explicit one does not."""
    name = "duration" if body.duration is not None else "token_expiration"
    is_explicit = getattr(body, name) is not None
    if is_explicit and body.duration_s > settings.token_max_duration_s:
        raise InvalidBody.field(name, f"must be at most {settings.token_max_duration_s} seconds here")
    return min(body.duration_s, settings.token_max_duration_s)


def _out_of_scope(entry: str, key: ApiKey) -> str:
    return f"The key may not mint for {entry!r}. Its scope is {', '.join(key.apps)}."


def _created(body: str) -> Response:
    headers = {"Cache-Control": "no-store"}
    return Response(body, 201, headers, content_type="application/json")


_EXAMPLE: Final = {"allowed_apps": ["fal-ai/fast-lcm-diffusion"], "duration": 120, "subject": "user-42"}
_FAILURES: Final = (401, 403, 413, 415, 422, 503)

OPERATIONS: Final = (
    Operation(
        "POST",
        "/tokens/realtime",
        operation_id="mintRealtimeToken",
        summary="Mint a token",
        description="For a backend of your own: hand the token to a browser, which opens a socket with it.",
        tags=("tokens",),
        request=TokenRequest,
        request_example=_EXAMPLE,
        answers={201: Answer("The token and what it opens.", TokenResponse)},
        problems=_FAILURES,
        security=("key",),
    ),
    Operation(
        "POST",
        "/tokens/",
        operation_id="mintToken",
        summary="Mint a token, as the official clients do",
        description="Takes the same body and answers the bare token, which is what both official clients read.",
        tags=("tokens",),
        request=TokenRequest,
        request_example={"allowed_apps": ["fast-lcm-diffusion"], "token_expiration": 120},
        answers={201: Answer("The token.", str)},
        problems=_FAILURES,
        security=("key",),
    ),
)
