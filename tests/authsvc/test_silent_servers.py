"""Servers that take a connection and say nothing: whoever asks them is told so, and never waits for ever."""

import socket
import threading
from collections.abc import Iterator

import pytest
from pydantic import SecretStr
from sqlalchemy import make_url
from sqlalchemy.exc import OperationalError, TimeoutError

from authsvc.domain.signing_keys import listing
from authsvc.store import redis_store
from authsvc.store.database import cause, is_down
from authsvc.store.postgresql import PostgreSQL
from authsvc.store.redis_store import RedisUnavailable
from tests.authsvc.conftest import Authsvc, on_postgres
from tests.stores import Store


@pytest.fixture
def silent() -> Iterator[int]:
    """A port behind which nobody ever answers."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


def test_a_postgresql_that_does_not_answer_is_down(silent: int) -> None:
    url = make_url(f"postgresql://authsvc:hunter2@127.0.0.1:{silent}/keys")
    with (
        PostgreSQL(url, connections=1) as database,
        pytest.raises(OperationalError) as error,
        database.reading() as session,
    ):
        listing(session)
    assert is_down(error.value)
    assert "hunter2" not in str(error.value)
    assert "\n" not in cause(error.value)


def test_a_redis_that_does_not_answer_is_down(silent: int) -> None:
    with pytest.raises(RedisUnavailable, match=f"Redis at 127.0.0.1:{silent} cannot be used") as error:
        redis_store.ping(SecretStr(f"redis://:hunter2@127.0.0.1:{silent}/0"))
    assert "hunter2" not in str(error.value)


@on_postgres
def test_a_writer_that_never_ends_keeps_others_waiting_but_not_for_ever(authsvc: Authsvc) -> None:
    database = authsvc.context.database
    with database.writing() as hanging:
        listing(hanging)
        with pytest.raises(OperationalError, match="lock timeout") as error, database.writing() as session:
            listing(session)
        assert is_down(error.value)
    with database.writing() as session:
        listing(session)


@on_postgres
def test_a_thread_that_finds_no_connection_free_is_told(store: Store) -> None:
    taken, may_end = threading.Event(), threading.Event()

    def occupy(database: PostgreSQL) -> None:
        with database.reading() as session:
            listing(session)
            taken.set()
            may_end.wait()

    with PostgreSQL(make_url(store.urls["database_url"]), connections=1) as database:
        occupant = threading.Thread(target=occupy, args=(database,))
        occupant.start()
        taken.wait()
        with pytest.raises(TimeoutError) as error, database.reading() as session:
            listing(session)
        assert is_down(error.value)
        may_end.set()
        occupant.join()
        with database.reading() as session:
            listing(session)
