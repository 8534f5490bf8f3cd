"""The SQLite file: how it is opened, migrated and shared by threads and processes."""

import fcntl
import os
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final
from urllib.parse import quote

from sqlalchemy import URL, Connection, Dialect, Engine, Select, create_engine, event
from sqlalchemy.exc import DBAPIError

from authsvc.store.database import Database, migrate, needs_migration

BUSY_TIMEOUT_S: Final = 10
"""Shorter than a request may take (`authsvc.serving.server`), so that a caller hears of it."""


class SQLite(Database):
    """Sessions on one SQLite file in WAL mode: readers never wait, writers take turns."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._plans: dict[Select[Any], _Plan] = {}
        engine = _engine(path)
        writers = engine.execution_options(sqlite_begin="IMMEDIATE")
        super().__init__(
            f"the SQLite file {path}",
            glances=create_engine(engine.url, hide_parameters=True, pool=engine.pool),  # nothing begins for it
            readers=engine,
            writers=writers,
            counters=writers.execution_options(sqlite_synchronous="NORMAL"),
            durable_counters=writers,
        )

    def glance(self, statement: Select[Any], parameters: Mapping[str, Any]) -> Any | None:
        """The first row, straight from the driver: SQLAlchemy takes several times as long to ask as SQLite does."""
        plan = self._plans.get(statement) or self._plans.setdefault(statement, _Plan(statement, self._glances.dialect))
        with self._watched():
            try:
                connection = self._glances.raw_connection()
                try:
                    return plan.first(connection.driver_connection, parameters)
                finally:
                    connection.close()
            except sqlite3.Error as error:
                raise DBAPIError.instance(plan.sql, None, error, sqlite3.Error, hide_parameters=True) from error

    def prepare(self) -> None:
        """Creates or migrates the file. Any number of processes may do this at once."""
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with _only_one_process(self.path.with_name(self.path.name + ".lock")):
            # The file holds private keys, so nobody else may read it; SQLite gives -wal and -shm the same mode.
            os.close(os.open(self.path, os.O_CREAT | os.O_RDWR, 0o600))
            with self._writers.begin() as connection:
                if needs_migration(connection):
                    migrate(connection)


class _Plan:
    """A statement, compiled for good."""

    def __init__(self, statement: Select[Any], dialect: Dialect) -> None:
        compiled = statement.compile(dialect=dialect)
        self.sql = str(compiled)
        self._parameters = compiled.positiontup or []
        self._constants = compiled.params
        self._columns = [
            (str(column.key), column.type.dialect_impl(dialect).result_processor(dialect, None))
            for column in statement.selected_columns
        ]

    def first(self, connection: Any, parameters: Mapping[str, Any]) -> SimpleNamespace | None:
        """Runs it on a connection of the driver."""
        values = self._constants | parameters
        found = connection.execute(self.sql, [values[name] for name in self._parameters]).fetchone()
        if found is None:
            return None
        pairs = zip(self._columns, found, strict=True)
        return SimpleNamespace(**{name: value if read is None else read(value) for (name, read), value in pairs})


def _engine(path: Path) -> Engine:
    # mode=rw: a file that has vanished is an error, not a new and empty database without anybody's keys.
    url = URL.create("sqlite", database=f"file:{quote(str(path.absolute()))}", query={"mode": "rw", "uri": "true"})
    # hide_parameters: an error's text must not carry a private key into the log.
    # pool_size=0: as many connections as there are threads, so that no thread waits for another's.
    engine = create_engine(url, hide_parameters=True, pool_size=0, connect_args={"timeout": BUSY_TIMEOUT_S})
    event.listen(engine, "connect", _configure)
    event.listen(engine, "begin", _begin)
    return engine


def _configure(connection: Any, _record: object) -> None:
    """Takes transactions away from the driver, which would begin them late and never as IMMEDIATE."""
    connection.isolation_level = None
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA secure_delete = ON")  # an erased private key leaves no bytes behind


def _begin(connection: Connection) -> None:
    options = connection.get_execution_options()
    # FULL: a key that was printed survives a power cut. NORMAL spares counts that wait for the disk.
    _synchronise(connection, options.get("sqlite_synchronous", "FULL"))
    connection.exec_driver_sql(f"BEGIN {options.get('sqlite_begin', 'DEFERRED')}")


def _synchronise(connection: Connection, mode: str) -> None:
    """Sets how a connection commits, once for as long as it stays so; SQLite takes it outside transactions alone."""
    if connection.info.get("synchronous") != mode:
        connection.exec_driver_sql(f"PRAGMA synchronous = {mode}")
        connection.info["synchronous"] = mode


@contextmanager
def _only_one_process(lock: Path) -> Iterator[None]:
    """Holds a file lock. SQLite's own locks do not cover the switch to WAL mode of a new file."""
    descriptor = os.open(lock, os.O_CREAT | os.O_RDWR, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
