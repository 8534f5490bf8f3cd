"""How many tokens a key with a daily quota has minted today. A day is one of UTC.

They are counted in the database and not beside the rate limits: a quota must hold when Redis has forgotten
everything. A token is counted when it is signed and all but handed out, so that nothing that fails counts; whoever
is killed in between has counted one that nobody got, never handed out one that nobody counted.
"""

import time
from typing import Final

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from authsvc.store.inserting import insert
from authsvc.store.models import DailyMints

DAY_S: Final = 24 * 3600
_KEPT_DAYS: Final = 2  # more than today, for the processes' clocks differ


class QuotaExhausted(Exception):
    """The key has minted as many tokens today as it may."""


def take(session: Session, key_id: str, quota: int, *, now: float) -> int:
    """Counts one token, in one statement: however many do this at once, no more than the quota are counted.

    Returns:
        How many the key has minted today, with this one.

    Raises:
        QuotaExhausted: it may not mint another.
    """
    statement = (
        insert(session, DailyMints)
        .values(key_id=key_id, day=_day(now), minted=1)
        .on_conflict_do_update(
            index_elements=[DailyMints.key_id, DailyMints.day],
            set_={"minted": DailyMints.minted + 1},
            where=DailyMints.minted < quota,
        )
        .returning(DailyMints.minted)
    )
    minted: int | None = session.execute(statement).scalar_one_or_none()
    if minted is None:
        raise QuotaExhausted
    if minted == 1:
        session.execute(delete(DailyMints).where(DailyMints.day < _day(now - _KEPT_DAYS * DAY_S)))
    return minted


def minted_today(session: Session, key_id: str, *, now: float) -> int:
    """How many tokens a key with a quota has minted today."""
    return session.scalars(select(DailyMints.minted).filter_by(key_id=key_id, day=_day(now))).one_or_none() or 0


def seconds_left(now: float) -> float:
    """How long today still lasts."""
    return DAY_S - now % DAY_S


def _day(at: float) -> str:
    return time.strftime("%Y-%m-%d", time.gmtime(at))
