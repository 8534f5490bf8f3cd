"""Where keys, revocations, quotas and events are kept: one SQLite file, or a PostgreSQL database.

Both offer the same four transactions, and no wait in them is without an end: a store that is down costs a caller
seconds, not the service.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, Self

from sqlalchemy import URL, Connection, Engine, Select
from sqlalchemy import exc as errors
from sqlalchemy.orm import Session

from authsvc import migrations
from authsvc.store.outage import Outage

DEFECTS: Final = (errors.IntegrityError, errors.DataError, errors.ProgrammingError, errors.NotSupportedError)
"""What a database says of a statement that was wrong: ours to mend, and no outage."""

FAILURES: Final = (errors.DatabaseError, errors.InterfaceError, errors.TimeoutError)
"""What a database that cannot be used raises. `DEFECTS` are among them, so tell them apart: `is_down`."""


class DatabaseTooNew(Exception):
    """The database was migrated by a later version of authsvc than this one."""

    def __init__(self, found: str) -> None:
        super().__init__(f"the database is at revision {found}, which a later version made; run that version")


class Database(ABC):
    """Sessions on one store.

    Args:
        name: The store in words for the log, without a password.
        glances: Its statements stand alone, without a transaction around them.
        readers: Its transactions see one consistent state.
        writers: Its transactions come one after the other.
        counters: Its transactions are short and lock only the rows that they change.
        durable_counters: Like `counters`, and what they committed survives a power cut.
    """

    def __init__(
        self,
        name: str,
        *,
        glances: Engine,
        readers: Engine,
        writers: Engine,
        counters: Engine,
        durable_counters: Engine,
    ) -> None:
        self.name = name
        self._glances = glances
        self._readers, self._writers = readers, writers
        self._counters, self._durable_counters = counters, durable_counters
        self._outage = Outage(name)

    @abstractmethod
    def prepare(self) -> None:
        """Creates or migrates the store. Any number of processes may do this at once.

        Raises:
            OSError: the folder or the file cannot be made.
            sqlalchemy.exc.DatabaseError: the database cannot be used.
            DatabaseTooNew: it is not ours to migrate.
        """

    def glance(self, statement: Select[Any], parameters: Mapping[str, Any]) -> Any | None:
        """The first row of a statement that stands alone, with its columns as attributes.

        A session, and a transaction around it, would cost several times what the statement does.

        Args:
            statement: A constant of the program, for it may be kept.
            parameters: What its `bindparam`s stand for.
        """
        with self._watched(), self._glances.connect() as connection:
            return connection.execute(statement, parameters).first()

    @contextmanager
    def reading(self) -> Iterator[Session]:
        """A session that sees one consistent state and changes nothing."""
        with self._watched(), Session(self._readers) as session:
            yield session

    @contextmanager
    def writing(self) -> Iterator[Session]:
        """A session with the write lock from its start, committed at the end: check then write is safe in it."""
        with self._watched(), Session(self._writers, expire_on_commit=False) as session, session.begin():
            yield session

    @contextmanager
    def counting(self, *, durable: bool = False) -> Iterator[Session]:
        """A session for single statements that are atomic by themselves (an upsert), committed at the end.

        On PostgreSQL it does not wait for `writing`; a check and a write in it are not safe together. Keep it
        short. Without `durable` a power cut, though no crash of a process, may forget the last ones on SQLite: fit
        for quotas and usage, not for what must never happen twice.
        """
        engine = self._durable_counters if durable else self._counters
        with self._watched(), Session(engine, expire_on_commit=False) as session, session.begin():
            yield session

    @contextmanager
    def _watched(self) -> Iterator[None]:
        try:
            yield
        except FAILURES as error:
            if is_down(error):
                self._outage.noticed(cause(error))
            raise
        else:
            self._outage.over()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Closes every pooled connection; the next session opens new ones."""
        self._readers.dispose()  # the others share its pool


def database_at(url: URL, *, connections: int) -> Database:
    """The store that a URL names; nothing is opened yet.

    Args:
        url: `sqlite:///PATH` or `postgresql://...`.
        connections: The most that this process may have open at once, where the server counts them.
    """
    if url.get_backend_name() == "sqlite":
        from authsvc.store.sqlite import SQLite

        return SQLite(Path(str(url.database)))
    from authsvc.store.postgresql import PostgreSQL  # here, because who uses SQLite needs no driver of it

    return PostgreSQL(url, connections=connections)


def is_down(error: BaseException) -> bool:
    """Whether an exception says that the store cannot be used now, not that a statement was wrong."""
    return isinstance(error, FAILURES) and not isinstance(error, DEFECTS)


def cause(error: BaseException) -> str:
    """The first line of what went wrong, for the log and the operator; statements and their values stay out."""
    original = getattr(error, "orig", None) or error
    lines = str(original).splitlines() or [type(original).__name__]
    return lines[0].rstrip(".")


def migrate(connection: Connection) -> None:
    """Brings the tables to the newest revision, inside the caller's transaction and under its lock."""
    from alembic import command  # here, because it takes as long to import as the rest of a command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(migrations.FOLDER))
    config.attributes["connection"] = connection
    command.upgrade(config, "head")


def needs_migration(connection: Connection) -> bool:
    """Whether `migrate` has something to do.

    Raises:
        DatabaseTooNew: a later version was here.
    """
    found = _revision(connection)
    if found is not None and found > migrations.head():
        raise DatabaseTooNew(found)
    return found != migrations.head()


def _revision(connection: Connection) -> str | None:
    if not connection.dialect.has_table(connection, "alembic_version"):
        return None
    return connection.exec_driver_sql("SELECT version_num FROM alembic_version").scalar()
