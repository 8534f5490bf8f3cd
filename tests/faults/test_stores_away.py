"""PostgreSQL and Redis go away under load and come back: 503 meanwhile, and nobody restarts the service."""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import psutil
import pytest
from sqlalchemy import select

from authsvc.domain import api_keys, signing_keys
from authsvc.installation import open_database
from authsvc.store.models import AuditEventRow, DailyMints, KeyState
from schemas.errors import Problem
from schemas.events import EventKind
from tests.authsvc.conftest import APP, Served, serving
from tests.faults.load import CLIENTS, WITHOUT_LIMITS, Load, minting
from tests.processes import Process, run_module
from tests.servers import Server, own_postgres, own_redis
from tests.stores import Store
from tokens import compact


@pytest.fixture
def postgres() -> Iterator[Server]:
    with own_postgres() as server:
        yield server


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[Server]:
    with own_redis(tmp_path) as server:
        yield server


def stop(server: Server) -> Callable[[], None]:
    server.stop()
    return server.start


def crash(server: Server) -> Callable[[], None]:
    server.kill()
    return server.start


def freeze(server: Server) -> Callable[[], None]:
    server.freeze()
    return server.thaw


FAULTS = pytest.mark.parametrize("fault", [stop, crash, freeze])


def key_with_quota(served: Served) -> str:
    """A key for which every token is counted in the database."""
    with served.writing() as session:
        return str(api_keys.create(session, name="counted", apps=[APP], daily_quota=10**9, now=0)[1])


def processes(process: Process) -> set[int]:
    return {process.pid, *(child.pid for child in psutil.Process(process.pid).children())}


@contextmanager
def unharmed(process: Process) -> Iterator[None]:
    """No process of the service is another one afterwards, and its log shows neither a traceback nor a password."""
    before = processes(process)
    try:
        yield
    except AssertionError as error:
        error.add_note("\n".join(process.lines[-100:]))
        raise
    assert processes(process) == before
    assert "Traceback" not in process.text
    assert "hunter2" not in process.text


def assert_refusals_say_when_to_come_back(load: Load) -> None:
    assert {answer.status_code for answer in load.answers if answer is not None} <= {201, 503}
    assert None not in load.answers
    for answer in load.with_status(503):
        assert int(answer.headers["Retry-After"]) > 0
        assert answer.headers["Cache-Control"] == "no-store"
        problem = Problem.model_validate_json(answer.content)
        assert not re.search("hunter2|127.0.0.1|authsvc|psycopg|redis|sql", str(problem.detail), re.IGNORECASE)


def assert_said_once(process: Process, store: str) -> None:
    """However many requests failed: a line when it went and one when it was back."""
    assert len(re.findall(rf"{store} at 127\.0\.0\.1:\d+\S* cannot be used: ", process.text)) == 1
    assert len(re.findall(rf"{store} at 127\.0\.0\.1:\d+\S* is back; ", process.text)) == 1


@FAULTS
def test_postgresql_goes_and_comes_back(
    postgres: Server, fault: Callable[[Server], Callable[[], None]], tmp_path: Path
) -> None:
    with serving(Store(tmp_path, {"database_url": postgres.url}), WITHOUT_LIMITS) as served:
        counted = key_with_quota(served)
        with unharmed(served.process), minting(served.url, served.key, counted) as load:
            load.wait_for(201)
            undo = fault(postgres)
            load.wait_for(503, 4)
            assert httpx.get(f"{served.url}/health/ready", timeout=60).status_code == 503
            assert httpx.get(f"{served.url}/health/live").status_code == 200
            undo()
            load.wait_for(201)
            assert httpx.get(f"{served.url}/health/ready").status_code == 200
            served.process.wait_for_line("is back")
        assert_refusals_say_when_to_come_back(load)
        assert_said_once(served.process, "PostgreSQL")
        served.process.stop()
    of_counted = sum(claims(token)["client_id"] == counted.partition(":")[0] for token in load.tokens())
    with served.writing() as session:
        # What was in hand when the server went may be counted and not handed out, never the other way.
        assert of_counted <= session.scalars(select(DailyMints.minted)).one() <= of_counted + CLIENTS
        is_minted = AuditEventRow.kind == EventKind.MINTED
        recorded = session.scalars(select(AuditEventRow.jti).where(is_minted)).all()
    assert sorted(map(str, recorded)) == sorted(str(claims(token)["jti"]) for token in load.tokens())


@FAULTS
def test_redis_goes_and_comes_back(
    redis: Server, fault: Callable[[Server], Callable[[], None]], tmp_path: Path
) -> None:
    with serving(Store(tmp_path, {"redis_url": redis.url}), WITHOUT_LIMITS) as served:
        with unharmed(served.process), minting(served.url, served.key) as load:
            load.wait_for(201)
            undo = fault(redis)
            load.wait_for(503, 4)
            assert httpx.get(f"{served.url}/health/ready", timeout=60).status_code == 503
            assert httpx.get(f"{served.url}/health/live").status_code == 200
            assert httpx.get(f"{served.url}/.well-known/jwks.json").status_code == 200, "runners need no counting"
            undo()
            load.wait_for(201)
            assert httpx.get(f"{served.url}/health/ready").status_code == 200
            served.process.wait_for_line("is back")
        assert_refusals_say_when_to_come_back(load)
        assert_said_once(served.process, "Redis")


def test_a_rotation_while_postgresql_crashes_is_whole_or_nothing(postgres: Server, tmp_path: Path) -> None:
    store = Store(tmp_path, {"database_url": postgres.url})
    assert run_module("authsvc", "signing-keys", "rotate", env=store.env).returncode == 0
    postgres.kill()
    failed = run_module("authsvc", "signing-keys", "rotate", env=store.env)
    assert (failed.returncode, failed.stdout) == (1, "")
    (line,) = failed.stderr.splitlines()
    assert line.startswith("Error: the database cannot be used: ")
    assert "AUTHSVC_DATABASE_URL" in line
    assert "hunter2" not in line
    postgres.start()
    with open_database(store.settings()) as database, database.reading() as session:
        assert [row.state for row in signing_keys.listing(session)].count(KeyState.RETIRED) == 1


def test_check_config_says_which_store_cannot_be_used(postgres: Server, redis: Server, tmp_path: Path) -> None:
    store = Store(tmp_path, {"database_url": postgres.url, "redis_url": redis.url})
    good = run_module("authsvc", "check-config", env=store.env)
    assert (good.returncode, "hunter2" in good.stdout) == (0, False)
    redis.stop()
    no_redis = run_module("authsvc", "check-config", env=store.env)
    postgres.stop()
    no_database = run_module("authsvc", "check-config", env=store.env)
    for failed, name, setting in [
        (no_redis, "Redis at 127.0.0.1", "AUTHSVC_REDIS_URL"),
        (no_database, "database", "AUTHSVC_DATABASE_URL"),
    ]:
        assert (failed.returncode, failed.stdout) == (1, "")
        assert name in failed.stderr
        assert setting in failed.stderr
        assert "hunter2" not in failed.stderr


def claims(token: str) -> dict[str, object]:
    return compact.parse(token).payload
