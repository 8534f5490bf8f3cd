"""Daily quotas in the database: never more than allowed, however many count at once."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import select

from authsvc.domain import quotas
from authsvc.domain.quotas import DAY_S, QuotaExhausted
from authsvc.installation import open_database
from authsvc.store.database import Database
from authsvc.store.models import DailyMints
from tests.stores import Store

NOW = 1_800_000_000.0


@pytest.fixture
def database(store: Store) -> Iterator[Database]:
    with open_database(store.settings()) as opened:
        yield opened


def take(database: Database, quota: int, now: float = NOW, key_id: str = "lcmk_a") -> int | None:
    try:
        with database.counting() as session:
            return quotas.take(session, key_id, quota, now=now)
    except QuotaExhausted:
        return None


def test_of_many_at_once_exactly_the_quota_is_counted(database: Database) -> None:
    with ThreadPoolExecutor(16) as pool:
        taken = list(pool.map(lambda _: take(database, 50), range(200)))
    assert sorted(count for count in taken if count is not None) == list(range(1, 51))


def test_keys_and_days_are_apart(database: Database) -> None:
    assert take(database, 1) == 1
    assert take(database, 1) is None
    assert take(database, 1, key_id="lcmk_b") == 1
    assert take(database, 1, now=NOW + DAY_S) == 1
    with database.reading() as session:
        assert quotas.minted_today(session, "lcmk_a", now=NOW) == 1
        assert quotas.minted_today(session, "lcmk_c", now=NOW) == 0


def test_a_day_ends_at_midnight_utc(database: Database) -> None:
    midnight = NOW - NOW % DAY_S + DAY_S
    assert quotas.seconds_left(midnight - 1.5) == 1.5
    assert take(database, 1, now=midnight - 0.5) == 1
    assert take(database, 1, now=midnight - 0.1) is None
    assert take(database, 1, now=midnight) == 1


def test_days_long_past_are_forgotten(database: Database) -> None:
    for day in range(10):
        assert take(database, 5, now=NOW + day * DAY_S) == 1
    with database.reading() as session:
        assert len(session.scalars(select(DailyMints)).all()) == 3
