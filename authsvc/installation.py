"""Opening what an installation keeps: for the service and for its commands alike."""

import time
from collections.abc import Callable
from typing import Final

from authsvc.domain import signing_keys
from authsvc.settings import Settings
from authsvc.store.database import Database, database_at

_BESIDE_REQUESTS: Final = 2
"""Connections beside those of the threads that serve requests: the audit log's, and one to spare."""


def connect_database(settings: Settings) -> Database:
    """The database as another process has prepared it (`open_database`); nothing is opened yet."""
    return database_at(settings.database, connections=settings.threads + _BESIDE_REQUESTS)


def open_database(settings: Settings, clock: Callable[[], float] = time.time) -> Database:
    """Opens the database, migrated and with its first signing keys.

    Raises:
        OSError: the data folder cannot be made.
        sqlalchemy.exc.DatabaseError: the database cannot be used.
        authsvc.store.database.DatabaseTooNew: a later version of authsvc has migrated it.
    """
    database = connect_database(settings)
    try:
        database.prepare()
        with database.writing() as session:
            signing_keys.ensure(session, now=clock())
    # Whatever it was, Ctrl-C too: it goes on to the caller, who has no database to close.
    except BaseException:
        database.close()
        raise
    return database


def try_stores(settings: Settings) -> None:
    """Opens every store that the settings name, and closes it again.

    Raises:
        authsvc.store.redis_store.RedisUnavailable: Redis cannot be used; for the database see `open_database`.
    """
    open_database(settings).close()
    if settings.redis_url is not None:
        from authsvc.store import redis_store  # here, because most installations have no use for it

        redis_store.ping(settings.redis_url)
