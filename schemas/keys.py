"""Bodies of the administration: API keys and signing keys."""

from enum import StrEnum
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from schemas import limits
from schemas.tokens import AppId, PinnedLimits


class Role(StrEnum):
    """What a key may do. No role includes another."""

    MINT = "mint"
    """Mint tokens, and revoke or introspect those that it minted."""
    ADMIN = "admin"
    """Everything below `/keys`, `/signing-keys`, `/audit` and `/usage`; revoke and introspect any token."""
    RUNNER = "runner"
    """Report what happened on sockets."""


ScopeEntry = AppId | Annotated[str, StringConstraints(pattern=r"^\*$")]
Name = Annotated[str, StringConstraints(max_length=limits.KEY_NAME_MAX_CHARS)]


class KeyChanges(BaseModel):
    """What can be changed of a key; what is not sent stays."""

    model_config = ConfigDict(extra="forbid")

    name: Name = ""
    apps: list[ScopeEntry] = Field(default=[], max_length=limits.ALLOWED_APPS_MAX, description="Its scope; `*`: all.")
    expires_at: int | None = Field(default=None, ge=0, strict=True, description="Unix time, seconds. null: never.")
    rate_per_minute: int | None = Field(
        default=None,
        ge=1,
        le=limits.PINNED_MAX,
        strict=True,
        description="Tokens a minute. null: the service's default.",
    )
    daily_quota: int | None = Field(
        default=None, ge=1, le=limits.PINNED_MAX, strict=True, description="Tokens a day (UTC). null: any number."
    )
    limits: PinnedLimits = Field(
        default=PinnedLimits(),
        description="The most that a token of this key may allow; a token without a limit gets it.",
    )


class KeyRequest(KeyChanges):
    """A new key. A key with the role `mint` names at least one app."""

    roles: list[Role] = Field(default=[Role.MINT], min_length=1, max_length=len(Role))


class Key(BaseModel):
    """A key without its secret. Times are unix seconds."""

    id: str
    name: str
    roles: list[Role]
    apps: list[str]
    created_at: int
    expires_at: int | None
    revoked_at: int | None
    rate_per_minute: int | None
    daily_quota: int | None
    limits: PinnedLimits


class KeyWithSecret(Key):
    """A key at the one moment when its secret is shown."""

    key: str = Field(description="`id:secret`.")


class KeyList(BaseModel):
    """Every key, oldest first."""

    keys: list[Key]


class KeyRotation(BaseModel):
    """Gives a key a new secret."""

    model_config = ConfigDict(extra="forbid")

    grace_s: int = Field(
        default=0, ge=0, le=limits.KEY_GRACE_MAX_S, strict=True, description="For how long the old secret still works."
    )
