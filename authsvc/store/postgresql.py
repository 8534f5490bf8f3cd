"""A PostgreSQL database: shared by any number of machines, and never waited for without an end."""

from typing import Any, Final

import psycopg
from psycopg.abc import RV, PQGen
from sqlalchemy import URL, Connection, Engine, create_engine, event

from authsvc.store.database import Database, migrate, needs_migration

CONNECT_TIMEOUT_S: Final = 3
POOL_TIMEOUT_S: Final = 3
ANSWER_TIMEOUT_S: Final = 6
"""How long to wait for the server's word. With a wait for the pool before and for a new connection after it takes
12 s at most: less than a request may (`authsvc.serving.server`), so that the caller hears of it."""

MIGRATION_TIMEOUT_S: Final = 600
_ABANDONED_TRANSACTION_S: Final = 30
"""After so long the server frees what a machine that vanished had locked."""

_WRITE_LOCK: Final = 0x6C636D7274  # "lcmrt": any number that other users of the database do not take


class PostgreSQL(Database):
    """Sessions on a PostgreSQL database; writers take turns by an advisory lock, on all machines."""

    def __init__(self, url: URL, *, connections: int) -> None:
        self._url = url.set(drivername="postgresql+psycopg")
        engine = _engine(self._url, connections=connections)
        writers = engine.execution_options(postgresql_write_lock=True)
        super().__init__(
            f"PostgreSQL at {url.host or 'its socket'}:{url.port or 5432}/{url.database or ''}",
            glances=engine.execution_options(isolation_level="AUTOCOMMIT"),
            # A later statement sees what the first one saw.
            readers=engine.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True),
            writers=writers,
            counters=engine,
            durable_counters=engine,
        )

    def prepare(self) -> None:
        """Creates or migrates the tables. Any number of processes, on any machines, may do this at once."""
        with self._readers.begin() as connection:
            if not needs_migration(connection):
                return
        patient = _engine(self._url, connections=1, answer_timeout_s=MIGRATION_TIMEOUT_S)
        try:
            with patient.execution_options(postgresql_write_lock=True).begin() as connection:
                if needs_migration(connection):  # no other process was faster
                    migrate(connection)
        finally:
            patient.dispose()


class _Bounded(psycopg.Connection[Any]):
    """A connection that gives a silent server up: the server's own timeouts help only while it runs."""

    answer_timeout_s: float = ANSWER_TIMEOUT_S

    def wait(self, gen: PQGen[RV], interval: float = 0.1, timeout: float | None = None) -> RV:
        """Drives an exchange with the server to its end, or ends the connection."""
        try:
            return super().wait(gen, interval, timeout or self.answer_timeout_s)
        except psycopg.errors._WaitTimeout:
            self.pgconn.finish()  # half an answer may still come, so nobody can use this connection any more
            raise psycopg.OperationalError(f"no answer within {self.answer_timeout_s:g} s") from None


def _engine(url: URL, *, connections: int, answer_timeout_s: float = ANSWER_TIMEOUT_S) -> Engine:
    def connect(_dialect: object, _record: object, arguments: list[Any], options: dict[str, Any]) -> _Bounded:
        connection = _Bounded.connect(*arguments, **options)
        connection.answer_timeout_s = answer_timeout_s
        _bound_the_server(connection)
        return connection

    engine = create_engine(
        url,
        hide_parameters=True,  # an error's text must not carry a private key into the log
        pool_pre_ping=True,  # a connection that a restart of the server cut is replaced, not handed out
        pool_size=connections,
        max_overflow=0,
        pool_timeout=POOL_TIMEOUT_S,
        connect_args={"connect_timeout": CONNECT_TIMEOUT_S, "application_name": "authsvc"},
    )
    event.listen(engine, "do_connect", connect)
    event.listen(engine, "begin", _begin)
    return engine


def _bound_the_server(connection: _Bounded) -> None:
    """Has the server give up just before we do, which says why and leaves the connection usable.

    Not by the `options` of the connection: PgBouncer refuses them.
    """
    answer_ms = int(connection.answer_timeout_s * 1000)
    limits = {
        "statement_timeout": answer_ms - 1000,
        "lock_timeout": answer_ms - 2000,
        "idle_in_transaction_session_timeout": _ABANDONED_TRANSACTION_S * 1000,
    }
    for name, milliseconds in limits.items():
        connection.execute("SELECT set_config(%s, %s, false)", (name, str(milliseconds)))
    connection.commit()


def _begin(connection: Connection) -> None:
    if connection.get_execution_options().get("postgresql_write_lock"):
        connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_WRITE_LOCK})")
