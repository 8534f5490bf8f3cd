"""H7: API keys are too long to guess, known by a hash alone, compared in constant time, and shown once."""

import base64
import hashlib
import hmac
from collections.abc import Callable

import pytest
from sqlalchemy import select

from authsvc.domain import api_keys
from authsvc.store.models import Base
from schemas.keys import Role
from tests.authsvc.conftest import APP, Authsvc, on_sqlite
from tests.security.callers import key


def test_h7_a_secret_has_256_random_bits_and_scanners_know_the_key(service: Authsvc) -> None:
    keys = [key(service, Role.MINT) for _ in range(200)]
    names, secrets = zip(*(made.split(":") for made in keys), strict=True)
    assert {len(base64.urlsafe_b64decode(secret + "=")) for secret in secrets} == {32}
    assert all(name.startswith("lcmk_") for name in names)
    # 200 draws of 32 bytes: each of the 256 values of a byte turns up, and no draw twice.
    assert len(set(b"".join(base64.urlsafe_b64decode(secret + "=") for secret in secrets))) == 256
    assert len(set(secrets)) == len(set(names)) == 200


@on_sqlite
def test_h7_the_files_of_the_store_hold_no_secret(make_authsvc: Callable[..., Authsvc]) -> None:
    authsvc = make_authsvc()
    made = key(authsvc, *Role)
    token = authsvc.mint(made, {"app": APP}).json["token"]
    authsvc.client.post("/tokens/revoke", data={"token": token}, headers={"Authorization": f"Key {made}"})
    authsvc.context.close()
    stored = b"".join(file.read_bytes() for file in authsvc.context.database.path.parent.iterdir() if file.is_file())
    name, secret = made.split(":")
    assert name.encode() in stored
    assert hashlib.sha256(secret.encode()).digest() in stored
    for hidden in (secret, token, token.split(".")[2]):
        assert hidden.encode() not in stored


def test_h7_no_column_of_a_key_is_its_secret(service: Authsvc) -> None:
    secret = key(service, *Role).split(":")[1]
    with service.context.database.reading() as session:
        for table in Base.metadata.sorted_tables:
            for row in session.execute(select(table)):
                assert not any(secret in str(value) or secret.encode() == value for value in row)


def test_h7_every_answer_to_a_wrong_key_comes_from_a_comparison_in_constant_time(
    service: Authsvc, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where there is no such key: an answer that came sooner would tell which ids exist."""
    good, compared = key(service, Role.MINT), list[tuple[int, int]]()
    compare = hmac.compare_digest

    def spy(one: bytes, other: bytes) -> bool:
        compared.append((len(one), len(other)))
        return compare(one, other)

    monkeypatch.setattr(api_keys.hmac, "compare_digest", spy)
    times = []
    for tried in (f"{good[:-1]}{'A' if good[-1] != 'A' else 'B'}", "lcmk_nobody:x", f"{good.split(':')[0]}:x"):
        assert service.mint(tried, {"app": APP}).status_code == 401
        times.append(len(compared))
        assert set(compared) == {(32, 32)}  # hashes: as long for any secret
        compared.clear()
    assert len(set(times)) == 1


def test_h7_a_secret_is_shown_once(service: Authsvc) -> None:
    headers = {"Authorization": f"Key {key(service, Role.ADMIN)}"}
    made = service.client.post("/keys", json={"name": "once", "apps": [APP]}, headers=headers).json
    secret = made["key"].split(":")[1]
    turned = service.client.post(f"/keys/{made['id']}/rotate", json={}, headers=headers).json["key"].split(":")[1]
    for path in ("/keys", f"/keys/{made['id']}", "/audit", "/usage", "/metrics"):
        text = service.client.get(path, headers=headers).text
        assert secret not in text
        assert turned not in text
    changed = service.client.patch(f"/keys/{made['id']}", json={"name": "twice"}, headers=headers)
    revoked = service.client.post(f"/keys/{made['id']}/revoke", headers=headers)
    assert not any(hidden in answer.text for hidden in (secret, turned) for answer in (changed, revoked))
