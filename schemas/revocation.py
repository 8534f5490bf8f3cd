"""Bodies of revocation and introspection (RFC 7009, RFC 7662), and the list that runners read."""

from enum import StrEnum

from pydantic import BaseModel, Field


class RevokedKind(StrEnum):
    """What a revocation names."""

    TOKEN = "token"  # noqa: S105 - a kind, not a secret
    """One token, by `jti`."""
    KEY = "key"
    """Every token of an API key, by `client_id`."""
    SUBJECT = "subject"
    """Every token for a subject, by `sub`, whichever key minted it."""
    KEY_SUBJECT = "key_subject"
    """Every token that one key minted for a subject, by `client_id` and `sub`."""


class RevokedEntry(BaseModel):
    """Tokens that are good no more. Published, so what it names is hashed: see `tokens.revocation.fingerprint`."""

    kind: RevokedKind
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    issued_before: int = Field(description="Unix time, seconds: tokens with an `iat` up to this are revoked.")
    expires_at: int = Field(description="Unix time, seconds: no token and no socket that it concerns is left then.")


class RevocationList(BaseModel):
    """Everything that is revoked and not yet forgotten."""

    revocations: list[RevokedEntry]


class Introspection(BaseModel):
    """RFC 7662 §2.2. A token that is not active says so and nothing else."""

    active: bool
    client_id: str | None = None
    sub: str | None = None
    jti: str | None = None
    iss: str | None = None
    aud: str | None = None
    iat: int | None = None
    nbf: int | None = None
    exp: int | None = None
    scope: str | None = Field(default=None, description="The apps, with spaces between.")
    token_type: str | None = None
