"""The stores: how they are migrated, what their transactions promise, and what happens when many start at once."""

import stat
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from click.testing import CliRunner
from sqlalchemy import inspect, select, text, update
from sqlalchemy.exc import DatabaseError, IntegrityError
from sqlalchemy.orm import Session

from authsvc import migrations
from authsvc.cli import main
from authsvc.domain.signing_keys import listing
from authsvc.installation import open_database
from authsvc.settings import Settings
from authsvc.store.database import Database, DatabaseTooNew, is_down
from authsvc.store.models import Base, DailyMints, KeyState, SigningKeyRow
from authsvc.store.sqlite import SQLite
from tests import stores
from tests.authsvc.conftest import Authsvc, on_postgres, on_sqlite
from tests.stores import Postgres, Store


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "new" / "authsvc.sqlite3"


@pytest.fixture
def empty_store(store: Store, request: pytest.FixtureRequest) -> Iterator[Store]:
    """A store on which nothing of ours ever was."""
    if not store.urls:
        yield store
        return
    postgres: Postgres = request.getfixturevalue("postgres_server")
    with postgres.database(migrated=False) as url:
        yield Store(store.data_dir, {"database_url": url})


@contextmanager
def alembic_on(session: Session) -> Iterator[Config]:
    config = Config()
    config.set_main_option("script_location", str(migrations.FOLDER))
    config.attributes["connection"] = session.connection()
    yield config


def differences(session: Session) -> list[object]:
    return list(compare_metadata(MigrationContext.configure(session.connection()), Base.metadata))


@on_sqlite
def test_only_the_owner_may_read_the_keys(authsvc: Authsvc, tmp_path: Path) -> None:
    authsvc.key()
    with authsvc.context.database.writing():
        modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in tmp_path.iterdir()}
    assert "authsvc.sqlite3-wal" in modes
    assert set(modes.values()) == {0o600}


def test_a_new_data_folder_is_the_owners_alone(path: Path) -> None:
    with SQLite(path) as database:
        database.prepare()
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


@on_sqlite
def test_the_file_is_in_wal_mode_and_erases_what_is_deleted(authsvc: Authsvc) -> None:
    with authsvc.context.database.reading() as session:
        assert session.scalar(text("PRAGMA journal_mode")) == "wal"
        assert session.scalar(text("PRAGMA secure_delete")) == 1


@on_sqlite
def test_only_counts_that_may_be_forgotten_do_not_wait_for_the_disk(authsvc: Authsvc) -> None:
    database, (normal, full) = authsvc.context.database, (1, 2)
    for transaction, synchronous in [
        (database.counting(), normal),
        (database.writing(), full),
        (database.counting(), normal),
        (database.counting(durable=True), full),
    ]:
        with transaction as session:
            assert session.scalar(text("PRAGMA synchronous")) == synchronous


def test_the_migrations_make_what_the_models_say(authsvc: Authsvc) -> None:
    with authsvc.context.database.reading() as session:
        assert differences(session) == []


def test_the_migrations_can_be_taken_back(authsvc: Authsvc) -> None:
    with authsvc.context.database.writing() as session, alembic_on(session) as config:
        command.downgrade(config, "base")
        assert inspect(session.connection()).get_table_names() == ["alembic_version"]
        command.upgrade(config, "head")
        assert differences(session) == []


def test_a_key_of_the_first_version_still_mints(authsvc: Authsvc) -> None:
    key = authsvc.key()
    with authsvc.context.database.writing() as session, alembic_on(session) as config:
        command.downgrade(config, "0001")
    authsvc.context.database.prepare()
    assert authsvc.mint(key, {"app": "fast-lcm-diffusion"}).status_code == 201


def test_the_newest_revision_is_told_by_the_names_of_the_files() -> None:
    config = Config()
    config.set_main_option("script_location", str(migrations.FOLDER))
    script = ScriptDirectory.from_config(config)
    assert script.get_heads() == [migrations.head()]
    assert [Path(step.path).name[:5] for step in script.walk_revisions()] == [
        f"{step.revision}_" for step in script.walk_revisions()
    ]


def test_a_database_of_a_later_version_is_left_alone(authsvc: Authsvc, store: Store) -> None:
    with authsvc.context.database.writing() as session:
        session.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(DatabaseTooNew, match="9999"):
        authsvc.context.database.prepare()
    told = CliRunner().invoke(main, ["check-config"], env=store.env)
    assert (told.exit_code, told.stdout) == (1, "")
    assert "9999, which a later version made" in told.stderr


def test_preparing_twice_changes_nothing(authsvc: Authsvc) -> None:
    key = authsvc.key()
    authsvc.context.database.prepare()
    assert authsvc.mint(key, {"app": "fast-lcm-diffusion"}).status_code == 201


def test_a_file_that_is_no_database_is_refused_and_kept(tmp_path: Path) -> None:
    file = tmp_path / "authsvc.sqlite3"
    file.write_bytes(b"something else" * 100)
    with pytest.raises(DatabaseError), SQLite(file) as database:
        database.prepare()
    assert file.read_bytes() == b"something else" * 100


def test_many_threads_may_start_on_an_empty_store(empty_store: Store) -> None:
    start = threading.Barrier(8)

    def open_at_once() -> list[str]:
        start.wait()
        with open_database(empty_store.settings()) as database, database.reading() as session:
            return [row.kid for row in listing(session)]

    with ThreadPoolExecutor(8) as pool:
        opened = [task.result() for task in [pool.submit(open_at_once) for _ in range(8)]]
    assert all(kids == opened[0] for kids in opened)
    assert len(opened[0]) == 2


def test_a_second_current_key_is_impossible(authsvc: Authsvc) -> None:
    row = SigningKeyRow(kid="k", state=KeyState.CURRENT, x="x", private_pem="p", created_at=0)
    with pytest.raises(IntegrityError) as refused, authsvc.context.database.writing() as session:
        session.add(row)
    assert "'p'" not in str(refused.value), "a private key in an error's text would end in a log"
    assert not is_down(refused.value), "a defect of ours is not an outage"


@pytest.fixture
def two(store: Store) -> Iterator[tuple[Database, Database]]:
    """The same store, as two processes have it open."""
    with ExitStack() as stack:
        first, second = (stack.enter_context(open_database(store.settings())) for _ in range(2))
        with first.writing() as session:
            session.add(DailyMints(key_id="k", day="2026-11-20", minted=0))
        yield first, second


def minted(session: Session) -> int:
    return session.execute(select(DailyMints.minted)).scalar_one()


def at_once(add_one: Callable[[Database], None], databases: tuple[Database, Database], times: int) -> None:
    with ThreadPoolExecutor(8) as pool:
        for task in [pool.submit(add_one, databases[number % 2]) for number in range(times)]:
            task.result()


def test_check_then_write_is_safe_in_a_writing_session(two: tuple[Database, Database]) -> None:
    def add_one(database: Database) -> None:
        with database.writing() as session:
            seen = minted(session)
            session.execute(update(DailyMints).values(minted=seen + 1))

    at_once(add_one, two, times=100)
    with two[0].reading() as session:
        assert minted(session) == 100


def test_single_statements_are_safe_in_a_counting_session(two: tuple[Database, Database]) -> None:
    def add_one(database: Database) -> None:
        with database.counting() as session:
            session.execute(update(DailyMints).values(minted=DailyMints.minted + 1))

    at_once(add_one, two, times=100)
    with two[0].reading() as session:
        assert minted(session) == 100


@on_postgres
def test_counting_does_not_wait_for_a_writer(two: tuple[Database, Database]) -> None:
    with two[0].writing() as slow:
        listing(slow)
        with two[1].counting() as session:
            session.execute(update(DailyMints).values(minted=7))
    with two[0].reading() as session:
        assert minted(session) == 7


def test_a_reading_session_sees_one_state(two: tuple[Database, Database]) -> None:
    with two[0].reading() as session:
        assert minted(session) == 0
        with two[1].writing() as other:
            other.execute(update(DailyMints).values(minted=7))
        session.expire_all()
        assert minted(session) == 0


@on_postgres
def test_a_reading_session_cannot_write(two: tuple[Database, Database]) -> None:
    with pytest.raises(DatabaseError, match="read-only"), two[0].reading() as session:
        session.execute(update(DailyMints).values(minted=7))


def test_an_error_undoes_a_whole_writing_session(authsvc: Authsvc) -> None:
    def fail_halfway() -> None:
        with authsvc.context.database.writing() as session:
            session.delete(listing(session)[0])
            session.flush()
            raise LookupError

    with pytest.raises(LookupError):
        fail_halfway()
    with authsvc.context.database.reading() as session:
        assert len(listing(session)) == 2


def test_a_claimed_redis_database_is_not_given_twice(redis_url: str, tmp_path: Path) -> None:
    with stores.redis_database(tmp_path) as other:
        assert other != redis_url


def test_settings_name_the_sqlite_file_by_default(tmp_path: Path) -> None:
    with open_database(Settings(data_dir=tmp_path)) as database:
        assert isinstance(database, SQLite)
        assert database.path == tmp_path / "authsvc.sqlite3"
