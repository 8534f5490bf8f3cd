"""The SQLite file: how it is opened, migrated and shared by threads and processes."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, Self
from urllib.parse import quote

from alembic import command
from alembic.config import Config
from sqlalchemy import URL, Connection, Engine, create_engine, event
from sqlalchemy.orm import Session

from authsvc import migrations

BUSY_TIMEOUT_S: Final = 15


class Database:
    """Sessions on one SQLite file in WAL mode: readers never wait, writers take turns."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._readers = _engine(path)
        self._writers = self._readers.execution_options(sqlite_begin="IMMEDIATE")

    def prepare(self) -> None:
        """Creates or migrates the file. Any number of processes may do this at once.

        Raises:
            OSError: the folder or the file cannot be made.
            sqlalchemy.exc.DatabaseError: the file is no database of ours.
        """
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with _only_one_process(self.path.with_name(self.path.name + ".lock")):
            # The file holds private keys, so nobody else may read it; SQLite gives -wal and -shm the same mode.
            os.close(os.open(self.path, os.O_CREAT | os.O_RDWR, 0o600))
            with self._writers.begin() as connection:
                _upgrade(connection)

    @contextmanager
    def reading(self) -> Iterator[Session]:
        """A session that sees one consistent state and changes nothing."""
        with Session(self._readers) as session:
            yield session

    @contextmanager
    def writing(self) -> Iterator[Session]:
        """A session with the write lock from its start, committed at the end: check then write is safe in it."""
        with Session(self._writers, expire_on_commit=False) as session, session.begin():
            yield session

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Closes every pooled connection; the next session opens new ones."""
        self._readers.dispose()


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
    connection.execute("PRAGMA synchronous = FULL")  # a key that was printed survives a power cut
    connection.execute("PRAGMA secure_delete = ON")  # an erased private key leaves no bytes behind


def _begin(connection: Connection) -> None:
    mode = connection.get_execution_options().get("sqlite_begin", "DEFERRED")
    connection.exec_driver_sql(f"BEGIN {mode}")


@contextmanager
def _only_one_process(lock: Path) -> Iterator[None]:
    """Holds a file lock. SQLite's own locks do not cover the switch to WAL mode of a new file."""
    descriptor = os.open(lock, os.O_CREAT | os.O_RDWR, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _upgrade(connection: Connection) -> None:
    config = Config()
    config.set_main_option("script_location", str(Path(migrations.__file__).parent))
    config.attributes["connection"] = connection
    command.upgrade(config, "head")
