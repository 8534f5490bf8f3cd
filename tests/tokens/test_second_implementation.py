"""J16: joserfc, which shares no code with PyJWT, takes what we mint and refuses what we refuse."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import KeySet, OKPKey

from schemas.tokens import TokenClaims
from tests.tokens.conftest import AUDIENCE, ISSUER, NOW, Desk
from tokens.errors import TokenError
from tokens.keys import SigningKey, parse_jwks, public_jwks
from tokens.mint import mint, new_claims
from tokens.verify import verify

# RFC 9864 renames EdDSA with this curve to Ed25519; EdDSA stays what verifiers in the field know.
pytestmark = pytest.mark.filterwarnings("ignore:EdDSA is deprecated via RFC 9864")

KEY = SigningKey.generate()
JWKS: Any = public_jwks([SigningKey.generate().public, KEY.public])
RULES = jwt.JWTClaimsRegistry(
    now=lambda: NOW,
    leeway=10,
    iss={"essential": True, "value": ISSUER},
    aud={"essential": True, "value": AUDIENCE},
    sub={"essential": True},
    jti={"essential": True},
    exp={"essential": True},
    iat={"essential": True},
)


def read_with_joserfc(token: str, jwks: Any = JWKS) -> dict[str, Any]:
    decoded = jwt.decode(token, KeySet.import_key_set(jwks), algorithms=["EdDSA"])
    assert decoded.header["typ"] == "rt+jwt"
    RULES.validate(decoded.claims)
    return decoded.claims


@given(
    apps=st.lists(st.from_regex(r"\A[a-z]{1,10}/[a-z]{1,20}\Z"), min_size=1, max_size=5),
    subject=st.text(min_size=1, max_size=20).filter(lambda text: text.isprintable()),
    duration_s=st.integers(1, 3600),
)
def test_j16_joserfc_accepts_what_we_mint(apps: list[str], subject: str, duration_s: int) -> None:
    claims = new_claims(
        issuer=ISSUER, audience=AUDIENCE, subject=subject, apps=apps, now=NOW + 0.9, duration_s=duration_s
    )
    token = mint(KEY, claims)
    assert read_with_joserfc(token) == claims.model_dump(exclude_none=True)
    assert verify(token, parse_jwks(json.dumps(JWKS).encode()), issuer=ISSUER, audience=AUDIENCE, now=NOW) == claims


def test_j16_we_accept_what_joserfc_signs(desk: Desk) -> None:
    key = OKPKey.import_key(desk.key.to_pem())
    token = jwt.encode(desk.header, desk.payload, key, algorithms=["EdDSA"])
    assert desk.verify(token) == TokenClaims.model_validate(desk.payload)


@pytest.mark.parametrize(
    "change",
    [
        {"exp": NOW - 60, "iat": NOW - 90},
        {"iat": NOW + 60},
        {"nbf": NOW + 60},
        {"iss": "other"},
        {"aud": "other"},
        {"exp": None},
        {"jti": None},
        {"sub": None},
        {"exp": "tomorrow"},
    ],
)
def test_j16_both_refuse_bad_claims(desk: Desk, change: dict[str, Any]) -> None:
    token = desk.token(**change)
    with pytest.raises(TokenError):
        desk.verify(token)
    with pytest.raises(JoseError):
        read_with_joserfc(token, public_jwks([desk.key.public]))


@pytest.mark.parametrize("header", [{"alg": "none"}, {"alg": "HS256"}, {"crit": ["x"]}, {"unknown": 1}])
def test_j16_both_refuse_bad_headers(desk: Desk, header: dict[str, Any]) -> None:
    token = desk.token(header)
    with pytest.raises(TokenError):
        desk.verify(token)
    with pytest.raises((JoseError, ValueError)):
        read_with_joserfc(token, public_jwks([desk.key.public]))


def test_j16_both_refuse_a_foreign_signature(desk: Desk) -> None:
    token = Desk().token({"kid": desk.key.kid})
    with pytest.raises(TokenError):
        desk.verify(token)
    with pytest.raises(JoseError):
        read_with_joserfc(token, public_jwks([desk.key.public]))
