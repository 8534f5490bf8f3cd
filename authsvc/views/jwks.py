"""The public keys that verify our tokens."""

from typing import Final

from flask import Blueprint, Response, json

from authsvc.context import context
from authsvc.domain import signing_keys
from schemas.openapi import Answer, Operation
from schemas.service import JsonWebKeySet
from tokens.keys import JWKS_MEDIA_TYPE, public_jwks

blueprint = Blueprint("jwks", __name__)


@blueprint.get("/.well-known/jwks.json")
def key_set() -> Response:
    """Publishes next, current and retired keys; see `authsvc.domain.signing_keys` for how long."""
    app = context()
    with app.database.reading() as session:
        keys = signing_keys.published(session, now=app.clock())
    headers = {"Cache-Control": f"public, max-age={app.settings.jwks_max_age_s}"}
    return Response(json.dumps(public_jwks(keys)), 200, headers, content_type=JWKS_MEDIA_TYPE)


OPERATIONS: Final = (
    Operation(
        "GET",
        "/.well-known/jwks.json",
        operation_id="getKeySet",
        summary="The keys that verify tokens",
        description="Read it again when a token names a `kid` that you do not have.",
        tags=("keys",),
        answers={200: Answer("A JWK set (RFC 7517).", JsonWebKeySet, content_type=JWKS_MEDIA_TYPE)},
        problems=(503,),
    ),
)
