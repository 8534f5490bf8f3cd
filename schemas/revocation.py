"""Bodies of revocation and introspection (RFC 7009, RFC 7662), and the list that runners read."""

from enum import StrEnum
from typing import Any, Final, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from schemas import limits
from schemas.tokens import Id, Subject


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
    KEY_TOKEN = "key_token"  # noqa: S105
    """One token, if one key minted it, by `client_id` and `jti`."""
    SIGNING_KEY = "signing_key"
    """Every token that a signing key signed, by the `kid` in its header."""


def _names(name: str, *without: str) -> dict[str, Any]:
    """JSON Schema of a request that names one thing, and none of some others."""
    absent: dict[str, Any] = {other: {"type": "null"} for other in without}
    return {"required": [name], "properties": {name: {"type": "string"}, **absent}}


_ONE_THING: Final[dict[str, Any]] = {
    "anyOf": [
        _names("token", "jti", "key_id", "subject", "issued_before"),
        _names("jti", "token", "key_id", "subject", "issued_before"),
        _names("key_id", "token", "jti"),
        _names("subject", "token", "jti"),
    ]
}
"""What `RevocationRequest._names_one_thing` checks, in JSON Schema."""


class RevocationRequest(BaseModel):
    """What to revoke: one token, or all of a key or a subject up to a moment."""

    model_config = ConfigDict(extra="forbid", json_schema_extra=_ONE_THING)

    token: str | None = Field(
        default=None, max_length=limits.HTTP_BODY_MAX_BYTES, description="The token itself, expired or not."
    )
    token_type_hint: str | None = Field(
        default=None,
        max_length=64,
        description="RFC 7009 §2.1. There is one kind of token, so nothing is read from it.",
    )
    jti: Id | None = Field(default=None, description="The token's name.")
    key_id: Id | None = Field(default=None, description="Every token that this key minted.")
    subject: Subject | None = Field(
        default=None, description="Every token for this `sub`. With `key_id`: those that the key minted."
    )
    issued_before: int | None = Field(
        default=None,
        ge=0,
        le=limits.PINNED_MAX,
        strict=True,
        description="Unix time, seconds: tokens with an `iat` up to and including it, with key_id or subject. "
        "Default: now.",
    )

    @model_validator(mode="after")
    def _names_one_thing(self) -> Self:
        named = [name for name in ("token", "jti", "key_id", "subject") if getattr(self, name) is not None]
        if len(named) != 1 and named != ["key_id", "subject"]:
            raise ValueError("token: name one of token, jti, key_id and subject, or key_id with subject")
        if self.issued_before is not None and (self.token is not None or self.jti is not None):
            raise ValueError("issued_before: goes with key_id or subject; a token is revoked as it is")
        return self


class IntrospectionRequest(BaseModel):
    """RFC 7662 §2.1."""

    model_config = ConfigDict(extra="forbid")

    token: str = Field(max_length=limits.HTTP_BODY_MAX_BYTES)
    token_type_hint: str | None = Field(default=None, max_length=64)


class RevokedEntry(BaseModel):
    """Tokens that are good no more. Published, so what it names is hashed: see `tokens.revocation.fingerprint`."""

    kind: RevokedKind
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    issued_before: int = Field(description="Unix time, seconds: tokens with an `iat` up to this are revoked.")
    expires_at: int = Field(description="Unix time, seconds: no token and no socket that it concerns is left then.")


class RevocationAnswer(BaseModel):
    """What the list says of the tokens now."""

    revoked: RevokedEntry | None = Field(description="null: no token that could still be good was named.")


class RevocationList(BaseModel):
    """A page of what is revoked and not yet forgotten, in the order in which it was revoked."""

    revocations: list[RevokedEntry]
    next: str = Field(description="Asked for as `?after=`, gives what was revoked later.")
    from_start: bool = Field(
        description="The page is the list's first: what was read before is void. So it is where `after` is not given, "
        "or named an entry that is there no more."
    )
    more: bool = Field(description="There is a further page now.")
    key_set: str = Field(
        default="", description="Another text whenever other keys are published: read the key set again then."
    )


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
