"""Tokens made by hand: every forgery is signed with the right key, so that only the check under test refuses it."""

import json
from dataclasses import dataclass, field
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from schemas.tokens import TokenClaims
from tokens.compact import encode_segment
from tokens.keys import SigningKey
from tokens.verify import verify

ISSUER, AUDIENCE, NOW = "issuer", "audience", 1_800_000_000


def forge(key: SigningKey, header: bytes, payload: bytes) -> str:
    """A compact JWS over any bytes at all, rightly signed."""
    signing_input = f"{encode_segment(header)}.{encode_segment(payload)}"
    return f"{signing_input}.{encode_segment(key.private.sign(signing_input.encode('ascii')))}"


@dataclass
class Desk:
    """A key, what a good token of it says, and its verifier."""

    key: SigningKey = field(default_factory=SigningKey.generate)

    @property
    def keys(self) -> dict[str, Ed25519PublicKey]:
        return {self.key.kid: self.key.public}

    @property
    def header(self) -> dict[str, Any]:
        return {"alg": "EdDSA", "kid": self.key.kid, "typ": "rt+jwt"}

    @property
    def payload(self) -> dict[str, Any]:
        return {
            "iss": ISSUER,
            "aud": AUDIENCE,
            "sub": "lcmk_1",
            "jti": "j1",
            "iat": NOW,
            "nbf": NOW,
            "exp": NOW + 120,
            "apps": ["fal-ai/fast-lcm-diffusion"],
        }

    def token(self, header: dict[str, Any] | None = None, **payload: Any) -> str:
        """A good token but for the members given; None leaves a claim out."""
        claims = {name: value for name, value in (self.payload | payload).items() if value is not None}
        return self.raw(json.dumps(self.header | (header or {})), json.dumps(claims))

    def raw(self, header: str | bytes | None = None, payload: str | bytes | None = None) -> str:
        """A rightly signed token of exactly this text."""
        header = json.dumps(self.header) if header is None else header
        payload = json.dumps(self.payload) if payload is None else payload
        return forge(self.key, _bytes(header), _bytes(payload))

    def verify(self, token: str, now: float = NOW, leeway_s: float = 10) -> TokenClaims:
        return verify(token, self.keys, issuer=ISSUER, audience=AUDIENCE, now=now, leeway_s=leeway_s)


def _bytes(text: str | bytes) -> bytes:
    return text.encode() if isinstance(text, str) else text


@pytest.fixture(scope="module")
def desk() -> Desk:
    return Desk()
