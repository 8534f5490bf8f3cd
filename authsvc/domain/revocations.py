"""Revocations: what is good no more, until no token and no socket is left that it could concern.

A revocation is by time: it names tokens (`schemas.revocation.RevokedKind`) and the last second in which they were
issued. That second counts as a whole: who mints again in it gets a token that is revoked too.

Entries are written under the database's one write lock, so their ids grow in the order in which others can see
them, and what changes gets a new id: a reader who has seen an entry asks for those after it and misses none.
"""

import hashlib
from dataclasses import dataclass
from typing import Final

from sqlalchemy import Row, delete, func, select
from sqlalchemy.orm import Session

from authsvc.store.models import Revocation
from schemas import limits
from schemas.revocation import RevocationList, RevokedEntry, RevokedKind
from schemas.tokens import TokenClaims
from tokens.revocation import fingerprint, fingerprints
from tokens.verify import LEEWAY_MAX_S

_MARGIN_S: Final = 2 * LEEWAY_MAX_S
"""Between the clocks of this service and a verifier, as for retired keys (`authsvc.domain.signing_keys`)."""

LONGEST_S: Final = limits.TOKEN_DURATION_MAX_S + limits.SESSION_MAX_S + _MARGIN_S
"""From the minting of a token to the end of its last socket, at most. Settings may have been more generous when it
was minted than they are now, so the bounds count that no token exceeds."""

_COLUMNS: Final = (
    Revocation.id,
    Revocation.kind,
    Revocation.sha256,
    Revocation.issued_before,
    Revocation.expires_at,
)
_Row = Row[int, str, str, int, int]


class StillToCome(Exception):
    """Tokens were to be revoked that are not minted yet."""


@dataclass(frozen=True, slots=True)
class Target:
    """What is revoked: the names that go with a kind, in `tokens.revocation.fingerprint`'s order."""

    kind: RevokedKind
    names: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Revoked:
    """What the list says now, and whether that is news."""

    entry: RevokedEntry
    is_new: bool


def revoke_key(session: Session, key_id: str, *, now: float) -> Revoked:
    """Revokes every token of a key that mints no more, also one that is being signed at this moment.

    In the transaction that revokes the key; the audit event is the caller's.
    """
    end = int(now) + LONGEST_S
    return _put(session, Target(RevokedKind.KEY, (key_id,)), issued_before=end, expires_at=end, now=now)


def revoke_signing_key(session: Session, kid: str, *, now: float) -> Revoked:
    """Revokes every token that a signing key signed, or that somebody else signs with it.

    In the transaction that forgets the key; the audit event is the caller's.
    """
    end = int(now) + LONGEST_S
    return _put(session, Target(RevokedKind.SIGNING_KEY, (kid,)), issued_before=end, expires_at=end, now=now)


def revoke_token(session: Session, claims: TokenClaims, *, now: float) -> Revoked | None:
    """Revokes one verified token; None where it opens nothing any more and no socket of it can live."""
    end = claims.exp + (claims.max_session_s or limits.SESSION_MAX_S) + _MARGIN_S
    if end <= now:
        return None
    return _put(session, Target(RevokedKind.TOKEN, (claims.jti,)), issued_before=end, expires_at=end, now=now)


def revoke_jti(session: Session, jti: str, *, key_id: str | None = None, now: float) -> Revoked:
    """Revokes one token by name; with `key_id` only if that key minted it."""
    target = Target(RevokedKind.TOKEN, (jti,)) if key_id is None else Target(RevokedKind.KEY_TOKEN, (key_id, jti))
    end = int(now) + LONGEST_S
    return _put(session, target, issued_before=end, expires_at=end, now=now)


def revoke_issued(session: Session, target: Target, *, issued_before: int, now: float) -> Revoked | None:
    """Revokes the tokens of a key, a subject or both with an `iat` up to `issued_before`; None: none is left.

    Raises:
        StillToCome: `issued_before` lies in the future, where nobody knows yet whom it would hit.
    """
    if issued_before > now:
        raise StillToCome
    end = issued_before + LONGEST_S
    return None if end <= now else _put(session, target, issued_before=issued_before, expires_at=end, now=now)


def is_revoked(session: Session, claims: TokenClaims) -> bool:
    """Whether a token is revoked now."""
    named = select(Revocation.id).where(
        Revocation.sha256.in_(fingerprints(claims)), Revocation.issued_before >= claims.iat
    )
    return session.execute(named.limit(1)).first() is not None


def listing(
    session: Session, after: str = "", *, now: float, size: int = limits.REVOCATIONS_PER_PAGE
) -> RevocationList:
    """A page of the list: what was revoked after the entry that `after` names, else from the start."""
    rows = _rows(session, _id(after), size + 2)
    from_start = not rows or _cursor(rows[0]) != after
    if from_start and after:
        rows = _rows(session, 0, size + 1)
    elif not from_start:
        rows = rows[1:]
    more, rows = len(rows) > size, rows[:size]
    return RevocationList(
        revocations=[_entry(row) for row in rows if row.expires_at > now],
        next=_cursor(rows[-1]) if rows else "" if from_start else after,
        from_start=from_start,
        more=more,
    )


def overdue(session: Session, *, now: float) -> bool:
    """Whether an entry expired a minute ago and is still there: one look into an index."""
    oldest = session.scalar(select(func.min(Revocation.expires_at)))
    return oldest is not None and oldest <= now - 60


def prune(session: Session, *, now: float) -> None:
    """Deletes what has expired."""
    session.execute(delete(Revocation).where(Revocation.expires_at <= now))


def _put(session: Session, target: Target, *, issued_before: int, expires_at: int, now: float) -> Revoked:
    """Writes an entry, unless one that reaches as far is there."""
    prune(session, now=now)
    name = fingerprint(target.kind, *target.names)
    known = session.execute(select(*_COLUMNS).where(Revocation.sha256 == name)).one_or_none()
    if known is not None and known.issued_before >= issued_before:
        return Revoked(_entry(known), is_new=False)
    if known is not None:
        session.execute(delete(Revocation).where(Revocation.id == known.id))
    row = Revocation(kind=target.kind, sha256=name, issued_before=issued_before, expires_at=expires_at)
    session.add(row)
    session.flush()
    entry = RevokedEntry(kind=target.kind, sha256=name, issued_before=issued_before, expires_at=expires_at)
    return Revoked(entry, is_new=True)


def _rows(session: Session, first_id: int, count: int) -> list[_Row]:
    query = select(*_COLUMNS).where(Revocation.id >= first_id).order_by(Revocation.id)
    return list(session.execute(query.limit(count)).all())


def _cursor(row: _Row) -> str:
    """Names an entry with all that it says: SQLite gives the id of a deleted last row to the next."""
    said = f"{row.sha256} {row.issued_before} {row.expires_at}"
    return f"{row.id}-{hashlib.sha256(said.encode('ascii')).hexdigest()[:16]}"


def _id(cursor: str) -> int:
    number = cursor.partition("-")[0]
    return int(number) if number.isdecimal() and number.isascii() and len(number) < 16 else 0


def _entry(row: _Row) -> RevokedEntry:
    return RevokedEntry(
        kind=RevokedKind(row.kind), sha256=row.sha256, issued_before=row.issued_before, expires_at=row.expires_at
    )
