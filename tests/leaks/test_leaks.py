"""The hunt itself: what it finds, where it looks, and that it knows every secret that is made."""

import json
import re
import secrets
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from authsvc.domain import api_keys
from authsvc.installation import open_database
from authsvc.ledger import audit
from authsvc.settings import Settings
from schemas.events import EventKind
from tests.leaks import sitecustomize
from tests.leaks.hunt import PIECE_CHARS, Hunt, Leak
from tests.leaks.kept import search_tables
from tests.leaks.plugin import HUNT
from tests.processes import ROOT, clean_environment, module, run_module, start_process

MINT = """
from tokens.keys import SigningKey
from tokens.mint import mint, new_claims
claims = new_claims(issuer="i", audience="a", subject="s", apps=["x/y"], now=0, duration_s=9)
token = mint(SigningKey.generate(), claims)
"""
AUTHSVC_KEY = """
import json, pathlib, tempfile, time
from authsvc.domain import api_keys
from authsvc.installation import open_database
from authsvc.settings import Settings
folder = tempfile.TemporaryDirectory()
with open_database(Settings(data_dir=pathlib.Path(folder.name))) as database, database.writing() as session:
    key, credential = api_keys.create(session, name="x", apps=["*"], now=time.time())
    _, rotated = api_keys.rotate(session, key.id, now=time.time())
"""
TEXT = st.text(st.sampled_from("abAB01_-. \n"), max_size=60)


@pytest.fixture
def hunt(tmp_path: Path) -> Hunt:
    return Hunt(tmp_path / "secrets")


@given(st.integers(20, 90), TEXT, TEXT, st.data())
def test_every_long_piece_is_found_wherever_it_stands(
    length: int, before: str, after: str, data: st.DataObject
) -> None:
    secret = secrets.token_urlsafe(length)[:length]
    start = data.draw(st.integers(0, length - PIECE_CHARS))
    end = data.draw(st.integers(start + PIECE_CHARS, length))
    hunt = Hunt(Path("nowhere"))
    hunt.learn([secret])
    assert hunt.find(f"{before}{secret[start:end]}{after}") is not None


@given(st.integers(20, 90), st.data())
def test_a_short_piece_is_not_a_leak(length: int, data: st.DataObject) -> None:
    secret = secrets.token_urlsafe(length)[:length]
    start = data.draw(st.integers(0, length - PIECE_CHARS + 1))
    hunt = Hunt(Path("nowhere"))
    hunt.learn([secret])
    assert hunt.find(f"begin {secret[start : start + PIECE_CHARS - 1]} end") is None


def test_what_is_shown_of_a_leak_is_not_the_leak(hunt: Hunt) -> None:
    secret = secrets.token_urlsafe(32)
    hunt.learn([secret])
    with pytest.raises(Leak, match="a secret of 43 characters got into the log: key=") as leak:
        hunt.search("the log", f"first line\nkey={secret} and more")
    assert hunt.find(str(leak.value)) is None


def test_secrets_of_other_processes_are_learned_as_they_come(tmp_path: Path, hunt: Hunt) -> None:
    first, second = secrets.token_urlsafe(32), secrets.token_urlsafe(32)
    with (tmp_path / "secrets").open("w") as file:
        file.write(f"{first}\n{second[:20]}")
        file.flush()
        assert (hunt.find(first), hunt.find(second)) == (first, None)
        file.write(f"{second[20:]}\n")
    assert (hunt.find(first), hunt.find(second), hunt.known) == (first, second, 2)


@pytest.mark.parametrize(
    ("code", "expression"),
    [
        (MINT, "token"),
        (MINT, "token[-20:]"),
        (AUTHSVC_KEY, "credential.secret[5:20]"),
        (AUTHSVC_KEY, "str(rotated)"),
    ],
)
def test_a_process_that_prints_a_secret_fails_its_test(code: str, expression: str) -> None:
    process = start_process([sys.executable, "-c", f"{code}print({expression}, 'http://127.0.0.1:1/')"])
    with pytest.raises(Leak, match="got into the output of"), process:
        pass


def test_a_process_that_logs_a_private_key_fails_its_test() -> None:
    code = "from tokens.keys import SigningKey; print(SigningKey.generate().to_pem().decode(), 'http://127.0.0.1:1/')"
    with pytest.raises(Leak), start_process([sys.executable, "-c", code]):
        pass


def test_the_public_half_of_a_key_is_no_secret() -> None:
    code = """
from tokens.keys import SigningKey, public_jwk
key = SigningKey.generate(); key.to_pem(); print(public_jwk(key.public), 'http://127.0.0.1:1/')
"""
    with start_process([sys.executable, "-c", code]):
        pass


def test_a_command_may_print_the_secret_that_it_was_asked_for_and_no_other(tmp_path: Path) -> None:
    env = {"AUTHSVC_DATA_DIR": str(tmp_path)}
    created = json.loads(run_module("authsvc", "keys", "create", "--apps", "*", "--json", env=env).stdout)
    secret = created["key"].partition(":")[2]
    with pytest.raises(Leak, match="printed"):
        run_module("authsvc", secret, env=env)  # "No such command '...'"


TESTS = """
import logging
import pytest
from tokens.keys import SigningKey
from tokens.mint import mint, new_claims

def token():
    claims = new_claims(issuer="i", audience="a", subject="s", apps=["x/y"], now=0, duration_s=9)
    return mint(SigningKey.generate(), claims)

def test_prints():
    print(token())

def test_logs():
    logging.getLogger("x").warning("refused %s", token()[-12:])

def test_logs_an_exception():
    try:
        raise ValueError(token())
    except ValueError:
        logging.getLogger("x").exception("failed")

@pytest.fixture
def leaky():
    yield
    print(token())

def test_whose_fixture_prints(leaky):
    pass

def test_keeps_it_inside():
    assert token()
    print("nothing")
"""


def test_a_test_whose_process_logs_a_secret_fails(tmp_path: Path) -> None:
    (tmp_path / "conftest.py").write_text("from tests.leaks.plugin import pytest_runtest_makereport\n")
    (tmp_path / "test_leaky.py").write_text(TESTS)
    command = [*module("pytest"), "-c", str(ROOT / "pyproject.toml"), "--rootdir", str(tmp_path), str(tmp_path)]
    env = clean_environment({"PYTHONPATH": str(ROOT)})
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, check=False)
    assert set(re.findall(r"^ERROR \S+::(\w+)", done.stdout, re.MULTILINE)) == {
        "test_prints",
        "test_logs",
        "test_logs_an_exception",
        "test_whose_fixture_prints",
    }, done.stdout
    assert done.returncode == pytest.ExitCode.TESTS_FAILED


def test_this_run_is_watched() -> None:
    """Every maker is there under the name that it is watched by, and what it makes is known at once."""
    for name, makers in sitecustomize.MAKERS.items():
        imported = __import__(name, fromlist=["x"])
        for maker in makers:
            owner = imported
            for part in maker.split("."):
                owner = getattr(owner, part)
            assert hasattr(owner, "__wrapped__"), f"{name}.{maker} is not watched"
    made: dict[str, str] = {}
    exec(MINT, made)
    assert HUNT.find(made["token"]) == made["token"].rpartition(".")[2]


def test_a_secret_in_a_table_is_found(tmp_path: Path) -> None:
    with open_database(Settings(data_dir=tmp_path)) as database:
        search_tables(database)
        with database.writing() as session:
            _, credential = api_keys.create(session, name="x", apps=["*"], now=0)
            audit.record(session, EventKind.REVOKED, now=0, detail={"what": [credential.secret[:PIECE_CHARS]]})
        with pytest.raises(Leak, match="a row of audit_events"):
            search_tables(database)
