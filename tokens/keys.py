"""Ed25519 keys: making, storing and publishing them, and reading a published key set.

A key's `kid` is its RFC 7638 thumbprint, so equal keys have equal names and a name cannot be chosen.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Self

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from tokens import compact
from tokens.errors import InvalidKey, MalformedToken

ALGORITHM: Final = "EdDSA"
JWKS_MEDIA_TYPE: Final = "application/jwk-set+json"

KeySet = Mapping[str, Ed25519PublicKey]
"""The published keys of one issuer, by `kid`."""


def thumbprint(jwk: Mapping[str, str]) -> str:
    """The RFC 7638 thumbprint of a public key: SHA-256, base64url without padding.

    Args:
        jwk: The required members of the key's `kty`, and nothing else (RFC 7638 §3.2).
    """
    canonical = json.dumps(jwk, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return compact.encode_segment(hashlib.sha256(canonical.encode("utf-8")).digest())


def _required_members(key: Ed25519PublicKey) -> dict[str, str]:
    return {"crv": "Ed25519", "kty": "OKP", "x": compact.encode_segment(key.public_bytes_raw())}


def key_id(key: Ed25519PublicKey) -> str:
    """The `kid` of a public key: its thumbprint, 43 characters."""
    return thumbprint(_required_members(key))


def public_jwk(key: Ed25519PublicKey) -> dict[str, str]:
    """The JWK to publish (RFC 8037 §2): public members only."""
    return {**_required_members(key), "alg": ALGORITHM, "kid": key_id(key), "use": "sig"}


def public_jwks(keys: Iterable[Ed25519PublicKey]) -> dict[str, list[dict[str, str]]]:
    """The JWK set to publish (RFC 7517 §5); equal keys appear once."""
    return {"keys": list({key_id(key): public_jwk(key) for key in keys}.values())}


@dataclass(frozen=True, slots=True)
class SigningKey:
    """A private key with its `kid`. Its repr shows the `kid` alone."""

    private: Ed25519PrivateKey
    kid: str

    def __repr__(self) -> str:
        return f"SigningKey(kid={self.kid!r})"

    @classmethod
    def of(cls, private: Ed25519PrivateKey) -> Self:
        """Names a private key."""
        return cls(private, key_id(private.public_key()))

    @classmethod
    def generate(cls) -> Self:
        """Makes a new key from the system's random source."""
        return cls.of(Ed25519PrivateKey.generate())

    @classmethod
    def from_pem(cls, pem: bytes) -> Self:
        """Loads what `to_pem` gave.

        Raises:
            InvalidKey: not an unencrypted Ed25519 private key. RSA, EC and shared secrets are refused.
        """
        try:
            private = serialization.load_pem_private_key(pem, password=None)
        except (ValueError, TypeError, UnsupportedAlgorithm):
            raise InvalidKey("not an unencrypted PEM private key") from None
        if not isinstance(private, Ed25519PrivateKey):
            raise InvalidKey("not an Ed25519 private key")
        return cls.of(private)

    def to_pem(self) -> bytes:
        """The private key as unencrypted PKCS #8 PEM."""
        return self.private.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )

    @property
    def public(self) -> Ed25519PublicKey:
        """The half that may be published."""
        return self.private.public_key()


def parse_jwks(document: bytes) -> dict[str, Ed25519PublicKey]:
    """Reads a JWK set, keeping the keys that may verify our tokens.

    A key of another `kty`, `crv`, `use` or `alg`, or one with missing or damaged members, is skipped
    (RFC 7517 §5). So is one whose `kid` is not its thumbprint, and one published with its private half: it
    proves nothing any more.

    Raises:
        InvalidKey: not a JWK set at all, or one that names a key twice.
    """
    try:
        value = compact.load_json(document, "key set")
    except MalformedToken:
        raise InvalidKey("the key set is not strict JSON") from None
    if not isinstance(value, dict) or not isinstance(value.get("keys"), list):
        raise InvalidKey("not a key set: it has no list of keys")
    keys = [key for jwk in value["keys"] if (key := _usable_key(jwk)) is not None]
    by_kid = {key_id(key): key for key in keys}
    if len(by_kid) != len(keys):
        raise InvalidKey("the key set names a key twice")
    return by_kid


def _usable_key(jwk: Any) -> Ed25519PublicKey | None:
    if not isinstance(jwk, dict) or "d" in jwk:
        return None
    try:
        key = public_key(jwk.get("x"))
    except InvalidKey:
        return None
    # Equal in every member that says what the key is and what it is for; members we do not know are ignored.
    return key if jwk | public_jwk(key) == jwk else None


def public_key(x: object) -> Ed25519PublicKey:
    """Loads a public key from its JWK member `x`: 32 bytes in base64url.

    Raises:
        InvalidKey: `x` is not that.
    """
    if not isinstance(x, str):
        raise InvalidKey("x is not a string")
    try:
        return Ed25519PublicKey.from_public_bytes(compact.decode_segment(x))
    except (ValueError, MalformedToken):
        raise InvalidKey("x is not an Ed25519 public key") from None
