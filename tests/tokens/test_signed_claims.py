"""Tokens of a signing key that leaked: revoked by the key that the header names, whatever the claims say."""

import pytest

from schemas.revocation import RevokedEntry, RevokedKind
from schemas.tokens import TokenClaims
from tokens.keys import SigningKey
from tokens.mint import mint, new_claims
from tokens.revocation import RevocationSet, SignedClaims, fingerprint
from tokens.verify import verify

NOW = 1_800_000_000
LEAKED, OTHER = SigningKey.generate(), SigningKey.generate()
KEYS = {key.kid: key.public for key in (LEAKED, OTHER)}
REVOKED = RevocationSet(
    [
        RevokedEntry(
            kind=RevokedKind.SIGNING_KEY,
            sha256=fingerprint(RevokedKind.SIGNING_KEY, LEAKED.kid),
            issued_before=NOW + 10,
            expires_at=NOW + 10,
        )
    ]
)


def verified(key: SigningKey, now: int = NOW) -> tuple[TokenClaims, str]:
    token = mint(key, new_claims(issuer="i", audience="a", subject="s", apps=["x"], now=now, duration_s=60))
    return verify(token, KEYS, issuer="i", audience="a", now=now), token


@pytest.mark.parametrize(
    ("key", "now", "revoked"), [(LEAKED, NOW, True), (LEAKED, NOW + 10, True), (OTHER, NOW, False)]
)
def test_every_token_of_the_key_is_revoked(key: SigningKey, now: int, revoked: bool) -> None:
    claims, token = verified(key, now)
    assert REVOKED.revokes(SignedClaims.of(claims, token)) is revoked


def test_the_claims_stay_what_they_were() -> None:
    claims, token = verified(OTHER)
    signed = SignedClaims.of(claims, token)
    assert signed.kid == OTHER.kid
    assert signed.model_dump() == claims.model_dump()
    assert mint(OTHER, signed) == mint(OTHER, claims)
