"""Administration of the API keys, for keys with the role `admin`.

The caller is looked up before the write lock is taken: who has no key makes nobody wait.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from flask import Blueprint, Response
from werkzeug.exceptions import Conflict, NotFound

from authsvc.context import context
from authsvc.domain import api_keys
from authsvc.views.access import require_admin, require_key
from authsvc.views.bodies import answer, read_json
from httpbase.errors import InvalidBody
from schemas.keys import Key, KeyChanges, KeyList, KeyRequest, KeyRotation, KeyWithSecret, Role
from schemas.openapi import Answer, Operation

blueprint = Blueprint("keys", __name__)


@blueprint.get("/keys")
def list_keys() -> Response:
    """Every key, in one answer: an installation has tens of them, and a thousand are a third of a megabyte."""
    with context().database.reading() as session:
        require_key(session, Role.ADMIN)
        return answer(api_keys.described_listing(session))


@blueprint.post("/keys")
def create_key() -> Response:
    """Makes a key and shows its secret, this once."""
    app, admin, body = context(), require_admin(), read_json(KeyRequest)
    try:
        with app.database.writing() as session:
            key, credential = api_keys.create(session, now=app.clock(), actor=admin, **dict(body))
    except api_keys.InvalidScope as error:
        raise InvalidBody.field("apps", str(error)) from None
    response = answer(api_keys.described_with_secret(key, credential), 201)
    response.headers["Location"] = f"/keys/{key.id}"
    return response


@blueprint.get("/keys/<key_id>")
def get_key(key_id: str) -> Response:
    """One key, without its secret."""
    with context().database.reading() as session:
        require_key(session, Role.ADMIN)
        with _refusals():
            return answer(api_keys.described(api_keys.get(session, key_id)))


@blueprint.patch("/keys/<key_id>")
def change_key(key_id: str) -> Response:
    """Changes what the body names."""
    app, admin, body = context(), require_admin(), read_json(KeyChanges)
    now = app.clock()
    with _refusals(), app.database.writing() as session:
        if body.expires_at is not None and body.expires_at <= now:
            api_keys.require_another_admin(session, key_id, now=now)
        return answer(api_keys.described(api_keys.change(session, key_id, body, now=now, actor=admin)))


@blueprint.post("/keys/<key_id>/revoke")
def revoke_key(key_id: str) -> Response:
    """Revokes a key with its tokens. A key may revoke itself, unless it is the last that administers."""
    app, admin = context(), require_admin()
    now = app.clock()
    with _refusals(), app.database.writing() as session:
        api_keys.require_another_admin(session, key_id, now=now)
        return answer(api_keys.described(api_keys.revoke(session, key_id, now=now, actor=admin)))


@blueprint.post("/keys/<key_id>/rotate")
def rotate_key(key_id: str) -> Response:
    """Gives a key a new secret and shows it, this once."""
    app, admin, body = context(), require_admin(), read_json(KeyRotation)
    with _refusals(), app.database.writing() as session:
        key, credential = api_keys.rotate(session, key_id, now=app.clock(), grace_s=body.grace_s, actor=admin)
    return answer(api_keys.described_with_secret(key, credential))


@contextmanager
def _refusals() -> Iterator[None]:
    """Says in HTTP why a key cannot be shown or changed."""
    try:
        yield
    except api_keys.NoSuchKey:
        raise NotFound("There is no key of this id; GET /keys lists them.") from None
    except api_keys.RevokedKey:
        raise Conflict("The key is revoked, and stays so; create another one.") from None
    except api_keys.LastAdmin:
        raise Conflict(
            "Nobody could administer this service over HTTP without this key. Create another key with the role admin "
            "first, or use the command line: keys revoke."
        ) from None
    except api_keys.InvalidScope as error:
        raise Conflict(f"apps: {error}.") from None


KEY_ID: Final[dict[str, Any]] = {
    "name": "id",
    "in": "path",
    "required": True,
    "description": "The part of a key before the colon.",
    "schema": {"type": "string"},
}
_EXAMPLE_ID: Final = "lcmk_0123456789abcdef01234567"
_BODY: Final = (413, 415, 422)

OPERATIONS: Final = (
    Operation(
        "GET",
        "/keys",
        operation_id="listKeys",
        summary="List the API keys",
        description="All in one answer, without their secrets. Needs the role `admin`, as everything below `/keys`.",
        tags=("administration",),
        answers={200: Answer("Every key, oldest first.", KeyList)},
        problems=(401, 403, 503),
        security=("key",),
    ),
    Operation(
        "POST",
        "/keys",
        operation_id="createKey",
        summary="Create an API key",
        description="The answer is the only place where the secret is ever shown.",
        tags=("administration",),
        request=KeyRequest,
        request_example={"name": "my backend", "apps": ["fal-ai/fast-lcm-diffusion"], "daily_quota": 10000},
        answers={201: Answer("The key with its secret.", KeyWithSecret)},
        problems=(401, 403, *_BODY, 503),
        security=("key",),
    ),
    Operation(
        "GET",
        "/keys/{id}",
        operation_id="getKey",
        summary="Show an API key",
        description="Without its secret.",
        tags=("administration",),
        parameters=(KEY_ID,),
        answers={200: Answer("The key.", Key)},
        problems=(401, 403, 404, 503),
        security=("key",),
    ),
    Operation(
        "PATCH",
        "/keys/{id}",
        operation_id="changeKey",
        summary="Change an API key",
        description="Changes what the body names, from the next request on. Tokens that were minted stay as they are.",
        tags=("administration",),
        parameters=(KEY_ID,),
        request=KeyChanges,
        request_example={"rate_per_minute": 600, "limits": {"max_pixels": 262144}},
        answers={200: Answer("The key as it is now.", Key)},
        problems=(401, 403, 404, 409, *_BODY, 503),
        security=("key",),
    ),
    Operation(
        "POST",
        "/keys/{id}/revoke",
        operation_id="revokeKey",
        summary="Revoke an API key",
        description=(
            "For good, with every token that it minted: sockets that those opened are closed. Revoking it again "
            "changes nothing. The last key that administers can be revoked at the command line only."
        ),
        tags=("administration",),
        parameters=(KEY_ID,),
        answers={200: Answer("The revoked key.", Key)},
        problems=(401, 403, 404, 409, 503),
        security=("key",),
    ),
    Operation(
        "POST",
        "/keys/{id}/rotate",
        operation_id="rotateKey",
        summary="Give an API key a new secret",
        description=(
            "The id stays. The old secret works for `grace_s` more. Tokens stay good: revoke those that somebody "
            "else may have minted with a secret that leaked."
        ),
        tags=("administration",),
        parameters=(KEY_ID,),
        request=KeyRotation,
        request_example={"grace_s": 86400},
        answers={200: Answer("The key with its new secret.", KeyWithSecret)},
        problems=(401, 403, 404, 409, *_BODY, 503),
        security=("key",),
    ),
)
