"""J17: verifying and minting are safe while keys come and go. Threads for authsvc, greenlets for the runner."""

import contextlib
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import gevent
import pytest

from authsvc.domain import signing_keys
from runner.doors.jwks import JwksCache, TokenVerifier
from runner.doors.token_service import PublishedKeys
from schemas.tokens import TokenClaims
from tests.authsvc.conftest import APP, Authsvc
from tests.security.callers import Role, key
from tests.tokens.conftest import AUDIENCE, ISSUER, NOW, Desk
from tokens.errors import UnknownKey
from tokens.keys import KeySet, SigningKey
from tokens.verify import verify


def test_j17_verifying_while_the_key_set_is_replaced_takes_each_token_with_its_own_key() -> None:
    """Threads verify while another replaces the whole set: a token of a key in both sets is never refused."""
    stays, ring = Desk(), [Desk() for _ in range(8)]
    current: list[KeySet] = [stays.keys]
    token, others, is_over = stays.token(), [desk.token() for desk in ring], threading.Event()

    def replace() -> None:
        for turn in range(20_000):
            current[0] = stays.keys | ring[turn % 8].keys
        is_over.set()

    def keep_verifying(number: int) -> int:
        count = 0
        while not is_over.is_set():
            claims = verify(token, current[0], issuer=ISSUER, audience=AUDIENCE, now=NOW)
            assert claims.sub == "lcmk_1"
            with contextlib.suppress(UnknownKey):  # its key may not be in the set now; any other reason is wrong
                verify(others[number], current[0], issuer=ISSUER, audience=AUDIENCE, now=NOW)
            count += 1
        return count

    with ThreadPoolExecutor(5) as pool:
        replacing = pool.submit(replace)
        counts = [verifying.result() for verifying in [pool.submit(keep_verifying, number) for number in range(4)]]
        replacing.result()
    assert min(counts) > 0


def test_j17_a_runner_verifies_while_it_fetches_other_keys() -> None:
    """Every fetch lets other greenlets run in its middle, and gives a set with one more key and one less."""
    desk = Desk()
    ring = [SigningKey.generate() for _ in range(3)]
    fetched = 0

    def fetch() -> PublishedKeys:
        nonlocal fetched
        fetched += 1
        gevent.sleep(0)
        ring.append(SigningKey.generate())
        del ring[0]
        return PublishedKeys(desk.keys | {one.kid: one.public for one in ring}, max_age_s=60)

    cache = JwksCache(fetch, min_interval_s=0)
    verifier = TokenVerifier(cache, issuer=ISSUER, audience=AUDIENCE, clock=lambda: NOW)
    assert cache.refresh()
    done: list[TokenClaims] = []

    def keep_verifying() -> None:
        for turn in range(200):
            done.append(verifier(desk.token(jti=str(turn))))
            with pytest.raises(UnknownKey):
                verifier(Desk().token())  # asks for another fetch
            gevent.sleep(0)

    gevent.joinall([gevent.spawn(keep_verifying) for _ in range(4)], raise_error=True)
    assert len(done) == 800
    assert fetched > 100


def test_j17_tokens_that_threads_mint_while_keys_rotate_all_verify(make_authsvc: Callable[..., Authsvc]) -> None:
    authsvc = make_authsvc()
    credential = key(authsvc, Role.MINT)
    is_over = threading.Event()

    def keep_minting() -> list[str]:
        tokens = []
        while not is_over.is_set() or not tokens:
            response = authsvc.app.test_client().post(
                "/tokens/", json={"app": APP}, headers={"Authorization": f"Key {credential}"}
            )
            assert response.status_code == 201, response.text
            tokens.append(response.json)
        return tokens

    with ThreadPoolExecutor(3) as pool:
        minting = [pool.submit(keep_minting) for _ in range(3)]
        for _ in range(10):
            with authsvc.context.database.writing() as session:
                signing_keys.rotate(session, now=authsvc.clock())
        is_over.set()
        tokens = [token for minted in minting for token in minted.result()]
    kept = {authsvc.claims(token).jti for token in tokens}
    assert len(kept) == len(tokens)
