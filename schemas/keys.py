"""Bodies of the administration: API keys and signing keys."""

from enum import StrEnum
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from schemas import limits
from schemas.numbers import whole_numbers
from schemas.tokens import APP_PATTERN, PinnedLimits


class Role(StrEnum):
    """What a key may do. No role includes another."""

    MINT = "mint"
    """Mint tokens, and revoke or introspect those that it minted."""
    ADMIN = "admin"
    """Everything below `/keys`, `/signing-keys`, `/audit` and `/usage`; revoke and introspect any token."""
    RUNNER = "runner"
    """Report what happened on sockets."""


ScopeEntry = Annotated[str, StringConstraints(pattern=rf"^(\*|{APP_PATTERN})$", max_length=limits.APP_MAX_CHARS)]
"""An app as tokens name it, or `*`."""

Name = Annotated[str, StringConstraints(max_length=limits.KEY_NAME_MAX_CHARS, pattern=r"^[^\x00-\x1f\x7f]*$")]
"""One line: it is shown in tables and logs."""


class KeyLimits(PinnedLimits):
    """The most that a token of a key may allow."""

    model_config = ConfigDict(extra="forbid")


class KeyChanges(BaseModel):
    """What can be changed of a key; what is not sent stays, also inside `limits` (as in RFC 7396)."""

    model_config = ConfigDict(extra="forbid")

    name: Name = ""
    apps: list[ScopeEntry] = Field(default=[], max_length=limits.ALLOWED_APPS_MAX, description="Its scope; `*`: all.")
    expires_at: int | None = Field(
        default=None, strict=True, ge=0, le=limits.TIME_MAX_S, description="Unix time, seconds. null: never."
    )
    rate_per_minute: int | None = Field(
        default=None,
        strict=True,
        ge=1,
        le=limits.PINNED_MAX,
        description="Tokens a minute. null: the service's default.",
    )
    daily_quota: int | None = Field(
        default=None, strict=True, ge=1, le=limits.PINNED_MAX, description="Tokens a day (UTC). null: any number."
    )
    limits: KeyLimits = Field(
        default=KeyLimits(),
        description="The most that a token of this key may allow; a token without a limit gets it.",
    )

    _whole = whole_numbers("expires_at", "rate_per_minute", "daily_quota")


_MINTS: Final[dict[str, Any]] = {"properties": {"roles": {"contains": {"const": Role.MINT.value}}}}
_NAMES_APPS: Final[dict[str, Any]] = {"properties": {"apps": {"minItems": 1}}, "required": ["apps"]}


class KeyRequest(KeyChanges):
    """A new key. One with the role `mint`, which is the default, names at least one app."""

    model_config = ConfigDict(json_schema_extra={"if": _MINTS, "then": _NAMES_APPS})

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
    previous_valid_until: int | None = Field(
        description="After a rotation: until when the previous secret works as well."
    )


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
        default=0, strict=True, ge=0, le=limits.KEY_GRACE_MAX_S, description="For how long the old secret still works."
    )

    _whole = whole_numbers("grace_s")


class SigningKeyInfo(BaseModel):
    """A signing key without its private half. Times are unix seconds."""

    kid: str = Field(description="Its RFC 7638 thumbprint, which tokens name.")
    state: Literal["next", "current", "retired"]
    created_at: int
    activated_at: int | None
    retired_at: int | None


class SigningKeyList(BaseModel):
    """Every signing key whose tokens may be good, now or soon, oldest first."""

    signing_keys: list[SigningKeyInfo]
