"""Administration of the keys that sign tokens, for API keys with the role `admin`."""

from typing import Any, Final

from flask import Blueprint, Response
from werkzeug.exceptions import NotFound, ServiceUnavailable

from authsvc.context import context
from authsvc.domain import signing_keys
from authsvc.views.access import require_admin, require_key
from authsvc.views.bodies import answer
from httpbase.errors import RETRY_AFTER_S
from schemas.keys import Role, SigningKeyInfo, SigningKeyList
from schemas.openapi import Answer, Operation

blueprint = Blueprint("signing_keys", __name__)


@blueprint.get("/signing-keys")
def list_signing_keys() -> Response:
    """Every signing key, without private halves."""
    with context().database.reading() as session:
        require_key(session, Role.ADMIN)
        return answer(signing_keys.described_listing(session))


@blueprint.post("/signing-keys/rotate")
def rotate_signing_keys() -> Response:
    """Signs with the next key from now on; waits first until every runner has it."""
    app, admin = context(), require_admin()
    try:
        row = signing_keys.rotate_settled(app.database, clock=app.clock, actor=admin)
    except signing_keys.TooManyRotations:
        raise ServiceUnavailable(
            "Others rotate the keys at the same time; try again.", retry_after=RETRY_AFTER_S
        ) from None
    return answer(signing_keys.described(row))


@blueprint.post("/signing-keys/<kid>/revoke")
def revoke_signing_key(kid: str) -> Response:
    """Publishes a key that leaked no more, and replaces it."""
    app, admin = context(), require_admin()
    try:
        with app.database.writing() as session:
            signing_keys.revoke(session, kid, now=app.clock(), actor=admin)
            return answer(signing_keys.described_listing(session))
    except signing_keys.NoSuchSigningKey:
        raise NotFound("There is no signing key of this kid; GET /signing-keys lists them.") from None


_KID: Final[dict[str, Any]] = {
    "name": "kid",
    "in": "path",
    "required": True,
    "description": "The key's RFC 7638 thumbprint.",
    "schema": {"type": "string"},
}

OPERATIONS: Final = (
    Operation(
        "GET",
        "/signing-keys",
        operation_id="listSigningKeys",
        summary="List the signing keys",
        description="Next, current and retired ones. Needs the role `admin`, as everything below `/signing-keys`.",
        tags=("administration",),
        answers={200: Answer("Every key that is not forgotten yet.", SigningKeyList)},
        problems=(401, 403, 503),
        security=("key",),
    ),
    Operation(
        "POST",
        "/signing-keys/rotate",
        operation_id="rotateSigningKeys",
        summary="Sign with the next key",
        description=(
            "Every token stays good, and so does every socket. Right after another rotation the answer takes "
            f"{signing_keys.SETTLED_AFTER_S} seconds: until every runner knows the key that signs next."
        ),
        tags=("administration",),
        answers={200: Answer("The key that signs now.", SigningKeyInfo)},
        problems=(401, 403, 503),
        security=("key",),
    ),
    Operation(
        "POST",
        "/signing-keys/{kid}/revoke",
        operation_id="revokeSigningKey",
        summary="Revoke a signing key that leaked",
        description=(
            "It is published no more, and every token that it signed is refused: users need new ones. A key that "
            "was current or next is replaced."
        ),
        tags=("administration",),
        parameters=(_KID,),
        answers={200: Answer("The keys that are left.", SigningKeyList)},
        problems=(401, 403, 404, 503),
        security=("key",),
    ),
)
