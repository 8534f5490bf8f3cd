"""What is kept of a key, and how it is compared."""

import contextlib
import hashlib
import hmac
import re
import sqlite3

import pytest

from authsvc.domain import api_keys
from authsvc.domain.api_keys import Credential, InvalidScope, NoSuchKey
from tests.authsvc.conftest import Authsvc, on_sqlite


def test_a_key_can_be_recognised_and_not_guessed(authsvc: Authsvc) -> None:
    keys = {authsvc.key() for _ in range(50)}
    assert len(keys) == 50
    for key in keys:
        assert re.fullmatch(r"lcmk_[0-9a-f]{24}:[A-Za-z0-9_-]{43}", key)  # 43 characters are 256 bits


@on_sqlite
def test_only_a_hash_of_the_secret_is_stored(authsvc: Authsvc) -> None:
    key_id, secret = authsvc.key().split(":")
    authsvc.context.database.close()
    with contextlib.closing(sqlite3.connect(authsvc.context.database.path)) as connection:
        stored = connection.execute("SELECT * FROM api_keys").fetchone()
    assert stored[:3] == (key_id, "test", hashlib.sha256(secret.encode()).digest())
    folder = authsvc.context.database.path.parent
    assert not [file for file in folder.iterdir() if secret.encode() in file.read_bytes()]


def test_the_comparison_takes_constant_time_for_known_and_unknown_ids(
    authsvc: Authsvc, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every attempt ends in two `compare_digest` of two digests, so none is told apart by its time."""
    compared: list[tuple[int, int]] = []
    compare = hmac.compare_digest

    def spy(one: bytes, other: bytes) -> bool:
        compared.append((len(one), len(other)))
        return compare(one, other)

    key_id, secret = authsvc.key().split(":")
    monkeypatch.setattr(hmac, "compare_digest", spy)
    with authsvc.context.database.reading() as session:
        for credential in (Credential(key_id, secret), Credential(key_id, "x"), Credential("unknown", secret)):
            api_keys.authenticate(session, credential, now=authsvc.clock())
    assert compared == [(32, 32)] * 6


def test_no_secret_matches_an_unknown_id(authsvc: Authsvc) -> None:
    with authsvc.context.database.reading() as session:
        assert api_keys.authenticate(session, Credential("unknown", ""), now=0) is None


def test_a_revoked_key_stays_revoked_since_the_first_time(authsvc: Authsvc) -> None:
    key_id = authsvc.key().split(":")[0]
    with authsvc.context.database.writing() as session:
        first = api_keys.revoke(session, key_id, now=100)
        again = api_keys.revoke(session, key_id, now=200)
        assert first is again
        assert first.revoked_at == 100
        with pytest.raises(NoSuchKey):
            api_keys.revoke(session, "unknown", now=300)


@pytest.mark.parametrize("apps", [[], [""], ["a b"], ["**"], ["a", "/b"], ["a/*"], ["a" * 201]])
def test_a_scope_of_nonsense_makes_no_key(authsvc: Authsvc, apps: list[str]) -> None:
    with pytest.raises(InvalidScope), authsvc.context.database.writing() as session:
        api_keys.create(session, name="", apps=apps, now=0)
    with authsvc.context.database.reading() as session:
        assert api_keys.listing(session) == []


def test_a_credential_hides_its_secret() -> None:
    credential = Credential("id", "secret")
    assert repr(credential) == "Credential(key_id='id')"
    assert str(credential) == "id:secret"
