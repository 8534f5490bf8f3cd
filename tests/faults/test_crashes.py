"""kill -9 in the middle of everything: what was printed or handed out is good, and nothing is half made."""

import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from tempfile import TemporaryFile

import httpx
import psutil

from authsvc.domain import api_keys, signing_keys
from authsvc.installation import open_database
from authsvc.store.models import KeyState
from authsvc.store.sqlite import SQLite
from schemas import defaults
from tests.authsvc.conftest import APP, serving
from tests.faults.load import WITHOUT_LIMITS, minting
from tests.processes import ROOT, clean_environment
from tests.stores import Store
from tokens.keys import SigningKey, parse_jwks, public_jwk
from tokens.verify import verify


@contextmanager
def crashing(store: Store, seed: int, change: str) -> Iterator[list[str]]:
    """Keys are changed, and crashes happen, beside the block; afterwards the list has every line that was printed."""
    command = [sys.executable, "-m", "tests.faults.crashing", str(seed), change]
    lines: list[str] = []
    with TemporaryFile("w+") as printed, TemporaryFile("w+") as errors:
        with subprocess.Popen(
            command, cwd=ROOT, env=clean_environment(store.env), stdout=printed, stderr=errors
        ) as process:
            yield lines
            returncode = process.wait(timeout=100)
        errors.seek(0)
        assert returncode == 0, errors.read()
        printed.seek(0)
        lines += [line.strip() for line in printed if line.endswith("\n")]


def test_kill_9_while_keys_are_made_and_rotated_leaves_nothing_half_made(store: Store) -> None:
    """What makes keys and what rotates them crash thirty times each while a service mints: all is in order then."""
    with serving(store, WITHOUT_LIMITS) as served, ExitStack() as stack:
        load = stack.enter_context(minting(served.url, served.key))
        created = stack.enter_context(crashing(store, 1, "create"))
        rotated = stack.enter_context(crashing(store, 2, "rotate"))
        load.wait_for(201)
        stack.close()
        assert len(created) > 2
        assert len(rotated) > 2, "two were made before the first crash"
        assert {answer and answer.status_code for answer in load.answers} == {201}
        for key in created:
            headers = {"Authorization": f"Key {key}"}
            assert httpx.post(f"{served.url}/tokens/", json={"app": APP}, headers=headers).status_code == 201
        keys = parse_jwks(httpx.get(f"{served.url}/.well-known/jwks.json").content)
        for token in load.tokens():
            verify(token, keys, issuer=defaults.ISSUER, audience=defaults.AUDIENCE, now=time.time())
    assert_in_order(store)
    with open_database(store.settings()) as database, database.reading() as session:
        kids = {row.kid for row in signing_keys.listing(session)}
    assert set(rotated) <= kids


def test_kill_9_of_a_worker_while_it_mints_costs_its_connections_alone(store: Store) -> None:
    with serving(store, WITHOUT_LIMITS) as served:
        for _ in range(3):
            with minting(served.url, served.key) as load:
                load.wait_for(201)
                (worker,) = psutil.Process(served.process.pid).children()
                worker.kill()
            # A client between two requests may find its connection closed and open another: then nothing broke for it.
            assert {answer and answer.status_code for answer in load.answers} <= {201, None}
            keys = parse_jwks(httpx.get(f"{served.url}/.well-known/jwks.json").content)
            for token in load.tokens():
                verify(token, keys, issuer=defaults.ISSUER, audience=defaults.AUDIENCE, now=time.time())
    assert_in_order(store)


def assert_in_order(store: Store) -> None:
    """One current and one next key, each with the private half of what it publishes; no API key without a secret."""
    with open_database(store.settings()) as database, database.reading() as session:
        rows = signing_keys.listing(session)
        states = [row.state for row in rows]
        assert (states.count(KeyState.CURRENT), states.count(KeyState.NEXT)) == (1, 1)
        for row in rows:
            if row.state is KeyState.RETIRED:
                assert row.private_pem is None
            else:
                assert row.private_pem is not None
                assert public_jwk(SigningKey.from_pem(row.private_pem.encode()).public)["x"] == row.x
        for key in api_keys.listing(session):
            assert len(key.secret_sha256) == 32
            assert key.apps == [APP]
        if isinstance(database, SQLite):
            with sqlite3.connect(database.path) as connection:
                assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
            connection.close()
