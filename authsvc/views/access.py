"""Who calls, and whether it may: the API key in the Authorization header, and its roles."""

from collections.abc import Sequence

from flask import g, request
from sqlalchemy.orm import Session

from authsvc.context import context
from authsvc.domain import api_keys, signing_keys
from authsvc.domain.api_keys import Credential
from authsvc.errors import MALFORMED_AUTHORIZATION, UNKNOWN_KEY, InsufficientScope, Unauthorized
from authsvc.store.database import Database
from authsvc.store.models import ApiKey
from schemas.keys import Role
from tokens.keys import SigningKey


def require_key(session: Session, *roles: Role) -> ApiKey:
    """The key that the current request presents, if it has one of the roles.

    Raises:
        Unauthorized: there is no key, or it is unknown, wrong, expired or revoked; the last four look alike.
        InsufficientScope: the key is good and has none of the roles.
    """
    key = _known(api_keys.authenticate(session, _credential(), now=context().clock()))
    _check_roles(key, roles)
    return key


def require_admin() -> str:
    """The id of the key that the current request presents, if it may administer. Raises as `require_key`."""
    with context().database.reading() as session:
        return require_key(session, Role.ADMIN).id


def require_minter(database: Database) -> tuple[ApiKey, SigningKey]:
    """The key that the current request presents, if it may mint, and the key that signs. Raises as `require_key`."""
    found = api_keys.authenticate_minter(database, _credential(), now=context().clock())
    key = _known(found and found.key)
    _check_roles(key, (Role.MINT,))
    assert found is not None  # `_known` saw to that
    return key, signing_keys.signer(found.signer_pem)


def _check_roles(key: ApiKey, roles: Sequence[Role]) -> None:
    if not set(roles) & set(key.roles):
        raise InsufficientScope(
            f"The key does not have the role {' or '.join(roles)}. It has {', '.join(key.roles)}; "
            "create another key for this."
        )


def _credential() -> Credential:
    credential = api_keys.parse_authorization(request.headers.get("Authorization", ""))
    if credential is None:
        raise Unauthorized(MALFORMED_AUTHORIZATION)
    return credential


def _known(key: ApiKey | None) -> ApiKey:
    if key is None:
        raise Unauthorized(UNKNOWN_KEY)
    g.key_id = key.id
    return key
