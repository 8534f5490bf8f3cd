"""The ring: what rotation keeps alive, what it erases, and that it is safe while tokens are minted (J17)."""

import json
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import select

from authsvc.domain import api_keys, signing_keys
from authsvc.domain.signing_keys import RETIRED_FOR_S, SETTLED_AFTER_S, NoCurrentKey, TooManyRotations
from authsvc.store.models import AuditEventRow, KeyState
from schemas.keys import Role
from tests.authsvc.conftest import Authsvc, assert_problem, on_sqlite
from tokens import compact
from tokens.errors import UnknownKey
from tokens.keys import SigningKey, parse_jwks
from tokens.verify import verify


def rotate(authsvc: Authsvc) -> str:
    with authsvc.context.database.writing() as session:
        return signing_keys.rotate(session, now=authsvc.clock()).kid


def states(authsvc: Authsvc) -> list[str]:
    with authsvc.context.database.reading() as session:
        return sorted(row.state for row in signing_keys.listing(session))


def published(authsvc: Authsvc) -> list[str]:
    return [jwk["kid"] for jwk in json.loads(authsvc.client.get("/.well-known/jwks.json").data)["keys"]]


def minted(authsvc: Authsvc, key: str) -> str:
    return str(authsvc.mint(key, {"app": "fast-lcm-diffusion", "duration": 3600}).json["token"])


def test_a_fresh_installation_has_a_current_and_a_next_key(authsvc: Authsvc) -> None:
    assert states(authsvc) == ["current", "next"]
    assert len(set(published(authsvc))) == 2


def test_the_next_key_is_published_before_it_signs(authsvc: Authsvc) -> None:
    before = published(authsvc)
    assert rotate(authsvc) in before
    assert states(authsvc) == ["current", "next", "retired"]


def test_a_rotation_changes_the_signer_and_keeps_old_tokens_good(authsvc: Authsvc) -> None:
    key = authsvc.key()
    old = minted(authsvc, key)
    new_kid = rotate(authsvc)
    new = minted(authsvc, key)
    assert compact.parse(new).header["kid"] == new_kid != compact.parse(old).header["kid"]
    for _ in range(3):
        assert authsvc.claims(old).apps == authsvc.claims(new).apps
        rotate(authsvc)


def test_a_retired_key_is_published_until_its_last_token_has_expired(authsvc: Authsvc) -> None:
    old = minted(authsvc, authsvc.key())
    kid = compact.parse(old).header["kid"]
    rotate(authsvc)
    authsvc.clock.now += RETIRED_FOR_S
    assert kid in published(authsvc)
    authsvc.clock.now += 1
    assert kid not in published(authsvc)
    with pytest.raises(UnknownKey):
        authsvc.claims(old)
    rotate(authsvc)
    assert states(authsvc) == ["current", "next", "retired"]


def test_a_retired_key_cannot_sign_again(authsvc: Authsvc) -> None:
    with authsvc.context.database.reading() as session:
        pem = signing_keys.current(session).to_pem()
    rotate(authsvc)
    with authsvc.context.database.reading() as session:
        rows = signing_keys.listing(session)
        assert [row.private_pem is None for row in rows] == [row.state is KeyState.RETIRED for row in rows]
        assert pem.decode() not in [row.private_pem for row in rows]


@on_sqlite
def test_a_retired_private_key_leaves_no_bytes_in_the_file(authsvc: Authsvc) -> None:
    with authsvc.context.database.reading() as session:
        pem = signing_keys.current(session).to_pem()
    rotate(authsvc)
    authsvc.context.database.close()
    base64_body = b"".join(pem.splitlines()[1:-1])
    assert base64_body not in authsvc.context.database.path.read_bytes().replace(b"\n", b"")


def test_an_empty_ring_says_so(authsvc: Authsvc) -> None:
    with authsvc.context.database.writing() as session:
        for row in signing_keys.listing(session):
            session.delete(row)
        session.flush()
        with pytest.raises(NoCurrentKey):
            signing_keys.current(session)


def test_j17_every_token_minted_while_keys_rotate_verifies(authsvc: Authsvc) -> None:
    """Six threads mint and verify against a key set fetched after minting, while two others rotate."""
    key = authsvc.key()
    done = threading.Event()

    def mint_until_done() -> int:
        client, count, settings = authsvc.app.test_client(), 0, authsvc.context.settings
        while not done.is_set() or count == 0:
            response = client.post(
                "/tokens/", json={"app": "fast-lcm-diffusion"}, headers={"Authorization": f"Key {key}"}
            )
            assert response.status_code == 201, response.text
            keys = parse_jwks(client.get("/.well-known/jwks.json").data)
            verify(response.json, keys, issuer=settings.issuer, audience=settings.audience, now=authsvc.clock())
            count += 1
        return count

    with ThreadPoolExecutor(8) as pool:
        minters = [pool.submit(mint_until_done) for _ in range(6)]
        rotators = [pool.submit(lambda: [rotate(authsvc) for _ in range(10)]) for _ in range(2)]
        try:
            kids = {kid for rotator in rotators for kid in rotator.result()}
        finally:
            done.set()
        assert all(minter.result() >= 1 for minter in minters)
    assert len(kids) == 20
    assert states(authsvc) == ["current", "next"] + ["retired"] * 20


def test_the_key_is_parsed_once_and_a_rotation_counts_at_once(
    make_authsvc: Callable[..., Authsvc], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two applications on one database, as two processes have it."""
    one, other = make_authsvc(), make_authsvc()
    parsed: list[bytes] = []
    from_pem = SigningKey.from_pem
    monkeypatch.setattr(SigningKey, "from_pem", lambda pem: parsed.append(pem) or from_pem(pem))
    key = one.key()
    kids = [compact.parse(minted(service, key)).header["kid"] for service in (one, other) * 5]
    assert len(set(kids)) == 1
    assert len(parsed) <= 1
    new = rotate(other)
    assert [compact.parse(minted(service, key)).header["kid"] for service in (one, other)] == [new, new]
    assert len(parsed) <= 2


def rotated(authsvc: Authsvc, **options: object) -> str:
    return signing_keys.rotate_settled(authsvc.context.database, clock=authsvc.clock, **options).kid


def test_a_rotation_waits_until_every_runner_has_the_next_key(authsvc: Authsvc) -> None:
    waited: list[float] = []

    def sleep(seconds: float) -> None:
        waited.append(seconds)
        authsvc.clock.now += seconds

    next_kid = published(authsvc)
    authsvc.clock.now += 0.5
    assert rotated(authsvc, sleep=sleep) in next_kid
    assert waited == [SETTLED_AFTER_S - 0.5]
    authsvc.clock.now += SETTLED_AFTER_S
    rotated(authsvc, sleep=sleep)
    assert len(waited) == 1
    authsvc.clock.now -= 3600  # the clock was set back: the next key seems to come from the future
    rotated(authsvc, sleep=sleep)
    assert len(waited) == 1


def test_a_rotation_that_never_gets_its_turn_gives_up(authsvc: Authsvc) -> None:
    before = states(authsvc)
    with pytest.raises(TooManyRotations):
        rotated(authsvc, sleep=lambda _: None)
    assert states(authsvc) == before


@pytest.mark.parametrize("state", ["next", "current", "retired"])
def test_a_revoked_key_is_gone_and_replaced(authsvc: Authsvc, state: str) -> None:
    rotate(authsvc)
    old = minted(authsvc, authsvc.key())
    with authsvc.context.database.reading() as session:
        kids = {row.state.value: row.kid for row in signing_keys.listing(session)}
    with authsvc.context.database.writing() as session:
        signing_keys.revoke(session, kids[state], now=authsvc.clock())
    assert kids[state] not in published(authsvc)
    assert states(authsvc) == ["current", "next"] + ["retired"] * (state != "retired")
    if state == "current":
        with pytest.raises(UnknownKey):
            authsvc.claims(old)
    else:
        assert authsvc.claims(old)
    assert authsvc.claims(minted(authsvc, authsvc.key()))


def test_the_published_list_says_when_other_keys_are_published(authsvc: Authsvc) -> None:
    def key_set() -> str:
        return str(authsvc.client.get("/revocations").json["key_set"])

    before = key_set()
    assert key_set() == before
    rotate(authsvc)
    after = key_set()
    assert after != before
    authsvc.clock.now += RETIRED_FOR_S + 1
    assert key_set() not in (before, after)


def test_signing_keys_over_http(authsvc: Authsvc) -> None:
    with authsvc.context.database.writing() as session:
        _, credential = api_keys.create(session, now=authsvc.clock(), roles=[Role.ADMIN])
    headers = {"Authorization": f"Key {credential}"}
    before = authsvc.client.get("/signing-keys", headers=headers)
    assert (before.status_code, before.headers["Cache-Control"]) == (200, "no-store")
    assert "PRIVATE" not in before.text
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(signing_keys, "_ROTATION_TRIES", 0)
        assert_problem(authsvc.client.post("/signing-keys/rotate", headers=headers), 503)
    kids = {key["state"]: key["kid"] for key in before.json["signing_keys"]}
    authsvc.clock.now += SETTLED_AFTER_S
    promoted = authsvc.client.post("/signing-keys/rotate", headers=headers)
    assert (promoted.status_code, promoted.json["kid"], promoted.json["state"]) == (200, kids["next"], "current")
    left = authsvc.client.post(f"/signing-keys/{kids['next']}/revoke", headers=headers)
    assert sorted(key["state"] for key in left.json["signing_keys"]) == ["current", "next", "retired"]
    assert kids["next"] not in left.text
    for kid in (kids["next"], "x", "%00"):
        assert_problem(authsvc.client.post(f"/signing-keys/{kid}/revoke", headers=headers), 404)
    with authsvc.context.database.reading() as session:
        found = session.scalars(select(AuditEventRow).order_by(AuditEventRow.id)).all()
        told = [(row.kind, row.actor, row.detail.get("kid")) for row in found if row.kind != "key_created"]
    assert told == [(kind, credential.key_id, kids["next"]) for kind in ("rotated", "revoked")]
