"""API keys: `id:secret`, of which the database keeps the id and a hash of the secret."""

import hashlib
import hmac
import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from pydantic import TypeAdapter, ValidationError
from sqlalchemy import select
from sqlalchemy.orm import Session

from authsvc.models import ApiKey
from schemas.tokens import AppId
from tokens.scope import ANY_APP

ID_PREFIX: Final = "lcmk_"
"""Lets secret scanners recognise a key that leaked into a repository."""

NAME_MAX_CHARS: Final = 200
_SECRET_BYTES: Final = 32
_UNKNOWN: Final = bytes(hashlib.sha256().digest_size)
_AUTHORIZATION: Final = re.compile(r"key +([!-9;-~]+):([!-~]+)", re.IGNORECASE | re.ASCII)
_APP: Final[TypeAdapter[str]] = TypeAdapter(AppId)


@dataclass(frozen=True, slots=True)
class Credential:
    """What a client presents. Its repr hides the secret."""

    key_id: str
    secret: str = field(repr=False)

    def __str__(self) -> str:
        return f"{self.key_id}:{self.secret}"


class InvalidScope(ValueError):
    """`entry` is not a scope entry."""

    def __init__(self, entry: str) -> None:
        super().__init__(f"{entry!r} is not an app: write alias, owner/alias, a full path, or *")


def parse_authorization(header: str) -> Credential | None:
    """Reads `Key <key_id>:<key_secret>`, the scheme in any case (RFC 9110 §11.1); None when it is not that."""
    match = _AUTHORIZATION.fullmatch(header.strip())
    return Credential(match[1], match[2]) if match else None


def create(session: Session, *, name: str, apps: Sequence[str], now: float) -> tuple[ApiKey, Credential]:
    """Makes a key. The credential is the only copy of its secret.

    Raises:
        InvalidScope: an entry of `apps` is not a scope entry.
    """
    _check_scope(apps)
    credential = Credential(ID_PREFIX + secrets.token_hex(12), secrets.token_urlsafe(_SECRET_BYTES))
    key = ApiKey(
        id=credential.key_id,
        name=name,
        secret_sha256=_digest(credential.secret),
        apps=list(dict.fromkeys(apps)),
        created_at=int(now),
    )
    session.add(key)
    return key, credential


def authenticate(session: Session, credential: Credential) -> ApiKey | None:
    """Finds the key that a credential belongs to; None when it is unknown, wrong or revoked, alike."""
    key = session.get(ApiKey, credential.key_id)
    # An unknown id is compared too, so that the answer takes as long as for a wrong secret.
    expected = _UNKNOWN if key is None else key.secret_sha256
    is_right = hmac.compare_digest(_digest(credential.secret), expected)
    return key if key is not None and is_right and key.revoked_at is None else None


def listing(session: Session) -> list[ApiKey]:
    """Every key, oldest first."""
    return list(session.scalars(select(ApiKey).order_by(ApiKey.created_at, ApiKey.id)))


def revoke(session: Session, key_id: str, *, now: float) -> ApiKey | None:
    """Makes a key useless from now on; None when there is no such key. Revoking twice keeps the first time."""
    key = session.get(ApiKey, key_id)
    if key is not None and key.revoked_at is None:
        key.revoked_at = int(now)
    return key


def _check_scope(apps: Sequence[str]) -> None:
    if not apps:
        raise InvalidScope("")
    for entry in apps:
        try:
            _APP.validate_python(entry if entry != ANY_APP else "any")
        except ValidationError:
            raise InvalidScope(entry) from None


def _digest(secret: str) -> bytes:
    """SHA-256, not a slow hash: slowness protects guessable passwords, and 256 random bits cannot be guessed."""
    return hashlib.sha256(secret.encode("utf-8")).digest()
