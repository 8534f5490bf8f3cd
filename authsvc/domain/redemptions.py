"""One-time tokens: which of them have opened their socket. A row in the database decides, so exactly one of many wins.

It is not in Redis: a one-time token must stay used after anything was restarted.
"""

from typing import Final

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from authsvc.ledger import audit
from authsvc.store.inserting import insert
from authsvc.store.models import RedeemedToken
from schemas.events import EventKind
from schemas.tokens import TokenClaims
from tokens.verify import LEEWAY_MAX_S

_MARGIN_S: Final = 2 * LEEWAY_MAX_S
"""How long a row outlives its token: the clocks of several authsvc processes differ, as for retired keys."""

_PRUNE_MAX: Final = 100


def redeem(session: Session, claims: TokenClaims, *, now: float, address: str | None) -> bool:
    """Uses a verified one-time token up; False if that was done before.

    Args:
        session: A session of `Database.counting(durable=True)`: a power cut must not make a token good again.
        claims: The token's.
        now: Unix time, seconds.
        address: Who asks: the runner whose socket it is to open.
    """
    statement = insert(session, RedeemedToken).on_conflict_do_nothing(index_elements=["jti"])
    row = {"jti": claims.jti, "expires_at": claims.exp + _MARGIN_S}
    if session.scalar(statement.values(row).returning(RedeemedToken.jti)) is None:
        return False
    _prune(session, now)
    audit.record(
        session,
        EventKind.REDEEMED,
        now=now,
        key_id=claims.client_id,
        subject=claims.sub,
        jti=claims.jti,
        address=address,
    )
    return True


def _prune(session: Session, now: float) -> None:
    """Forgets tokens that open nothing any more: more than one for each that comes, so that they cannot pile up."""
    expired = select(RedeemedToken.jti).where(RedeemedToken.expires_at <= now).limit(_PRUNE_MAX)
    # Two who prune at once must not wait for each other. SQLite, where nobody writes beside us, leaves this out.
    unlocked = expired.with_for_update(skip_locked=True)
    session.execute(delete(RedeemedToken).where(RedeemedToken.jti.in_(unlocked)))
