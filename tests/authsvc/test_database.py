"""The file: who may read it, how it is migrated, and what happens when many start at once."""

import sqlite3
import stat
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from sqlalchemy import inspect, text
from sqlalchemy.exc import DatabaseError, IntegrityError

from authsvc import migrations
from authsvc.database import Database
from authsvc.installation import open_database
from authsvc.models import Base, KeyState, SigningKeyRow
from authsvc.settings import Settings
from authsvc.signing_keys import listing
from tests.authsvc.conftest import Authsvc


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "new" / "authsvc.sqlite3"


def test_only_the_owner_may_read_the_keys(authsvc: Authsvc, tmp_path: Path) -> None:
    authsvc.key()
    with authsvc.context.database.writing():
        modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in tmp_path.iterdir()}
    assert "authsvc.sqlite3-wal" in modes
    assert set(modes.values()) == {0o600}


def test_a_new_data_folder_is_the_owners_alone(path: Path) -> None:
    with Database(path) as database:
        database.prepare()
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_the_file_is_in_wal_mode_and_erases_what_is_deleted(authsvc: Authsvc) -> None:
    with authsvc.context.database.reading() as session:
        assert session.scalar(text("PRAGMA journal_mode")) == "wal"
        assert session.scalar(text("PRAGMA secure_delete")) == 1


def test_the_migrations_make_what_the_models_say(authsvc: Authsvc) -> None:
    with authsvc.context.database.reading() as session:
        assert compare_metadata(MigrationContext.configure(session.connection()), Base.metadata) == []


def test_the_migrations_can_be_taken_back(authsvc: Authsvc) -> None:
    config = Config()
    config.set_main_option("script_location", str(Path(migrations.__file__).parent))
    with authsvc.context.database.writing() as session:
        config.attributes["connection"] = session.connection()
        command.downgrade(config, "base")
        assert inspect(session.connection()).get_table_names() == ["alembic_version"]
        command.upgrade(config, "head")
        assert compare_metadata(MigrationContext.configure(session.connection()), Base.metadata) == []


def test_preparing_twice_changes_nothing(authsvc: Authsvc) -> None:
    key = authsvc.key()
    authsvc.context.database.prepare()
    assert authsvc.mint(key, {"app": "fast-lcm-diffusion"}).status_code == 201


def test_a_file_that_is_no_database_is_refused_and_kept(tmp_path: Path) -> None:
    file = tmp_path / "authsvc.sqlite3"
    file.write_bytes(b"something else" * 100)
    with pytest.raises(DatabaseError), Database(file) as database:
        database.prepare()
    assert file.read_bytes() == b"something else" * 100


def test_many_threads_may_start_on_a_fresh_folder(path: Path) -> None:
    start = threading.Barrier(8)

    def open_at_once() -> list[str]:
        start.wait()
        database = open_database(Settings(data_dir=path.parent))
        with database.reading() as session:
            kids = [row.kid for row in listing(session)]
        database.close()
        return kids

    with ThreadPoolExecutor(8) as pool:
        opened = [task.result() for task in [pool.submit(open_at_once) for _ in range(8)]]
    assert all(kids == opened[0] for kids in opened)
    assert len(opened[0]) == 2


def test_a_second_current_key_is_impossible(authsvc: Authsvc) -> None:
    row = SigningKeyRow(kid="k", state=KeyState.CURRENT, x="x", private_pem="p", created_at=0)
    with pytest.raises(IntegrityError) as refused, authsvc.context.database.writing() as session:
        session.add(row)
    assert "'p'" not in str(refused.value), "a private key in an error's text would end in a log"


def test_a_writer_sees_no_change_between_its_check_and_its_write(authsvc: Authsvc) -> None:
    database = authsvc.context.database
    other = sqlite3.connect(database.path, timeout=0)
    with database.writing() as session:
        listing(session)
        with pytest.raises(sqlite3.OperationalError, match="locked"):
            other.execute("UPDATE signing_keys SET created_at = 0")
    other.execute("UPDATE signing_keys SET created_at = 0")
    other.close()


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
