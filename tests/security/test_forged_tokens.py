"""10^5 forged tokens: none is accepted, and none raises anything but what `tokens.errors` documents."""

import collections
from collections.abc import Callable

import pytest
from werkzeug.test import TestResponse

from authsvc.domain import signing_keys
from schemas.keys import Role
from schemas.tokens import TokenClaims
from tests.authsvc.conftest import Authsvc, on_sqlite
from tests.security.callers import key as authsvc_key
from tests.security.forging import Forger
from tests.tokens.conftest import AUDIENCE, ISSUER, NOW
from tokens import errors

SHARDS, PER_SHARD = 10, 10_000


def refusal(forger: Forger, token: str) -> TokenClaims | Exception:
    """Why a token is refused; its claims if, against all rules, it is not."""
    try:
        return forger.desk.verify(token, now=NOW)
    except Exception as error:
        return error


def is_ours_alone(message: str, token: str) -> bool:
    """Whether a message, which goes to clients and logs, repeats no piece of what was sent."""
    return message.isascii() and not any(part in message for part in token.split(".") if len(part) > 12)


@pytest.mark.parametrize("seed", range(SHARDS))
def test_no_forgery_is_accepted(seed: int) -> None:
    forger = Forger(seed)
    assert [forger.desk.verify(token).jti for token in forger.good] == ["j1", "j2"]
    reasons: collections.Counter[str] = collections.Counter()
    for family, token in forger.forgeries(PER_SHARD):
        refused = refusal(forger, token)
        assert isinstance(refused, errors.TokenError), f"seed {seed}, {family}: {token!r} gave {refused!r}"
        assert is_ours_alone(str(refused), token), f"seed {seed}, {family}: {token!r} gave {refused!r}"
        reasons[type(refused).__name__] += 1
    # Each check refuses its share: a forger that only ever makes garbage would prove little.
    assert reasons.keys() >= {
        "MalformedToken",
        "TokenTooLarge",
        "UnacceptableHeader",
        "UnknownKey",
        "BadSignature",
        "InvalidClaims",
        "ExpiredToken",
        "TokenNotYetValid",
        "WrongIssuer",
        "WrongAudience",
    }


def test_a_seed_gives_the_same_forgeries_again() -> None:
    """Else a failure could not be repeated."""
    one, other = (list(Forger(7).forgeries(2000)) for _ in range(2))
    assert one == other
    assert len({token for _, token in one}) > 1500


@on_sqlite
def test_no_forgery_is_active_or_redeemed_or_breaks_the_service(make_authsvc: Callable[..., Authsvc]) -> None:
    authsvc = make_authsvc(issuer=ISSUER, audience=AUDIENCE, address_rate_per_minute=10**9, failures_per_minute=10**9)
    authsvc.clock.now = NOW
    with authsvc.context.database.reading() as session:
        forger = Forger(11, signing_keys.current(session))
    headers = {"Authorization": f"Key {authsvc_key(authsvc, Role.ADMIN)}"}

    def introspect(token: str) -> TestResponse:
        return authsvc.client.post("/tokens/introspect", json={"token": token}, headers=headers)

    assert introspect(forger.good[0]).json["active"] is True
    for family, token in forger.forgeries(1500):
        said, redeemed = introspect(token), authsvc.client.post("/tokens/redeem", json={"token": token})
        # 422 is for what is no text at all, a lone surrogate, or longer than any token.
        assert (said.status_code, said.json.get("active")) in ((200, False), (422, None)), f"{family}: {token!r}"
        assert redeemed.status_code in (401, 422), f"{family}: {token!r}"
