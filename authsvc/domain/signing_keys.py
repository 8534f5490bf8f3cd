"""The ring of signing keys: next, current, retired.

The private keys live in the database and not in files beside it: a rotation is then one transaction that every
process sees at once, and there is no moment in which a file and a row disagree. The database file is readable
by its owner alone (see `authsvc.store.database`).

The next key is published before it signs anything, so a verifier that keeps the key set for a while already
has it when it becomes current. A retired key stays published until the last token that it signed has expired. One
that leaked is revoked: it is published no more, and what it signed is refused at once.
"""

import hashlib
import re
import time
from collections.abc import Callable
from functools import lru_cache
from typing import Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from sqlalchemy import select
from sqlalchemy.orm import Session

from authsvc.domain import revocations
from authsvc.ledger import audit
from authsvc.store.database import Database
from authsvc.store.models import KeyState, SigningKeyRow
from schemas import limits
from schemas.events import EventKind
from schemas.keys import SigningKeyInfo, SigningKeyList
from tokens.keys import SigningKey, public_jwk, public_key
from tokens.verify import LEEWAY_MAX_S

RETIRED_FOR_S: Final = limits.TOKEN_DURATION_MAX_S + 2 * LEEWAY_MAX_S
"""How long a retired key stays published: the longest life of a token, and the verifiers' leeway twice."""

SETTLED_AFTER_S: Final = 2
"""How old the next key must be to be promoted by `rotate_settled`: runners ask twice a second whether the published
keys have changed, so they all have it by then."""

_ROTATION_TRIES: Final = 5
"""Fewer than would outlast a request (`authsvc.serving.server`)."""

_KID: Final = re.compile(r"[A-Za-z0-9_-]{43}", re.ASCII)


class NoCurrentKey(Exception):
    """The ring has no key to sign with: `ensure` has not run on this database."""


class NoSuchSigningKey(LookupError):
    """There is no signing key of this `kid`."""


class TooManyRotations(Exception):
    """Others rotated all the time."""


def ensure(session: Session, *, now: float) -> None:
    """Gives a fresh installation its current and its next key."""
    if _find(session, KeyState.CURRENT) is None:
        session.add(_row(SigningKey.generate(), KeyState.CURRENT, now))
    if _find(session, KeyState.NEXT) is None:
        session.add(_row(SigningKey.generate(), KeyState.NEXT, now))
    session.flush()


def current(session: Session) -> SigningKey:
    """The key that signs now.

    Raises:
        NoCurrentKey: there is none.
    """
    row = _find(session, KeyState.CURRENT)
    return signer(None if row is None else row.private_pem)


def signer(pem: str | None) -> SigningKey:
    """The current key, from what the database keeps of it.

    Raises:
        NoCurrentKey: there is none.
    """
    if pem is None:
        raise NoCurrentKey("no current signing key")
    return _parsed(pem)


def rotate(session: Session, *, now: float, actor: str | None = None) -> SigningKeyRow:
    """Retires the current key, promotes the next one and makes a new next; forgets keys retired long ago.

    Returns:
        The new current key.
    """
    ensure(session, now=now)
    _forget_expired(session, now)
    old = _find(session, KeyState.CURRENT)
    assert old is not None  # ensure made one
    old.state, old.retired_at, old.private_pem = KeyState.RETIRED, int(now), None
    session.flush()  # one current key at a time: the old one leaves before the new one comes
    new = _promote_next(session, now)
    detail = {"what": "signing_key", "kid": new.kid}
    audit.record(session, EventKind.ROTATED, now=now, actor=actor, detail=detail)
    return new


def rotate_settled(
    database: Database,
    *,
    clock: Callable[[], float],
    actor: str | None = None,
    sleep: Callable[[float], None] = time.sleep,
) -> SigningKeyRow:
    """Rotates once every runner has the next key, which it waits for where rotations follow each other fast.

    So no runner ever sees a token of a key that it does not know, whatever the pace.

    Returns:
        The new current key.

    Raises:
        TooManyRotations: other processes rotated each time first.
    """
    for _ in range(_ROTATION_TRIES):
        with database.writing() as session:
            now = clock()
            wait_s = _unsettled_s(session, now)
            if wait_s == 0:
                return rotate(session, now=now, actor=actor)
        sleep(wait_s)
    raise TooManyRotations


def revoke(session: Session, kid: str, *, now: float, actor: str | None = None) -> None:
    """Forgets a key that leaked, private half and public; one that was current or next is replaced.

    Raises:
        NoSuchSigningKey: there is none of this `kid`, or not any more.
    """
    row = session.get(SigningKeyRow, kid) if _KID.fullmatch(kid) else None
    if row is None:
        raise NoSuchSigningKey(kid)
    session.delete(row)
    session.flush()
    revocations.revoke_signing_key(session, kid, now=now)
    if row.state is KeyState.CURRENT:
        _promote_next(session, now)
    ensure(session, now=now)
    audit.record(session, EventKind.REVOKED, now=now, actor=actor, detail={"what": "signing_key", "kid": kid})


def published(session: Session, *, now: float) -> list[Ed25519PublicKey]:
    """The public keys that may have signed a token which is still good, or will soon."""
    return [public_key(row.x) for row in listing(session) if not _is_forgotten(row, now)]


def listing(session: Session) -> list[SigningKeyRow]:
    """Every key, oldest first."""
    return list(session.scalars(select(SigningKeyRow).order_by(SigningKeyRow.created_at, SigningKeyRow.kid)))


def described(row: SigningKeyRow) -> SigningKeyInfo:
    """What an administrator may see of a key."""
    return SigningKeyInfo.model_validate(row, from_attributes=True)


def described_listing(session: Session) -> SigningKeyList:
    """The same of every key."""
    return SigningKeyList(signing_keys=[described(row) for row in listing(session)])


def version(session: Session, *, now: float) -> str:
    """Another text whenever other keys are published: who keeps the key set reads it again then."""
    kids = [row.kid for row in listing(session) if not _is_forgotten(row, now)]
    return hashlib.sha256("\n".join(sorted(kids)).encode("ascii")).hexdigest()


@lru_cache(maxsize=1)
def _parsed(pem: str) -> SigningKey:
    """Parsing takes longer than signing. The row is read for every token, so a rotation counts at once everywhere."""
    return SigningKey.from_pem(pem.encode("ascii"))


def _promote_next(session: Session, now: float) -> SigningKeyRow:
    """Makes the next key the current one, where there is none, and a new next."""
    new = _find(session, KeyState.NEXT)
    assert new is not None  # `ensure` and every promotion make one
    new.state, new.activated_at = KeyState.CURRENT, int(now)
    session.flush()
    session.add(_row(SigningKey.generate(), KeyState.NEXT, now))
    session.flush()
    return new


def _unsettled_s(session: Session, now: float) -> float:
    """How long the next key is too young yet; 0 when it can be promoted.

    `created_at` is cut down to whole seconds, so a key may be taken for a second older than it is.
    """
    row = _find(session, KeyState.NEXT)
    age_s = SETTLED_AFTER_S if row is None else now - row.created_at
    # A key from the future is one of a clock that was set back since.
    return SETTLED_AFTER_S - age_s if 0 <= age_s < SETTLED_AFTER_S else 0


def _find(session: Session, state: KeyState) -> SigningKeyRow | None:
    return session.scalars(select(SigningKeyRow).where(SigningKeyRow.state == state)).one_or_none()


def _row(key: SigningKey, state: KeyState, now: float) -> SigningKeyRow:
    return SigningKeyRow(
        kid=key.kid,
        state=state,
        x=public_jwk(key.public)["x"],
        private_pem=key.to_pem().decode("ascii"),
        created_at=int(now),
        activated_at=int(now) if state is KeyState.CURRENT else None,
    )


def _is_forgotten(row: SigningKeyRow, now: float) -> bool:
    return row.retired_at is not None and row.retired_at + RETIRED_FOR_S < now


def _forget_expired(session: Session, now: float) -> None:
    for row in listing(session):
        if _is_forgotten(row, now):
            session.delete(row)
