"""Opening what an installation keeps: for the service and for its commands alike."""

import time
from collections.abc import Callable

from authsvc import signing_keys
from authsvc.database import Database
from authsvc.settings import Settings


def open_database(settings: Settings, clock: Callable[[], float] = time.time) -> Database:
    """Opens the database, migrated and with its first signing keys.

    Raises:
        OSError: the data folder cannot be made.
        sqlalchemy.exc.DatabaseError: the database cannot be used.
    """
    database = Database(settings.database_path)
    database.prepare()
    with database.writing() as session:
        signing_keys.ensure(session, now=clock())
    return database
