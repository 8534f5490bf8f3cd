"""The stores that tests run on: SQLite with counts in memory, and PostgreSQL with Redis.

The servers are those of TEST_POSTGRES_URL and TEST_REDIS_URL. Where none answers, the run starts its own; where there
is none to start, tests that need one are skipped, or in CI (`CI=true`) fail.
"""

import itertools
import os
import secrets
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import psycopg
import redis
from sqlalchemy import URL, make_url

from authsvc.settings import Settings
from authsvc.store.postgresql import PostgreSQL
from tests.servers import missing, own_postgres, own_redis

POSTGRES_URL: Final = os.environ.get("TEST_POSTGRES_URL", "postgresql://postgres@127.0.0.1:5432/postgres")
REDIS_URL: Final = os.environ.get("TEST_REDIS_URL", "redis://127.0.0.1:6379")
CLAIM_S: Final = 900
"""How long a claim on a database of the Redis server lasts that nobody gave back."""


@dataclass(frozen=True)
class Store:
    """Where one service keeps what it keeps."""

    data_dir: Path
    urls: dict[str, str]
    """`database_url` and `redis_url`; empty for SQLite and memory."""

    @property
    def env(self) -> dict[str, str]:
        """The environment of a process that uses it."""
        given = {"data_dir": str(self.data_dir), **self.urls}
        return {f"AUTHSVC_{name.upper()}": value for name, value in given.items()}

    def settings(self, **others: Any) -> Settings:
        """The settings of this process, to use it."""
        return Settings(**{"data_dir": self.data_dir, **self.urls, **others})


class Postgres:
    """A server, and a migrated database on it to copy."""

    def __init__(self, url: str) -> None:
        self._url = make_url(url).set(drivername="postgresql")
        self._prefix = f"authsvc_test_{secrets.token_hex(6)}"
        self._numbers = itertools.count()
        self._template: str | None = None

    @contextmanager
    def database(self, *, migrated: bool = True) -> Iterator[str]:
        """The URL of a new database, which is dropped afterwards."""
        name = f"{self._prefix}_{next(self._numbers)}"
        if migrated and self._template is None:
            self._template = self._make_template()
        self._execute(f"CREATE DATABASE {name} TEMPLATE {self._template if migrated else 'template0'}")
        try:
            yield self._at(name).render_as_string(hide_password=False)
        finally:
            self._execute(f"DROP DATABASE {name} WITH (FORCE)")

    def close(self) -> None:
        if self._template is not None:
            self._execute(f"DROP DATABASE {self._template} WITH (FORCE)")

    def _make_template(self) -> str:
        name = f"{self._prefix}_template"
        self._execute(f"CREATE DATABASE {name} TEMPLATE template0")
        with PostgreSQL(self._at(name), connections=1) as database:
            database.prepare()
        return name

    def _execute(self, statement: str) -> None:
        with psycopg.connect(self._dsn, autocommit=True, connect_timeout=5) as connection:
            connection.execute(statement)

    def _at(self, name: str) -> URL:
        return self._url.set(database=name)

    @property
    def _dsn(self) -> str:
        return self._url.render_as_string(hide_password=False)


@contextmanager
def postgres() -> Iterator[Postgres]:
    """A PostgreSQL for tests, or a skip."""
    with ExitStack() as stack:
        url = POSTGRES_URL
        try:
            psycopg.connect(url, connect_timeout=5).close()
        except psycopg.OperationalError:
            if "TEST_POSTGRES_URL" in os.environ:
                raise
            url = stack.enter_context(own_postgres()).url
        yield stack.enter_context(closing(Postgres(url)))


@contextmanager
def redis_database(folder: Path) -> Iterator[str]:
    """The URL of a database of a Redis server that no other test run uses, empty; or a skip."""
    with ExitStack() as stack:
        server_url = REDIS_URL
        try:
            with redis.Redis.from_url(server_url, socket_connect_timeout=5) as client:
                client.ping()
        except redis.ConnectionError:
            if "TEST_REDIS_URL" in os.environ:
                raise
            server_url = stack.enter_context(own_redis(folder)).url
        url = _claimed(server_url)
        flush(url)
        try:
            yield url
        finally:
            flush(url)
            with redis.Redis.from_url(_with_database(url, 0)) as client:
                client.delete(_claim_name(url))


def flush(redis_url: str) -> None:
    """Empties a claimed database, and claims it for some time more."""
    with redis.Redis.from_url(redis_url) as client:
        client.flushdb()
    with redis.Redis.from_url(_with_database(redis_url, 0)) as client:
        client.expire(_claim_name(redis_url), CLAIM_S)


def _claimed(server_url: str) -> str:
    """Takes a database that nobody else has: many people's tests may share the server."""
    with redis.Redis.from_url(_with_database(server_url, 0)) as client:
        for number in range(1, 16):
            url = _with_database(server_url, number)
            if client.set(_claim_name(url), "1", nx=True, ex=CLAIM_S):
                return url
    missing("every database of the Redis server is taken by other tests")


def _with_database(url: str, number: int) -> str:
    return urlsplit(url)._replace(path=f"/{number}").geturl()


def _claim_name(url: str) -> str:
    return f"lcm-realtime:tests:database{urlsplit(url).path}"
