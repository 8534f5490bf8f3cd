"""What a minted token looks like."""

import json

import pytest

from schemas import limits
from schemas.tokens import PinnedLimits
from tests.tokens.conftest import AUDIENCE, ISSUER, NOW, Desk
from tokens import compact
from tokens.errors import TokenTooLarge
from tokens.mint import mint, new_claims


def minted(desk: Desk, apps: list[str], max_session_s: int | None = None) -> str:
    claims = new_claims(
        issuer=ISSUER,
        audience=AUDIENCE,
        subject="lcmk_1",
        apps=apps,
        now=NOW + 0.7,
        duration_s=120,
        limits=PinnedLimits(max_session_s=max_session_s),
    )
    return mint(desk.key, claims)


def test_the_header_says_what_and_by_whom_and_no_more(desk: Desk) -> None:
    assert compact.parse(minted(desk, ["a"])).header == desk.header


def test_the_claims_are_whole_seconds_and_have_no_nulls(desk: Desk) -> None:
    payload = compact.parse(minted(desk, ["a", "b/c"])).payload
    jti = payload.pop("jti")
    assert payload == {
        "iss": ISSUER,
        "aud": AUDIENCE,
        "sub": "lcmk_1",
        "iat": NOW,
        "nbf": NOW,
        "exp": NOW + 120,
        "apps": ["a", "b/c"],
    }
    assert len(jti) == 32
    assert "null" not in json.dumps(payload)


def test_a_session_limit_is_a_claim(desk: Desk) -> None:
    assert desk.verify(minted(desk, ["a"], max_session_s=60)).max_session_s == 60


def test_every_token_has_a_name_of_its_own(desk: Desk) -> None:
    assert len({desk.verify(minted(desk, ["a"])).jti for _ in range(100)}) == 100


def test_a_token_is_verified_the_moment_it_is_minted(desk: Desk) -> None:
    assert desk.verify(minted(desk, ["a"]), now=NOW + 0.7, leeway_s=0).exp == NOW + 120


def test_a_token_that_no_verifier_would_take_is_not_minted(desk: Desk) -> None:
    with pytest.raises(TokenTooLarge):
        minted(desk, [f"{index:02}{'a' * (limits.APP_MAX_CHARS - 2)}" for index in range(limits.ALLOWED_APPS_MAX)])
