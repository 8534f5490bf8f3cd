"""Minting: `POST /tokens/realtime` for a user's own backend, `POST /tokens/` for the official clients."""

from typing import Final

from flask import Blueprint, Response, json, request
from pydantic import ValidationError
from werkzeug.exceptions import Forbidden, RequestEntityTooLarge, UnsupportedMediaType

from authsvc.context import context
from authsvc.issuing import Issued, issue
from authsvc.models import ApiKey
from authsvc.settings import Settings
from authsvc.views.access import require_key
from httpbase.errors import InvalidBody
from schemas import limits
from schemas.openapi import Answer, Operation
from schemas.tokens import TokenRequest, TokenResponse
from tokens.errors import OutOfScope, TokenTooLarge

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
    )
    return _created(body.model_dump_json())


@blueprint.post("/tokens")
@blueprint.post("/tokens/")
def mint_legacy() -> Response:
    """Answers the bare token as a JSON string: the official JS client takes an object for the token itself."""
    return _created(json.dumps(_mint().token))


def _mint() -> Issued:
    app = context()
    with app.database.reading() as session:
        key = require_key(session)
        body = _read_body()
        try:
            return issue(
                session,
                app.settings,
                subject=key.id,
                granted=key.apps,
                requested=body.apps,
                duration_s=_duration_s(body, app.settings),
                now=app.clock(),
            )
        except OutOfScope as error:
            raise Forbidden(_out_of_scope(error.entry, key)) from None
        except TokenTooLarge:
            raise InvalidBody.field("allowed_apps", "too long together for one token; name fewer") from None


def _read_body() -> TokenRequest:
    if request.mimetype != "application/json":
        raise UnsupportedMediaType
    body = request.get_data(cache=False)
    if len(body) > limits.HTTP_BODY_MAX_BYTES:
        raise RequestEntityTooLarge
    try:
        return TokenRequest.model_validate_json(body)
    except ValidationError as error:
        raise InvalidBody.of(error) from None


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


_EXAMPLE: Final = {"allowed_apps": ["fal-ai/fast-lcm-diffusion"], "duration": 120}
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
