"""The ring: what rotation keeps alive, what it erases, and that it is safe while tokens are minted (J17)."""

import json
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from authsvc import signing_keys
from authsvc.models import KeyState
from authsvc.signing_keys import RETIRED_FOR_S, NoCurrentKey
from tests.authsvc.conftest import Authsvc
from tokens import compact
from tokens.errors import UnknownKey
from tokens.keys import parse_jwks
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
