"""API keys: `id:secret`, of which the database keeps the id and a hash of the secret."""

import hashlib
import hmac
import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple, TypeVar, cast

from pydantic import TypeAdapter, ValidationError
from sqlalchemy import bindparam, select
from sqlalchemy.orm import Session

from authsvc.domain import revocations
from authsvc.ledger import audit
from authsvc.store.database import Database
from authsvc.store.models import ApiKey, KeyState, SigningKeyRow
from schemas.events import EventKind
from schemas.keys import Key, KeyChanges, KeyList, KeyWithSecret, Role, ScopeEntry
from schemas.tokens import PinnedLimits

ID_PREFIX: Final = "lcmk_"
"""Lets secret scanners recognise a key that leaked into a repository."""

_SECRET_BYTES: Final = 32
_UNKNOWN: Final = bytes(hashlib.sha256().digest_size)
_KEY_ID: Final = re.compile(r"[!-~]{1,64}", re.ASCII)
_AUTHORIZATION: Final = re.compile(r"key +([!-9;-~]+):([!-~]+)", re.IGNORECASE | re.ASCII)
_SCOPE_ENTRY: Final[TypeAdapter[str]] = TypeAdapter(ScopeEntry)
Entry = TypeVar("Entry", bound=str)


@dataclass(frozen=True, slots=True)
class Credential:
    """What a client presents. Its repr hides the secret."""

    key_id: str
    secret: str = field(repr=False)

    def __str__(self) -> str:
        return f"{self.key_id}:{self.secret}"


class Minter(NamedTuple):
    """A key, to be read only, and the private half of the signing key that is current, if there is one."""

    key: ApiKey
    signer_pem: str | None


_KEYS: Final = ApiKey.__table__
_SIGNING_KEYS: Final = SigningKeyRow.__table__
_MINTER: Final = (
    select(_KEYS, _SIGNING_KEYS.c.private_pem.label("signer_pem"))
    .select_from(_KEYS.outerjoin(_SIGNING_KEYS, _SIGNING_KEYS.c.state == KeyState.CURRENT))
    .where(_KEYS.c.id == bindparam("key_id"))
)


class InvalidScope(ValueError):
    """`entry` is not a scope entry; None: there is no entry, and the role `mint` needs one."""

    def __init__(self, entry: str | None) -> None:
        told = "a key that mints needs at least one app" if entry is None else f"{entry!r} is not an app"
        super().__init__(f"{told}: write alias, owner/alias, a full path, or *")


class NoSuchKey(LookupError):
    """There is no key of this id."""


class RevokedKey(Exception):
    """A revoked key stays revoked: it can be neither changed nor rotated."""


class LastAdmin(Exception):
    """Without this key nobody could administer the service over HTTP."""


def parse_authorization(header: str) -> Credential | None:
    """Reads `Key <key_id>:<key_secret>`, the scheme in any case (RFC 9110 §11.1); None when it is not that."""
    match = _AUTHORIZATION.fullmatch(header.strip())
    return Credential(match[1], match[2]) if match else None


def create(
    session: Session,
    *,
    now: float,
    actor: str | None = None,
    name: str = "",
    apps: Sequence[str] = (),
    roles: Sequence[Role] = (Role.MINT,),
    expires_at: int | None = None,
    rate_per_minute: int | None = None,
    daily_quota: int | None = None,
    limits: PinnedLimits | None = None,
) -> tuple[ApiKey, Credential]:
    """Makes a key; see `schemas.keys.KeyRequest` for what it takes. The credential is the only copy of its secret.

    Raises:
        InvalidScope: an entry of `apps` is not a scope entry, or a key that mints has none.
    """
    _check_scope(apps, roles)
    credential = Credential(ID_PREFIX + secrets.token_hex(12), _new_secret())
    key = ApiKey(
        id=credential.key_id,
        name=name,
        secret_sha256=_digest(credential.secret),
        apps=_each_once(apps),
        roles=[role.value for role in _each_once(roles)],
        created_at=int(now),
        expires_at=expires_at,
        rate_per_minute=rate_per_minute,
        daily_quota=daily_quota,
        limits=(limits or PinnedLimits()).model_dump(exclude_none=True),
    )
    session.add(key)
    detail = described(key).model_dump(mode="json", exclude={"id", "created_at"}, exclude_none=True)
    audit.record(session, EventKind.KEY_CREATED, now=now, actor=actor, key_id=key.id, detail=detail)
    return key, credential


def authenticate(session: Session, credential: Credential, *, now: float) -> ApiKey | None:
    """Finds the key that a credential belongs to; None when it is unknown, wrong, expired or revoked, alike."""
    return _if_good(session.get(ApiKey, credential.key_id), credential, now)


def authenticate_minter(database: Database, credential: Credential, *, now: float) -> Minter | None:
    """The same, together with the current signing key: all that a mint reads, in one statement.

    Read anew for every token, so that a revocation and a rotation count at once in every process.
    """
    row = database.glance(_MINTER, {"key_id": credential.key_id})
    key = _if_good(cast("ApiKey | None", row), credential, now)  # a row has the attributes of the object
    return None if key is None or row is None else Minter(key, row.signer_pem)


def _if_good(key: ApiKey | None, credential: Credential, now: float) -> ApiKey | None:
    presented = _digest(credential.secret)
    # Every attempt compares twice, so that an answer takes as long for an unknown id as for a wrong secret.
    is_current = hmac.compare_digest(presented, _UNKNOWN if key is None else key.secret_sha256)
    is_previous = hmac.compare_digest(presented, _previous_secret(key, now))
    return key if key is not None and (is_current or is_previous) and is_usable(key, now) else None


def is_usable(key: ApiKey, now: float) -> bool:
    """Whether a key is neither revoked nor expired."""
    return key.revoked_at is None and (key.expires_at is None or now < key.expires_at)


def listing(session: Session) -> list[ApiKey]:
    """Every key, oldest first."""
    return list(session.scalars(select(ApiKey).order_by(ApiKey.created_at, ApiKey.id)))


def get(session: Session, key_id: str) -> ApiKey:
    """One key.

    Raises:
        NoSuchKey: there is none of this id.
    """
    key = session.get(ApiKey, key_id) if _KEY_ID.fullmatch(key_id) else None
    if key is None:
        raise NoSuchKey(key_id)
    return key


def change(session: Session, key_id: str, changes: KeyChanges, *, now: float, actor: str | None = None) -> ApiKey:
    """Changes what was sent. Tokens that were minted before stay as they are.

    Raises:
        NoSuchKey: there is none of this id.
        RevokedKey: it is revoked.
        InvalidScope: an entry of `apps` is not a scope entry, or a key that mints would have none.
    """
    key = _unrevoked(session, key_id)
    sent = changes.model_dump(mode="json", exclude_unset=True)
    if "apps" in sent:
        _check_scope(sent["apps"], key.roles)
        sent["apps"] = _each_once(sent["apps"])
    audit.record(session, EventKind.KEY_CHANGED, now=now, actor=actor, key_id=key.id, detail=sent)
    if "limits" in sent:
        merged = {**key.limits, **sent["limits"]}
        sent["limits"] = {name: value for name, value in merged.items() if value is not None}
    for name, value in sent.items():
        setattr(key, name, value)
    return key


def rotate(
    session: Session, key_id: str, *, now: float, grace_s: int = 0, actor: str | None = None
) -> tuple[ApiKey, Credential]:
    """Gives a key a new secret; the old one works for `grace_s` more. One from before that works no longer.

    Raises:
        NoSuchKey: there is none of this id.
        RevokedKey: it is revoked.
    """
    key = _unrevoked(session, key_id)
    credential = Credential(key.id, _new_secret())
    key.previous_secret_sha256 = key.secret_sha256 if grace_s else None
    key.previous_valid_until = int(now) + grace_s if grace_s else None
    key.secret_sha256 = _digest(credential.secret)
    detail = {"what": "api_key", "grace_s": grace_s}
    audit.record(session, EventKind.ROTATED, now=now, actor=actor, key_id=key.id, detail=detail)
    return key, credential


def revoke(session: Session, key_id: str, *, now: float, actor: str | None = None) -> ApiKey:
    """Makes a key useless from now on, and every token that it minted. Revoking twice keeps the first time.

    Raises:
        NoSuchKey: there is none of this id.
    """
    key = get(session, key_id)
    if key.revoked_at is None:
        key.revoked_at = int(now)
        revocations.revoke_key(session, key.id, now=now)
        detail = {"what": "api_key"}
        audit.record(session, EventKind.REVOKED, now=now, actor=actor, key_id=key.id, detail=detail)
    return key


def require_another_admin(session: Session, key_id: str, *, now: float) -> None:
    """Makes sure that an administrator is left without a key.

    Raises:
        LastAdmin: no other key with the role `admin` is usable.
    """
    key = get(session, key_id)
    if Role.ADMIN in key.roles and is_usable(key, now):
        others = (other for other in listing(session) if other.id != key.id and Role.ADMIN in other.roles)
        if not any(is_usable(other, now) for other in others):
            raise LastAdmin(key_id)


def described(key: ApiKey) -> Key:
    """What an administrator may see of a key."""
    return Key.model_validate(key, from_attributes=True)


def described_listing(session: Session) -> KeyList:
    """The same of every key."""
    return KeyList(keys=[described(key) for key in listing(session)])


def described_with_secret(key: ApiKey, credential: Credential) -> KeyWithSecret:
    """The same, at the one moment when the secret is shown."""
    return KeyWithSecret(key=str(credential), **dict(described(key)))


def _unrevoked(session: Session, key_id: str) -> ApiKey:
    key = get(session, key_id)
    if key.revoked_at is not None:
        raise RevokedKey(key_id)
    return key


def _check_scope(apps: Sequence[str], roles: Sequence[str]) -> None:
    if not apps and Role.MINT in roles:
        raise InvalidScope(None)
    for entry in apps:
        try:
            _SCOPE_ENTRY.validate_python(entry)
        except ValidationError:
            raise InvalidScope(entry) from None


def _previous_secret(key: ApiKey | None, now: float) -> bytes:
    """The digest of the secret before the last rotation while that still works."""
    if key is None or key.previous_secret_sha256 is None or now >= (key.previous_valid_until or 0):
        return _UNKNOWN
    return key.previous_secret_sha256


def _each_once(entries: Sequence[Entry]) -> list[Entry]:
    return list(dict.fromkeys(entries))


def _new_secret() -> str:
    return secrets.token_urlsafe(_SECRET_BYTES)


def _digest(secret: str) -> bytes:
    """SHA-256, not a slow hash: slowness protects guessable passwords, and 256 random bits cannot be guessed."""
    return hashlib.sha256(secret.encode("utf-8")).digest()
