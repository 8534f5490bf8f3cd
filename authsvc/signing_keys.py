"""The ring of signing keys: next, current, retired.

The private keys live in the database and not in files beside it: a rotation is then one transaction that every
process sees at once, and there is no moment in which a file and a row disagree. The database file is readable
by its owner alone (see `authsvc.database`).

The next key is published before it signs anything, so a verifier that keeps the key set for a while already
has it when it becomes current. A retired key stays published until the last token that it signed has expired.
"""

from typing import Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from sqlalchemy import select
from sqlalchemy.orm import Session

from authsvc.models import KeyState, SigningKeyRow
from schemas import limits
from tokens.keys import SigningKey, public_jwk, public_key
from tokens.verify import LEEWAY_MAX_S

RETIRED_FOR_S: Final = limits.TOKEN_DURATION_MAX_S + 2 * LEEWAY_MAX_S
"""How long a retired key stays published: the longest life of a token, and the verifiers' leeway twice."""


class NoCurrentKey(Exception):
    """The ring has no key to sign with: `ensure` has not run on this database."""


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
    if row is None or row.private_pem is None:
        raise NoCurrentKey("no current signing key")
    return SigningKey.from_pem(row.private_pem.encode("ascii"))


def rotate(session: Session, *, now: float) -> SigningKeyRow:
    """Retires the current key, promotes the next one and makes a new next; forgets keys retired long ago.

    Returns:
        The new current key.
    """
    ensure(session, now=now)
    _forget_expired(session, now)
    old, new = _find(session, KeyState.CURRENT), _find(session, KeyState.NEXT)
    assert old is not None and new is not None  # noqa: PT018 - ensure made both
    old.state, old.retired_at, old.private_pem = KeyState.RETIRED, int(now), None
    session.flush()  # one current key at a time: the old one leaves before the new one comes
    new.state, new.activated_at = KeyState.CURRENT, int(now)
    session.flush()
    session.add(_row(SigningKey.generate(), KeyState.NEXT, now))
    session.flush()
    return new


def published(session: Session, *, now: float) -> list[Ed25519PublicKey]:
    """The public keys that may have signed a token which is still good, or will soon."""
    return [public_key(row.x) for row in listing(session) if not _is_forgotten(row, now)]


def listing(session: Session) -> list[SigningKeyRow]:
    """Every key, oldest first."""
    return list(session.scalars(select(SigningKeyRow).order_by(SigningKeyRow.created_at, SigningKeyRow.kid)))


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
