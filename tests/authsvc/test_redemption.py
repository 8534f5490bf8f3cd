"""One-time tokens at authsvc: exactly one redemption of each, whoever races and whatever was restarted."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from sqlalchemy import func, select

from authsvc.store.models import AuditEventRow, RedeemedToken
from schemas import limits
from schemas.events import EventKind
from tests.authsvc.conftest import APP, Authsvc, Served, assert_problem
from tokens.keys import SigningKey
from tokens.mint import mint, new_claims
from tokens.verify import LEEWAY_MAX_S

AT_ONCE = 50


def one_time_token(authsvc: Authsvc, **fields: object) -> str:
    minted = authsvc.mint(authsvc.key(), {"allowed_apps": [APP], "one_time": True, **fields})
    assert minted.status_code == 201, minted.text
    return str(minted.json["token"])


def redeem(authsvc: Authsvc, token: str) -> int:
    return authsvc.app.test_client().post("/tokens/redeem", json={"token": token}).status_code


def rows(authsvc: Authsvc) -> int:
    with authsvc.context.database.reading() as session:
        return session.scalar(select(func.count()).select_from(RedeemedToken)) or 0


def test_a_one_time_token_is_redeemed_once(authsvc: Authsvc) -> None:
    token, other = one_time_token(authsvc), one_time_token(authsvc)
    answer = authsvc.client.post("/tokens/redeem", json={"token": token})
    assert (answer.status_code, answer.data, answer.headers["Cache-Control"]) == (204, b"", "no-store")
    problem = assert_problem(authsvc.client.post("/tokens/redeem", json={"token": token}), 409)
    assert problem.detail == "The token was used already. Mint a new one."
    assert redeem(authsvc, other) == 204


def test_exactly_one_of_many_simultaneous_redemptions_wins(authsvc: Authsvc) -> None:
    token = one_time_token(authsvc)
    with ThreadPoolExecutor(AT_ONCE) as threads:
        answers = sorted(threads.map(lambda _: redeem(authsvc, token), range(AT_ONCE)))
    assert answers == [204] + [409] * (AT_ONCE - 1)
    with authsvc.context.database.reading() as session:
        redeemed = select(AuditEventRow).where(AuditEventRow.kind == EventKind.REDEEMED)
        [event] = session.scalars(redeemed)
        claims = authsvc.claims(token)
        assert (event.key_id, event.subject, event.jti) == (claims.client_id, claims.sub, claims.jti)


def test_it_stays_used_in_another_process_and_after_a_restart(make_authsvc: Callable[..., Authsvc]) -> None:
    one, other = make_authsvc(), make_authsvc()
    token = one_time_token(one)
    assert (redeem(other, token), redeem(one, token)) == (204, 409)
    assert redeem(make_authsvc(), token) == 409


def test_a_redemption_is_forgotten_when_its_token_can_open_nothing_any_more(authsvc: Authsvc) -> None:
    for _ in range(3):
        assert redeem(authsvc, one_time_token(authsvc, duration=60)) == 204
    assert rows(authsvc) == 3
    authsvc.clock.now += 60 + 2 * LEEWAY_MAX_S - 1
    assert redeem(authsvc, one_time_token(authsvc)) == 204
    assert rows(authsvc) == 4
    authsvc.clock.now += 1
    assert redeem(authsvc, one_time_token(authsvc)) == 204
    assert rows(authsvc) == 2


def test_the_row_outlives_the_token(authsvc: Authsvc) -> None:
    token = one_time_token(authsvc, duration=60)
    assert redeem(authsvc, token) == 204
    authsvc.clock.now += 60 + limits.TOKEN_LEEWAY_S - 1
    assert redeem(authsvc, one_time_token(authsvc)) == 204  # prunes
    assert redeem(authsvc, token) == 409
    authsvc.clock.now += 1
    assert redeem(authsvc, token) == 401


def test_a_token_of_many_sockets_is_not_redeemed(authsvc: Authsvc) -> None:
    token = authsvc.mint(authsvc.key(), {"allowed_apps": [APP]}).json["token"]
    problem = assert_problem(authsvc.client.post("/tokens/redeem", json={"token": token}), 422)
    assert problem.detail[0].loc == ["body", "token"]
    assert "one_time" in problem.detail[0].msg
    assert rows(authsvc) == 0


def foreign_token() -> str:
    claims = new_claims(
        issuer="i", audience="a", subject="s", apps=["x"], now=1_800_000_000, duration_s=60, one_time=True
    )
    return mint(SigningKey.generate(), claims)


@pytest.mark.parametrize("token", ["", "x", "a.b.c", foreign_token(), "é" * 9], ids=str)
def test_what_is_no_token_of_ours_is_refused(authsvc: Authsvc, token: str) -> None:
    answer = authsvc.client.post("/tokens/redeem", json={"token": token})
    assert_problem(answer, 401)
    assert answer.headers["WWW-Authenticate"] == 'Bearer realm="authsvc", error="invalid_token"'
    assert rows(authsvc) == 0


def test_a_revoked_token_is_refused(authsvc: Authsvc) -> None:
    key = authsvc.key()
    token = authsvc.mint(key, {"allowed_apps": [APP], "one_time": True}).json["token"]
    revoked = authsvc.client.post("/tokens/revoke", json={"token": token}, headers={"Authorization": f"Key {key}"})
    assert revoked.status_code == 200
    assert redeem(authsvc, token) == 401
    assert rows(authsvc) == 0


@pytest.mark.parametrize("body", [{}, {"token": 1}, {"token": "x" * 4097}, {"token": "x", "more": 1}, [], "x"])
def test_bodies_that_do_not_fit(authsvc: Authsvc, body: object) -> None:
    answer = authsvc.client.post("/tokens/redeem", json=body)
    problem = assert_problem(answer, 422)
    assert problem.detail[0].loc[0] == "body"
    assert "xxxx" not in answer.text


def test_exactly_one_wins_at_a_real_service(own_server: Served) -> None:
    headers = {"Authorization": f"Key {own_server.key}"}
    body = {"allowed_apps": [APP], "one_time": True}
    with httpx.Client(base_url=own_server.url, timeout=60) as client:
        token = client.post("/tokens/realtime", json=body, headers=headers).json()["token"]
        with ThreadPoolExecutor(AT_ONCE) as threads:
            answers = threads.map(lambda _: client.post("/tokens/redeem", json={"token": token}), range(AT_ONCE))
            assert sorted(answer.status_code for answer in answers) == [204] + [409] * (AT_ONCE - 1)
    assert token not in own_server.process.text
